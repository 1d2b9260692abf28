"""Stores of regressors: numbers are kept, checked and merged, and results come from them to the last bit."""

import multiprocessing
import sqlite3
import time
import zlib
from contextlib import closing
from itertools import product

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from smoothcert import (
    Certificates,
    Decisions,
    GreedyRadius,
    LipschitzRadius,
    SmoothedClassifier,
    SmoothedRegressor,
    SplitNoise,
    StoreError,
    UniformMixtureNoise,
    UniformNoise,
    VoteCounts,
    merge_stores,
    stored_classifier,
    verify_store,
)
from smoothcert.results import Intervals, ToleranceRadii
from smoothcert.runs import merge, recertify
from smoothcert.runs.store import Store, add_labels, read_parts, read_status, read_store
from smoothcert.stored import stored_estimator

from . import crashes
from .test_encoding import packed
from .test_verify_store import forge

X = np.round(np.random.default_rng(0).random((12, 40)) * 255) / 255
RADII = [[0.0, 0.02, 0.3, 1.0, 90.0]]


def mean(batch):
    """A number that is the same to the last bit in every batch."""
    return np.round(batch[:, :3] * 2**20).sum(axis=1) / 2**20


def smoothed(function=mean, **params):
    params = {"n_samples": 300, "n_selection": 16, "batch_size": 128, "random_state": 5} | params
    return SmoothedRegressor.from_pretrained(function, **params)


def assert_same(found, expected):
    """Compare intervals or radii to the last bit."""
    assert type(found) is type(expected)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


