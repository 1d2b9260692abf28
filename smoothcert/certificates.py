"""What certification returns: vote counts, and certificates made from them. Frozen, and indifferent to their making."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .audit import Audit

FloatArray = NDArray[np.float64]


class _Rows:
    """A frozen record whose arrays have one row per input: it can be sliced like an array."""

    def __post_init__(self) -> None:
        for name, value in self._arrays().items():
            frozen = value.view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def __len__(self) -> int:
        return len(next(iter(self._arrays().values())))

    def __getitem__(self, rows: Any) -> Self:
        picked = np.atleast_1d(np.arange(len(self))[rows])
        return replace(self, **{name: value[picked] for name, value in self._arrays().items()})  # type: ignore[type-var]


@dataclass(frozen=True)
class Origin:
    """What votes depend on besides the input: they may only be used where all of it is the same."""

    noise: str
    box: str
    seed: int
    model: str
    classes: str
    shape: tuple[int, ...]

    def differences(self, other: Origin) -> list[str]:
        """Names of the fields in which two origins differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]


@dataclass(frozen=True, eq=False, repr=False)
class VoteCounts(_Rows):
    """How often the base model chose each class under noise, for each input.

    Parameters
    ----------
    selection, estimation : ndarray of int64, shape (n_inputs, n_classes)
        Votes of the two stages of Algorithm 1; columns follow ``classes_``.
    inputs : ndarray of uint8, shape (n_inputs, 16)
        Fingerprint of each input.
    origin : Origin
        Noise, box, seed and model behind the votes.
    """

    selection: NDArray[np.int64]
    estimation: NDArray[np.int64]
    inputs: NDArray[Any]
    origin: Origin

    def __repr__(self) -> str:
        return (
            f"VoteCounts({len(self)} inputs, {self.selection.shape[1]} classes, {int(self.selection[0].sum())} "
            f"selection and {self.n_samples} estimation votes each, {self.origin.noise})"
        )

    @classmethod
    def from_store(cls, path: Any) -> VoteCounts:
        """Read the votes of a finished run, for ``clf.certify(X, votes=...)``.

        Parameters
        ----------
        path : str or path-like
            What ``clf.certify(X, store=path)`` has written.

        Raises
        ------
        ValueError
            If the file is no sound store, the run has not ended, or its drawing stopped early (``rtol``): bounds for a
            fixed number of votes would then be wrong.
        """
        from .recertification import votes_from_store

        return votes_from_store(path)

    def check_same(self, origin: Origin, inputs: NDArray[np.uint8]) -> None:
        """Raise a ValueError unless the votes are of this origin and of inputs with these fingerprints."""
        differences = self.origin.differences(origin)
        if not np.array_equal(self.inputs, inputs):
            differences.append("X")
        if differences:
            raise ValueError(
                f"votes were drawn with a different {', '.join(differences)}. Draw new ones: votes=clf.count_votes(X)."
            )

    @property
    def selected(self) -> NDArray[np.intp]:
        """Index of the class that the selection votes chose; ties go to the first."""
        return self.selection.argmax(axis=1)

    @property
    def n_samples(self) -> int:
        """Estimation votes of the input that has the fewest."""
        return int(self.estimation.sum(axis=1).min())


@dataclass(frozen=True, eq=False, repr=False)
class Certificates(_Rows):
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
        from .recertification import certificates_from_store

        return certificates_from_store(
            path, radius=radius, scheme=scheme, bound=bound, alpha=alpha, X=X, partial=partial
        )

    @property
    def margin(self) -> FloatArray:
        """Lower bound on the lead of the predicted class, p_a - p_b."""
        return self.p_a - self.p_b

    def verify(self, clf: Any, X: Any, **params: Any) -> Audit:
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
        from .audit import verify

        return verify(self, clf, X, **params)


@dataclass(frozen=True, eq=False, repr=False)
class Decisions(_Rows):
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
