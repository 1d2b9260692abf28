"""Vote counts, and the origin that they depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .records import Records


@dataclass(frozen=True)
class Origin:
    """Everything that votes depend on besides the input; votes may be used only where all of it is the same.

    Parameters
    ----------
    noise, box, model, classes : str
        Fingerprints.
    seed : int
    shape : tuple of int
        The shape of one input.

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

    def differences(self, other: Origin) -> list[str]:
        """Names of the fields in which two origins differ; whether the models do is for `runs.replay` to say."""
        names = [field.name for field in fields(self) if field.name != "model"]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, eq=False, repr=False)
class VoteCounts(Records):
    """The number of votes of the base model for each class under noise, for each input.

    Parameters
    ----------
    selection, estimation : ndarray of int64, shape (n_inputs, n_classes)
        The votes of the two stages of Algorithm 1 [1]_; columns follow ``classes_``.
    inputs : ndarray of uint8, shape (n_inputs, 16)
        The fingerprint of each input.
    origin : Origin
        The noise, box, seed and model of the votes.

    See Also
    --------
    SmoothedClassifier.count_votes : Draw votes.
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

    def __repr__(self) -> str:
        if not len(self):
            return f"VoteCounts(0 inputs, {self.selection.shape[1]} classes, {self.origin.noise})"
        most = int(self.selection.sum(axis=1).max())
        return (
            f"VoteCounts({len(self)} inputs, {self.selection.shape[1]} classes, up to {most} selection and "
            f"{self.n_samples} estimation votes each, {self.origin.noise})"
        )

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
            If the file is not a sound store, the run is unfinished, or sampling stopped early (``rtol``), because
            bounds for a fixed number of votes would then be wrong.

        See Also
        --------
        Certificates.from_store : Make certificates from a store.
        """
        from ..runs.recertify import votes_from_store

        return votes_from_store(path)

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
        if not np.array_equal(self.inputs, inputs):
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
