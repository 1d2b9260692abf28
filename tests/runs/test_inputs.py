"""Inputs that are read when their turn comes."""

import gc
import tracemalloc

import dask.array
import joblib
import numpy as np
import pandas
import pyarrow
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from smoothcert import Certificates, SmoothedClassifier, StoreError
from smoothcert.runs import inputs as reading
from smoothcert.runs.inputs import Inputs, check_shard, is_lazy

from ..base_models import Rule, constant, steps
from .images import IMAGES, network


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
    with joblib.parallel_config(backend="loky" if make is memory_map else "threading"):
        found = clf.set_params(n_jobs=2).certify(X, store=tmp_path / "run")
    np.testing.assert_array_equal(found.radii, expected.radii)


def test_what_is_in_memory_is_no_stream():
    frame = pandas.DataFrame({"a": [1]})
    for X in ([[1.0]], np.ones((2, 2)), torch.ones(2, 2), "text", b"bytes", {"a": 1}, frame, frame["a"], ([1], [2])):
        assert not is_lazy(X)
    assert not is_lazy(scipy.sparse.csr_array(np.eye(2)))
    assert not is_lazy(iter([1]))


TENSORS = {
    "part of a graph": lambda X: torch.tensor(X, requires_grad=True) * 1,
    "bfloat16": lambda X: torch.tensor(X, dtype=torch.bfloat16),
    "float8": lambda X: torch.tensor(X).to(torch.float8_e4m3fn),
    "sparse": lambda X: torch.tensor(X).to_sparse(),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_of_any_kind_are_read_as_arrays(tmp_path, kind):
    X = np.random.default_rng(0).integers(5, size=(20, 3)) / 4
    y = (X[:, 0] > 0.4).astype(int)
    tensor, labels = TENSORS[kind](X), TENSORS[kind](y.astype(float))
    new = SmoothedClassifier(LogisticRegression(), n_samples=100, random_state=0)
    expected = clone(new).fit(X, y).certify(X)
    rows = list(tensor.to_dense())
    pairs = list(zip(rows, labels.to_dense(), strict=True))
    for given in ((tensor, labels), (rows, list(labels.to_dense())), (torch.utils.data.Subset(pairs, range(20)),)):
        clf = clone(new).fit(*given)
        found = [clf.certify(tensor), clf.certify(rows), clf.certify(torch.utils.data.TensorDataset(tensor.to_dense()))]
        for certificates in found:
            np.testing.assert_array_equal(certificates.labels, expected.labels)
            np.testing.assert_array_equal(certificates.radii, expected.radii)
    stored = clf.certify(tensor, y=labels, store=tmp_path / "run", on_error="skip")
    np.testing.assert_array_equal(stored.radii, Certificates.from_store(tmp_path / "run", X=tensor).radii)


def test_tensors_hold_categories_too():
    X = np.random.default_rng(0).integers(3, size=(40, 3)).astype(float)
    y, given = (X[:, 0] > 1).astype(int), {"categorical_features": [0, 2], "bounds": "minmax", "random_state": 0}
    found = [
        SmoothedClassifier(LogisticRegression(), n_samples=100, **given).fit(read(X), y).certify(read(X)).radii
        for read in (np.asarray, TENSORS["part of a graph"], TENSORS["bfloat16"])
    ]
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([np.ma.array([0.5, 0.5], mask=[False, True])] * 2, r"X\[0\]: X holds masked values"),
        ([np.array([0.5, 0.5]), np.array([2**53, 1])], r"X\[1\]: X holds whole numbers of 2\*\*53 or more"),
        ([[0.5, 1], [0.5, 2**53]], r"X\[1\]: X holds whole numbers of 2\*\*53 or more"),
    ],
)
def test_items_lose_nothing_in_their_batch(items, message):
    with pytest.raises(ValueError, match=message):
        Inputs(Items(items), np.asarray).read(np.array([0, 1]))


def test_tables_of_pyarrow_are_read_by_rows():
    X = np.random.default_rng(0).random((2, 2))
    table = pyarrow.table({"a": X[:, 0], "b": X[:, 1]})
    inputs = Inputs(table, np.asarray, skip=True)
    for index in ([0], [1], [0, 1]):
        np.testing.assert_array_equal(inputs.read(np.array(index)), X[index])


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
            return np.full(10_000, i / self.n)

    clf = SmoothedClassifier.from_pretrained(
        Rule(steps([0.5])).fit(None, None), [0, 1], n_samples=20, n_selection=4, alpha=0.1, batch_size=16
    )
    clf.certify(Endless(4))
    peaks = {10: [], 60: []}
    for n in 2 * list(peaks):
        gc.collect()
        tracemalloc.start()
        clf.certify(Endless(n))
        peaks[n].append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks[60]) - min(peaks[10]) < 50 * 10_000 * 8 / 3


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
