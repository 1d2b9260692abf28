"""Checks that an object can be a base model, and the adapter that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from .base import Voter, is_function, is_module, is_torch, name_of, no_probabilities, unwrap
from .function import FunctionVoter
from .sklearn import SklearnVoter
from .torch import TorchVoter
from .torch_inference import TorchInference
from .torch_outputs import Decision

#: The kind of base models that another estimator of this library takes.
OTHER_KIND = {"classifier": "regressor", "regressor": "classifier"}

#: Largest number of characters by which a message shows what was given.
LONGEST_TEXT = 400


def check_base_model(estimator: Any, kind: str = "classifier") -> None:
    """Raise a ValueError unless this can be a base model that is a "classifier" or a "regressor"."""
    model, remedy = unwrap(estimator), "Pass a model."
    if isinstance(model, type):
        remedy = f"Pass an instance: {model.__name__}()."
    elif is_torch(model):
        return
    elif _is_smoothed(model):
        remedy = "It is smoothed already. Pass its base model, also inside a search or an ensemble, or use it as it is."
        if getattr(model, "kind", kind) != kind:
            remedy = f"It must be a {kind}."
    elif _is_a(kind, model):
        return
    elif hasattr(model, "__sklearn_tags__") and _is_a(other := OTHER_KIND[kind], model):
        remedy = f"It is a {other}: use Smoothed{other.title()}."
    elif hasattr(model, "predict"):
        remedy = f"It must be a {kind}. Pass its predict method to from_pretrained instead."
    elif is_function(model):
        if isinstance(estimator, FrozenEstimator):
            return
        remedy = f"A function cannot be trained: use Smoothed{kind.title()}.from_pretrained."
    elif isinstance(model, (str, bytes)):
        remedy = "Load the model first."
    elif isinstance(model, Mapping):
        remedy = "If it holds weights, load them into their network, and pass the network."
    text = repr(model)
    found = text if len(text) <= LONGEST_TEXT else f"a {name_of(model)}"
    raise ValueError(
        f"estimator must be a scikit-learn {kind}, a torch.nn.Module or a skorch net, got {found}. {remedy}"
    )


def check_has_probabilities(estimator: Any) -> None:
    """Raise a ValueError if a base model can only answer labels. Functions are checked when they answer."""
    model = unwrap(estimator)
    if hasattr(model, "predict") and not is_torch(model) and not hasattr(model, "predict_proba"):
        raise ValueError(no_probabilities(f"estimator={model!r}"))


def _is_a(kind: str, model: Any) -> bool:
    """Tell whether this is of a kind: by scikit-learn's tags, or else by its ``predict`` method."""
    if hasattr(model, "__sklearn_tags__"):
        # Some have no predict method before they are fitted.
        return bool(get_tags(model).estimator_type == kind)
    return hasattr(model, "predict") and getattr(model, "_estimator_type", kind) == kind


def _is_smoothed(model: Any) -> bool:
    """Tell whether this is a smoothed estimator, a method of one, or a search, an ensemble or a wrapper around one."""
    inside, seen = [model], set()
    while inside:
        value = inside.pop()
        value = unwrap(getattr(value, "__self__", value))
        if isinstance(value, type) or id(value) in seen:
            continue
        seen.add(id(value))
        if hasattr(value, "from_pretrained") and hasattr(value, "open_inputs"):
            return True
        if isinstance(value, (list, tuple)):
            inside.extend(value)
        elif hasattr(value, "predict") or hasattr(value, "fit"):
            inside.extend(getattr(value, "__dict__", {}).values())
    return False


def make_voter(
    estimator: Any,
    classes: NDArray[Any] | None,
    device: Any = None,
    inference: TorchInference | None = None,
    columns: Any = None,
    *,
    finite: bool = True,
) -> Voter:
    """Build the voter for a fitted base model.

    Parameters
    ----------
    estimator : object
        See `check_base_model`.
    classes : ndarray of shape (n_classes,) or None
        Labels of the base model; None if it predicts numbers.
    device : torch.device or str, optional
        Device of a torch model.
    inference : TorchInference, optional
        How a torch model runs.
    columns : Columns, optional
        The columns that the base model gets.
    finite : bool, default=True
        Whether all rows hold finite numbers, so that the base model need not check them.

    Raises
    ------
    NotFittedError
        If the base model is not fitted.
    ValueError
        If it cannot vote.
    """
    model = unwrap(estimator)
    if is_torch(model):
        n_outputs = 1 if classes is None else len(classes)
        if is_module(model):
            return TorchVoter(model, n_outputs, device, inference)
        check_is_fitted(model, "module_")
        decision = None if classes is None else Decision.of(model, None if inference is None else inference.output)
        return TorchVoter(model.module_, n_outputs, device, inference, decision)
    if inference is not None:
        raise ValueError(f"inference={inference!r} is for torch models, got a {name_of(model)}. Use inference=None.")
    if is_function(model):
        return FunctionVoter(model, classes)
    _check_fitted(model)
    return SklearnVoter(model, classes, columns, finite=finite)


def _check_fitted(model: Any) -> None:
    """Raise a NotFittedError if a model is not fitted, where it follows scikit-learn's conventions.

    Other models, such as wrappers without fitted attributes, cannot be told from fitted ones before they are asked.
    """
    own = type(model).__module__.startswith("sklearn.")
    if hasattr(model, "fit") and (own or hasattr(model, "__sklearn_is_fitted__")):
        check_is_fitted(model)