@pytest.mark.parametrize("random_state", [5, None])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_was_stopped_resumes_with_the_same_bits(tmp_path, monkeypatch, random_state, threads):
    path, asked, append = tmp_path / "run.sqlite", [], Store.append

    def watched(batch):
        asked.append(len(batch))
        return mean(batch)

    def stop(store, index, *record):
        append(store, index, *record)
        if len(store.finished()) > 4:
            raise KeyboardInterrupt

    reg = smoothed(watched, random_state=random_state)
    with monkeypatch.context() as patched, joblib.parallel_config(backend="threading", n_jobs=threads):
        patched.setattr(Store, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            reg.certify(X, 0.3, store=path)
    done = len(read_store(path))
    assert 4 < done < len(X)
    with pytest.raises(ValueError, match=f"holds {done} of 12 inputs: the run has not ended"):
        Intervals.from_store(path, 0.3)
    assert len(Intervals.from_store(path, 0.3, partial=True)) == done
    asked.clear()
    intervals = reg.certify(X, RADII, store=path)
    # Threads may still be asking when the run stops.
    drawn = sum(n for n in asked if n > 8)
    assert threads > 1 or drawn == (12 - done) * 316 + done * 16, "selection votes are drawn again"
    left_alone = smoothed(random_state=read_store(path).run.seed)
    assert_same(intervals, left_alone.certify(X, RADII))
    assert_same(reg.certify_within(X, 0.8, store=path), left_alone.certify_within(X, 0.8))
    assert read_status(path).votes == 12 * 316


NOISES = [SplitNoise(0.2), UniformNoise(0.7, levels=255), UniformMixtureNoise([0.2, 0.5], [0.5, 0.5])]
STRATEGIES = ["greedy", "box", "lipschitz", GreedyRadius(max_features=3), GreedyRadius(max_change=0.9)]


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_a_store_serves_other_radii_tolerances_strategies_quantiles_and_levels(tmp_path, noise):
    path, few = tmp_path / "run.sqlite", X[:3]
    smoothed(noise=noise).certify(few, 0.1, store=path)
    assert read_store(path).reach.shape[1] < 40, "not all reaches are kept"
    strategies = STRATEGIES[:2] if isinstance(noise, UniformMixtureNoise) else STRATEGIES
    for strategy, (quantile, alpha) in product(strategies, [(0.5, 0.001), (0.04, 0.1)]):
        reg = smoothed(noise=noise, quantile=quantile, radius=strategy, alpha=alpha)
        rule = {"strategy": strategy, "quantile": quantile, "alpha": alpha}
        assert_same(Intervals.from_store(path, RADII, **rule), reg.certify(few, RADII))
        assert_same(ToleranceRadii.from_store(path, 0.9, **rule), reg.certify_within(few, 0.9))
    assert_same(Intervals.from_store(path, RADII, X=few), smoothed(noise=noise).certify(few, RADII))


def test_costs_and_categories_are_read_from_the_store(tmp_path):
    """Below an overlap of 1/2, categories change in part: other quantiles than the median look there."""
    rng, path = np.random.default_rng(1), tmp_path / "run.sqlite"
    table = np.hstack([rng.integers(0, 3, (30, 3)), rng.random((30, 90))])
    costs = np.r_[0.2, 0.2, 0.3, np.ones(89), np.inf]
    base = LinearRegression()
    reg = SmoothedRegressor(
        base, SplitNoise(0.4), costs=costs, categorical_features=[0, 1, 2], hidden="uniform", n_samples=200,
        n_selection=16, random_state=0,
    ).fit(table, table[:, 0] + table[:, 5])  # fmt: skip
    some, radii = table[:4], [[0.0, 0.1, 0.2, 0.4, 0.6, 3.0]]
    reg.certify(some, 0.1, store=path)
    assert read_store(path).reach.shape[1] < 90
    for quantile in (0.5, 0.1):
        reg.set_params(quantile=quantile)
        intervals = reg.certify(some, radii)
        assert np.isinf(intervals.lower[:, -1]).all()
        assert np.isfinite(intervals.upper[:, 1]).all()
        assert_same(Intervals.from_store(path, radii, quantile=quantile), intervals)
        assert_same(ToleranceRadii.from_store(path, 1.5, quantile=quantile), reg.certify_within(some, 1.5))


def test_reaches_that_do_not_decide_are_never_guessed(tmp_path):
    path = tmp_path / "run.sqlite"
    smoothed(noise=SplitNoise(0.2)).certify(X, 0.1, store=path)
    limit = GreedyRadius(max_change=0.01)
    reg = smoothed(noise=SplitNoise(0.2), radius=limit)
    with pytest.raises(ValueError, match=r"^The radius strategy .* needs more than the 18 largest reaches .* Give X="):
        Intervals.from_store(path, 0.3, strategy=limit)
    assert_same(Intervals.from_store(path, 0.3, strategy=limit, X=X), reg.certify(X, 0.3))
    assert_same(Intervals.from_store(path, 0.15, strategy=limit), reg.certify(X, 0.15))
    with pytest.raises(ValueError, match=r"looks at the features of each input"):
        Intervals.from_store(path, 0.3, strategy=GreedyRadius(max_change=np.full(40, 0.5)))
    with pytest.raises(ValueError, match=r"^strategy must be one of 'auto'"):
        Intervals.from_store(path, 0.3, strategy="tightest")
    for read in (Intervals.from_store, ToleranceRadii.from_store):
        # Messages name what the caller wrote.
        with pytest.raises(TypeError, match=rf"{read.__qualname__}\(\) got an unexpected keyword argument 'n_samples'"):
            read(path, 0.3, n_samples=30)
        with pytest.raises(ValueError, match=r"^The radius strategy LipschitzRadius\(norm=2\) has no certificate for"):
            read(path, 0.3, strategy=LipschitzRadius(norm=2))
    with pytest.raises(ValueError, match="some of 0 to 11 differ"):
        Intervals.from_store(path, 0.3, X=X[::-1])
    with pytest.raises(ValueError, match=r"of shape \(12, 40\), got shape \(11, 40\)"):
        Intervals.from_store(path, 0.3, X=X[1:])
    with pytest.raises(ValueError, match="radius must be a number of at least 0, or one for each of 12 inputs"):
        Intervals.from_store(path, [0.1, 0.2])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_samples": 301}, "n_samples: 300, 301"),
        ({"n_selection": 17}, "n_selection: 16, 17"),
        ({"quantile": 0.4}, r"quantile: 0\.5, 0\.4.*Intervals\.from_store\(path, radius\)"),
        ({"alpha": 0.02}, r"alpha: 0\.001, 0\.02"),
        ({"radius": "box"}, r"radius: GreedyRadius\(.*\), BoxRadius\("),
        ({"noise": SplitNoise(2.0)}, r"noise: SplitNoise\(lam=1.0, .*, SplitNoise\(lam=2.0"),
        ({"bounds": (0.0, 1.5)}, "bounds: box"),
        ({"costs": 0.5}, "costs: costs"),
        ({"random_state": 1}, r"random_state: seed 5, seed 1"),
    ],
)
def test_a_store_of_other_parameters_is_refused(tmp_path, change, named):
    path = tmp_path / "run.sqlite"
    smoothed().certify(X, 0.1, store=path)
    digest = read_status(path).digest
    with pytest.raises(StoreError, match=f"belongs to another run.*{named}"):
        smoothed(**change).certify(X, 0.1, store=path)
    assert read_status(path).digest == digest


