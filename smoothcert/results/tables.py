"""Results as tables: text, Markdown, LaTeX and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.optional import optional

#: Characters that LaTeX would take for commands.
LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {character: "\\" + character for character in "&%$#_{}"}
)


@dataclass(frozen=True, eq=False)
class Summary:
    """Certified accuracy at some radii, with what is needed to read it. It prints as a table.

    Parameters
    ----------
    radii : ndarray of shape (n_radii,)
    accuracy : dict of str to ndarray of shape (n_radii,)
        One column for each name.
    norm : str
        Norm of the radii, such as "l1".
    note : str
        What the numbers are about, below the table.

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
    | l1 radius | box |
    |---:|---:|
    | 0 | 0.900 |
    | 0.5 | 0.625 |
    <BLANKLINE>
    16 inputs
    """

    radii: NDArray[np.float64]
    accuracy: Mapping[str, NDArray[np.float64]]
    norm: str
    note: str

    @property
    def cells(self) -> list[list[str]]:
        """Header and rows, as text."""
        columns = self.accuracy.values()
        rows = [[f"{radius:g}", *(f"{one[i]:.3f}" for one in columns)] for i, radius in enumerate(self.radii)]
        return [[f"{self.norm} radius", *self.accuracy], *rows]

    def __str__(self) -> str:
        cells = self.cells
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([*lines, self.note])

    __repr__ = __str__

    def to_markdown(self) -> str:
        """Return a Markdown table."""
        header, *rows = [[cell.replace("|", r"\|") for cell in row] for row in self.cells]
        lines = [header, ["---:"] * len(header), *rows]
        shown = ["|" + "|".join(line) + "|" if line[0] == "---:" else "| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([*shown, "", self.note])

    def to_latex(self) -> str:
        """Return a LaTeX table in the style of booktabs."""
        header, *rows = [[cell.translate(LATEX) for cell in row] for row in self.cells]
        norm = r"\infty" if self.norm == "linf" else self.norm[1:]
        header[0] = rf"$\ell_{{{norm}}}$ radius"
        return "\n".join(
            [
                rf"\begin{{tabular}}{{{'r' * len(header)}}}",
                r"\toprule",
                " & ".join(header) + r" \\",
                r"\midrule",
                *(" & ".join(row) + r" \\" for row in rows),
                r"\bottomrule",
                r"\end{tabular}",
                f"% {self.note}",
            ]
        )

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, with the radii as its index.

        Raises
        ------
        ImportError
            If pandas is missing.
        """
        pandas = optional("pandas", "tables")
        return pandas.DataFrame(dict(self.accuracy), index=pandas.Index(self.radii, name=f"{self.norm} radius"))

    def _repr_html_(self) -> str:
        header, *rows = self.cells
        return html_table(header, rows, self.note)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """Return an HTML table with a note below; all text is escaped."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{escape(note)}</p>"


def rounded_down(value: float, digits: int = 4) -> str:
    """Show a number with so many significant digits, never as more than it is."""
    return _rounded(value, digits, ROUND_FLOOR)


def rounded_up(value: float, digits: int = 4) -> str:
    """Show a number with so many significant digits, never as less than it is."""
    return _rounded(value, digits, ROUND_CEILING)


def _rounded(value: float, digits: int, direction: str) -> str:
    if not np.isfinite(value):
        return f"{value:g}"
    shown = Context(prec=digits, rounding=direction).create_decimal(Decimal(float(value)))
    return f"{shown.normalize():f}"
