"""Inputs that fail: named, recorded with the reason, and the others finished."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pandas
import pytest

from smoothcert import (
    Certificates,
    Decisions,
    SmoothedClassifier,
    UniformNoise,
    VoteCounts,
    certified_accuracy_score,
    merge_stores,
)
from smoothcert.runs import workers as scheduling
from smoothcert.runs.database import StoreError
from smoothcert.runs.run import failed_part
from smoothcert.runs.store import add_labels, read_store

from .models import Fragile

N, BAD = 40, 23
NOISE = UniformNoise(0.05)
FIELDS = ("labels", "radii", "abstained", "p_a", "p_b", "n_samples")


def data(bad=BAD):
    X = np.random.default_rng(0).random((N, 3))
    X[:, 0] = 0.5
    X[bad, 0] = 1.0
    return X


def smoothed(how="works", **params):
    base = Fragile(how, os.getpid())
    params = {"n_samples": 100, "n_selection": 20, "alpha": 0.1, "batch_size": 64, "random_state": 0} | params
    return SmoothedClassifier.from_pretrained(base, [0, 1], NOISE, **params)


def check(found, bad=(BAD,), X=None):
    """The inputs that failed are marked, and the others are those of a run in which nothing fails."""
    X = data() if X is None else X
    failed = np.isin(np.arange(N), bad)
    np.testing.assert_array_equal(found.failed, failed)
    assert np.isnan(found.radii[failed]).all()
    assert found.abstained[failed].all()
    assert not np.isin(found.labels[failed], [0, 1]).any()
    assert (found.p_a[failed] == 0).all()
    assert (found.p_b[failed] == 1).all()
    expected = smoothed().certify(X[~failed])
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name)[~failed], getattr(expected, name), err_msg=name)


@pytest.mark.filterwarnings("ignore:1 of 40 inputs failed")
@pytest.mark.parametrize(
    ("how", "params", "reason"),
    [
        ("raises", {}, "KeyError: 'no such price'"),
        ("raises", {"n_jobs": 2}, "KeyError: 'no such price'"),
        ("hangs", {"timeout": 0.5}, "TimeoutError: The base model Fragile did not answer"),
        pytest.param("kills", {"n_jobs": 2}, "it killed its worker 2 times", marks=pytest.mark.slow),
    ],
)
def test_an_input_on_which_the_model_fails_is_skipped(tmp_path, how, params, reason):
    path, y = tmp_path / "run.sqlite", (data()[:, 1] > 0.5).astype(int)
    clf = smoothed(how, **params)
    found = clf.certify(data(), store=path, y=y, on_error="skip")
    check(found)
    assert read_store(path).failures.keys() == {BAD}
    assert read_store(path).failures[BAD].startswith(reason)
    check(Certificates.from_store(path))
    assert certified_accuracy_score(y, found, 0) <= (N - 1) / N
    assert (found.labels == y).sum() <= N - 1
    # A label of an input that failed stands for none, even if it is the true one.
    assert not found.to_frame(y=np.where(found.failed, found.labels, 5))["correct"].any()
    with pytest.raises(ValueError, match=r"1 inputs that failed, such as X\[23\], and have no votes"):
        VoteCounts.from_store(path)


@pytest.mark.filterwarnings("ignore:1 of 40 inputs failed", "ignore:.*They are used, since same_model=True")
def test_skipped_inputs_are_not_tried_again_unless_errors_count(tmp_path):
    path = tmp_path / "run.sqlite"
    smoothed("raises").certify(data(), store=path, on_error="skip")
    check(smoothed("works").certify(data(), store=path, on_error="skip", same_model=True))
    with pytest.raises(KeyError) as caught:
        smoothed("raises").certify(data(), store=path)
    assert caught.value.__notes__ == ["This happened while the votes of X[23:24] were drawn."]
    found = smoothed("works").certify(data(), store=path, same_model=True)
    assert not found.failed.any()
    assert not read_store(path).failures
    np.testing.assert_array_equal(found.radii, smoothed().certify(data()).radii)
    np.testing.assert_array_equal(Certificates.from_store(path).radii, found.radii)


def spoiled():
    X = data()
    X[7, 2] = np.nan
    return X


class Lazy:
    """A sequence whose items are read one after another."""

    def __init__(self, X, unreadable=None):
        self.X, self.unreadable = X, unreadable

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        if i == self.unreadable:
            raise OSError("a broken disk")
        return self.X[i]


@pytest.mark.parametrize(
    ("X", "position", "reason"),
    [
        (spoiled(), 7, ".*NaN"),
        (pandas.DataFrame(spoiled(), columns=list("abc")), 7, ".*NaN"),
        (spoiled().tolist(), 7, ".*NaN"),
        (Lazy(spoiled()), 7, ".*NaN"),
        (Lazy(data(), unreadable=0), 0, "OSError: a broken disk"),
        (Lazy([*data()[:-1], np.zeros(2)]), N - 1, "It has shape"),
    ],
    ids=["array", "table", "list", "sequence", "disk", "shape"],
)
def test_an_input_that_is_invalid_is_skipped(tmp_path, X, position, reason):
    path = tmp_path / "run.sqlite"
    with pytest.warns(UserWarning, match=rf"1 of 40 inputs failed: X\[{position}\] \({reason}"):
        found = smoothed().certify(X, store=path, on_error="skip")
    check(found, (position,))
    check(Certificates.from_store(path), (position,))
    with pytest.raises((ValueError, OSError), match=reason.removeprefix("OSError: ")):
        smoothed().certify(X, store=path)


def test_an_input_off_the_lattice_is_skipped():
    X = np.round(data() * 255) / 255
    X[5] += 0.001
    noise = UniformNoise(0.05, levels=255)
    with pytest.warns(UserWarning, match=r"X\[5\] \(X must lie on the lattice"):
        found = (
            smoothed()
            .set_params(noise=noise)
            .from_pretrained(Fragile("works"), [0, 1], noise, n_samples=100, alpha=0.1)
            .certify(X, on_error="skip")
        )
    assert np.flatnonzero(found.failed).tolist() == [5]


@pytest.mark.filterwarnings("ignore:4 of 40 inputs failed")
def test_several_inputs_fail():
    bad = [0, 1, 20, N - 1]
    check(smoothed("raises").certify(data(bad), on_error="skip"), bad, data(bad))


@pytest.mark.parametrize(("n", "more"), [(5, False), (6, True)])
def test_five_failed_inputs_are_named(n, more):
    sampler = smoothed().algorithm((3,)).sampler(9)
    failures = {i: f"reason {i}" for i in (*range(30, 30 - n + 1, -1), 2)}
    named = ", ".join(f"X[{i}] (reason {i})" for i in sorted(failures)[:5])
    with pytest.warns(UserWarning, match="inputs failed") as caught:
        part = failed_part(sampler, failures, 40)
    assert str(caught[0].message) == (
        f"{n} of 40 inputs failed: {named}{', ...' if more else ''}. They are skipped, and count as not certified."
    )
    assert part.index.tolist() == sorted(failures)
    assert (part.stored, part.failed, part.votes.n_votes, part.votes.seed) == (True, True, 0, 9)
    with pytest.raises(ValueError, match=rf"^{n} of {n} inputs failed: X\[2\] \(reason 2\), "):
        failed_part(sampler, failures, n)


def test_a_model_that_always_fails_is_an_error(tmp_path):
    for store in (None, tmp_path / "run.sqlite"):
        with pytest.raises((ValueError, KeyError), match=r"40 of 40 inputs failed: X\[0\] \(KeyError|no such"):
            smoothed("raises").certify(data(range(N)), store=store, on_error="skip")


def test_a_pool_whose_workers_all_die_ends_the_run(monkeypatch):
    monkeypatch.setattr(scheduling, "PATIENCE_TO_SKIP", 1)
    with pytest.raises(RuntimeError, match=r"Workers died 2 times in a row"):
        smoothed("kills", n_jobs=2).certify(data(range(N)), on_error="skip")


@pytest.mark.filterwarnings("ignore:1 of 40 inputs failed")
@pytest.mark.parametrize("radius", [0.01, [[0.01, 0.5]]])
def test_decisions_mark_failed_inputs(tmp_path, radius):
    path = tmp_path / "run.sqlite"
    found = smoothed("raises").certify_at(data(), radius, store=path, on_error="skip")
    assert np.flatnonzero(found.failed).tolist() == [BAD]
    assert found.robust.any()
    assert not found.robust[BAD].any()
    expected = smoothed().certify_at(data(), radius)
    others = np.arange(N) != BAD
    np.testing.assert_array_equal(found.robust[others], expected.robust[others])
    again = Decisions.from_store(path)
    np.testing.assert_array_equal(again.robust, found.robust)
    np.testing.assert_array_equal(again.failed, found.failed)


@pytest.mark.filterwarnings("ignore:.* of .* inputs failed")
def test_failures_are_merged(tmp_path):
    for i in (1, 2):
        smoothed("raises").certify(data(), store=tmp_path / f"{i}.sqlite", shard=(i, 2), on_error="skip")
    merge_stores(tmp_path / "run.sqlite", [tmp_path / "1.sqlite", tmp_path / "2.sqlite"])
    check(Certificates.from_store(tmp_path / "run.sqlite"))


@pytest.mark.filterwarnings("ignore:1 of 20 inputs failed")
@pytest.mark.parametrize("kept", ["results", "failures"])
def test_no_input_is_merged_twice(tmp_path, kept):
    """Neither a finished nor a failed input may be in a second store, finished or failed there."""
    paths = [tmp_path / f"{name}.sqlite" for name in ("whole", "part")]
    smoothed("raises").certify(data(), store=paths[0], shard=(2, 2), on_error="skip")
    shutil.copy(*paths)
    with closing(sqlite3.connect(paths[1])) as connection, connection:
        connection.execute(f"DELETE FROM {'failures' if kept == 'results' else 'results'}")
    first = BAD if kept == "failures" else N // 2
    for order in (paths, paths[::-1]):
        with pytest.raises(StoreError, match=rf"{order[1].name} holds X\[{first}\], which another store holds as well"):
            merge_stores(tmp_path / "run.sqlite", order)
    with closing(sqlite3.connect(paths[0])) as connection, connection:
        connection.execute(f"DELETE FROM {kept}")
    merge_stores(tmp_path / "run.sqlite", paths)
    check_shard = Certificates.from_store(tmp_path / "run.sqlite", partial=True)
    np.testing.assert_array_equal(np.flatnonzero(check_shard.failed), [BAD - N // 2])


def test_unknown_policies_are_refused():
    with pytest.raises(ValueError, match=r"on_error must be one of 'raise', 'skip', got 'ignore'"):
        smoothed().certify(data(), on_error="ignore")


# Labels


def test_labels_are_kept_and_checked(tmp_path):
    path, y = tmp_path / "run.sqlite", np.arange(N) % 2
    clf = smoothed()
    clf.certify(data(), store=path)
    assert read_store(path).labels is None
    clf.certify(data(), store=path, y=y)
    assert read_store(path).labels == y.tolist()
    clf.certify(data(), store=path)
    assert read_store(path).labels == y.tolist()
    other = y.copy()
    other[3:5] = 1 - other[3:5]
    for add in (lambda: clf.certify(data(), store=path, y=other), lambda: add_labels(path, other)):
        with pytest.raises(ValueError, match=r"holds other labels: 1 for X\[3\], not 0. 2 of 40 differ"):
            add()
    assert read_store(path).labels == y.tolist()
    add_labels(path, y)


def test_labels_are_added_to_a_finished_run(tmp_path):
    path, y = tmp_path / "run.sqlite", np.arange(N) % 2
    smoothed().certify(data(), store=path)
    with pytest.raises(ValueError, match="y must hold one label for each of 40 inputs"):
        add_labels(path, y[1:])
    with pytest.raises(ValueError, match="y must hold labels like the classes"):
        add_labels(path, y.astype(str))
    add_labels(path, y)
    assert read_store(path).labels == y.tolist()
