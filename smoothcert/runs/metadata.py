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

from .._utils.checks import check_labels
from .._utils.text import describe, exact, qualified_name
from ..certify.algorithm import Algorithm
from ..certify.names import STRATEGIES
from ..certify.quantiles import QuantileAlgorithm
from ..noise.box import Box
from ..noise.mechanism import NoiseMechanism
from ..noise.seeding import resolve_seed
from ..noise.threat import Features
from ..results.votes import Origin
from ..sampling.exact_sampler import ExactSampler, Source
from .inputs import Inputs, shard_positions

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
    features : Features
    parameters : dict
        What else certificates depend on: ``n_selection``, ``n_samples``, ``estimation``, ``rtol``, ``scheme``,
        ``bound``, ``alpha`` and ``radius``, the last from `to_spec`; of a regressor ``estimation="values"`` and
        ``quantile`` in place of ``rtol``, ``scheme`` and ``bound``.
    created : str
        The time, in ISO format.
    versions : dict
        Of libraries, Python and the platform.
    shard : tuple of int, optional
        The part (i, n) of the inputs that is run; see `shard_positions`.
    decided_at : float or list of float, optional
        The radii of `certify_at`; None for `certify`.
    """

    n_inputs: int
    seed: int | None
    model: str
    noise: dict[str, Any]
    box: Box
    classes: NDArray[Any]
    shape: tuple[int, ...]
    features: Features
    parameters: dict[str, Any]
    created: str
    versions: dict[str, str]
    shard: tuple[int, int] | None = None
    decided_at: float | list[float] | None = None

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        algorithm: Algorithm | QuantileAlgorithm,
        sampler: Source,
        *,
        fixed_seed: bool,
        decided_at: Any = None,
    ) -> Self:
        """Return the record of a run of an algorithm that starts now; its seed is kept only if it is fixed."""
        versions = {name: str(sys.modules[name].__version__) for name in LIBRARIES if name in sys.modules}
        versions |= {"python": platform.python_version(), "platform": platform.platform()}
        n_selection = sampler.n_selection or algorithm.n_selection
        parameters: dict[str, Any] = {"n_selection": int(n_selection), "n_samples": int(algorithm.n_samples)}
        parameters["alpha"] = float(algorithm.alpha)
        if isinstance(algorithm, QuantileAlgorithm):
            classes, estimation = np.empty(0), "values"
            parameters["quantile"] = float(algorithm.quantile)
        else:
            classes, estimation = algorithm.classes, "exact" if isinstance(sampler, ExactSampler) else "sample"
            parameters |= {name: getattr(algorithm, name) for name in ("scheme", "bound")}
            rtol = algorithm.rtol if algorithm.stops and decided_at is None else None
            parameters["rtol"] = None if rtol is None else float(rtol)
        return cls(
            n_inputs=len(inputs),
            seed=sampler.seed if fixed_seed else None,
            model=sampler.voter.content(),
            noise=to_spec(algorithm.mechanism.noise),
            box=algorithm.mechanism.box,
            classes=classes,
            shape=inputs.shape,
            features=algorithm.mechanism.features,
            parameters=parameters | {"estimation": estimation, "radius": to_spec(algorithm.strategy)},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions,
            shard=inputs.shard,
            decided_at=decided_at,
        )

    @property
    def positions(self) -> NDArray[np.intp]:
        """The positions in X of the inputs that are run."""
        return shard_positions(self.n_inputs, self.shard)

    @property
    def holds_numbers(self) -> bool:
        """Whether it is a run of a regressor, whose votes are numbers."""
        return bool(self.parameters["estimation"] == "values")

    @property
    def reader(self) -> str:
        """What reads the results of the run from its store."""
        if self.holds_numbers:
            return "Intervals.from_store(path, radius) or ToleranceRadii.from_store(path, tolerance)"
        return "Certificates.from_store(path)" if self.decided_at is None else "Decisions.from_store(path)"

    def check_holds(self, what: str, path: Any = "The store") -> None:
        """Raise a ValueError unless it is a run with votes for "labels", or those that are "numbers"."""
        if self.holds_numbers != (what == "numbers"):
            kind = "regressor, whose votes are numbers" if self.holds_numbers else "classifier, whose votes are labels"
            raise ValueError(f"{path} holds a run of a {kind}. Use {self.reader} or verify_store in Python.")

    def check_labels(self, y: Any) -> list[Any]:
        """Return true labels as a list, or raise a ValueError unless there is a fitting one for each input."""
        self.check_holds("labels")
        return check_stored_labels(check_labels(y, self.n_inputs, self.classes))

    def with_seed(self) -> Self:
        """Return the record with a fresh seed where it has none."""
        return self if self.seed is not None else replace(self, seed=resolve_seed(None))

    def origin(self) -> Origin:
        """Return what the votes depend on."""
        return make_origin(
            self.noise, self.box, self.features, self.classes, seed=self.seed or 0, model=self.model, shape=self.shape
        )

    def differences(self, other: RunMetadata) -> list[str]:
        """Describe what differs in another record: name, value here, value there."""
        mine, theirs = self._compared(), other._compared()
        if other.seed is None:
            theirs["random_state"] = mine["random_state"]
        if self.features.names is None or other.features.names is None:
            theirs["columns"] = mine["columns"]
        pairs = [(name, mine.get(name, "none"), theirs.get(name, "none")) for name in mine | theirs]
        return [_difference(name, here, there) for name, here, there in pairs if repr(here) != repr(there)]

    def _compared(self) -> dict[str, Any]:
        """Return what is compared, by name: strategies as `to_spec` returns them, and everything else as text."""
        given = {name: value if isinstance(value, dict) else repr(value) for name, value in self.parameters.items()}
        return given | {
            "noise": self.noise,
            "bounds": f"box {self.box.fingerprint()}",
            "costs": f"costs {self.features.fingerprint()}",
            "columns": repr(self.features.names),
            "random_state": f"seed {self.seed}",
            "classes": repr(self.classes.tolist()),
            "shape of X": repr((self.n_inputs, *self.shape)),
            "shard": repr(self.shard),
            "radius of certify_at": repr(self.decided_at),
            "smoothcert": self.versions["smoothcert"],
        }

    def to_row(self) -> tuple[Any, ...]:
        """Return numbers and text, in the order of the store's columns."""
        classes = _encode_classes(self.classes)
        if classes is None:
            values = self.classes.tolist()
            raise ValueError(f"classes must be numbers, strings or booleans to be stored, got {values!r}.")
        box, kind = _encode_box(self.box, self.features, self.noise), (self.shard, self.decided_at)
        plain = (self.noise, box, classes, self.shape, self.parameters, self.versions, *kind)
        return (self.created, self.n_inputs, str(self.seed), self.model, *map(json.dumps, plain))

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """Return the record that `to_row` took apart."""
        created, n_inputs, seed, model, *texts = row
        noise, box, classes, shape, parameters, versions, shard, decided_at = map(json.loads, texts)
        return cls(
            created=created,
            n_inputs=n_inputs,
            seed=int(seed),
            model=model,
            noise=noise,
            box=_decode_box(box),
            classes=_decode_classes(classes),
            shape=tuple(shape),
            features=Features.from_json(box.get("features")),
            # Stores of earlier versions hold votes.
            parameters={"estimation": "sample"} | parameters,
            versions=versions,
            shard=None if shard is None else tuple(shard),
            decided_at=decided_at,
        )


