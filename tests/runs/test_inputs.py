"""Inputs that are read when their turn comes, and how a run shows where it stands."""

from __future__ import annotations

import gc
import logging
import re
import time
import tracemalloc
from dataclasses import replace

import dask.array
import numpy as np
import pandas
import pytest
import scipy.sparse
import torch
from sklearn.tree import DecisionTreeClassifier

from smoothcert import SmoothedClassifier, StoreError, UniformNoise
from smoothcert.runs import inputs as reading
from smoothcert.runs.inputs import Inputs, check_shard, is_lazy
from smoothcert.runs.progress import Progress, votes_with_stopping
from smoothcert.runs.run import Part
from smoothcert.sampling.sampler import Votes

from ..base_models import MeanOfFirst, Rule, constant, steps

IMAGES = np.random.default_rng(0).random((30, 1, 4, 4)).astype(np.float32)


class Items:
    """A sized sequence that remembers what was read."""

    def __init__(self, items):
        self.items = items
        self.seen: list[int] = []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.seen.append(i)
        return self.items[i]


def network(**params):
    params = {"n_samples": 200, "n_selection": 20, "alpha": 0.01, "random_state": 0, "batch_size": 64} | params
    return SmoothedClassifier.from_pretrained(MeanOfFirst(), [0, 1], **params)


@pytest.fixture(scope="module")
def expected():
    return network().certify(IMAGES)


