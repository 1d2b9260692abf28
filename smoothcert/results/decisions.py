"""The results of certification at given radii."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .records import TableRecords, made_anew

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Decisions(TableRecords):
    """Decisions at one or several given radii: ``labels, robust = decisions``.

    Iteration yields these two arrays; an index, such as ``decisions[0]`` or ``decisions[:10]``, picks inputs.
    For each input i, with probability at least 1 - alpha over the sampling, the smoothed classifier returns
    ``labels[i]`` for every input within the distances ``radius[i][robust[i]]``.

    Parameters
    ----------
    labels : ndarray of shape (n_inputs,)
        Predicted labels.
    robust : ndarray of bool, shape (n_inputs,) or (n_inputs, n_radii)
        Whether the radius is certified. False does not mean that the classifier is not robust.
    n_samples : ndarray of int64, shape (n_inputs,)
        The number of estimation votes for each input.
    radius : ndarray of float64, of the shape of ``robust``
        The given radii, in the unit box.
    alpha : float
        The probability, for each input, that its certificate is wrong.
    norm : float
        The norm of the radius.
    threat : str, default="every perturbation"
        The perturbations that the radii cover; see `Certificates`.
    failed : ndarray of bool, shape (n_inputs,), optional
        Inputs that could not be decided and were skipped; none by default.

    See Also
    --------
    SmoothedClassifier.certify_at : Make decisions.
    Certificates : Radii for each input.

    Examples
    --------
    >>> import numpy as np
    >>> decisions = Decisions(
    ...     labels=np.array(["cat", "dog"]), robust=np.array([True, False]), n_samples=np.array([48, 10_000]),
    ...     radius=np.array([0.5, 0.5]), alpha=0.001, norm=1)
    >>> labels, robust = decisions
    >>> print((labels == np.array(["cat", "cat"])) & robust)
    [ True False]
    """

    labels: NDArray[Any]
    robust: NDArray[np.bool_]
    n_samples: NDArray[np.int64]
    radius: FloatArray
    alpha: float
    norm: float
    threat: str = "every perturbation"
    failed: NDArray[np.bool_] | None = None

    @classmethod
    def from_store(cls, path: Any, *, partial: bool = False) -> Decisions:
        """Make the decisions of a run from its votes. This needs neither the model nor the inputs.

        Parameters
        ----------
        path : str or path-like
            A store, written by ``clf.certify_at(X, radius, store=path)``.
        partial : bool, default=False
            Whether to take the finished inputs of an unfinished run, in the order of their positions.

        Returns
        -------
        decisions : Decisions
            They equal those of `certify_at`.

        Raises
        ------
        ValueError
            If the file is not a sound store, the run is unfinished, or it is not one of `certify_at`.

        See Also
        --------
        Certificates.from_store : Read a run of `certify`.
        """
        return made_anew("decisions_from_store", path, partial=partial)

    def __repr__(self) -> str:
        robust = ", ".join(map(str, np.atleast_1d(self.robust.sum(axis=0))))
        mean = self.n_samples.sum() / max(1, len(self))
        return (
            f"Decisions({len(self)} inputs, {robust} robust in l{self.norm:g} against {self.threat}, "
            f"{mean:.0f} votes each on average, alpha={self.alpha:g})"
        )

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter((self.labels, self.robust))
