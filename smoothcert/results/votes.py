"""Vote counts, and what they depend on. Frozen, and indifferent to their making."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .records import Rows


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
        """Names of the fields in which two origins differ; whether the models do is for `runs.replay` to say."""
        names = [field.name for field in fields(self) if field.name != "model"]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, eq=False, repr=False)
class VoteCounts(Rows):
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
        if not len(self):
            return f"VoteCounts(0 inputs, {self.selection.shape[1]} classes, {self.origin.noise})"
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