def memory_map(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


def data_set(tmp_path):
    return torch.utils.data.TensorDataset(torch.from_numpy(IMAGES), torch.arange(30))


def subset_of_pairs(tmp_path):
    return torch.utils.data.Subset([(image, 0) for image in IMAGES], range(30))


def sequence(tmp_path):
    return Items(IMAGES)


def column(tmp_path):
    """A column of a Hugging Face data set: items are nested lists."""
    return Items([image.tolist() for image in IMAGES])


def dask_array(tmp_path):
    return dask.array.from_array(IMAGES, chunks=(7, 1, 4, 2))


@pytest.mark.parametrize("make", [memory_map, data_set, subset_of_pairs, sequence, column, dask_array])
def test_streams_give_what_arrays_give(tmp_path, expected, make):
    X, clf = make(tmp_path), network()
    assert is_lazy(X)
    found = clf.certify(X)
    for name in ("labels", "radii", "p_a"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(clf.predict(X), expected.labels)
    np.testing.assert_array_equal(clf.certify(X, votes=clf.count_votes(X)).radii, expected.radii)
    np.testing.assert_array_equal(clf.certify_at(X, 0.1).robust, clf.certify_at(IMAGES, 0.1).robust)
    np.testing.assert_array_equal(clf.set_params(n_jobs=2).certify(X, store=tmp_path / "run").radii, expected.radii)


def test_what_is_in_memory_is_no_stream():
    frame = pandas.DataFrame({"a": [1]})
    for X in ([[1.0]], np.ones((2, 2)), torch.ones(2, 2), "text", b"bytes", {"a": 1}, frame, frame["a"], ([1], [2])):
        assert not is_lazy(X)
    assert not is_lazy(scipy.sparse.csr_array(np.eye(2)))
    assert not is_lazy(iter([1]))


@pytest.mark.parametrize("lazy", [False, True])
def test_parts_hold_so_many_values(monkeypatch, lazy):
    monkeypatch.setattr(reading, "CHUNK_VALUES", 50)
    table = np.arange(1600.0).reshape(100, 4, 4)
    inputs = Inputs(Items(table) if lazy else table, np.asarray, shard=(2, 5))
    assert (len(inputs), inputs.shape) == (100, (4, 4))
    few = inputs.only(np.array([3, 4, 7, 50]))
    for one, positions in ((inputs, np.arange(20, 40)), (few, [3, 4, 7, 50])):
        chunks = list(one.chunks())
        assert [len(index) for index, _ in chunks] == ([3] * 6 + [2] if len(positions) == 20 else [3, 1])
        np.testing.assert_array_equal(np.concatenate([index for index, _ in chunks]), positions)
        np.testing.assert_array_equal(np.concatenate([X for _, X in chunks]), table[positions])
    # A single input may be larger, and numbers have no shape.
    monkeypatch.setattr(reading, "CHUNK_VALUES", 15)
    assert [len(index) for index, _ in few.chunks()] == [1] * 4
    assert [len(index) for index, _ in Inputs(np.arange(40.0), np.asarray).chunks()] == [15, 15, 10]


def test_a_valid_input_must_be_among_the_first(monkeypatch):
    monkeypatch.setattr(reading, "FIRST_READ", 3)

    def positive(part):
        if (np.asarray(part) < 0).any():
            raise ValueError("negative")
        return np.asarray(part)

    table = np.ones((9, 2))
    table[:2] = -1
    assert Inputs(table, positive, skip=True).shape == (2,)
    for X, skip in ((np.r_[-np.ones((3, 2)), table], True), (Items(table), False)):
        with pytest.raises(ValueError, match="negative"):
            Inputs(X, positive, skip=skip)


def test_as_many_shards_as_inputs():
    assert check_shard((np.int64(5), 5), 5) == (5, 5)
    assert check_shard(None, 5) is None
    with pytest.raises(ValueError, match=r"at most the number of inputs, 5, got \(1, 6\)"):
        check_shard((1, 6), 5)


def test_what_is_read_in_jumps(tmp_path):
    table = np.arange(30.0).reshape(10, 3)
    np.save(tmp_path / "table.npy", table)
    index = np.array([2, 3, 7])
    for X in (np.load(tmp_path / "table.npy", mmap_mode="r"), dask.array.from_array(table, chunks=(4, 3)), table):
        found = Inputs(X, np.asarray).read(index)
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, table[index])


def test_inputs_are_read_when_their_turn_comes():
    read_at_call: list[int] = []
    X = Items(np.random.default_rng(0).random((40, 2)))

    def watched(batch):
        read_at_call.append(len(X.seen))
        return constant(batch)

    clf = SmoothedClassifier.from_pretrained(
        Rule(watched).fit(None, None), [0, 1], n_samples=100, n_selection=10, alpha=0.1, batch_size=10
    )
    clf.certify(X)
    # The first is looked at for its shape.
    assert X.seen == [0, *range(40)]
    assert read_at_call[0] == 2
    assert np.diff(read_at_call).max() == 1


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_errors_name_the_inputs(n_jobs):
    table = np.random.default_rng(0).random((40, 2))
    clf = SmoothedClassifier.from_pretrained(
        Rule(constant).fit(None, None), [0, 1], n_samples=100, alpha=0.1, batch_size=10, n_jobs=n_jobs
    )
    table[25, 1] = np.nan
    with pytest.raises(ValueError, match=r"X\[25\]: Input X contains NaN"):
        clf.certify(Items(table))
    with pytest.raises(ValueError, match=r"X\[7\]: It has shape \(3,\), but the first input has shape \(2,\)"):
        clf.predict(Items([np.zeros(2)] * 7 + [np.zeros(3)] * 9))
    with pytest.raises(ValueError, match=r"X\[0\] is a mapping with the keys 'image', 'label'"):
        clf.predict(Items([{"image": 0, "label": 1}]))
    with pytest.raises(ValueError, match="at least one input"):
        clf.predict(Items([]))


def test_errors_of_several_inputs_name_the_first_and_one_past_the_last():
    def few(part):
        if len(part) > 2:
            raise ValueError("two at a time")
        return np.asarray(part)

    inputs = Inputs(Items(np.zeros((9, 2))), few)
    with pytest.raises(ValueError, match=r"^X\[3:6\]: two at a time"):
        inputs.read(np.array([3, 4, 5]))
    random = Inputs(Items(np.zeros((9, 2))), lambda part: np.random.default_rng().random((len(part), 2)))
    with pytest.raises(ValueError, match=r"X\[3:6\] changed"):
        random.check_repeatable(np.array([3, 4, 5]))
    base = Rule(lambda rows: 1 / 0).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(base, [0, 1], n_samples=100, alpha=0.1, random_state=0)
    with pytest.raises(ZeroDivisionError) as caught:
        clf.certify(np.zeros((3, 2)), shard=(2, 2))
    assert caught.value.__notes__ == ["This happened while the votes of X[1:3] were drawn."]


def test_other_units_are_named_once_for_all_parts():
    base = Rule(constant).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(base, [0, 1], n_samples=100, alpha=0.1, batch_size=10)
    with pytest.warns(UserWarning, match="was clipped") as caught:
        clf.predict(Items(np.full((40, 2), 7.0)))
    assert len(caught) == 1


def test_arrays_of_unknown_length_are_refused():
    array = dask.array.from_array(np.random.default_rng(0).random((40, 2)))
    with pytest.raises(ValueError, match="must have a known length"):
        Inputs(array[array[:, 0] > 0.5], np.asarray)


def test_memory_does_not_grow_with_the_inputs():
    class Endless:
        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

        def __getitem__(self, i):
            if not 0 <= i < self.n:
                raise IndexError(i)
            return np.full(20_000, i / self.n)

    clf = SmoothedClassifier.from_pretrained(
        Rule(steps([0.5])).fit(None, None), [0, 1], n_samples=20, n_selection=4, alpha=0.1, batch_size=16
    )
    clf.certify(Endless(4))
    peaks = {20: [], 200: []}
    for n in 3 * list(peaks):
        gc.collect()
        tracemalloc.start()
        clf.certify(Endless(n))
        peaks[n].append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks[200]) - min(peaks[20]) < 180 * 20_000 * 8 / 3


