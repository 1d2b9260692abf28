"""The attack on torch models: gradients through the noise, projected to the l1 ball inside the box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..models.base import is_torch, name_of
from ..models.torch_outputs import read_logits
from ..noise.base import Noise
from ..noise.lattice import SplitNoise
from ..results.certificates import FloatArray
from ..sampling.counters import noisy_batches
from .projection import project_l1_box
from .search import Attack
from .target import Path, Target, far_faces

#: The first radii in the search for the closest adversarial input, as shares of the sum of all reaches.
LADDER = 2.0 ** np.arange(-7, 1)

#: The factors by which the search then shrinks the distance; a failure moves on to the next factor.
SHRINK = (0.7, 0.9, 0.97)

#: The error of a noisy feature in the unit box, from float32 rounding.
ROUNDING = 1e-6


def end_share(noise: Noise, seen: FloatArray) -> FloatArray:
    """Return the derivative of each noisy feature with respect to the input, with noise drawn relative to the input.

    For independent noise, the gradient of the smoothed model is the mean over the noise of the gradient of the model
    times this derivative. It is 1 for additive noise. Splits of splitting noise repeat every 2 lam, so their offset
    from x is uniform, and they may be drawn relative to x. The ends of the cell that holds x then move with x, except
    those that are faces of the box. The model sees the middle of the cell, so each end inside the box adds 1/2.

    Parameters
    ----------
    noise : Noise
    seen : ndarray of float64
        Noisy features in the unit box.

    Returns
    -------
    share : ndarray of float64
        0, 1/2 or 1.

    See Also
    --------
    GradientAttack : The attack that uses it.

    Examples
    --------
    >>> import numpy as np
    >>> from smoothcert import SplitNoise, UniformNoise
    >>> seen = np.array([0.1, 0.5, 0.7])  # cells from 0 to 0.2, from 0 to 1, and from 0.4 to 1
    >>> end_share(SplitNoise(lam=1.0), seen)
    array([0.5, 0. , 0.5])
    >>> end_share(SplitNoise(lam=0.25), seen)  # cells from 0 to 0.2, from 0.25 to 0.75, and from 0.45 to 0.95
    array([0.5, 1. , 1. ])
    >>> end_share(UniformNoise(lam=1.0), seen)
    array([1., 1., 1.])
    """
    if not isinstance(noise, SplitNoise):
        return np.ones_like(seen)
    # Rounding to the lattices of columns is left out: this is a direction, and no claim.
    noise = noise.for_group(1.0, 0)
    if noise.n_offsets >= noise.q:
        return np.where(np.abs(seen - 0.5) < ROUNDING, 0.0, 0.5)
    return np.where(np.minimum(seen, 1 - seen) < noise.effective_lam - ROUNDING, 0.5, 1.0)


@dataclass(eq=False, repr=False)
class GradientAttack(Attack):
    """Projected gradient descent in l1 against a torch model, in expectation over the noise.

    Each step draws noisy copies of the point, takes the gradient of the loss, and moves the few features with the
    largest gradients among those that can still move. The projection keeps budget and box. When the loss stalls, the
    step is halved, fewer features move, and the search continues from the best point, as in l1-APGD [1]_.

    Splitting noise is not a smooth function of the input, but the expectation over it is; `end_share` gives its
    gradient.

    Parameters
    ----------
    n_steps : int, default=40
        The number of gradient steps from each start.
    n_copies : int, default=64
        The number of noisy copies in each step.
    n_restarts : int, default=2
        The number of starts: the first from the input, the others from random points and toward single rivals.
    loss : {"probability", "margin"}, default="probability"
        The quantity to minimize: the log of the mean softmax probability of the label, or its mean lead in logits. The
        margin has gradients where the softmax is saturated.
    n_votes : int, default=500
    n_samples : int, optional
    alpha : float, optional
    max_queries : int, default=1_000_000
    random_state : int, RandomState or None, default=None
        As in `Attack`; a gradient counts as one query for each copy.

    See Also
    --------
    GreedyFaceAttack : An attack that needs only votes.

    References
    ----------
    .. [1] Croce and Hein, "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers", ICML 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from smoothcert import SmoothedClassifier, UniformNoise
    >>> network = torch.nn.Linear(2, 2).requires_grad_(False)
    >>> network.weight[:], network.bias[:] = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.tensor([-1.0, 1.0])
    >>> clf = SmoothedClassifier.from_pretrained(network, [0, 1], UniformNoise(lam=0.5), n_samples=1000, random_state=0)
    >>> x = np.array([[0.8, 0.6]], dtype=np.float32)  # 0.4 from the line where the logits are equal
    >>> found = GradientAttack(n_steps=5, n_restarts=1, random_state=0).minimal(clf, x)
    >>> print((clf.certify(x).radii < 0.4) & (found.upper_bounds > 0.4))
    [ True]
    """

    n_steps: int = 40
    n_copies: int = 64
    n_restarts: int = 2
    loss: str = "probability"

    _counts: ClassVar = (*Attack._counts, "n_steps", "n_copies", "n_restarts")
    _choices: ClassVar = {"loss": ("probability", "margin")}

    def _check(self, clf: Any) -> None:
        super()._check(clf)
        if not is_torch(clf.estimator_):
            raise ValueError(
                f"GradientAttack needs a torch model, got {clf.estimator_!r}. Use GreedyFaceAttack or CoordinateAttack."
            )

    def _paths(self, target: Target, budget: float, closest: bool) -> Iterator[Path]:
        whole = float(target.reach.sum())
        if not closest:
            for restart in range(self.n_restarts):
                yield from self._try(target, min(budget, whole), restart)
            return
        for radius in np.minimum(LADDER * whole, budget):
            yield from self._try(target, radius, 0)
            if np.isfinite(target.closest) or radius == budget:
                break
        if np.isinf(target.closest):
            yield far_faces(target)
        # The largest moves come first on a path, so a point within this radius may change the label before its end.
        for shrink in SHRINK if np.isfinite(target.closest) else ():
            for restart in range(self.n_restarts):
                before = target.closest
                yield from self._try(target, before * shrink, restart)
                if target.closest < before:
                    break

    def _try(self, target: Target, radius: float, restart: int) -> Iterator[Path]:
        """Yield the path to the best point within a radius, and the path on to the faces beyond it."""
        path = Path.to(target.start, self._descend(target, radius, restart))
        yield path
        yield target.onward(path)

    def _descend(self, target: Target, radius: float, restart: int) -> FloatArray:
        """Return the point with the smallest loss among all steps within a radius."""
        d = len(target.start)
        rival = int(target.rivals[(restart - 1) % len(target.rivals)]) if restart else None
        point = target.start
        if restart:
            few = target.rng.permutation(d)[: max(1, d // 4)]
            point = target.start.copy()
            point[few] = target.rng.uniform(target.low[few], target.high[few])
            point = self._project(target, point, radius / 2)
        key = target.rng.integers(2**32, size=(1, 4), dtype=np.uint32)
        best, best_loss = point, np.inf
        step, k, patience, waited = radius, max(1, d // 5), max(2, self.n_steps // 8), 0
        for _ in range(self.n_steps):
            loss, slope = self._gradient(target, point, key, rival)
            if loss < best_loss - 1e-12:
                best, best_loss, waited = point, loss, 0
            else:
                waited += 1
            if waited >= patience:
                step, waited, point = step / 2, 0, best
                k = max(1, int(min(k, int(np.count_nonzero(best != target.start))) / 1.5))
                _, slope = self._gradient(target, point, key, rival)
                if step < radius * 1e-3:
                    break
            point = self._project(target, self._move(target, point, slope, step, k), radius)
        loss, _ = self._gradient(target, point, key, rival)
        return target.snap(best[None] if best_loss <= loss else point[None])[0]

    def _move(self, target: Target, point: FloatArray, slope: FloatArray, step: float, k: int) -> FloatArray:
        """Move the features with the largest gradients against their gradients, all by the same distance."""
        movable = np.where(slope > 0, point > target.low, point < target.high)
        size = np.where(movable, np.abs(slope), 0.0)
        chosen = np.argsort(-size, kind="stable")[:k]
        chosen = chosen[size[chosen] > 0]
        moved = point.copy()
        if len(chosen):
            moved[chosen] -= np.sign(slope[chosen]) * step / len(chosen)
        return moved

    def _project(self, target: Target, point: FloatArray, radius: float) -> FloatArray:
        """Return the nearest point inside the ball and the box that moves at most `max_features` features."""
        if target.max_features < len(point):
            moves = np.abs(point - target.start)
            point = np.where(moves >= np.sort(moves)[-target.max_features], point, target.start)
        return project_l1_box(point[None], target.start, radius, target.low, target.high)[0]

    def _gradient(
        self, target: Target, point: FloatArray, key: NDArray[np.uint32], rival: int | None
    ) -> tuple[float, FloatArray]:
        """Return the loss and its gradient in the unit box, as a mean over noisy copies."""
        import torch

        voter: Any = target.voter
        total = target.mechanism.noise.n_outcomes
        n = self.n_copies if total is None else min(self.n_copies, total)
        target.spend(n)
        points = target.mechanism.points(target.raw(target.snap(point[None])))
        segments = np.array([[0, 0, n]])
        if total is not None and total > n:
            numbers = np.random.default_rng(key.ravel()).permutation(total)[:n]
            segments = np.array([[0, int(number), 1] for number in numbers])
        rows = torch.as_tensor(noisy_batches(voter, target.mechanism, points, key).draw(segments)).to(voter.device)
        rows = rows.clone().to(voter.precision).requires_grad_()
        with torch.enable_grad():
            answer = voter.module(rows)
            name, meaning = name_of(voter.module), (voter.inference.output, voter.decision)
            logits = read_logits(answer, n, voter.n_classes, name, *meaning)
            # The device may have no float64.
            logits = logits.cpu().double()
            loss = self._loss(logits, target.label, rival)
            (slope,) = torch.autograd.grad(loss, rows)
        seen, slopes = (part.detach().cpu().double().numpy().reshape(n, -1) for part in (rows, slope))
        unit = (seen - target.lo) / np.where(target.width > 0, target.width, 1.0)
        whole = (slopes * end_share(target.mechanism.noise, unit)).sum(axis=0)
        return float(loss.detach()), whole * (target.width / target.scale)

    def _loss(self, logits: Any, label: int, rival: int | None) -> Any:
        import torch

        if self.loss == "probability":
            shares = logits.log_softmax(dim=1).logsumexp(dim=0)
            return shares[label] if rival is None else shares[label] - shares[rival]
        others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1).logsumexp(dim=1)
        return (logits[:, label] - (others if rival is None else logits[:, rival])).mean()