def test_a_store_of_another_model_or_other_data_is_refused(tmp_path):
    path, other = tmp_path / "run.sqlite", X.copy()
    smoothed().certify(X, 0.1, store=path)
    with pytest.raises(ValueError, match=r"different model: X\[\d+\] gets the selection votes \[.*\] and not \["):
        smoothed(lambda batch: mean(batch) + 0.01).certify(X, 0.1, store=path)
    with pytest.raises(StoreError, match=r"shape of X: \(12, 40\), \(11, 40\)"):
        smoothed().certify(X[1:], 0.1, store=path)
    other[7, 30] = 1 - other[7, 30]
    with pytest.raises(StoreError, match=r"X\[7\] is not the input"):
        smoothed().certify(other, 0.1, store=path)
    # Where the content of the model is known, equal numbers alone do not suffice.
    path, rows = tmp_path / "linear.sqlite", X[:, :5]
    base, again = (LinearRegression().fit(rows, rows[:, 0] + shift) for shift in (0, 1e-7))
    smoothed(base).certify(rows, 0.1, store=path)
    with pytest.raises(ValueError, match=r"get the same votes, but the model's content is .* pass same_model=True"):
        smoothed(again).certify(rows, 0.1, store=path)
    with pytest.warns(UserWarning, match="since same_model=True"):
        smoothed(again).certify_within(rows, 0.1, store=path, same_model=True)


def test_what_counts_as_rounding(tmp_path):
    path, seen = tmp_path / "run.sqlite", []

    def tired(batch):
        seen.append(len(batch))
        return mean(batch) + 0.01 * (sum(seen) > 180)

    with pytest.raises(ValueError, match=r"does not repeat itself: the same noisy rows got the votes \[[\d.]+\], and"):
        smoothed(tired).certify(X, 0.1, store=path)
    assert not path.exists()
    # The last bits of a float32 network depend on the batch.
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    expected = smoothed(net).certify(X, RADII)
    assert_same(smoothed(net).certify(X, RADII, store=path), expected)
    assert_same(smoothed(net).certify(X, RADII, store=path), expected)
    assert_same(Intervals.from_store(path, RADII), expected)


def test_infinite_numbers_are_compared_as_they_are(tmp_path):
    path = tmp_path / "run.sqlite"

    def endless(batch):
        return np.where(batch[:, 0] > 0.5, np.inf, batch[:, 1])

    found = smoothed(endless).certify(X, 0.1, store=path)
    assert_same(smoothed(endless).certify(X, 0.1, store=path), found)
    with pytest.raises(ValueError, match="different model"):
        smoothed(lambda batch: np.where(batch[:, 0] > 0.5, 9e9, batch[:, 1])).certify(X, 0.1, store=path)


def test_a_store_of_the_other_kind_is_named(tmp_path):
    numbers, labels = tmp_path / "numbers.sqlite", tmp_path / "labels.sqlite"
    reg, clf = smoothed(), SmoothedClassifier.from_pretrained(lambda b: mean(b) > 1.5, [False, True], random_state=5)
    reg.certify(X, 0.1, store=numbers)
    clf.certify(X, store=labels)
    for read in (
        Certificates.from_store,
        Decisions.from_store,
        VoteCounts.from_store,
        lambda path: stored_classifier(path, mean),
        lambda path: add_labels(path, np.zeros(12)),
    ):
        with pytest.raises(ValueError, match=r"a regressor, whose votes are numbers\. Use Intervals\.from_store"):
            read(numbers)
    for read in (Intervals.from_store, ToleranceRadii.from_store):
        with pytest.raises(ValueError, match=r"a classifier, whose votes are labels\. Use Certificates\.from_store"):
            read(labels, 0.1)
    with pytest.raises(StoreError, match="estimation: 'sample', 'values'"):
        reg.certify(X, 0.1, store=labels)
    with pytest.raises(StoreError, match="estimation: 'values', 'sample'"):
        clf.certify(X, store=numbers)


