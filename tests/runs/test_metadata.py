"""The record of a run: what it holds, how it is compared, and that strategies come back from it."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import scipy
from sklearn import config_context

from smoothcert import (
    BoxRadius,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LipschitzRadius,
    SmoothedClassifier,
    SplitNoise,
    StoreError,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.runs.metadata import RunMetadata, from_spec, to_spec
from smoothcert.runs.store import read_store

from .test_verify_store import forge


def model(rows):
    return (rows[:, 0] > 0.5).astype(int)


def smoothed(**params):
    return SmoothedClassifier.from_pretrained(
        model, [0, 1], **{"n_samples": 100, "n_selection": 20, "alpha": 0.05, "random_state": 3} | params
    )


X = np.random.default_rng(0).random((5, 3))


@pytest.fixture
def path(tmp_path):
    smoothed().certify(X, store=tmp_path / "run.sqlite")
    return tmp_path / "run.sqlite"


def test_when_and_with_what_a_run_was_made(path):
    run = read_store(path).run
    created = datetime.fromisoformat(run.created)
    assert abs((datetime.now(UTC) - created).total_seconds()) < 60
    assert (run.versions["python"], run.versions["platform"]) == (platform.python_version(), platform.platform())
    assert (run.versions["numpy"], run.versions["scipy"]) == (np.__version__, scipy.__version__)
    assert run.parameters == {
        "n_selection": 20, "n_samples": 100, "scheme": "multiclass", "bound": "clopper-pearson", "alpha": 0.05,
        "rtol": None, "estimation": "sample", "radius": to_spec(GreedyRadius()),
    }  # fmt: skip


def test_versions_of_this_library_are_compared_and_others_are_not(path):
    forge(path, lambda rows: rows[0].update(versions=rows[0]["versions"].replace(np.__version__, "0.1")), table="run")
    smoothed().certify(X, store=path)
    own = read_store(path).run.versions["smoothcert"]
    forge(path, lambda rows: rows[0].update(versions=rows[0]["versions"].replace(own, "0.0.1")), table="run")
    with pytest.raises(StoreError, match=rf"belongs to another run\. .*smoothcert: 0\.0\.1, {own}\. Use"):
        smoothed().certify(X, store=path)


def test_stores_that_do_not_name_their_estimation_hold_votes(path):
    forge(path, lambda rows: rows[0].update(parameters=rows[0]["parameters"].replace('"estimation": "sample", ', "")),
          table="run")  # fmt: skip
    assert read_store(path).run.parameters["estimation"] == "sample"


def test_a_record_has_a_seed_of_its_own_and_what_is_long_is_cut_off(path):
    run = read_store(path).run
    assert (run.seed, run.with_seed().seed) == (3, 3)
    seeds = {replace(run, seed=None).with_seed().seed for _ in range(3)}
    assert len(seeds) == 3
    assert min(seeds) > 2**64
    assert run.differences(replace(run, seed=None)) == []
    assert run.differences(replace(run, seed=0)) == ["random_state: seed 3, seed 0"]
    for n, shown in ((120, "x" * 118), (121, "x" * 116 + "...")):
        (found,) = run.differences(replace(run, parameters=run.parameters | {"scheme": "x" * (n - 2)}))
        assert found.split(", ")[1].strip("'") == shown
    assert run.origin().seed == 3
    assert replace(run, seed=None).origin().seed == 0


def test_classes_that_a_store_cannot_hold_are_named(path):
    run = replace(read_store(path).run, classes=np.array([1j, 2j]))
    with pytest.raises(ValueError, match=r"classes must be numbers, strings or booleans to be stored, got \[1j, 2j\]"):
        run.to_row()


STRATEGIES = [
    SplitNoise(0.7, levels=np.int64(255)),
    UniformMixtureNoise((1.0, 4.0), (0.25, 0.75)),
    UniformMixtureNoise([1.0, np.float64(4.0)], [0.25, 0.75]),
    DeterministicSplitNoise(1.0, levels=8, template=np.array([3, 1, 2])),
    GaussianNoise(0.3),
    UniformNoise(0.5, levels=(4, "auto", 8)),
    GreedyRadius(max_change=(0.5, np.inf), max_features=3),
    GreedyRadius(max_change=np.array([0.5, 0.25])),
    LipschitzRadius(norm=np.inf),
    BoxRadius(closed_form=True),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_strategies_come_back(strategy):
    argument = "noise" if "Noise" in type(strategy).__name__ else "radius"
    found = from_spec(argument, json.loads(json.dumps(to_spec(strategy))))
    assert type(found) is type(strategy)
    for name, value in strategy.get_params().items():
        again = getattr(found, name)
        assert type(again) is (type(value.item()) if isinstance(value, np.generic) else type(value))
        np.testing.assert_array_equal(again, value)


def test_what_json_cannot_hold_does_not_come_back():
    spec = to_spec(UniformNoise(0.5, levels=object))
    with pytest.raises(ValueError, match="The parameter <class 'object'> cannot be rebuilt from a store"):
        from_spec("noise", spec)
    with pytest.raises(ValueError, match=r"radius=SplitNoise.* is not one of smoothcert's own"):
        from_spec("radius", to_spec(SplitNoise()))


def test_records_do_not_depend_on_how_scikit_learn_shows_estimators():
    strategy = GreedyRadius(max_change=SplitNoise(lam=2.0))
    with config_context(print_changed_only=False):
        other = to_spec(strategy)
    assert to_spec(strategy) == other
    assert to_spec(GreedyRadius(max_change=SplitNoise(lam=3.0)))["parameters"] != other["parameters"]


def test_what_reads_a_run_is_named(path):
    run = read_store(path).run
    assert isinstance(run, RunMetadata)
    assert run.reader == "Certificates.from_store(path)"
    assert replace(run, decided_at=0.3).reader == "Decisions.from_store(path)"
    run.check_holds("labels")
    with pytest.raises(ValueError, match=r"^The store holds a run of a classifier, whose votes are labels"):
        run.check_holds("numbers")
