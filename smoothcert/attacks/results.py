"""The results of an attack: adversarial inputs, and whether fresh votes confirm them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_thresholds
from ..results.certificates import FloatArray
from ..results.records import Records
from ..results.tables import rounded_up


@dataclass(frozen=True, eq=False, repr=False)
class Adversarials(Records):
    """Adversarial inputs: upper bounds on the robust radius of the smoothed classifier at each input.

    Where ``success[i]`` is True, the smoothed classifier does not return ``original[i]`` at ``inputs[i]``, with
    probability at least 1 - alpha over fresh votes. The l1 distance of ``inputs[i]`` from the attacked input is
    ``distance[i]``, so every valid radius at the attacked input is smaller.

    Parameters
    ----------
    inputs : ndarray of float64, shape (n_inputs, ...)
        Inputs in raw units, inside the box; where the attack failed, the most promising one. Categories are codes;
        ``clf.to_table(adversarials.inputs, X)`` returns a table like the attacked X, for `predict` and `certify`.
    distance : ndarray of float64, shape (n_inputs,)
        The l1 distance in the unit box from the attacked input, clipped to the box; with costs, what the adversary
        pays. It is computed from the returned arrays and rounded up. For digital data it is the number of lattice steps
        over the steps per unit. It is 0 where the label was already wrong.
    original : ndarray of shape (n_inputs,)
        The labels to change.
    labels : ndarray of shape (n_inputs,)
        The smoothed labels at ``inputs``, from fresh votes.
    success : ndarray of bool, shape (n_inputs,)
        Whether fresh votes show that the smoothed label differs from the original label.
    n_queries : ndarray of int64, shape (n_inputs,)
        The number of noisy inputs that the base model has classified, verification included.
    alpha : float
        The probability, for each input, that a success is false; 0 where all outcomes of the noise were counted.

    See Also
    --------
    Attack.minimal : Find the closest adversarial inputs.
    AttackDisplay : Plot them beside certificates.
    smoothcert.RowChanges.from_adversarials : Show what is changed in the row of a table.

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
        median = rounded_up(float(np.median(self.distance[self.success]))) if self.success.any() else "nan"
        return (
            f"Adversarials({len(self)} inputs, {int(self.success.sum())} successes at median l1 distance {median}, "
            f"{self.n_queries.mean():.0f} queries each on average, alpha={self.alpha:g})"
        )

    @property
    def upper_bounds(self) -> FloatArray:
        """The upper bound on the robust radius of each input: the distance, or +inf where the attack failed."""
        return np.where(self.success, self.distance, np.inf)

    def robust_accuracy(self, radius: Any) -> Any:
        """Return the share of inputs without a known adversarial input within a radius, an upper bound.

        If the attack was given the true labels, misclassified inputs count as broken at distance 0.

        Parameters
        ----------
        radius : float or array-like of float
            Radius or radii in the unit box, at least 0.

        Returns
        -------
        share : float, or ndarray of the shape of ``radius``

        Raises
        ------
        ValueError
            If a radius is negative or NaN.

        See Also
        --------
        smoothcert.certified_accuracy_score : The lower bound.
        """
        least = check_thresholds(radius)
        share = (self.upper_bounds > least[..., None]).mean(axis=-1)
        return float(share) if share.ndim == 0 else share
