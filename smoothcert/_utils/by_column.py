"""Values by column name: a dict, or a pandas object with an index of its own, in the order of the columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any


def is_by_column(values: Any) -> bool:
    """Tell whether these are values by column name.

    Examples
    --------
    >>> is_by_column({"age": 1.0}), is_by_column([1.0])
    (True, False)
    """
    labels = getattr(values, "columns", getattr(values, "index", None))
    pandas_like = hasattr(labels, "is_unique") and hasattr(values, "items") and type(labels).__name__ != "RangeIndex"
    return isinstance(values, Mapping) or pandas_like


def in_order(
    argument: str, values: Any, names: Sequence[str] | None, *, default: Any, required: Collection[str] = ()
) -> list[Any]:
    """Return values by column name in the order of the columns.

    Parameters
    ----------
    argument : str
        Name of the argument in messages.
    values : mapping, or pandas Series or DataFrame
    names : sequence of str or None
        The columns; None where they have no names.
    default : object
        The value of columns that are not named.
    required : collection of str
        Columns that must be named.

    Raises
    ------
    ValueError
        If a name is missing, unknown or repeated, or the columns have no names.

    Examples
    --------
    >>> in_order("costs", {"b": 2.0}, ["a", "b"], default=1.0)
    [1.0, 2.0]
    """
    if names is None:
        raise ValueError(
            f"{argument} by column name need columns with names, and there are none. Fit on a DataFrame whose column "
            f"names are strings, or give one value per feature in order."
        )
    pairs = list(values.items())
    found, known = dict(pairs), set(names)
    missing, unknown = [name for name in required if name not in found], [key for key in found if key not in known]
    if missing or unknown or len(found) < len(pairs):
        expected = "each column of X once" if required else "columns of X, each once"
        raise ValueError(
            f"{argument} must name {expected}: missing {missing}, unknown {unknown}. The columns are {list(names)}."
        )
    return [found.get(name, default) for name in names]
