"""The tables of the documentation against the code."""

from pathlib import Path

import numpy as np
import pytest

import smoothcert
from smoothcert import BoxRadius, GreedyRadius, LipschitzRadius
from smoothcert.resolve import STRATEGIES, resolve

DOCS = Path(__file__).parent.parent / "docs"


def rows_of_table(path, header):
    """Rows of the Markdown table whose header starts with these words, as lists of cells."""
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table[0], table[2:]


def test_the_table_of_certificates_is_what_the_code_accepts():
    header, rows = rows_of_table(DOCS / "noises.md", "| noise | `Lipschitz")
    names = {"BoxRadius": BoxRadius, "GreedyRadius": GreedyRadius, "LipschitzRadius": LipschitzRadius, "inf": np.inf}
    strategies = [eval(cell.strip("`"), names) for cell in header[1:]]
    assert {row[0].strip("`") for row in rows} == set(STRATEGIES["noise"][1])
    for row in rows:
        noise = resolve("noise", row[0].strip("`"))
        for cell, strategy in zip(row[1:], strategies, strict=True):
            if cell == "-":
                with pytest.raises(ValueError, match="has no certificate for"):
                    strategy.check(noise)
            else:
                strategy.check(noise)


def test_the_table_of_parameters_is_that_of_the_code():
    _, rows = rows_of_table(DOCS / "noises.md", "| noise | parameters")
    assert len(rows) == len(STRATEGIES["noise"][1])
    for name, parameters, _, box, _, calls in rows:
        noise = resolve("noise", name.strip("`"))
        assert set(parameters.split(", ")) == set(noise.get_params())
        assert (box == "used") == noise.uses_box
        assert (calls == "floor(2 lam levels)") == (noise.n_outcomes is not None)


def test_every_public_name_has_a_docstring():
    for name in smoothcert.__all__:
        assert getattr(smoothcert, name).__doc__
