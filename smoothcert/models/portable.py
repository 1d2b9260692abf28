"""Torch models off the CPU in pickles that load on machines without their device."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from sklearn.frozen import FrozenEstimator

from .base import is_module, is_net, is_torch, unwrap


class Portable:
    """A torch model whose pickle loads on machines that lack its device: there it is loaded to the CPU."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        import torch

        content = io.BytesIO()
        torch.save(self.model, content)
        return _load_model, (content.getvalue(),)


def _load_model(content: bytes) -> Any:
    """Load a torch model to the device that it was on, or to the CPU where there is no such device."""
    import torch

    try:
        return torch.load(io.BytesIO(content), weights_only=False)
    except RuntimeError:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a classifier with torch models that are off the CPU made portable."""
    return _replace_models(state, lambda model: Portable(model) if is_torch(model) and on_accelerator(model) else model)


def restored(state: dict[str, Any]) -> dict[str, Any]:
    """Return a classifier's state as it was before `portable`; copies that are not pickled need it."""
    return _replace_models(state, lambda model: model.model if isinstance(model, Portable) else model)


def _replace_models(state: dict[str, Any], replace: Callable[[Any], Any]) -> dict[str, Any]:
    """Replace the models of a classifier's state, also inside FrozenEstimator; what was one object stays one."""
    made: dict[int, Any] = {}
    for name in ("estimator", "estimator_"):
        value = state.get(name)
        model = unwrap(value)
        found = replace(model)
        if found is not model:
            frozen = isinstance(value, FrozenEstimator)
            state = state | {name: made.setdefault(id(value), FrozenEstimator(found) if frozen else found)}
    return state


def on_accelerator(model: Any) -> bool:
    """Tell whether a torch module, or what a skorch net was given or has fitted, has tensors off the CPU."""
    given = getattr(model, "module", None)
    parts = (
        [model, getattr(model, "module_", None), given, getattr(given, "module", None)] if is_net(model) else [model]
    )
    tensors = [tensor for part in parts if is_module(part) for tensor in (*part.parameters(), *part.buffers())]
    return any(tensor.device.type != "cpu" for tensor in tensors)
