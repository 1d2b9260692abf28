"""The ONNX Runtime example: an exported model votes as the original does."""

import importlib.util
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from smoothcert import SmoothedClassifier, UniformNoise

from ..processes import run_python

pytest.importorskip("onnxruntime")
pytest.importorskip("skl2onnx")

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_runtime.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("onnx_runtime_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_example_certifies_the_exported_network():
    code = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    shown = run_python(code, EXAMPLE, "--epochs=20", "--samples=200", "--images=30")
    accuracy = [float(found) for found in re.findall(r"radius [\d.]+: ([\d.]+)", shown)]
    assert len(accuracy) == 3
    assert accuracy[0] > 0.7
    assert accuracy == sorted(accuracy, reverse=True)
    assert float(re.search(r"own run of the network: ([\d.]+)", shown)[1]) > 0.95


def test_certificates_are_those_of_the_original_model(example):
    rng = np.random.default_rng(0)
    X = rng.random((60, 4))
    model = LogisticRegression().fit(X, (X[:, 0] > 0.5).astype(int) + (X[:, 1] > 0.7))
    params = {"noise": UniformNoise(0.4), "n_samples": 2000, "random_state": 0}
    exported = example.OnnxModel(example.export(model, 4))
    onnx = SmoothedClassifier.from_pretrained(exported, model.classes_, **params)
    original = SmoothedClassifier.from_pretrained(model, model.classes_, **params)
    votes, expected = onnx.count_votes(X), original.count_votes(X)
    # float32 shifts the decision boundary so little that almost none of the 120,000 votes changes.
    assert np.abs(votes.estimation - expected.estimation).sum() <= 20
    found = onnx.certify(X, votes=votes)
    np.testing.assert_array_equal(found.labels, original.certify(X, votes=expected).labels)

    copy = pickle.loads(pickle.dumps(onnx))
    np.testing.assert_array_equal(copy.certify(X, votes=votes).radii, found.radii)
    np.testing.assert_array_equal(copy.set_params(batch_size=77).count_votes(X).estimation, votes.estimation)
