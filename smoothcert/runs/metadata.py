"""What a run is, as numbers and text: everything that its certificates depend on besides the inputs."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from .._utils.text import describe, name_of
from ..certify.names import STRATEGIES
from ..noise.box import Box
from ..noise.seeding import resolve_seed
from ..results.votes import Origin

#: Libraries whose versions are recorded, where they are loaded.
LIBRARIES = ("smoothcert", "numpy", "scipy", "sklearn", "numba", "torch", "skorch", "joblib")


@dataclass(frozen=True, kw_only=True, eq=False)
class RunMetadata:
    """One run.

    Parameters
    ----------
    n_inputs : int
    seed : int or None
        None where any will do.
    model : str
        Fingerprint.
    noise : dict
        From `to_spec`.
    box : Box
    classes : ndarray of shape (n_classes,)
    shape : tuple of int
        Of one input.
    parameters : dict
        What else certificates depend on: ``n_selection``, ``n_samples``, ``rtol``, ``scheme``, ``bound``, ``alpha``
        and ``radius``, the last from `to_spec`.
    created : str
    versions : dict
        Of libraries, Python and the platform.
    """

    n_inputs: int
    seed: int | None
    model: str
    noise: dict[str, Any]
    box: Box
    classes: NDArray[Any]
    shape: tuple[int, ...]
    parameters: dict[str, Any]
    created: str
    versions: dict[str, str]

    @classmethod
    def new(cls, **values: Any) -> Self:
        """Return the record of a run that starts now."""
        versions = {name: str(sys.modules[name].__version__) for name in LIBRARIES if name in sys.modules}
        versions |= {"python": platform.python_version(), "platform": platform.platform()}
        return cls(created=datetime.now(UTC).isoformat(timespec="seconds"), versions=versions, **values)

    def with_seed(self) -> Self:
        """Return the record with a fresh seed where it has none."""
        return self if self.seed is not None else replace(self, seed=resolve_seed(None))

    def origin(self) -> Origin:
        """Return what the votes depend on."""
        return Origin(
            noise=self.noise["text"],
            box=self.box.fingerprint(),
            seed=int(self.seed or 0),
            model=self.model,
            classes=repr(self.classes.tolist()),
            shape=self.shape,
        )

    def differences(self, other: RunMetadata) -> list[str]:
        """Describe what differs in another record: name, value here, value there."""
        mine, theirs = self._compared(), other._compared()
        if other.seed is None:
            theirs["random_state"] = mine["random_state"]
        return [f"{name}: {_short(mine[name])}, {_short(theirs[name])}" for name in mine if mine[name] != theirs[name]]

    def _compared(self) -> dict[str, str]:
        own = self.parameters.items()
        return {name: value["text"] if isinstance(value, dict) else repr(value) for name, value in own} | {
            "noise": self.noise["text"],
            "bounds": f"box {self.box.fingerprint()}",
            "random_state": f"seed {self.seed}",
            "classes": repr(self.classes.tolist()),
            "shape of X": repr((self.n_inputs, *self.shape)),
            "smoothcert": self.versions["smoothcert"],
        }

    def to_row(self) -> tuple[Any, ...]:
        """Return numbers and text, in the order of the store's columns."""
        dtype, values = self.classes.dtype, self.classes.tolist()
        if not all(isinstance(value, (int, float, str)) for value in values):
            raise ValueError(f"classes must be numbers, strings or booleans to be stored, got {values!r}.")
        box = {"lo": self.box.lo.tolist(), "hi": self.box.hi.tolist()}
        classes = {"dtype": "object" if dtype.kind == "O" else dtype.str, "values": values}
        plain = (self.noise, box, classes, self.shape, self.parameters, self.versions)
        return (self.created, self.n_inputs, str(self.seed), self.model, *map(json.dumps, plain))

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """Return the record that `to_row` took apart."""
        created, n_inputs, seed, model, *texts = row
        noise, box, classes, shape, parameters, versions = map(json.loads, texts)
        return cls(
            created=created,
            n_inputs=n_inputs,
            seed=int(seed),
            model=model,
            noise=noise,
            box=Box(*(np.array(box[end], dtype=np.float64) for end in ("lo", "hi"))),
            classes=np.array(classes["values"], dtype=np.dtype(classes["dtype"])),
            shape=tuple(shape),
            parameters=parameters,
            versions=versions,
        )


def to_spec(strategy: BaseEstimator) -> dict[str, Any]:
    """Return a noise or radius strategy as JSON: its class, its parameters and how it shows itself.

    Examples
    --------
    >>> from smoothcert import SplitNoise
    >>> to_spec(SplitNoise(lam=2.0))
    {'class': 'SplitNoise', 'parameters': {'lam': 2.0, 'levels': 'auto'}, 'text': "SplitNoise(lam=2.0, levels='auto')"}
    """
    parameters = {name: _encode(value) for name, value in strategy.get_params(deep=False).items()}
    return {"class": name_of(strategy), "parameters": parameters, "text": describe(strategy)}


def from_spec(argument: str, spec: dict[str, Any]) -> Any:
    """Return the strategy that `to_spec` described, or raise a ValueError if it is none of this library's."""
    known = {strategy.__name__: strategy for strategy in STRATEGIES[argument][1].values()}
    if spec["class"] not in known:
        raise ValueError(
            f"{argument}={spec['text']} is not one of smoothcert's own, so it cannot be rebuilt from a store. Use "
            f"clf.certify(X, votes=VoteCounts.from_store(path))."
        )
    return known[spec["class"]](**{name: _decode(value) for name, value in spec["parameters"].items()})


def _encode(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    if isinstance(value, tuple):
        return {"tuple": [_encode(part) for part in value]}
    if isinstance(value, list):
        return [_encode(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else {"text": repr(value)}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.array(value["array"])
    if "tuple" in value:
        return tuple(_decode(part) for part in value["tuple"])
    raise ValueError(f"The parameter {value['text']} cannot be rebuilt from a store.")


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
