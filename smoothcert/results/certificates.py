"""What certification returns: vote counts, and certificates made from them. Frozen, and indifferent to their making."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .records import Table
from .tables import Summary
from .tsv import EXACT, TsvResults, read_tsv, write_tsv

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Certificates(Table):
    """Certified predictions: ``labels, radii = certificates``.

    For each input that is not abstained on: with probability at least 1 - alpha over the sampling, the smoothed
    classifier returns ``labels[i]`` for every input within distance ``radii[i]``.

    Parameters
    ----------
    labels : ndarray of shape (n_inputs,)
        Predicted labels, also where the classifier abstains from certifying them.
    radii : ndarray of float64, shape (n_inputs,)
        Certified radii in the unit box: 1.0 is one feature moved across its whole range. NaN where abstained, so that
        ``(labels == y) & (radii >= r)`` is right for every r >= 0; +inf where the whole box is certified.
    abstained : ndarray of bool, shape (n_inputs,)
        Where no class could be told ahead of the others.
    p_a, p_b : ndarray of float64, shape (n_inputs,)
        Lower bound on the probability of the predicted class, upper bound on that of every other. Where drawing
        stopped early (``rtol``), their difference is what is bounded.
    alpha : float
        Probability, for each input, that its certificate is wrong.
    norm : float
        Norm of the radii.
    threat : str, default="every perturbation"
        The perturbations that the radii speak of, where a strategy limits them.
    n_samples : ndarray of int64, shape (n_inputs,), optional
        Estimation votes that were drawn for each input.

    Examples
    --------
    >>> import numpy as np
    >>> certificates = Certificates(
    ...     labels=np.array(["cat", "dog"]), radii=np.array([0.8, np.nan]), abstained=np.array([False, True]),
    ...     p_a=np.array([0.9, 0.5]), p_b=np.array([0.1, 0.5]), alpha=0.001, norm=1)
    >>> labels, radii = certificates
    >>> print((labels == np.array(["cat", "cat"])) & (radii >= 0.5))
    [ True False]
    """

    labels: NDArray[Any]
    radii: FloatArray
    abstained: NDArray[np.bool_]
    p_a: FloatArray
    p_b: FloatArray
    alpha: float
    norm: float
    threat: str = "every perturbation"
    n_samples: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        median = np.median(self.radii[~self.abstained]) if not self.abstained.all() else np.nan
        return (
            f"Certificates({len(self)} inputs, {int(self.abstained.sum())} abstained, median l{self.norm:g} radius of "
            f"the others {median:.4g} against {self.threat}, alpha={self.alpha:g})"
        )

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter((self.labels, self.radii))

    @classmethod
    def from_store(
        cls,
        path: Any,
        *,
        radius: Any = None,
        scheme: str | None = None,
        bound: str | None = None,
        alpha: float | None = None,
        X: Any = None,
        partial: bool = False,
    ) -> Certificates:
        """Make certificates from the votes of a run: nothing is drawn, and no model is needed.

        Parameters
        ----------
        path : str or path-like
            What ``clf.certify(X, store=path)`` has written.
        radius : str or RadiusStrategy, optional
            As in `SmoothedClassifier`, like the following; None is what the run was made with.
        scheme, bound : str, optional
        alpha : float, optional
        X : array-like or sequence, optional
            The inputs of the run. They are needed only for limits on single features (``max_change``), and for limits
            so tight that more features matter than the store keeps.
        partial : bool, default=False
            Take the finished inputs of a run that has not ended, in the order of their positions.

        Returns
        -------
        certificates : Certificates
            With the parameters of the run, those of `certify` to the last bit.

        Raises
        ------
        ValueError
            If the file is no sound store, the run has not ended, a parameter is invalid, or X is needed.
        """
        from ..runs.recertify import certificates_from_store

        return certificates_from_store(
            path, radius=radius, scheme=scheme, bound=bound, alpha=alpha, X=X, partial=partial
        )

    @property
    def margin(self) -> FloatArray:
        """Lower bound on the lead of the predicted class, p_a - p_b."""
        return self.p_a - self.p_b

    def radii_if_right(self, y: ArrayLike) -> FloatArray:
        """Return the radius of each input whose label is right, and NaN for the others."""
        return np.where(self.labels == np.asarray(y), self.radii, np.nan)

    def _columns(self) -> dict[str, NDArray[Any]]:
        columns = {"label": self.labels, "radius": self.radii, "abstained": self.abstained}
        columns |= {"p_a": self.p_a, "p_b": self.p_b, "margin": self.margin}
        return columns if self.n_samples is None else columns | {"n_samples": self.n_samples}

    def summary(self, y: ArrayLike, radii: ArrayLike) -> Summary:
        """Return a table of certified accuracies.

        Parameters
        ----------
        y : array-like of shape (n_inputs,)
            True labels.
        radii : array-like of shape (n_radii,)
            In the unit box.

        Returns
        -------
        summary : Summary
            Prints as text; has ``to_markdown``, ``to_latex`` and ``to_frame``, and shows itself in notebooks.

        Raises
        ------
        ValueError
            As `certified_accuracy_score`.

        Examples
        --------
        >>> import numpy as np
        >>> certificates = Certificates(
        ...     labels=np.array([0, 1, 1]), radii=np.array([2.0, 0.5, np.nan]),
        ...     abstained=np.array([False, False, True]), p_a=np.array([0.9, 0.6, 0.5]), p_b=np.array([0.1, 0.4, 0.5]),
        ...     alpha=0.001, norm=1)
        >>> certificates.summary([0, 1, 1], radii=[0, 1])
        l1 radius  certified accuracy
                0               0.667
                1               0.333
        3 inputs, 1 abstained, against every perturbation, alpha=0.001
        """
        from .metrics import summarize

        return summarize({"certified accuracy": self}, y, radii)

    def to_tsv(
        self,
        path: str | os.PathLike[str],
        y: ArrayLike,
        *,
        classes: Sequence[Any] | None = None,
        idx: ArrayLike | None = None,
        times: ArrayLike | None = None,
        digits: int = EXACT,
    ) -> None:
        """Write the table of the field, as `certify.py` of Cohen et al. (2019) does.

        Columns are ``idx label predict radius correct time``, separated by tabs. An abstention has prediction -1,
        radius 0, and is not correct.

        Parameters
        ----------
        path : str or path
        y : array-like of shape (n_inputs,)
            True labels.
        classes : sequence, optional
            All classes in their order, ``clf.classes_``: labels are written as positions there. Needed unless labels
            are whole numbers of at least 0, which are written as they are.
        idx : array-like of int, shape (n_inputs,), optional
            Numbers of the inputs in their data set; 0, 1, 2, ... by default.
        times : array-like of float, shape (n_inputs,), optional
            Seconds that each took; the column is empty otherwise.
        digits : int, default=18
            Significant digits of the radii, which are rounded down. With 18 they read back as the same floats; 3 is
            what the field's code writes.

        Raises
        ------
        ValueError
            If an argument does not fit, or labels need ``classes``.
        """
        write_tsv(path, self, y, classes=classes, idx=idx, times=times, digits=digits)

    @classmethod
    def from_tsv(
        cls,
        path: str | os.PathLike[str],
        *,
        alpha: float,
        norm: float,
        threat: str = "every perturbation",
        classes: Sequence[Any] | None = None,
    ) -> TsvResults:
        """Read a table of the field, of this library or another.

        Parameters
        ----------
        path : str or path
        alpha, norm, threat
            As in `Certificates`; the file does not hold them.
        classes : sequence of int or str, optional
            What the class indices in the file stand for; themselves by default.

        Returns
        -------
        results : TsvResults
            ``(certificates, y, idx)``. ``p_a`` and ``p_b`` are NaN. Where the file abstains, the label is not known: it
            is one that no class has, -1, a smaller number if -1 is a class, or the empty string.

        Raises
        ------
        ValueError
            If the file is damaged or no such table, or ``classes`` do not fit it; the message names the line.
        """
        found, y, idx = read_tsv(path, classes=classes)
        unknown = np.full(len(y), np.nan)
        return TsvResults(cls(**found, p_a=unknown, p_b=unknown, alpha=alpha, norm=norm, threat=threat), y, idx)

    def verify(self, clf: Any, X: Any, **params: Any) -> Any:
        """Draw fresh votes for a random part of the inputs, and test whether the claims agree with them.

        Parameters
        ----------
        clf : SmoothedClassifier
            Fitted, with the parameters that the certificates were made with.
        X : array-like of shape (n_inputs, ...)
            The inputs that were certified, in the same order.
        **params
            ``fraction``, ``n_samples``, ``level`` and ``random_state``; see `smoothcert.audit.verify`.

        Returns
        -------
        audit : Audit
            ``audit.consistent`` is the verdict.
        """
        from ..audit import verify

        return verify(self, clf, X, **params)


@dataclass(frozen=True, eq=False, repr=False)
class Decisions(Table):
    """Decisions at a given radius: ``labels, robust = decisions``.

    For each robust input: with probability at least 1 - alpha over the sampling, the smoothed classifier returns
    ``labels[i]`` for every input within distance ``radius[i]``.

    Parameters
    ----------
    labels : ndarray of shape (n_inputs,)
        Predicted labels.
    robust : ndarray of bool, shape (n_inputs,)
        Whether the radius is certified. False says that it was not shown, not that it is wrong.
    n_samples : ndarray of int64, shape (n_inputs,)
        Estimation votes that were drawn for each input.
    radius : ndarray of float64, shape (n_inputs,)
        In the unit box.
    alpha : float
        Probability, for each input, that its certificate is wrong.
    norm : float
        Norm of the radius.
    threat : str, default="every perturbation"
        The perturbations that the radius speaks of, where a strategy limits them.

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

    def __repr__(self) -> str:
        return (
            f"Decisions({len(self)} inputs, {int(self.robust.sum())} robust in l{self.norm:g} against {self.threat}, "
            f"{self.n_samples.mean():.0f} votes each on average, alpha={self.alpha:g})"
        )

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter((self.labels, self.robust))