def make_origin(
    noise: dict[str, Any],
    box: Box,
    features: Features,
    classes: NDArray[Any],
    *,
    seed: int,
    model: str,
    shape: tuple[int, ...],
) -> Origin:
    """Return what votes depend on besides the inputs; ``noise`` is from `to_spec`."""
    return Origin(
        noise=noise["text"],
        box=box.fingerprint(),
        seed=int(seed),
        model=model,
        classes=repr(classes.tolist()),
        shape=shape,
        costs=features.fingerprint(),
        details={"noise": noise, "box": _encode_box(box, features, noise), "classes": _encode_classes(classes)},
    )


def origin_of(mechanism: NoiseMechanism, classes: NDArray[Any], *, seed: int, model: str) -> Origin:
    """Return what votes under a noise mechanism depend on besides the inputs."""
    parts = (to_spec(mechanism.noise), mechanism.box, mechanism.features, classes)
    return make_origin(*parts, seed=seed, model=model, shape=mechanism.shape)


def from_origin(origin: Origin) -> tuple[NoiseMechanism, NDArray[Any]]:
    """Return the noise mechanism and the classes of votes, or raise a ValueError if they cannot be built anew."""
    details = origin.details
    if details is None or details["classes"] is None:
        raise ValueError(
            "votes do not hold what certificates need: a file of an earlier version, or classes that are neither "
            "numbers nor strings nor booleans. Use clf.certify(X, votes=votes)."
        )
    noise, box = from_spec("noise", details["noise"]), _decode_box(details["box"])
    features = Features.from_json(details["box"].get("features"))
    return NoiseMechanism(box, noise, origin.shape, features), _decode_classes(details["classes"])


