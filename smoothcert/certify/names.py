"""The table of names: what strings stand for the strategies of `SmoothedClassifier`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.base import BaseEstimator, clone

from ..noise.base import Noise
from ..noise.deterministic import DeterministicSplitNoise
from ..noise.gaussian import GaussianNoise, LaplaceNoise
from ..noise.lattice import SplitNoise, UniformNoise
from ..noise.mixture import UniformMixtureNoise
from ..sampling.scores import APSScore, ConformityScore, LACScore
from ..training.strategies import CleanTraining, NoiseAugmentation, StabilityTraining, Training
from .radius import BoxRadius, GreedyRadius, LipschitzRadius
from .strategy import RadiusStrategy

STRATEGIES: dict[str, tuple[type[BaseEstimator], dict[str | None, type[BaseEstimator]]]] = {
    "noise": (
        Noise,
        {
            "split": SplitNoise,
            "deterministic-split": DeterministicSplitNoise,
            "uniform": UniformNoise,
            "gaussian": GaussianNoise,
            "laplace": LaplaceNoise,
            "uniform-mixture": UniformMixtureNoise,
        },
    ),
    "radius": (
        RadiusStrategy,
        {"auto": GreedyRadius, "lipschitz": LipschitzRadius, "box": BoxRadius, "greedy": GreedyRadius},
    ),
    "conformity_score": (ConformityScore, {"lac": LACScore, "aps": APSScore}),
    "training": (Training, {"augment": NoiseAugmentation, "stability": StabilityTraining, None: CleanTraining}),
}

#: Where ``radius`` is a number, another parameter holds the strategy.
STRATEGIES["strategy"] = STRATEGIES["radius"]


def resolve(argument: str, value: Any) -> Any:
    """Return a fresh strategy for an argument's value: built from its name, or cloned from the caller's object.

    Parameters
    ----------
    argument : {"noise", "radius", "strategy", "training", "conformity_score"}
    value : str, None or strategy

    Raises
    ------
    ValueError
        If the value is neither a known name nor a strategy of the right kind; the message lists the names.

    Examples
    --------
    >>> resolve("noise", "split")
    SplitNoise()
    """
    base, table = STRATEGIES[argument]
    if isinstance(value, base):
        return clone(value)
    if (value is None or isinstance(value, str)) and value in table:
        return table[value]()
    names = ", ".join(map(repr, table))
    hint = f" Pass an instance: {value.__name__}()." if isinstance(value, type) and issubclass(value, base) else ""
    raise ValueError(f"{argument} must be one of {names}, or a {base.__name__} object, got {value!r}.{hint}")


def resolve_radius(value: Any, noise: Noise, names: Sequence[str] | None = None) -> RadiusStrategy:
    """Return the strategy for an argument's value, checked against the noise; "auto" is the tightest that is valid.

    Parameters
    ----------
    value : str or RadiusStrategy
    noise : Noise
    names : sequence of str, optional
        The columns, for limits that go by column name.

    Raises
    ------
    ValueError
        If the value is no strategy, or has no certificate for the noise.
    """
    is_auto = isinstance(value, str) and value == "auto"
    strategy: RadiusStrategy = resolve("radius", value if not is_auto or noise.uses_box else "lipschitz")
    if isinstance(strategy, GreedyRadius):
        strategy = strategy.for_columns(names)
    strategy.check(noise)
    return strategy