def test_shards_are_merged(tmp_path, monkeypatch):
    whole, parts = smoothed().certify(X, RADII), [tmp_path / f"{i}.sqlite" for i in (1, 2, 3)]
    each = np.linspace(0, 0.5, len(X))
    for i in (2, 0, 1):
        shard = smoothed().certify(X, each, store=parts[i], shard=(i + 1, 3))
        assert_same(Intervals.from_store(parts[i], each), shard)
    monkeypatch.setattr(merge, "FEW_ROWS", 3)
    with pytest.warns(UserWarning, match="content of the model mean is not known"):
        merge_stores(tmp_path / "run.sqlite", parts[::-1])
    for n_votes in (1000, 1):
        monkeypatch.setattr(recertify, "PART_VOTES", n_votes)
        assert_same(Intervals.from_store(tmp_path / "run.sqlite", RADII), whole)
    sizes = [len(part) for part in read_parts(tmp_path / "run.sqlite", 4 * 316 + 315)]
    assert sizes == [0, 4, 4, 4]
    with (
        pytest.warns(UserWarning, match="is not known"),
        pytest.raises(StoreError, match=r"holds X\[4\], which another store holds"),
    ):
        merge_stores(tmp_path / "twice.sqlite", [*parts, parts[1]])
    with pytest.warns(UserWarning, match="content of the model mean is not known"):
        merge_stores(tmp_path / "two.sqlite", parts[:2])
    assert_same(smoothed().certify(X, RADII, store=tmp_path / "two.sqlite"), whole)


def test_inputs_that_fail_are_recorded(tmp_path):
    path, asked = tmp_path / "run.sqlite", []

    def picky(batch):
        asked.append(len(batch))
        if (batch[:, 39] > 1.3).any():
            raise RuntimeError("too large")
        return mean(batch)

    inputs, noise = X.copy(), UniformNoise(0.5)
    inputs[:, 39] = np.where(np.arange(12) == 5, 1.0, 0.2)
    reg = smoothed(picky, noise=noise)
    with pytest.warns(UserWarning, match=r"1 of 12 inputs failed: X\[5\] \(RuntimeError: too large\)"):
        found = reg.certify(inputs, RADII, store=path, on_error="skip")
    assert np.flatnonzero(found.failed).tolist() == [5]
    assert_same(Intervals.from_store(path, RADII), found)
    assert_same(found[np.arange(12) != 5], smoothed(noise=noise).certify(inputs[np.arange(12) != 5], RADII))
    radii = ToleranceRadii.from_store(path, 0.5)
    assert radii.abstained[5]
    asked.clear()
    with pytest.warns(UserWarning, match="1 of 12 inputs failed"):
        assert_same(reg.certify_within(inputs, 0.5, store=path, on_error="skip"), radii)
    assert sum(asked) < 12 * 16 + 100, "an input that failed is not tried again"
    assert_same(smoothed(noise=noise).certify(inputs, RADII, store=path), smoothed(noise=noise).certify(inputs, RADII))
    assert read_status(path).failed == 0


LINE = np.linspace(0, 1, 300)


@pytest.mark.parametrize(
    "change",
    [
        {"estimation": packed(LINE[::-1])},
        {"estimation": packed(np.r_[LINE[:-1], np.nan])},
        {"estimation": packed(LINE[:-1])},
        {"estimation": packed(LINE)[:-9]},
        {"estimation": zlib.compress(bytes(2**28), 1)},
        {"estimation": b"no numbers"},
        {"estimation": '{"0": 300}'},
        {"estimation": packed(LINE[1:]), "n_samples": 299},
        {"n_samples": 299},
        {"n_selection": 15},
        {"reach": b"1234567"},
    ],
)
def test_impossible_numbers_are_damage(tmp_path, change):
    path = tmp_path / "run.sqlite"
    smoothed().certify(X, 0.1, store=path)
    forge(path, lambda rows: rows[4].update(change))
    with pytest.raises(StoreError, match="is damaged"):
        Intervals.from_store(path, 0.1)
    with pytest.raises(StoreError, match="is damaged"):
        smoothed().certify(X, 0.1, store=path)


