"""Files of fitted torch classifiers without pickle (safetensors), and the types to trust in files of skops."""

from __future__ import annotations

import copy
import json
from os import PathLike
from typing import Any

import numpy as np

from ._utils.optional import optional
from .certify.names import STRATEGIES
from .classifier import SmoothedClassifier
from .models.base import is_module, is_net, is_torch, uncompiled, unwrap
from .models.codes import Categories, FixedNumbers, FixedValues, Numbers
from .models.columns import Columns
from .models.torch_inference import TorchInference
from .noise.box import Box
from .noise.threat import Features
from .training.labels import IndexedLabels

__all__ = ["load_weights", "save_weights", "trusted_types"]

#: The key of the metadata in a safetensors file.
RECORD = "smoothcert"


def trusted_types() -> list[str]:
    """Return the names of this library's types that a saved estimator may hold, for ``skops.io.load(trusted=...)``.

    None of these types runs code when it is loaded. ``skops.io.get_untrusted_types`` may list further types, of other
    libraries, which the user must judge.

    Returns
    -------
    names : list of str

    See Also
    --------
    save_weights : Save a torch classifier without skops.

    Examples
    --------
    >>> "smoothcert.classifier.SmoothedClassifier" in trusted_types()
    True
    """
    strategies = [kind for _, table in STRATEGIES.values() for kind in table.values()]
    types = {SmoothedClassifier, Box, Features, Columns, IndexedLabels, TorchInference, *strategies}
    types |= {Categories, FixedNumbers, FixedValues, Numbers}
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in types}
    beside = ("pipeline.Pipeline", "conformal.SmoothedConformalClassifier", "regressor.SmoothedRegressor")
    return sorted(names | {f"smoothcert.{name}" for name in beside})


def save_weights(classifier: SmoothedClassifier, path: str | PathLike[str]) -> None:
    """Save a fitted torch classifier to a safetensors file, which holds no code.

    The file holds the tensors of the module, the classes, the box and the noise, but neither the code of the module nor
    the parameters of certification.

    Parameters
    ----------
    classifier : SmoothedClassifier
        A fitted classifier with a torch module or a skorch net as its base model.
    path : str or path
        The file, which is overwritten if it exists.

    Raises
    ------
    ValueError
        If the base model is not a torch model, the noise is not a family of this library, there are categories, or a
        net has a threshold or nonlinearity of its own.
    ImportError
        If safetensors is not installed.

    See Also
    --------
    load_weights : Load the file.

    Examples
    --------
    See `load_weights`.
    """
    safetensors = optional("safetensors.torch", "files")
    from .training.torch_layers import NoisyModule
    from .training.torch_noise import InputScaling

    if not isinstance(classifier, SmoothedClassifier):
        raise ValueError(f"classifier must be a SmoothedClassifier, got a {type(classifier).__name__}. Use joblib.")
    model = unwrap(classifier.estimator_)
    if not is_torch(model):
        raise ValueError(f"classifier must have a torch base model, got a {type(model).__name__}. Use skops or joblib.")
    if classifier.features_.categorical.any():
        raise ValueError(
            "classifier must not have categories, whose codes the file would not hold. Use joblib, or skops."
        )
    module = uncompiled(model.module_ if is_net(model) else model)
    names = {kind: name for name, kind in STRATEGIES["noise"][1].items()}
    if type(classifier.noise_) not in names:
        raise ValueError(f"noise must be one of {', '.join(map(repr, names.values()))}, got {classifier.noise_!r}.")
    if getattr(model, "threshold", 0.5) != 0.5 or callable(getattr(model, "predict_nonlinearity", None)):
        raise ValueError(
            "classifier must not have a net with a threshold or predict_nonlinearity of its own, which the file would "
            "not hold. Use joblib."
        )
    scalings = {name: InputScaling.of(part) for name, part in module.named_modules()}
    saved = {
        "classes": classifier.classes_,
        "classes_dtype": classifier.classes_.dtype.str,
        "bounds": (classifier.box_.lo, classifier.box_.hi),
        "features": classifier.features_.to_json(),
        "noise": names[type(classifier.noise_)],
        "noise_params": classifier.noise_.get_params(),
        "n_copies": module.n_copies if isinstance(module, NoisyModule) else None,
        "scalings": {name: (own.center, own.scale) for name, own in scalings.items() if own is not None},
    }
    content = json.dumps(saved, default=lambda value: value.tolist())
    safetensors.save_model(module, str(path), metadata={RECORD: content})


def load_weights(path: str | PathLike[str], module: Any, **params: Any) -> SmoothedClassifier:
    """Load a file of `save_weights` into a network of the same architecture. Nothing in the file is executed.

    Parameters
    ----------
    path : str or path
    module : torch.nn.Module
        The network as it was given to SmoothedClassifier, with any weights; a copy receives the saved ones.
    **params
        The parameters of certification, such as ``n_samples``, ``alpha`` and ``device``.

    Returns
    -------
    classifier : SmoothedClassifier
        The fitted classifier, made by `SmoothedClassifier.from_pretrained`.

    Raises
    ------
    ValueError
        If the file was not made by `save_weights`, or holds the weights of another architecture.
    ImportError
        If safetensors is not installed.

    See Also
    --------
    save_weights : Save the file.

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
    safetensors = optional("safetensors.torch", "files")
    from safetensors import SafetensorError, safe_open

    from .training.torch_layers import NoisyModule
    from .training.torch_noise import InputScaling

    if not is_module(module):
        raise ValueError(f"module must be a torch.nn.Module, got {module!r}.")
    module = copy.deepcopy(module)
    try:
        with safe_open(str(path), framework="pt") as file:
            saved = json.loads((file.metadata() or {})[RECORD])
            # JSON turns the tuples of parameters into lists.
            given = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in saved["noise_params"].items()
            }
            noise = STRATEGIES["noise"][1][saved["noise"]](**given)
            bounds = tuple(np.asarray(end, dtype=np.float64) for end in saved["bounds"])
            costs = Features.from_json(saved.get("features")).costs
            classes = np.asarray(saved["classes"], dtype=np.dtype(saved["classes_dtype"]))
            if saved["n_copies"] is not None:
                module = NoisyModule(module, noise, bounds, costs=costs, n_copies=saved["n_copies"])
            scalings = {name: InputScaling(*scaling) for name, scaling in saved["scalings"].items()}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path must be a file made by save_weights, but {str(path)!r} is not: {error}.") from error
    try:
        for name, scaling in scalings.items():
            scaling.attach(module.get_submodule(name))
        safetensors.load_model(module, str(path))
    except (AttributeError, RuntimeError) as error:
        raise ValueError(
            f"module must have the architecture of the network whose weights {str(path)!r} holds: {error}"
        ) from error
    return SmoothedClassifier.from_pretrained(module, classes, noise, bounds=bounds, costs=costs, **params)
