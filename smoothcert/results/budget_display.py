"""The plot of the worst perturbation of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .._utils.optional import optional
from .._utils.pipelines import last_step
from .certificates import Certificates, FloatArray
from .tables import rounded_down

#: Colors of moves from darker to brighter, which stand out from black, gray and white pixels.
MOVES = ["#0072B2", "#A6D3EE", "#F5C9A0", "#D55E00"]


@dataclass(eq=False, repr=False)
class GreedyBudgetDisplay:
    """The worst perturbation of an image: how the greedy adversary spends the budget [1]_.

    The four panels show the image, the reach of each pixel, the worst perturbation within the certified radius, drawn
    over the image, and the perturbed image. The adversary fills the largest reaches first. Of equal reaches, the plot
    takes the first in the image; others would serve as well. The certified label is the same for the image and the
    perturbed image.

    Parameters
    ----------
    image, perturbed : ndarray of shape (height, width) or (height, width, 3)
        The two images, in raw units.
    reach : ndarray of shape (height, width) or (height, width, 3)
        The reach of each pixel: the share of its range, times its cost.
    moves : ndarray of the same shape
        The signed move of each pixel, in the same units; the absolute values add up to the radius.
    radius : float
        The certified radius, in the unit box.
    limits : tuple of float, default=(0.0, 1.0)
        The ends of the box, in raw units.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (4,)
    figure_ : matplotlib Figure

    See Also
    --------
    GreedyRadius : The radius strategy.
    SmoothedClassifier.worst_perturbations : The numbers behind the plot.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box
       Constraints", ICML 2023, Theorem 2.8.

    Examples
    --------
    >>> import numpy as np
    >>> image, moves = np.zeros((2, 2)), np.array([[1.0, 0.5], [0.0, 0.0]])
    >>> display = GreedyBudgetDisplay(image, image + moves, reach=np.ones((2, 2)), moves=moves, radius=1.5)
    >>> float(np.abs(display.moves).sum())
    1.5
    """

    image: FloatArray
    perturbed: FloatArray
    _: KW_ONLY
    reach: FloatArray
    moves: FloatArray
    radius: float
    limits: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        x: ArrayLike,
        *,
        certificate: Certificates | None = None,
        image_shape: Sequence[int] | None = None,
        axes: Any = None,
    ) -> Self:
        """Compute the worst perturbation of one image, and draw it.

        Parameters
        ----------
        estimator : SmoothedClassifier, or Pipeline that ends in one
            The fitted classifier, with ``radius="greedy"``.
        x : array-like
            One input.
        certificate : Certificates, optional
            The certificate of the input, of length 1; the classifier makes it by default.
        image_shape : sequence of int, optional
            (height, width), (height, width, 3), (1, height, width) or (3, height, width); the shape of x by default.
        axes : array of 4 matplotlib Axes, optional

        Returns
        -------
        display : GreedyBudgetDisplay

        Raises
        ------
        ValueError
            If the radius strategy is not greedy, the classifier abstains, or x is not an image.
        """
        estimator, X = last_step(estimator, np.asarray(x)[None])
        shape = tuple(X.shape[1:] if image_shape is None else image_shape)
        if np.prod(shape) != X.size or not (len(shape) == 2 or (len(shape) == 3 and {shape[0], shape[-1]} & {1, 3})):
            raise ValueError(
                f"image_shape must be (height, width), with 1 or 3 channels before or after, and hold {X.size} values, "
                f"got {shape}."
            )
        radius = float(certificate_of(estimator, X, certificate).radii[0])
        parts = (X, *estimator.worst_perturbations(X, radius))
        image, reach, moves, perturbed = (_as_image(part, shape) for part in parts)
        limits = (float(estimator.box_.lo.min()), float(estimator.box_.hi.max()))
        return cls(image, perturbed, reach=reach, moves=moves, radius=radius, limits=limits).plot(axes)

    def plot(self, axes: Any = None) -> Self:
        """Draw the four pictures.

        Parameters
        ----------
        axes : array of 4 matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        display : GreedyBudgetDisplay
        """
        pyplot = optional("matplotlib.pyplot", "plots")
        if axes is None:
            _, axes = pyplot.subplots(2, 2, figsize=(6.4, 5.8), layout="constrained")
        self.axes_ = np.asarray(axes, dtype=object).ravel()
        self.figure_ = self.axes_[0].figure
        low, high = self.limits
        image, perturbed = (np.clip((part - low) / (high - low), 0, 1) for part in (self.image, self.perturbed))
        colored = self.moves.ndim == 3
        reach, spent = (self.reach.sum(axis=2), abs(self.moves).sum(axis=2)) if colored else (self.reach, self.moves)
        most = max(float(abs(spent).max()), 1e-12)
        signed = optional("matplotlib.colors", "plots").LinearSegmentedColormap.from_list("moves", MOVES)
        reachable = {"cmap": "cividis", "vmin": 0, "vmax": 3 if colored else 1}
        moved = {"cmap": "cividis", "vmin": 0} if colored else {"cmap": signed, "vmin": -most, "vmax": most}
        found = f"l1 radius {rounded_down(self.radius, 3)}, {np.count_nonzero(spent)} pixels"
        panels: list[tuple[str, FloatArray | None, FloatArray | None, dict[str, Any], str]] = [
            ("input", image, None, {}, ""),
            ("reach of each pixel", None, reach, reachable, "reach"),
            (f"worst perturbation over the input\n{found}", image, np.ma.masked_equal(spent, 0), moved, "move"),
            ("perturbed input\nthe label is the same", perturbed, None, {}, ""),
        ]
        for ax, (title, below, above, style, bar) in zip(self.axes_, panels, strict=True):
            if below is not None:
                ax.imshow(below, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if above is not None:
                drawn = ax.imshow(above, interpolation="nearest", **style)
                self.figure_.colorbar(drawn, ax=ax, shrink=0.85).set_label(f"{bar} (1 = whole range)")
            ax.set(xticks=[], yticks=[])
            ax.set_title(title, fontsize="medium")
        return self


def _as_image(values: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Return an input as an image with the channels last; a single channel is dropped."""
    image = np.asarray(values, dtype=np.float64).reshape(shape)
    if len(shape) == 3 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        image = np.moveaxis(image, 0, -1)
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def certificate_of(estimator: Any, X: Any, given: Certificates | None) -> Certificates:
    """Return the certificate of one input, or raise a ValueError if the classifier abstains."""
    certificate: Certificates = estimator.certify(X) if given is None else given
    if len(certificate) != 1 or certificate.abstained[0]:
        raise ValueError(
            f"certificate must be of a single input for which the classifier does not abstain, got {certificate!r}."
        )
    return certificate
