"""The results of certification: labels and certified radii."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._utils.checks import check_labels
from .records import TableRecords, made_anew
from .tables import Summary, rounded_down
from .tsv import EXACT, TsvResults, read_tsv, write_tsv

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Certificates(TableRecords):
    """Certified predictions: ``labels, radii = certificates``.

    Where the classifier does not abstain, it returns ``labels[i]`` for every input within distance ``radii[i]``, with
    probability at least 1 - alpha over the sampling.

    Parameters
    ----------
    labels : ndarray of shape (n_inputs,)
        Predicted labels, even where the classifier abstains from certifying them.
    radii : ndarray of float64, shape (n_inputs,)
        Certified radii in the unit box, where 1.0 is one feature moved across its whole range. A radius is NaN for an
        abstention, so that ``(labels == y) & (radii >= r)`` is right for every r >= 0, and +inf if the whole box is
        certified, or all that ``threat`` names, such as perturbations of any two features, however large.
    abstained : ndarray of bool, shape (n_inputs,)
        Whether the votes show no class ahead of all others.
    p_a, p_b : ndarray of float64, shape (n_inputs,)
        Lower bound on the probability of the predicted class, and upper bound on that of every other class. With
        ``rtol``, only their difference is a bound.
    alpha : float
        The probability, for each input, that its certificate is wrong.
    norm : float
        The norm of the radii.
    threat : str, default="every perturbation"
        The perturbations that the radii cover: those within the limits of a strategy, and on the lattice of digital
        inputs.
    n_samples : ndarray of int64, shape (n_inputs,), optional
        The number of estimation votes for each input.
    failed : ndarray of bool, shape (n_inputs,), optional
        Inputs that could not be certified and were skipped. They are abstentions too; none by default.

    See Also
    --------
    SmoothedClassifier.certify : Make certificates.
    certified_accuracy_score : Compare them with true labels.

    References
    ----------
    .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019,
       Algorithm 1.

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
    failed: NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        median = np.median(self.radii[~self.abstained]) if not self.abstained.all() else np.nan
        safe = f", {n_safe} safe against all" if (n_safe := np.isposinf(self.radii).sum()) else ""
        return (
            f"Certificates({len(self)} inputs, {self.abstained.sum()} abstained, median l{self.norm:g} radius of the "
            f"others {rounded_down(float(median))} against {self.threat}{safe}, alpha={self.alpha:g})"
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
        """Make certificates from the votes of a run. This draws no votes and needs no model.

        Parameters
        ----------
        path : str or path-like
            A store, written by ``clf.certify(X, store=path)``.
        radius : str or RadiusStrategy, optional
        scheme, bound : str, optional
        alpha : float, optional
            As in `SmoothedClassifier`; None keeps the parameter of the run.
        X : array-like or sequence, optional
            The inputs of the run. Limits on single features (``max_change``) need them, and so do limits that involve
            more features than the store keeps.
        partial : bool, default=False
            Whether to take the finished inputs of an unfinished run, in the order of their positions.

        Returns
        -------
        certificates : Certificates
            With the parameters of the run, they equal those of `certify` to the last bit.

        Raises
        ------
        ValueError
            If the file is not a sound store, the run is unfinished, a parameter is invalid, or X is needed.

        See Also
        --------
        VoteCounts.from_store : Read the votes.

        Examples
        --------
        >>> import tempfile
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from smoothcert import SmoothedClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> clf = SmoothedClassifier(LogisticRegression(), bounds=(0, 8), n_samples=500, random_state=0).fit(X, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     certificates = clf.certify(X[::50], store=f"{folder}/run.sqlite")
        ...     again = Certificates.from_store(f"{folder}/run.sqlite", alpha=0.05)
        >>> print((again.p_a > certificates.p_a).all())
        True
        """
        choices = {"radius": radius, "scheme": scheme, "bound": bound, "alpha": alpha}
        return made_anew("certificates_from_store", path, **choices, X=X, partial=partial)

    @property
    def margin(self) -> FloatArray:
        """Lower bound on the margin of the predicted class, p_a - p_b."""
        return self.p_a - self.p_b

    def radii_if_right(self, y: ArrayLike) -> FloatArray:
        """Return the radius of each input whose label is right, and NaN for the others."""
        return np.where(self.labels == check_labels(y, len(self), self.labels), self.radii, np.nan)

    def _columns(self) -> dict[str, NDArray[Any]]:
        columns = {"label": self.labels, "radius": self.radii, "abstained": self.abstained, "p_a": self.p_a}
        columns |= {"p_b": self.p_b, "margin": self.margin}
        return columns | {name: value for name, value in super()._columns().items() if name in ("n_samples", "failed")}

    def summary(self, y: ArrayLike, radii: ArrayLike, *, average: str | None = "micro") -> Summary:
        """Return a table of certified accuracies.

        Parameters
        ----------
        y : array-like of shape (n_inputs,)
            True labels.
        radii : array-like of shape (n_radii,)
            Radii in the unit box.
        average : {"micro", "macro", None}, default="micro"
            Accuracy, balanced accuracy, or a column for the recall of each class; see `certified_accuracy_score`.

        Returns
        -------
        summary : Summary
            It prints as text, shows as HTML in notebooks, and has ``to_markdown``, ``to_latex`` and ``to_frame``.

        Raises
        ------
        ValueError
            As `certified_accuracy_score`.

        See Also
        --------
        smoothcert.results.summarize : A table of several classifiers.

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
        from .summaries import summarize

        return summarize(self, y, radii, average=average)

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
        """Write the tab-separated table that research code uses, as ``certify.py`` of Cohen et al. does [1]_.

        The columns are ``idx label predict radius correct time``. For an abstention, ``predict`` is -1, and the radius
        and ``correct`` are 0.

        Parameters
        ----------
        path : str or path
        y : array-like of shape (n_inputs,)
            True labels.
        classes : sequence, optional
            All classes in their order, ``clf.classes_``; the file holds the position of each label there. By default
            the file holds the labels themselves, which must be whole numbers of at least 0.
        idx : array-like of int, shape (n_inputs,), optional
            The number of each input in its data set; 0, 1, 2, ... by default.
        times : array-like of float, shape (n_inputs,), optional
            The seconds for each input; the column is empty by default.
        digits : int, default=18
            The significant digits of the radii, which are rounded down. With 18 digits they read back as the same
            floats; the code of Cohen et al. writes 3.

        Raises
        ------
        ValueError
            If an argument does not fit, or labels need ``classes``.

        See Also
        --------
        from_tsv : Read such a table.

        References
        ----------
        .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019.
        """
        write_tsv(path, self, y, classes, idx, times, digits)

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
        """Read a tab-separated table that this library or the code of Cohen et al. has written.

        Parameters
        ----------
        path : str or path
        alpha, norm, threat
            As in `Certificates`; the file does not hold them.
        classes : sequence of int or str, optional
            The label of each class index in the file; the index itself by default.

        Returns
        -------
        results : TsvResults
            ``(certificates, y, idx)``. ``p_a`` and ``p_b`` are NaN. The file does not hold the label of an abstention;
            it becomes -1, a smaller number if -1 is a class, or the empty string.

        Raises
        ------
        ValueError
            If the file is damaged or not such a table, or ``classes`` do not fit; the message names the line.

        See Also
        --------
        to_tsv : Write such a table.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> certificates = Certificates(
        ...     labels=np.array([0, 1]), radii=np.array([2.0, np.nan]), abstained=np.array([False, True]),
        ...     p_a=np.array([0.9, 0.5]), p_b=np.array([0.1, 0.5]), alpha=0.001, norm=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     certificates.to_tsv(f"{folder}/results.tsv", [0, 1])
        ...     found, y, idx = Certificates.from_tsv(f"{folder}/results.tsv", alpha=0.001, norm=1)
        >>> print(found.labels, found.radii, y, idx)
        [ 0 -1] [ 2. nan] [0 1] [0 1]
        """
        found, y, idx = read_tsv(path, classes)
        unknown = np.full(len(y), np.nan)
        return TsvResults(cls(**found, p_a=unknown, p_b=unknown, alpha=alpha, norm=norm, threat=threat), y, idx)

    def verify(self, clf: Any, X: Any, **params: Any) -> Any:
        """Draw fresh votes for a random part of the inputs, and test whether the certificates agree with them.

        Parameters
        ----------
        clf : SmoothedClassifier
            The fitted classifier, with the same parameters as for the certificates.
        X : array-like of shape (n_inputs, ...)
            The certified inputs, in the same order.
        **params
            ``fraction``, ``n_samples``, ``level`` and ``random_state`` of `smoothcert.audit.verify`.

        Returns
        -------
        audit : Audit
            ``audit.consistent`` is the verdict.

        See Also
        --------
        smoothcert.verify : The function behind this method, with an example.
        """
        from ..audit import verify

        return verify(self, clf, X, **params)
