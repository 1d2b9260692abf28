"""What pickle, joblib and skops do not bring: files for machines without the GPU, and weights without pickle."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.frozen import FrozenEstimator

from .box import Box
from .resolve import STRATEGIES
from .voters import is_module, is_net, is_torch, unwrap

if TYPE_CHECKING:
    from .classifier import SmoothedClassifier

#: Key of the record in a safetensors file.
RECORD = "smoothcert"


def trusted_types() -> list[str]:
    """Return the names of this library's types that a saved classifier may hold, for ``skops.io.load(trusted=...)``.

    None of them runs code when it is loaded. What ``skops.io.get_untrusted_types`` lists besides is of other libraries,
    and yours to judge.

    Returns
    -------
    names : list of str

    Examples
    --------
    >>> "smoothcert.classifier.SmoothedClassifier" in trusted_types()
    True
    """
    from .classifier import SmoothedClassifier
    from .frames import Columns
    from .inference import TorchInference
    from .pipeline import Pipeline

    strategies = [kind for _, table in STRATEGIES.values() for kind in table.values()]
    types = {SmoothedClassifier, Pipeline, Box, Columns, TorchInference, *strategies}
    return sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in types)


def save_weights(classifier: SmoothedClassifier, path: str | PathLike[str]) -> None:
    """Save what a fitted torch classifier has learnt to a safetensors file, which holds no code.

    Parameters
    ----------
    classifier : SmoothedClassifier
        Fitted, with a torch module or skorch net as its base model.
    path : str or path
        Overwritten if it exists. It gets the module's tensors, classes, box and noise; the module's code and the
        parameters of certification are not in it.

    Raises
    ------
    ValueError
        If the base model is none of torch, or the noise is none of this library's.
    ImportError
        If safetensors is not installed.
    """
    safetensors = _safetensors()
    from .nets import NoisyModule

    model = unwrap(classifier.estimator_)
    if not is_torch(model):
        raise ValueError(f"classifier must have a torch base model, got a {type(model).__name__}. Use skops or joblib.")
    module = model.module_ if is_net(model) else model
    names = {kind: name for name, kind in STRATEGIES["noise"][1].items()}
    if type(classifier.noise_) not in names:
        raise ValueError(f"noise must be one of {', '.join(map(repr, names.values()))}, got {classifier.noise_!r}.")
    record = {
        "classes": classifier.classes_,
        "classes_dtype": classifier.classes_.dtype.str,
        "bounds": (classifier.box_.lo, classifier.box_.hi),
        "noise": names[type(classifier.noise_)],
        "noise_params": classifier.noise_.get_params(),
        "n_copies": module.n_copies if isinstance(module, NoisyModule) else None,
    }
    content = json.dumps(record, default=lambda value: value.tolist())
    safetensors.save_model(module, str(path), metadata={RECORD: content})


def load_weights(path: str | PathLike[str], module: Any, **params: Any) -> SmoothedClassifier:
    """Load what `save_weights` has saved into a network of the same architecture. Nothing in the file is executed.

    Parameters
    ----------
    path : str or path
    module : torch.nn.Module
        The network as it was given to SmoothedClassifier, with any weights; a copy of it gets the saved ones.
    **params
        Parameters of certification, such as ``n_samples``, ``alpha`` and ``device``.

    Returns
    -------
    classifier : SmoothedClassifier
        Fitted, as `SmoothedClassifier.from_pretrained` returns it.

    Raises
    ------
    ValueError
        If the file was not made by `save_weights`, or holds the weights of another architecture.
    ImportError
        If safetensors is not installed.
    """
    safetensors = _safetensors()
    from safetensors import SafetensorError, safe_open

    from .classifier import SmoothedClassifier
    from .nets import NoisyModule

    if not is_module(module):
        raise ValueError(f"module must be a torch.nn.Module, got {module!r}.")
    module = copy.deepcopy(module)
    try:
        with safe_open(str(path), framework="pt") as file:
            record = json.loads((file.metadata() or {})[RECORD])
            given = {name: _tuples(value) for name, value in record["noise_params"].items()}
            noise = STRATEGIES["noise"][1][record["noise"]](**given)
            bounds = tuple(np.asarray(end, dtype=np.float64) for end in record["bounds"])
            classes = np.asarray(record["classes"], dtype=np.dtype(record["classes_dtype"]))
            if record["n_copies"] is not None:
                statistics = {name: file.get_tensor(name) for name in ("center", "scale")}
                module = NoisyModule(module, noise, bounds, n_copies=record["n_copies"], **statistics)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path must be a file made by save_weights, but {str(path)!r} is not: {error}.") from error
    try:
        safetensors.load_model(module, str(path))
    except RuntimeError as error:
        raise ValueError(
            f"module must have the architecture of the network whose weights {str(path)!r} holds: {error}"
        ) from error
    return SmoothedClassifier.from_pretrained(module, classes, noise, bounds=bounds, **params)


def _tuples(value: Any) -> Any:
    """Return the lists of JSON as the tuples that parameters usually are."""
    return tuple(value) if isinstance(value, list) else value


def _safetensors() -> Any:
    """Import the library, or say how to get it."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("Weights without pickle need safetensors: pip install 'smoothcert[persistence]'.") from error
    return safetensors.torch


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
