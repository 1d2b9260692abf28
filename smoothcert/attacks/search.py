"""What all attacks share: the walk along a path to the point where the label changes, and its verification."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._checks import check_count, check_open_unit, check_radii
from ..classifier import SmoothedClassifier
from ..resolve import resolve_radius
from ..stream import resolve_seed
from ..voting import Sampler
from .results import Adversarials
from .target import Path, QueriesSpentError, Target, shown_different

#: Candidates that are verified at most, each with this share of alpha: if the closest is not confirmed, the next ones
#: have clearer leads.
ATTEMPTS = 4

#: Points at which a path is looked at first, to find the part of it where the label changes.
LOOKS = 16

#: Share of the distance to which that part is halved, for real-valued inputs; for digital ones, to one step.
RTOL = 1e-3

#: Distance below which halving has no point.
SMALLEST = 1e-6


class Attack(BaseEstimator, ABC):
    """An l1 attack on a smoothed classifier.

    Attacks minimise the lead of a label over its strongest rival (untargeted). They differ in the paths on which they
    leave an input; where on a path the label changes is found by bisection with votes, and what is returned has been
    verified with fresh votes, which the search has not seen.

    Parameters
    ----------
    n_votes : int, default=500
        Votes at each point that guides the search.
    n_samples : int or None, default=None
        Votes at each point where the path is bisected, and fresh votes that verify each candidate; None takes the
        classifier's ``n_samples``. The lead that they can show is about 4 / sqrt(n_samples).
    alpha : float or None, default=None
        Probability, for each input, that a success is none; None takes the classifier's alpha.
    max_queries : int, default=1_000_000
        Noisy rows at most that the base model is asked about for each input, verification included.
    random_state : int, RandomState or None, default=None
        Of the search and the verification, whatever the classifier's is.
    """

    def __init__(
        self,
        n_votes: int = 500,
        n_samples: int | None = None,
        alpha: float | None = None,
        max_queries: int = 1_000_000,
        random_state: Any = None,
    ) -> None:
        self.n_votes = n_votes
        self.n_samples = n_samples
        self.alpha = alpha
        self.max_queries = max_queries
        self.random_state = random_state

    def run(self, clf: SmoothedClassifier, X: Any, y: Any = None, *, radius: Any) -> Adversarials:
        """Look for an adversarial input within a budget; any one will do.

        Parameters
        ----------
        clf : SmoothedClassifier
            Fitted.
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        y : array-like of shape (n_inputs,), optional
            Labels that the attack is to change: the true ones for robust accuracy. By default those that the
            classifier predicts.
        radius : float or array-like of shape (n_inputs,)
            Budget: l1 distance in the unit box.

        Returns
        -------
        adversarials : Adversarials
            No distance exceeds the budget.

        Raises
        ------
        ValueError
            If an argument or parameter is invalid, or the attack does not fit the base model.
        """
        return self._attack(clf, X, y, radius, closest=False)

    def minimal(self, clf: SmoothedClassifier, X: Any, y: Any = None, *, radius: Any = np.inf) -> Adversarials:
        """Look for the closest adversarial input: an upper bound on the robust radius of each input.

        Parameters
        ----------
        clf : SmoothedClassifier
            Fitted.
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        y : array-like of shape (n_inputs,), optional
            Labels that the attack is to change; see `run`.
        radius : float or array-like of shape (n_inputs,), default=inf
            Largest distance of interest.

        Returns
        -------
        adversarials : Adversarials
            ``adversarials.upper_bounds`` stand beside ``clf.certify(X).radii``.

        Raises
        ------
        ValueError
            As in `run`.
        """
        return self._attack(clf, X, y, radius, closest=True)

    @abstractmethod
    def _paths(self, target: Target, budget: float, closest: bool) -> Iterator[Path]:
        """Yield paths to attack along, which need not end within the budget; the best point of all counts."""

    def _check(self, clf: SmoothedClassifier) -> None:
        """Raise a ValueError if a parameter is invalid, or the attack does not fit the classifier."""
        if not isinstance(clf, SmoothedClassifier):
            raise ValueError(f"clf must be a SmoothedClassifier, got a {type(clf).__name__}.")
        check_is_fitted(clf, "estimator_")
        check_count("n_votes", self.n_votes)
        if self.n_samples is not None:
            check_count("n_samples", self.n_samples)
        if self.alpha is not None:
            check_open_unit("alpha", self.alpha)
        check_count("max_queries", self.max_queries)

    def _attack(self, clf: SmoothedClassifier, X: Any, y: Any, radius: Any, *, closest: bool) -> Adversarials:
        self._check(clf)
        X = clf._validate(X)
        budgets = check_radii(radius, len(X))
        original = clf.predict(X) if y is None else np.asarray(y)
        if original.shape != (len(X),):
            raise ValueError(f"y must hold one label for each of {len(X)} inputs, got shape {original.shape}.")
        seeds = np.random.SeedSequence(resolve_seed(self.random_state))
        jury = Jury(clf, X, self.n_samples, self.alpha, ATTEMPTS if closest else 1, seeds.spawn(1)[0])
        spare = self.max_queries - jury.attempts * jury.queries
        if spare < 1:
            raise ValueError(
                f"max_queries must exceed {jury.attempts * jury.queries}, the cost of verification, got "
                f"{self.max_queries}. Lower n_samples or raise max_queries."
            )
        rng = np.random.default_rng(seeds)
        strategy = resolve_radius(clf.radius, clf.noise_)
        found = []
        with jury.voter.ready():
            for x, label, budget in zip(X, original, budgets, strict=True):
                index = np.flatnonzero(clf.classes_ == label)
                label = int(index[0]) if len(index) else -1
                target = Target(jury.voter, jury.channel, strategy, x, label, rng, max_queries=spare)
                found.append(self._attack_one(target, target.budget(float(budget)), jury, closest))
        inputs, distance, labels, success, queries = zip(*found, strict=True)
        return Adversarials(
            inputs=np.stack(inputs),
            distance=np.array(distance),
            original=original,
            labels=clf.classes_[np.array(labels)],
            success=np.array(success),
            n_queries=np.array(queries, dtype=np.int64),
            alpha=jury.alpha,
        )

    def _attack_one(self, target: Target, budget: float, jury: Jury, closest: bool) -> tuple[Any, ...]:
        """Attack one input; return the adversarial input, its distance, its label, success and queries."""
        clear = 0.0 if target.exact else (norm.isf(jury.level) + 1) / np.sqrt(jury.n_samples)
        route: Path | None = None
        try:
            if target.leads(target.start[None], jury.n_samples)[0] <= clear:
                for path in self._paths(target, budget, closest):
                    end = min(budget, target.closest, target.length(path))
                    if self._follow(target, path, 0.0, end, clear, jury.n_samples, closest):
                        route = path
            elif not closest:
                target.best = target.start
        except QueriesSpentError:
            pass
        for attempt in range(jury.attempts):
            point = target.best
            raw = target.raw(point[None])[0]
            label, success = jury.verify(raw, target)
            if success or route is None or attempt == jury.attempts - 1:
                break
            # Not confirmed: farther along the path the lead is clearer.
            clear *= 1.5
            try:
                start, end = target.closest, min(budget, target.length(route))
                target.closest = np.inf
                if not self._follow(target, route, start, end, clear, jury.n_samples, closest):
                    break
            except QueriesSpentError:
                break
        return raw, target.distance(raw), label, success, target.n_queries + (attempt + 1) * jury.queries

    def _follow(
        self, target: Target, path: Path, start: float, end: float, clear: float, n_samples: int, closest: bool
    ) -> bool:
        """Find the first point of part of a path that has a clear lead; it becomes the target's best. Tell if any."""
        if end <= start:
            return False
        looks = np.linspace(start, end, LOOKS + 1)[1:]
        points = target.walk(path, looks)
        leads = target.leads(points, self.n_votes)
        if not closest:
            top = int(leads.argmax())
            target.keep(points[top], float(leads[top]), float(looks[top]))
            return True
        doubt = 0.0 if target.exact else 3 / np.sqrt(self.n_votes)
        for i in np.flatnonzero(leads > clear - doubt):
            if target.leads(points[i : i + 1], n_samples)[0] > clear:
                break
        else:
            return False
        low, high = (start if i == 0 else looks[i - 1]), looks[i]
        target.found(points[i], high)
        while high - low > (max(RTOL * high, SMALLEST) if target.levels is None else 0.5 / target.levels):
            middle = (low + high) / 2
            point = target.walk(path, [middle])
            if target.leads(point, n_samples)[0] > clear:
                high = middle
                target.found(point[0], high)
            else:
                low = middle
        return True


