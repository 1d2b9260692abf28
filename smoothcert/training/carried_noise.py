"""The noise, the box and the costs that a trained torch module carries, in a `NoisyModule` anywhere inside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.text import describe
from ..models.base import is_module
from ..noise.box import Box
from ..noise.threat import Features


def noisy_modules(module: Any) -> list[Any]:
    """Return all `NoisyModule` in a torch module: itself, or parts of it, as in ``DataParallel(NoisyModule(...))``."""
    return [part for part in module.modules() if getattr(part, "carries_noise", False)]


def carried(
    model: Any, noise: Any, bounds: Any, costs: Any = None, shape: tuple[int, ...] | None = None
) -> tuple[Any, Any, Any]:
    """Return the noise, the bounds and the costs for a trained model, which a `NoisyModule` in it carries.

    Parameters
    ----------
    model : torch.nn.Module, skorch net or any other model
        Only the first two can carry noise.
    noise : Noise or None
        None takes the module's, if it has one.
    bounds : (lo, hi), Box or None
    costs : float, "fixed", array-like, Features or None
        As for ``noise``.
    shape : tuple of int, optional
        Shape of one input.

    Returns
    -------
    noise, bounds, costs
        None for what neither the model nor the caller has.

    Raises
    ------
    ValueError
        If the model was trained with other noise, in another box, or at other costs, or no longer knows them.
    """
    module = getattr(model, "module_", model)
    if not is_module(module):
        return noise, bounds, costs
    remedy = (
        "from_pretrained takes the module's if you give none. For another, set the attribute of the NoisyModule, or "
        "fit the network inside it, NoisyModule.module."
    )
    for part in noisy_modules(module):
        box, own = part.box, _costs(part.costs, shape)
        if noise is not None and describe(noise.for_columns(None)) != describe(part.noise.for_columns(None)):
            raise ValueError(f"noise must be that of the NoisyModule, {describe(part.noise)}, got {noise!r}. {remedy}")
        given = box if bounds is None else box_of(bounds)
        if not all(map(_equal, _ends(given, own, shape), _ends(box, own, shape))):
            raise ValueError(f"bounds must be those of the NoisyModule, ({box.lo}, {box.hi}), got {bounds!r}. {remedy}")
        if costs is not None and not _equal(_costs(costs, shape), own):
            raise ValueError(f"costs must be those of the NoisyModule, {part.costs!r}, got {costs!r}. {remedy}")
        noise, bounds, costs = part.noise, (box.lo, box.hi), part.costs
    compiled = any(getattr(part, "original_name", "") == "NoisyModule" for part in module.modules())
    if compiled and (noise is None or bounds is None):
        raise ValueError("noise and bounds must be given: TorchScript does not keep those of a NoisyModule.")
    return noise, bounds, costs


def box_of(bounds: Any) -> Box:
    """Return a box that is given as such, or by its bounds."""
    return bounds if isinstance(bounds, Box) else Box.from_bounds(bounds)


def _costs(costs: Any, shape: tuple[int, ...] | None) -> NDArray[np.float64]:
    return (costs if isinstance(costs, Features) else Features.from_costs(costs, shape=shape)).costs


def _ends(box: Box, costs: NDArray[np.float64], shape: tuple[int, ...] | None) -> list[NDArray[np.float64]]:
    """Return the ends of a box; 0 for features that cannot change, whose ends say nothing."""
    ends = [box.lo, box.hi]
    if shape is None or np.isfinite(costs).all():
        return ends
    return [np.where(np.isfinite(costs), np.broadcast_to(end, shape).ravel(), 0.0) for end in ends]


def _equal(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Tell whether arrays are equal, flat or where they broadcast to one shape."""
    if first.size == second.size:
        return np.array_equal(first.ravel(), second.ravel())
    try:
        return bool(np.equal(first, second).all())
    except ValueError:
        return False
