"""Vote counts, and the origin that they depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .records import Records, made_anew

#: The model of votes that come from elsewhere, whose inputs are known or not. No content of a model equals these.
ELSEWHERE = ("elsewhere", "elsewhere, inputs unknown")

#: The largest count: all whole numbers up to it are exact in float64.
LARGEST_COUNT = 2**53


@dataclass(frozen=True)
class Origin:
    """Everything that votes depend on besides the input; votes may be used only where all of it is the same.

    Parameters
    ----------
    noise, box, model, classes : str
        Fingerprints. The model of votes from elsewhere is one of `ELSEWHERE`.
    seed : int
    shape : tuple of int
        The shape of one input.
    costs : str
        Fingerprint of the costs and categories; empty where all features are numbers of cost 1.
    details : dict, optional
        Noise, box, costs and classes in JSON, from which `recertify` builds them.

    Examples
    --------
    >>> origin = Origin("SplitNoise()", "box", 0, "model", "[0, 1]", (4,))
    >>> origin.differences(Origin("SplitNoise()", "box", 1, "model", "[0, 1]", (4,)))
    ['seed']
    """

    noise: str
    box: str
    seed: int
    model: str
    classes: str
    shape: tuple[int, ...]
    costs: str = ""
    details: dict[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def elsewhere(self) -> bool:
        """Whether the votes were not drawn by this library."""
        return self.model in ELSEWHERE

    @property
    def knows_inputs(self) -> bool:
        """Whether the fingerprints of the inputs are known."""
        return self.model != ELSEWHERE[1]

    def differences(self, other: Origin) -> list[str]:
        """Names of the fields in which two origins differ; whether the models do is for `runs.model_check` to say."""
        names = [field.name for field in fields(self) if field.name not in ("model", "details")]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, eq=False, repr=False)
class VoteCounts(Records):
    """The number of votes of the base model for each class under noise, for each input.

    Parameters
    ----------
    selection, estimation : ndarray of int64, shape (n_inputs, n_classes)
        The votes of the two stages of Algorithm 1 [1]_, at least one per input; columns follow ``classes_``.
    inputs : ndarray of uint8, shape (n_inputs, 16)
        The fingerprint of each input.
    origin : Origin
        The noise, box, seed and model of the votes.

    Raises
    ------
    ValueError
        If counts are not whole numbers of at least 0, their shapes differ, or an input has no votes.

    See Also
    --------
    SmoothedClassifier.count_votes : Draw votes.
    recertify : Turn votes into certificates without a model.
    SmoothedClassifier.certify : Turn votes into certificates, ``clf.certify(X, votes=votes)``.

    References
    ----------
    .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019.

    Examples
    --------
    >>> import numpy as np
    >>> origin = Origin("SplitNoise()", "box", 0, "model", "[0, 1]", (4,))
    >>> votes = VoteCounts(np.array([[9, 1]]), np.array([[80, 20]]), np.zeros((1, 16), dtype=np.uint8), origin)
    >>> votes.selected, votes.n_samples
    (array([0]), 100)
    """

    selection: NDArray[np.int64]
    estimation: NDArray[np.int64]
    inputs: NDArray[Any]
    origin: Origin

    def __post_init__(self) -> None:
        for name, counts in check_counts(self.selection, self.estimation).items():
            object.__setattr__(self, name, counts)
        if len(self.inputs) != len(self.selection):
            raise ValueError(
                f"inputs must hold a row for each of {len(self.selection)} inputs, got {len(self.inputs)}."
            )
        super().__post_init__()

    def __repr__(self) -> str:
        if not len(self):
            return f"VoteCounts(0 inputs, {self.selection.shape[1]} classes, {self.origin.noise})"
        most = int(self.selection.sum(axis=1).max())
        return (
            f"VoteCounts({len(self)} inputs, {self.selection.shape[1]} classes, up to {most} selection and "
            f"{self.n_samples} estimation votes each, {self.origin.noise})"
        )

    @classmethod
    def from_counts(
        cls,
        selection: ArrayLike,
        estimation: ArrayLike,
        *,
        noise: Any,
        classes: ArrayLike,
        X: Any = None,
        n_features: int | None = None,
        bounds: Any = (0.0, 1.0),
        costs: Any = 1.0,
    ) -> VoteCounts:
        """Make votes of counts from elsewhere, such as published ones. Nothing about them can be checked.

        Parameters
        ----------
        selection : array-like of shape (n_inputs, n_classes) or (n_inputs,)
            The votes that chose the class of each input, or the chosen classes. They must not depend on ``estimation``,
            unless noise is deterministic.
        estimation : array-like of int, shape (n_inputs, n_classes)
            The votes that bound probabilities, in the order of ``classes``.
        noise : str or Noise
            The noise of the votes, with its parameters.
        classes : array-like of shape (n_classes,)
            Labels.
        X : array-like of shape (n_inputs, ...), optional
            The inputs, in raw units.
        n_features : int, optional
            The number of features of an input, in place of X.
        bounds : (lo, hi) or dict, default=(0.0, 1.0)
            The box, as in `SmoothedClassifier`.
        costs : float, "fixed", array-like, dict or pandas Series, default=1.0
            The costs of the features, as in `SmoothedClassifier`.

        Returns
        -------
        votes : VoteCounts

        Raises
        ------
        ValueError
            If counts or another argument are invalid.

        See Also
        --------
        recertify : Make certificates of them.

        Examples
        --------
        >>> votes = VoteCounts.from_counts(
        ...     ["cat", "dog"], [[990, 10], [400, 600]], noise="split", classes=["cat", "dog"], n_features=784)
        >>> votes.selected, votes.origin.model
        (array([0, 1]), 'elsewhere, inputs unknown')
        """
        given = {"noise": noise, "classes": classes, "X": X, "n_features": n_features, "bounds": bounds, "costs": costs}
        return made_anew("votes_from_counts", selection, estimation, **given)

    @classmethod
    def from_store(cls, path: Any) -> VoteCounts:
        """Read the votes of a finished run, for ``clf.certify(X, votes=...)``.

        Parameters
        ----------
        path : str or path-like
            A store, written by ``clf.certify(X, store=path)``.

        Returns
        -------
        votes : VoteCounts

        Raises
        ------
        ValueError
            If the file is not a sound store, the run is unfinished, some inputs failed or have exact probabilities in
            place of votes, or drawing stopped early (``rtol`` or `certify_at`), because bounds for a fixed number of
            votes would then be wrong.

        See Also
        --------
        Certificates.from_store : Make certificates from a store.
        """
        return made_anew("votes_from_store", path)

    @staticmethod
    def _to_json(scalars: dict[str, Any]) -> dict[str, Any]:
        return {"origin": asdict(scalars["origin"])}

    @staticmethod
    def _from_json(scalars: dict[str, Any]) -> dict[str, Any]:
        origin = scalars["origin"]
        return {"origin": Origin(**(origin | {"shape": tuple(origin["shape"])}))}

    def check_same(self, origin: Origin, inputs: NDArray[np.uint8]) -> None:
        """Raise a ValueError unless the votes have this origin, and their inputs these fingerprints."""
        differences = self.origin.differences(origin)
        if len(self) != len(inputs) or (self.origin.knows_inputs and not np.array_equal(self.inputs, inputs)):
            differences.append("X")
        if differences:
            raise ValueError(
                f"votes were drawn with a different {', '.join(differences)}. Draw new ones: votes=clf.count_votes(X)."
            )

    @property
    def selected(self) -> NDArray[np.intp]:
        """The index of the class with most selection votes; ties go to the lower index."""
        return self.selection.argmax(axis=1)

    @property
    def n_samples(self) -> int:
        """The smallest number of estimation votes of an input."""
        return int(self.estimation.sum(axis=1).min())


def check_counts(selection: Any, estimation: Any, n_classes: int | None = None) -> dict[str, NDArray[np.int64]]:
    """Return counts of votes by name, or raise a ValueError unless they are whole numbers, one row for each input.

    Parameters
    ----------
    selection, estimation : array-like of shape (n_inputs, n_classes)
    n_classes : int, optional
        The number of columns; that of ``selection`` by default.
    """
    named = {"selection": np.asarray(selection), "estimation": np.asarray(estimation)}
    n_inputs = len(named["selection"]) if named["selection"].ndim else 0
    for name, counts in named.items():
        n_classes = n_classes or (counts.shape[1] if counts.ndim == 2 else 1)
        if counts.shape != (n_inputs, n_classes) or counts.dtype.kind not in "iuf":
            raise ValueError(
                f"{name} must hold counts of shape ({n_inputs}, {n_classes}), one row for each input and one column "
                f"for each class, got {counts.dtype} of shape {counts.shape}."
            )
        wrong = ~((counts >= 0) & (counts <= LARGEST_COUNT) & (counts == np.floor(counts)))
        if wrong.any():
            raise ValueError(f"{name} must hold whole numbers of at least 0, got {counts[wrong][0]!r}.")
        # int64 would wrap around.
        n_votes = counts.sum(axis=1, dtype=np.float64)
        if (n_votes > LARGEST_COUNT).any():
            raise ValueError(f"{name} must hold no more than 2**53 votes for each input, got {n_votes.max():g}.")
        if not n_votes.all():
            raise ValueError(f"{name} must hold at least one vote for each input, got none in row {n_votes.argmin()}.")
    return {name: counts.astype(np.int64, copy=False) for name, counts in named.items()}
