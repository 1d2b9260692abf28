"""Frozen records of arrays with one row per input: they can be sliced, saved, loaded and shown as tables."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._utils.optional import optional
from .files import Record, load_record, save_record
from .tables import html_table, rounded_down, rounded_up

#: Rows that notebooks show.
SHOWN = 10


class Rows:
    """A frozen record whose arrays have one row per input: it can be sliced like an array."""

    def __post_init__(self) -> None:
        for name, value in self._arrays().items():
            frozen = value.view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: value for name, value in self._values().items() if isinstance(value, np.ndarray)}

    def _scalars(self) -> dict[str, Any]:
        return {name: value for name, value in self._values().items() if not isinstance(value, np.ndarray)}

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @staticmethod
    def _to_json(scalars: dict[str, Any]) -> dict[str, Any]:
        """Return what is no array as JSON can hold it; infinity, a norm, has no number there."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in scalars.items()}
        return {name: "inf" if value == np.inf else value for name, value in plain.items()}

    @staticmethod
    def _from_json(scalars: dict[str, Any]) -> dict[str, Any]:
        """Undo `_to_json`."""
        return {name: np.inf if value == "inf" else value for name, value in scalars.items()}

    def __len__(self) -> int:
        return len(next(iter(self._arrays().values())))

    def __getitem__(self, rows: Any) -> Self:
        picked = np.atleast_1d(np.arange(len(self))[rows])
        return replace(self, **{name: value[picked] for name, value in self._arrays().items()})  # type: ignore[type-var]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a file, without pickle.

        Parameters
        ----------
        path : str or path
            Its suffix chooses the format: .npz, or .parquet (needs pyarrow, ``smoothcert[tables]``), which other tools
            can read as a table. An existing file is replaced once the new one is complete.

        Raises
        ------
        ValueError
            If the suffix is another, or labels are neither numbers nor strings.
        """
        save_record(path, Record(type(self).__name__, self._arrays(), self._to_json(self._scalars())))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what ``save`` has written.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        record
            Equal to the one that was saved, bit by bit. A digest tells damage; it is no signature.

        Raises
        ------
        ValueError
            If the file is damaged or incomplete, was written by something else or a later version, or holds something
            else.
        OSError
            If there is no such file.
        """
        record = load_record(path, cls.__name__)
        try:
            return cls(**record.arrays, **cls._from_json(record.scalars))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} does not hold what {cls.__name__} consist of: {error}.") from error


class Table(Rows):
    """A record that is a table: one row per input, one column per array."""

    def _columns(self) -> dict[str, NDArray[Any]]:
        """Name the columns of the table."""
        return self._arrays()

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per input; its ``attrs`` say what holds for all rows.

        Raises
        ------
        ImportError
            If pandas is missing: it comes with ``smoothcert[tables]``.
        """
        columns = self._columns()
        frame = optional("pandas", "tables").DataFrame({name: column.copy() for name, column in columns.items()})
        frame.attrs.update({name: value for name, value in self._scalars().items() if value is not None})
        return frame

    def _repr_html_(self) -> str:
        columns = self._columns()
        rows = [[_cell(name, column[i]) for name, column in columns.items()] for i in range(min(len(self), SHOWN))]
        if len(self) > SHOWN:
            rows.append(["..."] * len(columns))
        return html_table(list(columns), rows, repr(self))


def _cell(name: str, value: Any) -> str:
    """Show one value of a table: bounds are rounded to their safe side."""
    if not isinstance(value, np.floating):
        return str(value)
    return rounded_up(float(value)) if name == "p_b" else rounded_down(float(value))
