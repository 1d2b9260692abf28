"""What scikit-learn asks of every estimator: checked inputs, tags, pickles, metadata, and a ``fit`` that may fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.utils import Tags, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_array, check_X_y, validate_data

from ._utils.checks import check_no_dates, check_shape, check_unmasked, explain_invalid, unmasked
from .models.base import takes_any_shape, unwrap
from .models.columns import Columns
from .models.portable import portable, restored
from .models.series import check_names, check_whole_numbers
from .noise.threat import Features


def kept_on_error(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method that raises an error leave its object, and the steps of a pipeline, as they were."""

    @wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Some estimators change the list of their parts in place.
        before = [
            (part, {k: v[:] if type(v) is list else v for k, v in vars(part).items()}) for part in _with_steps(self)
        ]
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            for part, state in before:
                vars(part).clear()
                vars(part).update(state)
            raise

    return wrapped


def _with_steps(estimator: Any) -> list[Any]:
    """Return an estimator, and for a pipeline all estimators inside: fitting it fits some of them in place."""
    inside = estimator.get_params(deep=True).values() if hasattr(estimator, "steps") else []
    return [estimator, *(part for part in inside if isinstance(part, BaseEstimator))]


class CheckedScore:
    """The score of scikit-learn, after a check of the targets; it stands left of its mixins."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of a classifier, or the coefficient of determination of a regressor.

        Parameters
        ----------
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        y : array-like of shape (n_inputs,)
            True labels or numbers.
        sample_weight : array-like of shape (n_inputs,), optional

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            If an argument is invalid, or holds masked values.
        """
        y, weight = unmasked("y", y), unmasked("sample_weight", sample_weight)
        found: float = super().score(X, y, weight)  # type: ignore[misc]
        return found


class Conventions(MetaEstimatorMixin, BaseEstimator):
    """A meta-estimator around the base model ``estimator``."""

    estimator: Any
    radius: Any
    training: Any

    @property
    def _strategy(self) -> Any:
        """The radius strategy, or its name."""
        return self.radius

    def __sklearn_tags__(self) -> Tags:
        """Return tags that follow the base model's where smoothing does not decide them."""
        tags = super().__sklearn_tags__()
        model = unwrap(self.estimator)
        if hasattr(model, "__sklearn_tags__"):
            tags.input_tags.two_d_array = get_tags(model).input_tags.two_d_array
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = portable(super().__getstate__())
        return {name: value for name, value in state.items() if name != "_checked_votes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(restored(state) | {"_checked_votes": WeakKeyDictionary()})

    def _validate(self, X: Any, features: Features, columns: Columns | None, **targets: Any) -> Any:
        """Check X, and y when fitting, and return arrays; torch models take inputs of any shape."""
        any_shape, fitting = takes_any_shape(self.estimator), bool(targets)
        check_unmasked("X", X)
        check_names(X)
        check_shape(X, None if fitting else getattr(self, "feature_shape_", None), any_shape=any_shape)
        if columns is not None and columns.codecs is not None and not hasattr(X, "tocsr"):
            validate_data(self, X, reset=fitting, skip_check_array=True)  # Names and number of columns.
            X = columns.encode(X)
            return check_X_y(X, **targets, ensure_all_finite=False) if fitting else X
        check_no_dates(X)
        finite = not features.fixed.any()
        options = {"reset": fitting, "allow_nd": any_shape, "ensure_all_finite": finite}
        try:
            checked = validate_data(self, X, **targets, **options)
            data = checked[0] if fitting else checked
            if data.dtype.kind not in "biuf":
                raise ValueError(f"X must hold numbers, got dtype {data.dtype}.")
            if not finite:
                check_array(features.without_fixed(data), allow_nd=any_shape, input_name="X")
        except (TypeError, ValueError) as error:
            raise explain_invalid(X, error) from error
        check_whole_numbers(X, data)
        return checked

    def get_metadata_routing(self) -> MetadataRouter:
        """Return what metadata goes where: that of ``fit`` to the base model, ``sample_weight`` of ``score`` here.

        Returns
        -------
        router : MetadataRouter
        """
        callee = "partial_fit" if getattr(self.training, "stream", False) else "fit"
        mapping = MethodMapping().add(caller="fit", callee=callee)
        return MetadataRouter(owner=self).add_self_request(self).add(estimator=self.estimator, method_mapping=mapping)

    def _requested(self, fit_params: dict[str, Any]) -> dict[str, Any]:
        """Return the metadata of ``fit`` that the base model has requested; all of it where routing is not enabled."""
        if not get_config()["enable_metadata_routing"]:
            return fit_params
        routed = process_routing(self, "fit", **fit_params).estimator
        return dict(next((given for given in routed.values() if given), {}))
