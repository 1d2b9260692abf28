"""What the adversary can change, feature by feature, and what each change costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._utils.by_column import in_order, is_by_column
from .._utils.checks import check_choice
from .box import FloatArray

#: What a hidden category is replaced by: one more category that the model knows, or a category drawn independently.
HIDDEN = ("mask", "uniform")

#: Maximum number of features that are named one by one.
FEW_NAMES = 8


@dataclass(frozen=True, eq=False)
class Features:
    """Costs of features, and which of them are categories.

    A number moves within its range, and pays its cost times the share of the range. A category changes wholly, and pays
    its cost. A fixed feature has an infinite cost: it gets no noise, and certificates do not cover its changes.

    Parameters
    ----------
    costs : ndarray of float64, shape () or (n_features,)
        Above 0; inf for a fixed feature. Shape () stands for the same cost for all features.
    n_categories : ndarray of int64, shape () or (n_features,)
        Number K of categories, which are the codes 0 to K - 1; 0 for a number. A fixed feature may have categories.
    hidden : {"mask", "uniform"}
        What replaces a hidden category: the code K, or one of the K categories, drawn independently of the input.
    names : tuple of str, optional
        The columns, for messages.

    Examples
    --------
    >>> features = Features.from_costs({"age": "fixed", "job": 2.0}, names=["age", "job", "wage"])
    >>> features.costs
    array([inf,  2.,  1.])
    >>> features.fixed
    array([ True, False, False])
    """

    costs: FloatArray = field(default_factory=lambda: np.ones(()))
    n_categories: NDArray[np.int64] = field(default_factory=lambda: np.zeros((), dtype=np.int64))
    hidden: str = "mask"
    names: tuple[str, ...] | None = None

    @classmethod
    def from_costs(
        cls,
        costs: Any,
        *,
        names: Sequence[str] | None = None,
        shape: tuple[int, ...] | None = None,
        n_categories: Any = 0,
        hidden: str = "mask",
    ) -> Self:
        """Check costs as a user gives them.

        Parameters
        ----------
        costs : float, "fixed", array-like, dict or pandas Series
            One cost for all features, one for each, or by column name; columns that are not named have cost 1.
        names : sequence of str, optional
            The columns.
        shape : tuple of int, optional
            Shape of one input, to which an array must broadcast. Where it is not known yet, `for_shape` follows.
        n_categories, hidden
            As in `Features`.

        Raises
        ------
        ValueError
            If a cost is neither above 0 nor "fixed", names an unknown column, or does not fit the inputs.
        """
        check_choice("hidden", hidden, HIDDEN)
        values = in_order("costs", costs, names, default=1.0) if is_by_column(costs) else costs
        try:
            numbers = np.array(_numbers(values), dtype=np.float64)
            if shape is not None and numbers.ndim and numbers.shape != (np.prod(shape),):
                numbers = np.broadcast_to(numbers, shape).ravel()
        except (TypeError, ValueError) as error:
            fitting = "" if shape is None else f" that broadcast to inputs of shape {shape}"
            raise ValueError(
                f'costs must be numbers above 0, or "fixed" for features that cannot change,{fitting}, got {costs!r}. '
                f"Give one number for all features, one for each, or a dict by column name."
            ) from error
        if not (numbers > 0).all():
            wrong = numbers[~(numbers > 0)][0]
            raise ValueError(f'costs must be above 0, or "fixed" for features that cannot change, got {wrong:g}.')
        return cls(numbers, np.array(n_categories, dtype=np.int64), hidden, None if names is None else tuple(names))

    def at_costs(self, costs: Any, shape: tuple[int, ...] | None) -> Features:
        """Return the same features at other costs; see `from_costs`."""
        return Features.from_costs(
            costs, names=self.names, shape=shape, n_categories=self.n_categories, hidden=self.hidden
        )

    @property
    def fixed(self) -> NDArray[np.bool_]:
        """Features that the adversary cannot change, shape () or (n_features,)."""
        return np.isinf(self.costs) & (self.n_categories >= 0)

    @property
    def categorical(self) -> NDArray[np.bool_]:
        """Categories that the adversary can change, shape () or (n_features,)."""
        return (self.n_categories > 0) & ~self.fixed

    @property
    def numeric(self) -> NDArray[np.bool_]:
        """Numbers that the adversary can change, shape () or (n_features,)."""
        return (self.n_categories == 0) & ~self.fixed

    @property
    def is_plain(self) -> bool:
        """Whether all features are numbers of cost 1: costs then change nothing."""
        return bool((self.costs == 1).all() and (self.n_categories == 0).all())

    def for_shape(self, shape: tuple[int, ...]) -> Features:
        """Return the features of inputs of a shape, flat; raise a ValueError if they do not fit."""
        if not self.costs.ndim and not self.n_categories.ndim:
            return self
        n_features = int(np.prod(shape))
        try:
            costs = self.costs if self.costs.shape == (n_features,) else np.broadcast_to(self.costs, shape).ravel()
            n_categories = np.broadcast_to(self.n_categories, n_features)
        except ValueError as error:
            raise ValueError(
                f"costs must be one number, one for each feature, or an array that broadcasts to inputs of shape "
                f"{shape}, got shape {self.costs.shape}."
            ) from error
        return replace(self, costs=costs, n_categories=n_categories)

    def without_fixed(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return inputs, shape (n, *shape), with 0 in place of fixed features."""
        shape = X.shape[1:]
        fixed = np.broadcast_to(self.for_shape(shape).fixed, int(np.prod(shape))).reshape(shape)
        return np.where(fixed, 0, X)

    def describe(self) -> str:
        """Return what the adversary cannot change, and what changes cost, as the end of a sentence about perturbations.

        Examples
        --------
        >>> Features.from_costs({"age": "fixed", "job": 2.0}, names=["age", "job", "wage"]).describe()
        "that leave column 'age' as it is, at costs of 2 for column 'job' and 1 for the others"
        """
        parts = []
        if self.fixed.any():
            one = np.count_nonzero(self.fixed) == 1
            parts.append(f"that leave {self.named(self.fixed)} as {'it is' if one else 'they are'}")
        if self.categorical.any():
            parts.append(f"with changed categories of {self.named(self.categorical)}")
        values, counts = np.unique(self.costs[np.isfinite(self.costs)], return_counts=True)
        if (values != 1).any() and len(values) == 1:
            parts.append(f"at a cost of {values[0]:g} for each feature")
        elif (values != 1).any():
            most = 1.0 if 1 in values else values[counts.argmax()]
            each = [f"{value:g} for {self.named(self.costs == value)}" for value in values[::-1] if value != most]
            parts.append(f"at costs of {', '.join(each)} and {most:g} for the others")
        return ", ".join(parts)

    def lattices(self, column_steps: Sequence[int]) -> str:
        """Return the lattices that columns have of their own, as the end of a sentence about perturbations.

        Examples
        --------
        >>> Features(names=("age", "children", "wage")).lattices((73, 8, 0))
        "on the lattice of 73 levels in column 'age' and of 8 levels in column 'children'"
        """
        steps = np.where(self.numeric, column_steps, 0)
        each = [f"of {q} levels in {self.named(steps == q)}" for q in np.unique(steps[steps > 0])[::-1]]
        return f"on the lattice {' and '.join(filter(None, [', '.join(each[:-1]), *each[-1:]]))}" if each else ""

    def named(self, chosen: NDArray[np.bool_]) -> str:
        """Return words for some features: their names or places, or their number if they are many."""
        if not chosen.ndim:
            return "every feature"
        places = np.flatnonzero(chosen)
        kind = ("feature" if self.names is None else "column") + ("s" if len(places) > 1 else "")
        if len(places) > FEW_NAMES:
            return f"{len(places)} {kind} ({blake2b(chosen.tobytes(), digest_size=4).hexdigest()})"
        return f"{kind} {', '.join(str(i) if self.names is None else repr(self.names[i]) for i in places)}"

    def fingerprint(self) -> str:
        """Hash of the costs and the categories; empty where costs change nothing."""
        if self.is_plain:
            return ""
        parts = np.broadcast_arrays(self.costs, self.n_categories)
        content = f"{parts[0].shape} {self.hidden}".encode() + b"".join(part.tobytes() for part in parts)
        return blake2b(content, digest_size=16).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return numbers and text from which `from_json` builds the same features."""
        costs = self.costs.astype(object)
        costs[np.isinf(self.costs)] = None
        return {"costs": costs.tolist(), "n_categories": self.n_categories.tolist(), "hidden": self.hidden} | (
            {} if self.names is None else {"names": list(self.names)}
        )

    @classmethod
    def from_json(cls, content: dict[str, Any] | None) -> Self:
        """Build features from what `to_json` returned; None stands for costs that change nothing."""
        if content is None:
            return cls()
        costs = np.array(content["costs"], dtype=np.float64)
        costs = np.where(np.isnan(costs), np.inf, costs)
        names = tuple(content["names"]) if "names" in content else None
        return cls(costs, np.array(content["n_categories"], dtype=np.int64), content["hidden"], names)


def _numbers(values: Any) -> Any:
    """Return costs as numbers: "fixed" is an infinite cost."""
    if isinstance(values, str):
        if values != "fixed":
            raise ValueError(values)
        return np.inf
    if isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.dtype.kind in "OU"):
        return [_numbers(value) for value in values]
    return values
