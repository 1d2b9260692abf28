"""Frozen records: arrays with one entry for each input, which can be sliced, saved, loaded and shown as tables."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._utils.checks import check_labels
from .._utils.optional import optional
from .files import load_content, save_content
from .tables import format_table, rounded_down, rounded_up

#: The number of inputs that notebooks show.
SHOWN = 10


class Records:
    """The base class of frozen dataclasses whose arrays have one entry for each input; slicing works as for an array.

    See Also
    --------
    TableRecords : Records that convert to a DataFrame.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, eq=False)
    ... class Ages(Records):
    ...     years: np.ndarray
    ...     unit: str
    >>> Ages(np.array([3, 5, 8]), "years")[1:]
    Ages(years=array([5, 8]), unit='years')
    """

    def __post_init__(self) -> None:
        for name, value in self._arrays().items():
            frozen = value.view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def _saved(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that a file holds."""
        return self._arrays()

    def _scalars(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not isinstance(value, np.ndarray)}

    @staticmethod
    def _to_json(scalars: dict[str, Any]) -> dict[str, Any]:
        """Return the scalars as JSON can hold them, which has no number for infinity, a norm."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in scalars.items()}
        return {name: "inf" if value == np.inf else value for name, value in plain.items()}

    @staticmethod
    def _from_json(scalars: dict[str, Any]) -> dict[str, Any]:
        """Undo `_to_json`."""
        return {name: np.inf if value == "inf" else value for name, value in scalars.items()}

    def __len__(self) -> int:
        return len(next(iter(self._arrays().values())))

    def __getitem__(self, index: Any) -> Self:
        picked = np.atleast_1d(np.arange(len(self))[index])
        if picked.ndim > 1:
            raise IndexError(f"{type(self).__name__} takes a position, a slice or a mask of inputs, got {index!r}.")
        return replace(self, **{name: value[picked] for name, value in self._arrays().items()})  # type: ignore[type-var]

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """Join records, such as those of the shards of a run.

        Parameters
        ----------
        parts : iterable
            Records in the order of their inputs. What is the same for all inputs, such as alpha, the norm and the
            threat, must be the same in all of them.

        Returns
        -------
        records

        Raises
        ------
        ValueError
            If there is no part, or parts differ in what is the same for all inputs.

        Examples
        --------
        >>> from smoothcert import Decisions
        >>> parts = [
        ...     Decisions(np.array([label]), np.array([True]), np.array([48]), np.array([0.5]), alpha=0.001, norm=1)
        ...     for label in ("cat", "dog")]
        >>> print(Decisions.concatenate(parts).labels)
        ['cat' 'dog']
        """
        found = list(parts)
        wrong = [type(part).__name__ for part in found if not isinstance(part, cls)]
        if wrong or not found:
            raise ValueError(f"parts must be one or more {cls.__name__}, got {wrong[0] if wrong else 'none'}.")
        for i, part in enumerate(found):
            differing = [*(part._arrays().keys() ^ found[0]._arrays().keys())]
            differing = differing or [n for n, value in found[0]._scalars().items() if getattr(part, n) != value]
            if differing:
                name = differing[0]
                raise ValueError(
                    f"parts must belong to one run, but part {i} has {name}={getattr(part, name)!r} and part 0 has "
                    f"{getattr(found[0], name)!r}."
                )
        arrays = {name: np.concatenate([getattr(part, name) for part in found]) for name in found[0]._arrays()}
        return replace(found[0], **arrays)  # type: ignore[type-var]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a file, without pickle.

        Parameters
        ----------
        path : str or path
            The suffix chooses the format: .npz, or .parquet (needs pyarrow, ``smoothcert[tables]``), which other tools
            can read as a table. An existing file is replaced once the new one is complete.

        Raises
        ------
        ValueError
            If the suffix is another one, or labels are neither numbers nor strings.

        See Also
        --------
        load : Read the file.
        """
        save_content(path, type(self).__name__, self._saved(), self._to_json(self._scalars()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` has written.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        records
            Equal to the saved ones, bit by bit. A digest detects damage; it is not a signature.

        Raises
        ------
        ValueError
            If the file is damaged or incomplete, if another program or a later version wrote it, or if it holds
            another class.
        OSError
            If there is no such file.

        See Also
        --------
        save : Write the file.
        """
        arrays, scalars = load_content(path, cls.__name__)
        try:
            return cls(**arrays, **cls._from_json(scalars))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} does not hold the fields of {cls.__name__}: {error}.") from error


class TableRecords(Records):
    """Records that are a table: one row for each input, one column for each array.

    See Also
    --------
    smoothcert.Certificates, smoothcert.Decisions : The tables of this library.

    Examples
    --------
    >>> from smoothcert import Decisions
    >>> issubclass(Decisions, TableRecords)
    True
    """

    labels: NDArray[Any]
    failed: NDArray[np.bool_] | None

    def __post_init__(self) -> None:
        if self.failed is None:
            object.__setattr__(self, "failed", np.zeros(len(self), dtype=bool))
        super().__post_init__()

    def _saved(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that a file holds; failures only if there are any."""
        return {name: value for name, value in self._arrays().items() if name != "failed" or value.any()}

    def _columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of the table by name; an array of two dimensions has a column for each radius."""
        saved = self._saved()
        several = [name for name, value in saved.items() if value.ndim == 2]
        several.sort(key=lambda name: name != "radius")  # the radius first
        first, *others = [name for name in saved if name not in several]
        columns = {first: saved[first]}
        for i in range(saved[several[0]].shape[1] if several else 0):
            columns |= {f"{name} {i}": saved[name][:, i] for name in several}
        return columns | {name: saved[name] for name in others}

    def _judged(self, y: Any) -> dict[str, NDArray[Any]]:
        """Return the true labels, and which predicted labels are right."""
        truth = check_labels(y, len(self), self.labels)
        return {"truth": truth, "correct": (truth == self.labels) & ~np.asarray(self.failed, dtype=bool)}

    def to_frame(self, *, y: Any = None, index: Any = None) -> Any:
        """Return a pandas DataFrame with one row for each input; its ``attrs`` hold what is the same for all inputs.

        Parameters
        ----------
        y : array-like of shape (n_inputs,), optional
            True labels, read by position. They add the columns ``truth`` and ``correct``, which tells whether the
            predicted label is right. Numbers add ``truth`` and ``error``, the distance of the prediction.
        index : pandas DataFrame, Series or Index, or array-like of shape (n_inputs,), optional
            The index of the result: that of a DataFrame or Series, such as the certified X, or the values given.

        Returns
        -------
        frame : pandas.DataFrame

        Raises
        ------
        ValueError
            If ``y`` or ``index`` do not fit the inputs.
        ImportError
            If pandas is missing; ``smoothcert[tables]`` brings it.

        Examples
        --------
        >>> import numpy as np
        >>> from smoothcert import Certificates
        >>> certificates = Certificates(
        ...     labels=np.array(["cat", "dog"]), radii=np.array([0.8, np.nan]), abstained=np.array([False, True]),
        ...     p_a=np.array([0.9, 0.5]), p_b=np.array([0.1, 0.5]), alpha=0.001, norm=1)
        >>> frame = certificates.to_frame(y=["cat", "cat"], index=["tom", "rex"])
        >>> print(frame[["label", "radius", "truth", "correct"]])
            label  radius truth  correct
        tom   cat     0.8   cat     True
        rex   dog     NaN   cat    False
        """
        columns = {name: column.copy() for name, column in self._columns().items()}
        frame = optional("pandas", "tables").DataFrame(columns)
        frame.attrs.update({name: value for name, value in self._scalars().items() if value is not None})
        for name, column in ({} if y is None else self._judged(y)).items():
            frame[name] = column
        if index is not None:
            found = index.index if hasattr(index, "iloc") else index
            if len(found) != len(self):
                raise ValueError(f"index must have one entry for each of {len(self)} inputs, got {len(found)}.")
            frame.index = found
        return frame

    def _repr_html_(self) -> str:
        columns = self._columns()
        cells = [[_cell(name, column[i]) for name, column in columns.items()] for i in range(min(len(self), SHOWN))]
        if len(self) > SHOWN:
            cells.append(["..."] * len(columns))
        return format_table([list(columns), *cells], repr(self), "html")


def _cell(name: str, value: Any) -> str:
    """Show one value of a table: bounds are rounded to their safe side."""
    if not isinstance(value, np.floating):
        return str(value)
    return rounded_up(float(value)) if name.startswith(("p_b", "upper", "tolerance")) else rounded_down(float(value))


def no_label(classes: NDArray[Any]) -> NDArray[Any]:
    """Return a label that is none of the classes, in an array of shape (1,).

    Examples
    --------
    >>> no_label(np.array([3, 7])), no_label(np.array(["cat", "dog"]))
    (array([-1]), array([''], dtype='<U1'))
    """
    if classes.dtype == np.uint64:
        # Beside -1, these labels would become floats, which cannot tell large numbers apart.
        return np.setdiff1d(np.arange(len(classes) + 1, dtype=np.uint64), classes)[:1]
    if classes.dtype.kind in "iub":
        return np.array([min(-1, int(classes.min()) - 1)])
    if classes.dtype.kind == "f":
        return np.array([np.nan])
    text = ""
    while text in classes.tolist():
        text += "?"
    return np.array([text], dtype=object if classes.dtype.kind == "O" else None)


def made_anew(function: str, *given: Any, **choices: Any) -> Any:
    """Call a function of `runs.recertify`, which lies above this module: it makes records of votes and stores."""
    from ..runs import recertify

    return getattr(recertify, function)(*given, **choices)
