"""The store of a run: what is kept, what is refused, and that certificates made from it are the same."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
import traceback
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from smoothcert import (
    BoxRadius,
    Certificates,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LaplaceNoise,
    LatticeNoise,
    LipschitzRadius,
    SmoothedClassifier,
    SplitNoise,
    StoreError,
    UniformMixtureNoise,
    UniformNoise,
    VoteCounts,
)
from smoothcert.certify.reach import reaches_to_keep
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.runs import database
from smoothcert.runs.store import read_status, read_store

from ..base_models import Rule, constant
from ..processes import run_python

FIELDS = ("labels", "radii", "abstained", "p_a", "p_b", "n_samples")


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = np.round(rng.random((40, 30)) * 255) / 255
    return X, (X[:, 0] > 0.4).astype(int) + (X[:, 1] > 0.6)


@pytest.fixture(scope="module")
def base(table):
    return LogisticRegression(C=100).fit(*table)


def smoothed(base, noise="split", **params):
    params = {"n_samples": 400, "alpha": 0.01, "n_selection": 50, "batch_size": 512} | params
    return SmoothedClassifier.from_pretrained(base, [0, 1, 2], noise, **params)


def assert_equal(found: Certificates, expected: Certificates) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert (found.alpha, found.norm, found.threat) == (expected.alpha, expected.norm, expected.threat)


NOISES = [
    SplitNoise(1.0),
    SplitNoise(6.0, levels=255),
    UniformNoise(2.0),
    GaussianNoise(1.0, levels=255),
    LaplaceNoise(0.3),
    UniformMixtureNoise((1.0, 4.0), (0.5, 0.5)),
    DeterministicSplitNoise(lam=1.0, levels=255),
]


@pytest.mark.parametrize(
    ("noise", "rtol"), [*((noise, None) for noise in NOISES), *((noise, 0.1) for noise in NOISES[:4])]
)
def test_certificates_from_a_store_are_those_of_certify(tmp_path, table, base, noise, rtol):
    X, y = table
    clf = smoothed(base, noise, rtol=rtol)
    path = tmp_path / "run.sqlite"
    drawn = clf.certify(X, store=path, y=y)
    assert not drawn.abstained.all()
    assert_equal(Certificates.from_store(path), drawn)
    assert_equal(Certificates.from_store(path, X=X), drawn)
    assert_equal(clf.certify(X, store=path), drawn)
    assert read_store(path).labels == y.tolist()


STRATEGIES = [
    LipschitzRadius(),
    LipschitzRadius(norm=np.inf),
    BoxRadius(),
    BoxRadius(closed_form=True),
    GreedyRadius(),
    GreedyRadius(max_features=3),
    GreedyRadius(max_change=0.7),
    GreedyRadius(max_change=0.0),
]


@pytest.mark.parametrize("noise", [SplitNoise(1.0), UniformNoise(3.0, levels=255), GaussianNoise(0.5, levels=255)])
def test_votes_of_a_store_serve_other_strategies_and_levels(tmp_path, table, base, noise):
    X, _ = table
    path = tmp_path / "run.sqlite"
    # Features differ in their room to move, and one cannot move.
    clf = smoothed(base, noise, bounds=(np.zeros(30), np.r_[np.linspace(1, 1.2, 29), 0.0]))
    X = np.clip(np.round(X * 255 / clf.box_.hi.clip(0.1)) / 255 * clf.box_.hi, 0, clf.box_.hi)
    clf.certify(X, store=path)
    votes = VoteCounts.from_store(path)
    rules = ({"alpha": 0.05}, {"scheme": "binary"}, {"bound": "hoeffding"}, {"bound": "randomized-clopper-pearson"})
    for radius, rule in [*zip(STRATEGIES, 2 * rules, strict=True), *((GreedyRadius(), rule) for rule in rules[1:])]:
        expected = smoothed(base, noise, bounds=clf.bounds, radius=radius, **rule).certify(X, votes=votes)
        assert_equal(Certificates.from_store(path, radius=radius, **rule, X=X), expected)
        if "max_change=0.0" not in repr(radius):
            assert_equal(Certificates.from_store(path, radius=radius, **rule), expected)


def test_limits_on_single_features_need_the_inputs(tmp_path, table, base):
    X, _ = table
    path = tmp_path / "run.sqlite"
    smoothed(base).certify(X, store=path)
    limits = np.linspace(0, 1, 30)
    for radius in (GreedyRadius(max_change=limits), GreedyRadius(max_change=(0.0, np.inf))):
        with pytest.raises(ValueError, match=r"looks at the features .* Give X="):
            Certificates.from_store(path, radius=radius)
        expected = smoothed(base, radius=radius).certify(X, votes=VoteCounts.from_store(path))
        assert_equal(Certificates.from_store(path, radius=radius, X=X), expected)
    with pytest.raises(ValueError, match=r"needs more than the 20 largest reaches .* Give X="):
        Certificates.from_store(path, radius=GreedyRadius(max_change=0.01))
    with pytest.raises(ValueError, match="some of 0 to 39 differ"):
        Certificates.from_store(path, radius=GreedyRadius(max_change=limits), X=X[::-1])
    with pytest.raises(
        ValueError, match=r"X must be the inputs of the votes, of shape \(40, 30\), got shape \(39, 30\)"
    ):
        Certificates.from_store(path, X=X[1:])


def test_reaches_are_the_largest(base, table):
    X, _ = table
    mechanism = smoothed(base).algorithm(X.shape[1:]).mechanism
    down, up = mechanism.room(X)
    expected = np.sort(np.maximum(down, up), axis=1)[:, ::-1]
    wide = NoiseMechanism(mechanism.box, SplitNoise(50.0), mechanism.shape)
    np.testing.assert_array_equal(reaches_to_keep(wide, X, 0.49), expected)
    kept = reaches_to_keep(mechanism, X, 0.49)
    assert 17 < kept.shape[1] < 30
    np.testing.assert_array_equal(kept, expected[:, : kept.shape[1]])


def test_votes_of_a_run_that_stopped_early_are_not_taken_for_fixed_ones(tmp_path, table, base):
    path = tmp_path / "run.sqlite"
    smoothed(base, rtol=0.1).certify(table[0], store=path)
    with pytest.raises(ValueError, match=r"stopped early \(rtol=0.1\): bounds for a fixed number"):
        VoteCounts.from_store(path)
    # No bound but the anytime-valid one is used, whatever is asked for.
    assert_equal(Certificates.from_store(path, bound="hoeffding"), Certificates.from_store(path))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_samples": 401}, "n_samples: 400, 401"),
        ({"alpha": 0.02}, "alpha: 0.01, 0.02"),
        ({"radius": "box"}, r"radius: GreedyRadius\(.*\), BoxRadius\("),
        ({"noise": SplitNoise(2.0)}, r"noise: SplitNoise\(lam=1.0, .*, SplitNoise\(lam=2.0"),
        ({"bounds": (0.0, 1.5)}, "bounds: box"),
        ({"rtol": 0.1}, "rtol: None, 0.1"),
        ({"random_state": 1}, r"random_state: seed 0, seed 1"),
    ],
)
def test_a_store_of_other_parameters_is_refused(tmp_path, table, base, change, named):
    path = tmp_path / "run.sqlite"
    smoothed(base, random_state=0).certify(table[0], store=path)
    before = read_store(path).votes.estimation
    with pytest.raises(StoreError, match=f"belongs to another run.*{named}"):
        smoothed(base, **{"noise": "split", "random_state": 0} | change).certify(table[0], store=path)
    np.testing.assert_array_equal(read_store(path).votes.estimation, before)
    # Without a seed of one's own, that of the store is used.
    smoothed(base).certify(table[0], store=path)


def test_a_store_of_another_model_or_data_is_refused(tmp_path, table, base):
    X, y = table
    path = tmp_path / "run.sqlite"
    smoothed(base, random_state=4).certify(X, store=path)
    with pytest.raises(ValueError, match=r"different model: X\[0\] gets the selection votes"):
        smoothed(LogisticRegression(C=1).fit(X, y)).certify(X, store=path)
    with pytest.raises(StoreError, match=r"shape of X: \(40, 30\), \(39, 30\)"):
        smoothed(base).certify(X[1:], store=path)
    other = X.copy()
    other[7, 3] = 1 - other[7, 3]
    with pytest.raises(StoreError, match=r"X\[7\] is not the input"):
        smoothed(base).certify(other, store=path)


def test_numbers_of_numpy_are_recorded_as_numbers(tmp_path, table, base):
    given = {
        "n_samples": np.int64(200),
        "n_selection": np.int32(50),
        "alpha": np.float32(0.01),
        "rtol": np.float64(0.2),
    }
    path = tmp_path / "run.sqlite"
    for params in (given, {name: value.item() for name, value in given.items()}, given):
        found = smoothed(base, random_state=0, **params).certify(table[0], store=path)
        np.testing.assert_array_equal(Certificates.from_store(path).radii, found.radii)


def test_nothing_is_drawn_twice(tmp_path, table):
    X, _ = table
    calls = []

    def watched(batch):
        calls.append(len(batch))
        if sum(calls) > 5000:
            raise KeyboardInterrupt
        return constant(batch)

    path = tmp_path / "run.sqlite"
    clf = smoothed(Rule(watched, (0, 1, 2)).fit(None, None), n_samples=500, n_selection=16)
    with pytest.raises(KeyboardInterrupt):
        clf.certify(X, store=path)
    with pytest.raises(ValueError, match=r"holds \d+ of 40 inputs: the run has not ended"):
        Certificates.from_store(path)
    done = len(Certificates.from_store(path, partial=True))
    assert done == len(read_store(path))
    assert 0 < done < 40
    with pytest.raises(ValueError, match="the run has not ended"):
        VoteCounts.from_store(path)
    calls.clear()
    calls.append(-(10**9))
    clf.certify(X, store=path)
    asked = sum(n for n in calls[1:] if n > 1)
    assert asked == (40 - done) * 516 + done * 16, "the selection votes of some are drawn again"
    del calls[1:]
    clf.certify(X, store=path)
    assert sum(n for n in calls[1:] if n > 1) == 40 * 16


def test_others_read_while_one_writes(tmp_path, table, base):
    X, _ = table
    path, seen = tmp_path / "run.sqlite", []

    class Watching:
        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            if i == 30:
                seen.append(len(read_store(path)))
                with pytest.raises(StoreError, match="is being written by another process"):
                    smoothed(base).certify(X, store=path)
            return X[i]

    smoothed(base, batch_size=64).certify(Watching(), store=path)
    assert seen == [30]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    row = connection.execute("SELECT estimation, n_samples, seconds FROM results WHERE input = 3").fetchone()
    assert sum(json.loads(row[0]).values()) == row[1] == 400
    assert row[2] > 0


@pytest.fixture
def finished(tmp_path, table, base):
    path = tmp_path / "run.sqlite"
    smoothed(base).certify(table[0], store=path)
    return path


def refused(path: Path, table, base, match: str) -> None:
    """Check that neither reading nor resuming takes a file."""
    with pytest.raises(StoreError, match=match):
        Certificates.from_store(path)
    with pytest.raises(StoreError, match=match):
        smoothed(base).certify(table[0], store=path)


def test_truncated_files_are_refused(finished, table, base):
    content = finished.read_bytes()
    # SQLite reads the end of a page that is cut off as zeros, so a single byte that is 0 would not be missed.
    for size in (20, 90, 4096, len(content) // 2, len(content) - 4096, len(content) - 8):
        finished.write_bytes(content[:size])
        refused(finished, table, base, "is damaged|is not a smoothcert store")


def test_foreign_files_are_refused(tmp_path, table, base):
    path = tmp_path / "other"
    path.write_text("a text that is certainly longer than the head of a database file, which has 100 bytes in all")
    refused(path, table, base, "is not a smoothcert store")
    assert path.read_text().startswith("a text")
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE run (x)")
    connection.commit()
    connection.close()
    refused(path, table, base, "another SQLite file")


def test_a_missing_store_is_named_in_one_line(tmp_path):
    path = tmp_path / "missing.sqlite"
    for read in (Certificates.from_store, VoteCounts.from_store, read_status):
        with pytest.raises(StoreError, match=r"missing\.sqlite does not exist\. Give the file that") as caught:
            read(path)
        assert caught.value.__cause__ is None
        assert "\n" not in str(caught.value)
    assert not path.exists()


def test_stores_of_later_releases_are_refused(finished, table, base):
    connection = sqlite3.connect(finished)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    refused(finished, table, base, "schema version 99; this release reads 3")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE results SET estimation = '{\"0\": 400}' WHERE input = 5",
        "UPDATE results SET reach = zeroblob(length(reach)) WHERE input = 5",
        "UPDATE results SET input = 400 WHERE input = 5",
        "UPDATE run SET seed = '1'",
        "UPDATE run SET parameters = replace(parameters, '0.01', '0.99')",
        "DELETE FROM run",
        "DROP TABLE results",
    ],
)
def test_changed_rows_are_refused(finished, table, base, change):
    connection = sqlite3.connect(finished)
    connection.execute(change)
    connection.commit()
    connection.close()
    refused(finished, table, base, "is damaged")


def test_flipped_bytes_are_never_half_read(finished, table):
    expected = Certificates.from_store(finished)
    content = bytearray(finished.read_bytes())
    rng = np.random.default_rng(0)
    refusals = 0
    for place in rng.integers(len(content), size=60):
        changed = content.copy()
        changed[place] ^= 1 << rng.integers(8)
        finished.write_bytes(changed)
        try:
            assert_equal(Certificates.from_store(finished), expected)
        except StoreError:
            refusals += 1
    assert refusals > 20


def test_full_disk(tmp_path, table, base):
    """The system refuses to let files grow: SQLite sees what it sees on a full disk."""
    path = tmp_path / "run.sqlite"
    script = f"""