# Progress


def part_of(n, n_votes, stored=False):
    """Return finished inputs, of which the first has had all the votes."""
    counts = np.zeros((n, 2), dtype=np.int64)
    counts[0, 0] = n_votes
    votes = Votes(selection=0 * counts, estimation=counts, inputs=np.zeros((n, 16), np.uint8), seed=0)
    return Part(index=np.arange(n), X=np.zeros((n, 1)), votes=votes, stored=stored)


def test_progress_counts_inputs_votes_and_certified_accuracy(caplog, monkeypatch, capsys):
    monkeypatch.setattr("smoothcert.runs.progress.LOG_SECONDS", 0.01)
    with caplog.at_level(logging.INFO, logger="smoothcert"), Progress(4, "certifying") as progress:
        progress.update(part_of(1, 100, stored=True), np.array([np.nan]))
        progress.update(part_of(2, 50), np.array([0.5, 1.0]))
        # The record comes without another input.
        known = len(caplog.records)
        while len(caplog.records) < known + 2:
            time.sleep(0.01)
    assert progress.figures() == {"votes": "150", "certified at 0": "0.667", "certified at 1": "0.333"}
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "certifying: 4 inputs"
    assert messages[-2].startswith("certifying: 3 of 4 inputs, 1 of them stored, ")
    assert " s left, votes 150, certified at 0 0.667" in messages[-2]
    assert messages[-1].startswith("certifying: ended, 3 of 4")
    assert capsys.readouterr().err == ""


def test_log_records_are_few(caplog):
    with caplog.at_level(logging.INFO, logger="smoothcert"), Progress(1000, "certifying") as progress:
        for _ in range(1000):
            progress.update(part_of(1, 10))
    assert len(caplog.records) == 2


def bright(n_samples=5000):
    """Return a classifier and inputs whose margins differ."""
    clf = network(n_samples=n_samples, batch_size=100_000, noise=UniformNoise(1.0))
    return clf, IMAGES * np.float32(0.1) + np.linspace(0.55, 0.9, len(IMAGES), dtype=np.float32)[:, None, None, None]


@pytest.mark.parametrize("rtol", [None, 0.1])
def test_the_log_says_how_long_a_long_run_takes_and_what_takes_less(caplog, monkeypatch, rtol):
    monkeypatch.setattr("smoothcert.runs.progress.LONG_RUN", 0.0)
    clf, X = bright()
    with caplog.at_level(logging.INFO, logger="smoothcert"):
        clf.set_params(rtol=rtol).certify(X)
    estimates = [found for record in caplog.records if "inputs are left" in (found := record.getMessage())]
    assert len(estimates) == 1
    assert re.search(r"certifying: \d+ inputs are left, about \d+ s", estimates[0])
    assert ("rtol=0.05 would take about" in estimates[0]) == (rtol is None)
    assert ("certify_at(X, " in estimates[0]) == (rtol is None)


