"""The code of these pages runs as printed, block after block."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(page):
        names = {}
        for block in re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), flags=re.S | re.M):
            exec(compile(block, page, "exec"), names)
        return names

    return run


def test_units(run):
    names = run("units.md")
    assert (names["labels"] == [0, 1, 0, 1]).all()
    kept = ~names["certificates"].abstained
    assert kept.any()
    # The dose has the smaller range, .8, and decides about the plain radius.
    np.testing.assert_allclose(names["plain"].radii[kept], 0.8 * names["certificates"].radii[kept], rtol=1e-6)
    np.testing.assert_allclose(names["weighted"].radii[kept], names["certificates"].radii[kept], rtol=1e-6)
    np.testing.assert_allclose(names["weights"], [1 / 45, 1 / 0.8], rtol=1e-12)


def test_ecosystem(run):
    names = run("ecosystem.md")
    assert list(names["function"].predict([[0.1, 0.3], [0.9, 0.3]])) == ["low", "high"]
    assert (np.diff(names["accuracy"]) < 0).any()
    np.testing.assert_array_equal(names["loaded"].classes_, [0, 1])
