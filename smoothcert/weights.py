"""What pickle, joblib and skops do not bring: files for machines without the GPU, and weights without pickle."""

from __future__ import annotations

import copy
import json
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from .certify.names import STRATEGIES
from .models.base import is_module, is_net, is_torch, unwrap
from .noise.box import Box

if TYPE_CHECKING:
    from .classifier import SmoothedClassifier

__all__ = ["load_weights", "save_weights", "trusted_types"]

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
    from .models.columns import Columns
    from .models.inference import TorchInference
    from .training.labels import IndexedLabels

    strategies = [kind for _, table in STRATEGIES.values() for kind in table.values()]
    types = {SmoothedClassifier, Box, Columns, IndexedLabels, TorchInference, *strategies}
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in types}
    return sorted(names | {"smoothcert.pipeline.Pipeline"})


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

    Examples
    --------
    See `load_weights`.
    """
    safetensors = _safetensors()
    from .training.torch_layers import NoisyModule
    from .training.torch_noise import InputScaling

    model = unwrap(classifier.estimator_)
    if not is_torch(model):
        raise ValueError(f"classifier must have a torch base model, got a {type(model).__name__}. Use skops or joblib.")
    module = model.module_ if is_net(model) else model
    names = {kind: name for name, kind in STRATEGIES["noise"][1].items()}
    if type(classifier.noise_) not in names:
        raise ValueError(f"noise must be one of {', '.join(map(repr, names.values()))}, got {classifier.noise_!r}.")
    scaling = InputScaling.of(module)
    record = {
        "classes": classifier.classes_,
        "classes_dtype": classifier.classes_.dtype.str,
        "bounds": (classifier.box_.lo, classifier.box_.hi),
        "noise": names[type(classifier.noise_)],
        "noise_params": classifier.noise_.get_params(),
        "n_copies": module.n_copies if isinstance(module, NoisyModule) else None,
        "scaling": None if scaling is None else (scaling.center, scaling.scale),
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

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from smoothcert import SmoothedClassifier
    >>> clf = SmoothedClassifier.from_pretrained(torch.nn.Linear(4, 2), classes=["cat", "dog"], random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(clf, f"{folder}/weights.safetensors")
    ...     loaded = load_weights(f"{folder}/weights.safetensors", torch.nn.Linear(4, 2), random_state=0)
    >>> X = torch.rand(5, 4).numpy()
    >>> print((loaded.predict(X) == clf.predict(X)).all())
    True
    """
    safetensors = _safetensors()
    from safetensors import SafetensorError, safe_open

    from .classifier import SmoothedClassifier
    from .training.torch_layers import NoisyModule
    from .training.torch_noise import InputScaling

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
                module = NoisyModule(module, noise, bounds, n_copies=record["n_copies"])
            if record["scaling"] is not None:
                InputScaling(*record["scaling"]).attach(module)
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
        raise ImportError("Weights without pickle need safetensors: pip install 'smoothcert[files]'.") from error
    return safetensors.torch
