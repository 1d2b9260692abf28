"""One adapter for each kind of base model: which of them fits, and what is no base model."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from .base import Voter, is_function, is_module, is_net, is_torch, name_of, unwrap
from .inference import TorchInference
from .sklearn import SklearnVoter


def check_base_model(estimator: Any) -> None:
    """Raise a ValueError unless this can be a base model."""
    model, remedy = unwrap(estimator), "Pass a model."
    if isinstance(model, type):
        remedy = f"Pass an instance: {model.__name__}()."
    elif is_torch(model):
        return
    elif hasattr(model, "predict"):
        if is_classifier(model):
            return
        remedy = "It must be a classifier. Its predict method alone can be one, in from_pretrained."
    elif is_function(model):
        if isinstance(estimator, FrozenEstimator):
            return
        remedy = "A function cannot be trained: use SmoothedClassifier.from_pretrained."
    elif isinstance(model, (str, bytes)):
        remedy = "Load the model first."
    raise ValueError(
        f"estimator must be a scikit-learn classifier, a torch.nn.Module or a skorch net, got {model!r}. {remedy}"
    )


def make_voter(
    estimator: Any,
    classes: NDArray[Any],
    device: Any = None,
    inference: TorchInference | None = None,
    columns: Any = None,
) -> Voter:
    """Build the voter for a fitted base model whose labels are ``classes``, which gets ``columns`` if they are named.

    Raises
    ------
    NotFittedError
        If the base model is not fitted.
    ValueError
        If it cannot vote as certificates need it.
    """
    model = unwrap(estimator)
    if is_torch(model):
        from .torch import TorchVoter

    if is_module(model):
        return TorchVoter(model, len(classes), device, inference)
    if is_net(model):
        check_is_fitted(model, "module_")
        return TorchVoter(model.module_, len(classes), device, inference)
    if inference is not None:
        raise ValueError(f"inference={inference!r} is for torch models, got a {name_of(model)}. Use inference=None.")
    if is_function(model):
        from .function import FunctionVoter

        return FunctionVoter(model, classes)
    if hasattr(model, "fit"):
        check_is_fitted(model)
    return SklearnVoter(model, classes, columns)