def test_a_changed_bit_is_damage(tmp_path):
    path = tmp_path / "run.sqlite"
    smoothed().certify(X, 0.1, store=path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE results SET selection = ? WHERE input = 4", (packed(np.linspace(0, 1, 16)),))
    with pytest.raises(StoreError, match="the checksum of input 4 in results does not match"):
        ToleranceRadii.from_store(path, 0.1)


def test_an_auditor_draws_the_numbers_again(tmp_path):
    path = tmp_path / "run.sqlite"
    reg = smoothed()
    reg.certify(X, 0.1, store=path)
    assert verify_store(path, reg, X, fresh=True, random_state=0).consistent
    # The same distribution with a chosen seed, and another distribution under the recorded one.
    own = read_store(path).votes.estimation
    forge(path, lambda found: [found[i].update(estimation=packed(own[i] * 0.7)) for i in (2, 9)] and found)
    audit = verify_store(path, reg, X, fresh=True, random_state=0)
    assert audit.rows[audit.other_votes].tolist() == [2, 9]
    assert audit.rows[audit.contradicted].tolist() == [2, 9]
    with pytest.raises(StoreError, match=r"of another run than clf and X.*quantile"):
        verify_store(path, smoothed(quantile=0.3), X)


def test_a_few_large_numbers_do_not_hide_another_model(tmp_path):
    path = tmp_path / "run.sqlite"

    def rare(batch):
        return np.where(batch[:, 0] > 0.7, 1e6, mean(batch))

    def other(batch):
        return np.where(batch[:, 0] > 0.7, 1e6, mean(batch) + 3)

    found = smoothed(rare).certify(X, 0.1, store=path)
    assert_same(smoothed(rare).certify(X, 0.1, store=path), found)
    assert_same(smoothed(lambda batch: rare(batch) * (1 + 1e-7)).certify(X, 0.1, store=path), found)
    with pytest.raises(ValueError, match=r"drawn with a different model: X\[0\]"):
        smoothed(other).certify(X, 0.1, store=path)
    audit = verify_store(path, smoothed(other), X)
    assert audit.other_votes.all()


class Own(GreedyRadius):
    """A strategy that the library does not know."""


def test_strategies_of_users_stay_with_the_regressor(tmp_path):
    path, reg = tmp_path / "run.sqlite", smoothed(radius=Own())
    found = reg.certify(X, 0.1, store=path)
    with pytest.raises(
        ValueError, match=r"radius=.*Own.* In Python, use .*verify_store\(path, estimator, X\); reg.certify"
    ):
        stored_estimator(path, reg)
    assert_same(reg.certify(X, 0.1, store=path), found)
    assert verify_store(path, reg, X).consistent


def test_an_auditor_sees_other_and_failed_inputs(tmp_path):
    path, wrong = tmp_path / "run.sqlite", X.copy()
    wrong[3] = np.nan
    reg = smoothed()
    reg.certify(wrong, 0.1, store=path, on_error="skip")
    assert verify_store(path, reg, wrong).consistent
    assert verify_store(path, reg, X * 0.5).other_input.all()


def test_inputs_give_names_and_codes_to_what_a_store_holds(tmp_path):
    path, rng = tmp_path / "run.sqlite", np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.random(20), "city": rng.choice(list("abc"), 20)})
    encode = make_column_transformer((OrdinalEncoder(), ["city"]), remainder="passthrough")
    base = make_pipeline(encode, LinearRegression())
    params = {"n_samples": 300, "n_selection": 16, "random_state": 5}
    table = SmoothedRegressor(base, SplitNoise(2.0), categorical_features=["city"], **params)
    table.fit(frame, rng.random(20)).certify(frame, 0.1, store=path)
    limited = GreedyRadius(max_change={"age": 0.05, "city": 1.0})
    with pytest.raises(
        ValueError, match=r"categories as codes from 0 .*'(a|b|c)'\). If an estimator drew them, .* certify"
    ):
        Intervals.from_store(path, 0.1, strategy=limited, X=frame)
    coded = frame.assign(city=frame.city.map({"a": 0.0, "b": 1.0, "c": 2.0}))
    found = Intervals.from_store(path, 0.1, strategy=limited, X=coded)
    assert_same(found, table.set_params(radius=limited).certify(frame, 0.1))

    plain = SmoothedRegressor(LinearRegression(), **params).fit(frame[["age"]], rng.random(20))
    plain.certify(frame[["age"]], 0.1, store=tmp_path / "plain.sqlite")
    limited = GreedyRadius(max_change={"age": 0.05})
    found = Intervals.from_store(tmp_path / "plain.sqlite", 0.1, strategy=limited, X=frame[["age"]])
    assert_same(found, plain.set_params(radius=limited).certify(frame[["age"]], 0.1))


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path):
    path, context = tmp_path / "run.sqlite", multiprocessing.get_context("spawn")
    process = context.Process(target=crashes.bound_numbers, args=(path,))
    process.start()
    while not (path.exists() and path.stat().st_size and read_status(path).finished):
        time.sleep(5e-3)
    process.kill()
    process.join()
    assert 0 < read_status(path).finished < crashes.INPUTS
    found = crashes.bound_numbers(path, pause=0)
    assert_same(found, crashes.bound_numbers(None, pause=0, random_state=read_store(path).run.seed))
