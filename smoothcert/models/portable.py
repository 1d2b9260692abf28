"""Pickles of torch models on accelerators that load on machines without one."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from sklearn.frozen import FrozenEstimator

from .base import is_module, is_net, is_torch, unwrap


class Portable:
    """A torch model whose pickle loads to the CPU on machines without its device."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        import torch

        content = io.BytesIO()
        torch.save(self.model, content)
        return _load_model, (content.getvalue(),)


def _load_model(content: bytes) -> Any:
    """Load a torch model to the device that it was on, or to the CPU if there is no such device."""
    import torch

    try:
        return torch.load(io.BytesIO(content), weights_only=False)
    except RuntimeError:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a classifier in which torch models on accelerators are portable."""
    return _replace_models(state, lambda model: Portable(model) if is_torch(model) and on_accelerator(model) else model)


def restored(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a classifier as it was before `portable`, for copies that are not pickled."""
    return _replace_models(state, lambda model: model.model if isinstance(model, Portable) else model)


def _replace_models(state: dict[str, Any], replace: Callable[[Any], Any]) -> dict[str, Any]:
    """Replace the models in the state of a classifier, even inside FrozenEstimator; one object stays one object."""
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
    """Tell whether a torch module, or any module of a skorch net, has tensors on an accelerator."""
    given = getattr(model, "module", None)
    parts = (
        [model, getattr(model, "module_", None), given, getattr(given, "module", None)] if is_net(model) else [model]
    )
    tensors = [tensor for part in parts if is_module(part) for tensor in (*part.parameters(), *part.buffers())]
    return any(tensor.device.type != "cpu" for tensor in tensors)
