"""Results as tables (text, Markdown, LaTeX, HTML), and numbers rounded to their safe side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from .._utils.optional import optional


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """Certified accuracy at some radii, with a note on the inputs. It prints as a table.

    Parameters
    ----------
    radii : ndarray of shape (n_radii,)
    accuracy : dict of str to ndarray of shape (n_radii,)
        One column for each name.
    norm : str
        The norm of the radii, such as "l1".
    note : str
        A line below the table.

    See Also
    --------
    smoothcert.Certificates.summary : Make the table of one classifier.
    smoothcert.results.summarize : Make the table of several classifiers.

    Examples
    --------
    >>> import numpy as np
    >>> table = Summary(np.array([0.0, 0.5]), {"box": np.array([0.9, 0.625])}, "l1", "16 inputs")
    >>> print(table)
    l1 radius    box
            0  0.900
          0.5  0.625
    16 inputs
    >>> print(table.to_markdown())
    |   l1 radius |   box |
    |------------:|------:|
    |           0 | 0.900 |
    |         0.5 | 0.625 |
    <BLANKLINE>
    16 inputs
    """

    radii: NDArray[np.float64]
    accuracy: Mapping[str, NDArray[np.float64]]
    norm: str
    note: str

    @property
    def cells(self) -> list[list[str]]:
        """The header and the rows, as text."""
        columns = self.accuracy.values()
        rows = [[unrounded(radius), *(f"{one[i]:.3f}" for one in columns)] for i, radius in enumerate(self.radii)]
        return [[f"{self.norm} radius", *self.accuracy], *rows]

    def __repr__(self) -> str:
        return format_table(self.cells, self.note, "plain")

    def to_markdown(self) -> str:
        """Return a Markdown table.

        Returns
        -------
        text : str
        """
        return format_table(self.cells, self.note, "pipe")

    def to_latex(self) -> str:
        """Return a LaTeX table in the style of the package booktabs.

        Returns
        -------
        text : str
        """
        norm = r"\infty" if self.norm == "linf" else self.norm[1:]
        text = format_table(self.cells, self.note, "latex_booktabs")
        return text.replace(f"{self.norm} radius", rf"$\ell_{{{norm}}}$ radius", 1)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, with the radii as its index.

        Returns
        -------
        frame : pandas.DataFrame

        Raises
        ------
        ImportError
            If pandas is missing; ``smoothcert[tables]`` brings it.
        """
        pandas = optional("pandas", "tables")
        return pandas.DataFrame(dict(self.accuracy), index=pandas.Index(self.radii, name=f"{self.norm} radius"))

    def _repr_html_(self) -> str:
        return format_table(self.cells, self.note, "html")


def format_table(cells: Sequence[Sequence[str]], note: str, style: str) -> str:
    r"""Return a table with a note below, in a style of tabulate; all text is escaped, and columns are right-aligned.

    Parameters
    ----------
    cells : sequence of sequence of str
        The header, then the rows.
    note : str
    style : {"plain", "pipe", "latex_booktabs", "html"}

    Returns
    -------
    text : str

    Examples
    --------
    >>> print(format_table([["input", "a|b"], ["3", "0.5"]], "", "pipe"))
    |   input |   a\|b |
    |--------:|-------:|
    |       3 |    0.5 |
    """
    if style == "pipe":
        cells = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    header, rows = ((), cells) if style == "plain" else (cells[0], cells[1:])
    table = tabulate(rows, header, tablefmt=style, disable_numparse=True, colalign=["right"] * len(cells[0]))
    below = {
        "plain": f"\n{note}",
        "pipe": f"\n\n{note}",
        "latex_booktabs": f"\n% {note}",
        "html": f"<p>{escape(note)}</p>",
    }
    return str(table) + (below[style] if note else "")


def rounded_down(value: float, digits: int = 4) -> str:
    """Show a number with some significant digits, never as more than it is.

    Parameters
    ----------
    value : float
    digits : int, default=4

    Returns
    -------
    text : str

    Examples
    --------
    >>> rounded_down(2 / 3), rounded_up(2 / 3)
    ('0.6666', '0.6667')
    """
    return _rounded(value, digits, ROUND_FLOOR)


def rounded_up(value: float, digits: int = 4) -> str:
    """Show a number with some significant digits, never as less than it is; see `rounded_down`."""
    return _rounded(value, digits, ROUND_CEILING)


def unrounded(value: float) -> str:
    """Show a number as the shortest text that reads back as the same float.

    Examples
    --------
    >>> unrounded(2.0), unrounded(0.9999999)
    ('2', '0.9999999')
    """
    return repr(float(value)).removesuffix(".0")


def _rounded(value: float, digits: int, direction: str) -> str:
    if not np.isfinite(value):
        return f"{value:g}"
    shown = Context(prec=digits, rounding=direction).create_decimal(Decimal(float(value)))
    return f"{shown.normalize():f}"