@pytest.mark.parametrize(("n_jobs", "seconds"), [(None, 1960), (2, 980)])
def test_the_estimate_is_the_time_of_the_inputs_that_are_left(caplog, n_jobs, seconds):
    clf, X = bright()
    algorithm = clf.algorithm(X.shape[1:])
    # 20 inputs took a worker 40 seconds.
    part = Part(index=np.arange(20), X=X[:20], votes=replace(algorithm.sampler(0).draw(X[:20]), seconds=40.0))
    with caplog.at_level(logging.INFO, logger="smoothcert"):
        for n_inputs in (1000, 300):
            with Progress(n_inputs, "certifying", algorithm=algorithm, n_jobs=n_jobs) as progress:
                progress.update(part)
                progress.update(part)
    (estimate,) = [found for record in caplog.records if "inputs are left" in (found := record.getMessage())]
    assert estimate.startswith(f"certifying: 980 inputs are left, about {seconds} s; rtol=0.05 would take about ")
    fewer = int(re.search(r"rtol=0.05 would take about (\d+) s", estimate).group(1))
    assert fewer < 0.8 * seconds


def test_exact_probabilities_have_no_votes_to_save(caplog, monkeypatch):
    monkeypatch.setattr("smoothcert.runs.progress.LONG_RUN", 0.0)
    X = np.random.default_rng(0).random((20, 3))
    clf = SmoothedClassifier(DecisionTreeClassifier(max_depth=3), random_state=0).fit(X, X[:, 0] > 0.5)
    with caplog.at_level(logging.INFO, logger="smoothcert"):
        clf.certify(X)
    (estimate,) = [found for record in caplog.records if "inputs are left" in (found := record.getMessage())]
    assert "would take" not in estimate


def test_stopping_early_takes_as_many_votes_as_the_log_says():
    clf, X = bright()
    algorithm = clf.algorithm(X.shape[1:])
    votes = algorithm.sampler(0).draw(X[:16])
    found = votes_with_stopping(algorithm, Part(index=np.arange(16), X=X[:16], votes=votes))
    selection = votes.selection.sum(axis=1).mean()
    early = clf.set_params(rtol=0.05).certify(X[:16])
    assert found["rtol=0.05"] == pytest.approx(early.n_samples.mean() + selection, rel=0.25)
    (name,) = set(found) - {"rtol=0.05"}
    radius = float(name.removeprefix("certify_at(X, ").removesuffix(")"))
    decided = clf.certify_at(X[:16], radius)
    assert found[name] == pytest.approx(decided.n_samples.mean() + selection, rel=0.4)
    assert found[name] < 5000


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_bar(capsys, n_jobs):
    y = np.arange(30) % 2
    clf = network(verbose=1).set_params(n_jobs=n_jobs)
    certificates = clf.certify(IMAGES, y=y)
    shown = capsys.readouterr().err
    votes = clf.set_params(verbose=0).count_votes(IMAGES)
    assert "30/30" in shown
    assert f"votes={(votes.selection.sum() + votes.estimation.sum()) / 1000:.2f}k" in shown
    correct = (certificates.labels == y) & (certificates.radii >= 0)
    assert f"certified at 0={correct.mean():.3f}" in shown
    clf.certify(IMAGES, y=y)
    assert capsys.readouterr().err == ""


class Random(torch.utils.data.Dataset):
    """A data set with a random transform: some of its inputs differ from one reading to the next."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, i):
        return (IMAGES[i, :, :, ::-1] if self.rng.random() < 0.5 else IMAGES[i]).copy(), 0


def test_random_transforms_are_named_where_inputs_must_be_the_same(tmp_path):
    path, message = tmp_path / "run.sqlite", r"X must give the same inputs at each reading, but X\[.* changed"
    with pytest.raises(ValueError, match=message):
        network().certify(Random(), store=path)
    assert not path.exists(), "nothing could be resumed"
    votes = network().count_votes(IMAGES)
    with pytest.raises(ValueError, match=message):
        network().certify(Random(), votes=votes)
    network().certify(IMAGES, store=path)
    with pytest.raises(ValueError, match=message):
        network().certify(Random(), store=path)
    with pytest.raises(StoreError, match="is not the input"):
        network().certify(data_set(tmp_path).tensors[0].flip(-1).numpy(), store=path)
    assert len(network().certify(Random())) == 30


@pytest.mark.parametrize("call", ["certify", "predict", "count_votes"])
def test_loaders_name_the_data_set(call, tmp_path):
    loader = torch.utils.data.DataLoader(data_set(tmp_path))
    for given, name in ((loader, "DataLoader"), (iter(IMAGES), "iterator"), ((x for x in IMAGES), "generator")):
        with pytest.raises(ValueError, match=rf"got a \w*{name}\w*\. Give the Dataset, such as loader\.dataset"):
            getattr(network(), call)(given)
    assert len(getattr(network(), call)(loader.dataset)) == 30