import resource, signal, sys
import numpy as np
from sklearn.linear_model import LogisticRegression
from smoothcert import SmoothedClassifier
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
X = np.random.default_rng(0).random((2000, 30))
y = (X[:, 0] > 0.4).astype(int) + (X[:, 1] > 0.6)
clf = SmoothedClassifier.from_pretrained(LogisticRegression().fit(X, y), [0, 1, 2], n_samples=400, random_state=0)
clf.predict(X[:1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    clf.certify(X, store={str(path)!r})
except ValueError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
from smoothcert.runs.store import read_store
print(len(read_store({str(path)!r})))
found = clf.certify(X, store={str(path)!r})
assert np.array_equal(found.radii, clf.certify(X).radii, equal_nan=True)
"""
    message, finished = run_python(script).splitlines()
    assert "cannot be written" in message
    assert "Is the disk full" in message
    assert 0 < int(finished) < 2000


def test_places_that_cannot_be_written(tmp_path, table, base):
    for path in (tmp_path, tmp_path / "missing" / "run.sqlite"):
        with pytest.raises(StoreError, match="must be a file in a directory that exists"):
            smoothed(base).certify(table[0], store=path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs another user's rights")
def test_read_only_directory(table, base):
    folder = Path(tempfile.mkdtemp())
    path = folder / "run.sqlite"
    smoothed(base).certify(table[0], store=path)
    expected = Certificates.from_store(path)
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    child = os.fork()
    if not child:
        # The rights of root would be no hindrance.
        code = 1
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            assert_equal(Certificates.from_store(path), expected)
            for place in (path, folder / "new.sqlite"):
                with pytest.raises(StoreError, match="Is the disk full, or the directory read-only"):
                    smoothed(base).certify(table[0], store=place)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    folder.chmod(0o700)
    shutil.rmtree(folder)
    assert status == 0


def test_seconds_of_a_task_are_shared_among_its_inputs(tmp_path, table):
    """All inputs together cannot have taken longer than the run, nor less than the base model was at work."""
    at_work = []

    def slow(rows):
        started = time.perf_counter()
        time.sleep(1e-2)
        at_work.append(time.perf_counter() - started)
        return constant(rows)

    clf = smoothed(slow)
    started = time.perf_counter()
    clf.certify(table[0], store=tmp_path / "run.sqlite")
    elapsed = time.perf_counter() - started
    seconds = read_store(tmp_path / "run.sqlite").seconds
    assert seconds.shape == (40,)
    assert (seconds > 0).all()
    assert sum(at_work) / 2 < seconds.sum() < elapsed


def test_a_copy_without_its_log_is_a_store(finished, tmp_path):
    copy = tmp_path / "copy.sqlite"
    shutil.copy(finished, copy)
    assert len(read_store(copy)) == 40


def test_labels_of_any_kind(tmp_path, table):
    X, y = table
    for i, names in enumerate(
        (np.array(["a", "b", "c"]), np.array(["a", "b", "c"], dtype=object), np.array([1.0, 2, 7]))
    ):
        base = LogisticRegression().fit(X, names[y])
        clf = SmoothedClassifier.from_pretrained(base, names, n_samples=200, alpha=0.01)
        path = tmp_path / f"{i}.sqlite"
        drawn = clf.certify(X, store=path, y=names[y])
        found = Certificates.from_store(path)
        assert found.labels.dtype == drawn.labels.dtype
        np.testing.assert_array_equal(found.labels, drawn.labels)
        assert read_store(path).labels == names[y].tolist()


def test_labels_that_a_store_would_change_are_refused_before_a_vote_is_drawn(tmp_path, table, base):
    X, y = table
    path, days = tmp_path / "run.sqlite", np.array([np.datetime64("2020-01-01").item()] * len(X), dtype=object)
    names = np.array(["a", "b", "c"])
    clf = SmoothedClassifier.from_pretrained(LogisticRegression().fit(X, names[y]), names)
    for call in (clf.certify, lambda *args, **options: clf.certify_at(*args, 0.1, **options)):
        with pytest.raises(ValueError, match=r"y must hold numbers, strings or booleans to be stored, got object"):
            call(X, store=path, y=days)
    assert not path.exists()
    with pytest.raises(ValueError, match="y must hold a label for each input, got nan at position 3"):
        smoothed(base).certify(X, store=path, y=np.where(np.arange(len(X)) == 3, np.nan, y))


def test_any_name_of_a_file_is_one(tmp_path, table, base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clf = smoothed(base, random_state=0)
    for name in ("file:run.sqlite", ":memory:"):
        first = clf.certify(table[0][:2], store=name)
        assert Path(name).exists()
        np.testing.assert_array_equal(clf.certify(table[0][:2], store=name).radii, first.radii)
        np.testing.assert_array_equal(Certificates.from_store(name).radii, first.radii)
    for wrong in (5, b"run.sqlite"):
        with pytest.raises(ValueError, match=f"store must be a str or a path of a file, got {wrong!r}"):
            clf.certify(table[0][:2], store=wrong)
        with pytest.raises(ValueError, match=f"path must be a str or a path of a file, got {wrong!r}"):
            Certificates.from_store(wrong)


def test_noise_of_ones_own_is_drawn_but_not_rebuilt(tmp_path, table, base):
    class MyNoise(UniformNoise):
        pass

    path = tmp_path / "run.sqlite"
    clf = smoothed(base, MyNoise(1.0))
    assert isinstance(clf.noise_, LatticeNoise)
    drawn = clf.certify(table[0], store=path)
    with pytest.raises(ValueError, match=r"noise=.*MyNoise\(.*\) is not one of smoothcert's own"):
        Certificates.from_store(path)
    assert_equal(clf.certify(table[0], votes=VoteCounts.from_store(path)), drawn)


def test_a_noise_with_the_name_of_another_is_not_taken_for_it(tmp_path, table, base):
    class Dearer(UniformNoise):
        def budget(self, p_a, p_b):
            return super().budget(p_a, p_b) / 10

    Dearer.__name__ = "UniformNoise"
    path = tmp_path / "run.sqlite"
    own, other = (smoothed(base, noise(1.0), random_state=0) for noise in (Dearer, UniformNoise))
    own.certify(table[0], store=path)
    with pytest.raises(ValueError, match=r"is not one of smoothcert's own"):
        Certificates.from_store(path)
    with pytest.raises(StoreError, match="noise: "):
        other.certify(table[0], store=path)
    with pytest.raises(ValueError, match="drawn with a different noise"):
        other.certify(table[0], votes=own.count_votes(table[0]))


def test_store_and_votes_do_not_go_together(tmp_path, table, base):
    clf = smoothed(base, random_state=0)
    with pytest.raises(ValueError, match="Give one of the two"):
        clf.certify(table[0], votes=clf.count_votes(table[0]), store=tmp_path / "run.sqlite")
    with pytest.raises(ValueError, match="y must hold one label for each of 40 inputs"):
        clf.certify(table[0], y=[0, 1])


def test_network_file_systems_get_no_write_ahead_log(tmp_path, table, base, monkeypatch):
    monkeypatch.setattr(database, "on_network", lambda path: True)
    path, read = tmp_path / "run.sqlite", []

    class Watching:
        def __len__(self):
            return 40

        def __getitem__(self, i):
            if i == 30:
                read.append(len(read_store(path)))
            return table[0][i]

    drawn = smoothed(base, batch_size=64).certify(Watching(), store=path)
    assert read == [30]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert_equal(Certificates.from_store(path), drawn)


def test_network_file_systems_are_known(tmp_path):
    mounts = tmp_path / "mountinfo"
    lines = ["20 1 8:1 / / rw - ext4 /dev/sda rw", f"21 20 0:5 / {tmp_path}/far rw,noatime shared:1 - nfs4 host:/x rw"]
    lines += [
        f"22 21 0:6 / {tmp_path}/far/near rw - ext4 /dev/sdb rw",
        f"23 20 0:7 / {tmp_path}/two\\040words rw - cifs //h/x rw",
    ]
    mounts.write_text("\n".join(lines))
    places = ["run", "far/run", "far/in/run", "far/near/run", "farther/run", "two words/run"]
    assert [database.on_network(tmp_path / place, mounts) for place in places] == [
        False,
        True,
        True,
        False,
        False,
        True,
    ]
    assert not database.on_network(tmp_path / "run", tmp_path / "missing")


def test_a_store_whose_maker_was_killed_at_its_first_transaction_is_made_anew(table, base, tmp_path):
    """The pages are in the file, and the journal that takes them back is still there."""
    path, kept = tmp_path / "run.sqlite", tmp_path / "kept"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.executescript("PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN IMMEDIATE; CREATE TABLE run (x)")
    writer.execute("INSERT INTO run VALUES (zeroblob(1000000))")
    journal = Path(f"{path}-journal")
    shutil.copy(path, kept)
    shutil.copy(journal, f"{kept}-journal")
    writer.close()
    assert kept.stat().st_size > 0
    X = table[0][:4]
    clf = smoothed(base, random_state=0)
    np.testing.assert_array_equal(clf.certify(X, store=kept).radii, clf.certify(X).radii)