def to_spec(strategy: BaseEstimator) -> dict[str, Any]:
    """Return a noise or radius strategy as JSON: its class, its parameters and how it shows itself.

    Examples
    --------
    >>> from smoothcert import SplitNoise
    >>> to_spec(SplitNoise(lam=2.0))
    {'class': 'SplitNoise', 'parameters': {'lam': 2.0, 'levels': 'auto'}, 'text': "SplitNoise(lam=2.0, levels='auto')"}
    """
    parameters = {name: _encode(value) for name, value in strategy.get_params(deep=False).items()}
    return {"class": qualified_name(strategy), "parameters": parameters, "text": describe(strategy)}


def from_spec(argument: str, spec: dict[str, Any]) -> Any:
    """Return the strategy that `to_spec` described, or raise a ValueError if it is none of this library's."""
    known = {strategy.__name__: strategy for strategy in STRATEGIES[argument][1].values()}
    if spec["class"] not in known:
        raise ValueError(
            f"{argument}={spec['text']} is not one of smoothcert's own, so it cannot be built anew from votes or a "
            f"store. In Python, use the estimator itself: verify_store(path, estimator, X); reg.certify(X, radius, "
            f"store=path); or clf.certify(X, votes=votes), with VoteCounts.from_store(path) for a store."
        )
    found = known[spec["class"]](**{name: _decode(value) for name, value in spec["parameters"].items()})
    if describe(found) != spec["text"]:
        raise ValueError(
            f"{argument} is {spec['text']}, but its parameters are those of {describe(found)}: the record was changed."
        )
    return found


def _encode_box(box: Box, features: Features, noise: dict[str, Any]) -> dict[str, Any]:
    """Return the box as JSON, with the features where certificates depend on them or name their columns."""
    ends = {"lo": box.lo.tolist(), "hi": box.hi.tolist()}
    by_column = isinstance(noise["parameters"].get("levels"), dict)
    return ends if features.is_plain and not by_column else ends | {"features": features.to_json()}


def _decode_box(ends: dict[str, Any]) -> Box:
    return Box(np.array(ends["lo"], dtype=np.float64), np.array(ends["hi"], dtype=np.float64))


def _encode_classes(classes: NDArray[Any]) -> dict[str, Any] | None:
    """Return classes as JSON; None where JSON would change them."""
    values = classes.tolist()
    dtype = "object" if classes.dtype.kind == "O" else classes.dtype.str
    return {"dtype": dtype, "values": values} if _same_in_json(values) else None


def check_stored_labels(labels: NDArray[Any]) -> list[Any]:
    """Return true labels as a list, or raise a ValueError if a store would not give them back."""
    values: list[Any] = labels.tolist()
    if labels.dtype.kind in "mM" or not _same_in_json(values):
        raise ValueError(f"y must hold numbers, strings or booleans to be stored, got {labels.dtype} {values[:3]!r}.")
    return values


def _same_in_json(values: list[Any]) -> bool:
    try:
        return bool(json.loads(json.dumps(values)) == values)
    except TypeError:
        return False


def _decode_classes(classes: dict[str, Any]) -> NDArray[Any]:
    return np.array(classes["values"], dtype=np.dtype(classes["dtype"]))


def _encode(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    if isinstance(value, tuple):
        return {"tuple": [_encode(part) for part in value]}
    if isinstance(value, list):
        return [_encode(part) for part in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else {"text": exact(value)}


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


def _difference(name: str, here: Any, there: Any) -> str:
    """Describe what differs. The text of a strategy tells its parameters, unless somebody has changed either."""
    if isinstance(here, dict) and isinstance(there, dict):
        if here.get("text") == there.get("text"):
            name = f"parameters of {name}"
        else:
            here, there = here.get("text"), there.get("text")
    return f"{name}: {_short(str(here))}, {_short(str(there))}"


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
