"""What an attack returns: adversarial inputs, and the votes' word on whether they are adversarial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results.certificates import FloatArray
from ..results.records import Records


@dataclass(frozen=True, eq=False, repr=False)
class Adversarials(Records):
    """Adversarial inputs: an upper bound on how robust the smoothed classifier is at each input.

    Where ``success`` is True: with probability at least 1 - alpha over fresh votes, the smoothed classifier does not
    return ``original[i]`` at ``inputs[i]``, which is ``distance[i]`` away from the input in l1. So no valid radius at
    that input reaches ``distance[i]``.

    Parameters
    ----------
    inputs : ndarray of float64, shape (n_inputs, ...)
        In raw units, inside the box. Where the attack failed, the most promising input that it saw.
    distance : ndarray of float64, shape (n_inputs,)
        l1 distance from the attacked input (clipped into the box) in the unit box: of the arrays as they are, rounded
        up, or for digital data whole lattice steps over their number per unit. 0 where the label was wrong already.
    original : ndarray of shape (n_inputs,)
        The labels that the attack was to change.
    labels : ndarray of shape (n_inputs,)
        Smoothed labels at ``inputs``, selected by fresh votes.
    success : ndarray of bool, shape (n_inputs,)
        Whether fresh votes show that the smoothed label differs from the original one.
    n_queries : ndarray of int64, shape (n_inputs,)
        Noisy rows that the base model was asked about, verification included.
    alpha : float
        Probability, for each input, that a success is none; 0 where all outcomes of the noise were counted.

    Examples
    --------
    >>> import numpy as np
    >>> found = Adversarials(
    ...     inputs=np.array([[0.5], [0.9]]), distance=np.array([0.3, 0.4]), original=np.array([0, 1]),
    ...     labels=np.array([1, 1]), success=np.array([True, False]), n_queries=np.array([900, 900]), alpha=0.001)
    >>> found.upper_bounds
    array([0.3, inf])
    >>> found.robust_accuracy([0.1, 0.3])
    array([1. , 0.5])
    """

    inputs: NDArray[Any]
    distance: FloatArray
    original: NDArray[Any]
    labels: NDArray[Any]
    success: NDArray[np.bool_]
    n_queries: NDArray[np.int64]
    alpha: float

    def __repr__(self) -> str:
        median = np.median(self.distance[self.success]) if self.success.any() else np.nan
        return (
            f"Adversarials({len(self)} inputs, {int(self.success.sum())} successes at median l1 distance {median:.4g}, "
            f"{self.n_queries.mean():.0f} queries each on average, alpha={self.alpha:g})"
        )

    @property
    def upper_bounds(self) -> FloatArray:
        """Upper bound on the robust radius of each input: the distance, +inf where the attack failed."""
        return np.where(self.success, self.distance, np.inf)

    def robust_accuracy(self, radius: Any) -> Any:
        """Share of inputs for which no adversarial input is known within a radius: an upper bound.

        With the true labels as ``y`` of the attack, inputs that are misclassified count as broken at distance 0.

        Parameters
        ----------
        radius : float or array-like of float
            In the unit box, at least 0.

        Returns
        -------
        share : float, or ndarray of the shape of ``radius``
        """
        least = np.asarray(radius, dtype=np.float64)
        if not (least >= 0).all():
            raise ValueError(f"radius must be 0 or above, got {radius!r}.")
        share = (self.upper_bounds > least[..., None]).mean(axis=-1)
        return float(share) if share.ndim == 0 else share