class Jury:
    """Fresh votes on candidates, each with noise that the search has not seen.

    All attempts on one input share alpha. Selection votes choose the rival and estimation votes test that it is ahead
    of the label. Where the noise's outcomes are counted there is one attempt, and no doubt.
    """

    def __init__(self, clf: Any, X: Any, n_samples: int | None, alpha: float | None, attempts: int, seeds: Any) -> None:
        self.voter, self.channel, self.batch_size = clf._voter(), clf._channel(X.shape[1:]), clf.batch_size
        self.exact = self.channel.noise.n_outcomes is not None
        self.n_selection, self.n_samples = clf.n_selection, n_samples or clf.n_samples
        self.attempts = 1 if self.exact else attempts
        self.alpha = 0.0 if self.exact else clf.alpha if alpha is None else alpha
        drawing = self.channel.noise.draw_error * self.n_samples * self.channel.n_features
        self.level = 0.0 if self.exact else self.alpha / self.attempts - drawing
        if self.level <= 0 and not self.exact:
            raise ValueError(
                f"alpha must exceed {drawing * self.attempts:.3g}, the error of drawing, got {self.alpha}."
            )
        self.queries = self.channel.noise.n_outcomes or self.n_selection + self.n_samples
        self.seeds = seeds

    def verify(self, raw: NDArray[Any], target: Target) -> tuple[int, bool]:
        """Return the index of the smoothed label at a raw input, and whether it is shown not to be the target's."""
        words = self.seeds.spawn(1)[0].generate_state(4)
        seed = int.from_bytes(words.tobytes(), "little")
        sampler = Sampler(
            voter=self.voter,
            channel=self.channel,
            seed=seed,
            n_selection=self.queries if self.exact else self.n_selection,
            n_samples=0 if self.exact else self.n_samples,
            batch_size=self.batch_size,
        )
        votes = sampler.draw(raw[None])
        label = int(votes.selection[0].argmax())
        if self.exact:
            return label, label != target.label
        return label, shown_different(votes.selection[0], votes.estimation[0], target.label, self.level)
