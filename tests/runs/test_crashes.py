"""What kill -9 leaves behind: every run ends with the certificates of one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import dask
import distributed
import numpy as np
import psutil
import pytest

from smoothcert import Certificates, SmoothedClassifier
from smoothcert.runs.store import read_status, read_store

from ..processes import processes
from . import crashes
from .crashes import EACH, NEEDED, votes_cast

#: Most votes that a start may draw again to see whether the model is the same: selection votes of finished inputs.
REPLAY = crashes.INPUTS * crashes.SELECTION


@pytest.fixture
def paths(tmp_path):
    """Return the paths of the votes' log, whose gate is closed, and of the store."""
    log = str(tmp_path / "votes")
    Path(crashes.gate(log)).touch()
    return log, str(tmp_path / "run.sqlite")


@contextmanager
def running(*arguments):
    """Run in a process of its own, which is killed at the end if it is still there."""
    process = processes().Process(target=crashes.run, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def wait_for(condition):
    """Return what a condition returns as soon as that is true; a test that waits in vain is ended by its timeout."""
    while not (found := condition()):
        time.sleep(2e-3)
    return found


def wait_for_votes(log: str, more: int = 1) -> None:
    """Wait until so many more votes are cast, or as many as the gate lets through."""
    goal = min(votes_cast(log) + more, max(votes_cast(log) + 1, NEEDED // 2))
    wait_for(lambda: votes_cast(log) >= goal)


def assert_same(found: Certificates, store: str) -> None:
    """Compare with a run that was left alone, with the seed that the store has drawn."""
    stored = read_store(store)
    assert len(stored) == crashes.INPUTS
    clf = SmoothedClassifier.from_pretrained(
        crashes.Counted(""),
        [0, 1, 2],
        n_selection=crashes.SELECTION,
        n_samples=crashes.ESTIMATION,
        alpha=0.01,
    )
    clf._call_seed = lambda: stored.run.seed  # type: ignore[method-assign]
    expected = clf.certify(crashes.data())
    for name in ("labels", "radii", "abstained", "p_a", "p_b", "n_samples"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert 0 < expected.abstained.sum() < crashes.INPUTS


@pytest.mark.parametrize(
    ("backend", "n_jobs", "kills", "in_flight"),
    [(None, None, 5, 1), ("threading", 2, 3, 4), pytest.param("loky", 2, 4, 8, marks=pytest.mark.slow)],
)
def test_driver_killed(paths, backend, n_jobs, kills, in_flight):
    moments = random.Random(repr(backend))
    log, store = paths
    for kill in range(kills):
        with running(log, store, backend, n_jobs, None):
            if kill % 3 == 0:
                wait_for(lambda: os.path.exists(store))
            else:
                wait_for_votes(log, moments.randrange(1, 4 * EACH))
            if kill == kills - 1:
                wait_for(lambda: len(read_store(store)))
    interrupted = len(read_store(store))
    assert 0 < interrupted < crashes.INPUTS
    os.remove(crashes.gate(log))
    found = crashes.certify(log, store, None, None)
    assert_same(found, store)
    # Nothing finished is drawn again: a kill costs the tasks that were out.
    assert NEEDED <= votes_cast(log) <= NEEDED + kills * in_flight * EACH + (kills + 1) * REPLAY


def workers_of(pid: int) -> set[int]:
    """Return the worker processes of a run with loky."""
    found = set()
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            found |= {child.pid} if any("popen_loky" in part for part in child.cmdline()) else set()
    return found


@pytest.mark.slow
def test_workers_killed(paths):
    moments, kills = random.Random(1), 2
    log, store = paths
    seen: set[int] = set()
    with running(log, store, "loky", 2, None) as process:
        for _ in range(kills):
            # After a death, loky replaces all workers.
            wait_for(lambda seen=seen: workers_of(process.pid) - seen)
            wait_for_votes(log, moments.randrange(1, 2 * EACH))
            victims = workers_of(process.pid)
            seen = seen | victims
            os.kill(moments.choice(sorted(victims)), 9)
        os.remove(crashes.gate(log))
        process.join()
        assert process.exitcode == 0
    found = crashes.certify(log, store, None, None)
    assert_same(found, store)
    assert NEEDED < votes_cast(log) <= NEEDED + kills * 8 * EACH + 2 * REPLAY


@pytest.mark.slow
def test_dask_workers_killed(paths):
    moments, kills = random.Random(2), 2
    log, store = paths
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**27}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        running(log, store, "dask", None, cluster.scheduler_address) as process,
    ):
        for _ in range(kills):
            wait_for_votes(log, moments.randrange(1, 2 * EACH))
            # A worker has no process while it is started again.
            victims = wait_for(lambda: {nanny.pid for nanny in cluster.workers.values()} - {None})
            victim = moments.choice(sorted(victims))
            os.kill(victim, 9)
            wait_for(lambda victim=victim: victim not in {nanny.pid for nanny in cluster.workers.values()})
        os.remove(crashes.gate(log))
        process.join()
        assert process.exitcode == 0
    found = crashes.certify(log, store, None, None)
    assert_same(found, store)
    assert NEEDED <= votes_cast(log) <= NEEDED + kills * 4 * EACH + 2 * REPLAY


def n_finished(store: str) -> int:
    """Return the number of finished inputs of a run that may not have begun."""
    return read_status(store).finished if os.path.exists(store) and os.path.getsize(store) else 0


def copies(log: str) -> list[Path]:
    """Return the copies of models that runs have made for their workers."""
    return sorted(Path(log).parent.glob("smoothcert-workers-*/model-*"))


def at_work(log: str, store: str, process) -> set[int]:
    """Return the workers of a run, once some inputs are finished and all workers have the model."""
    wait_for(lambda: n_finished(store) and len(workers_of(process.pid)) >= 2)
    assert copies(log)
    return workers_of(process.pid)


@pytest.mark.parametrize("backend", [None, "loky"])
def test_a_terminated_run_closes_everything(paths, backend):
    log, store = paths
    with running(log, store, backend, 2 if backend else None, None) as process:
        workers = set()
        if backend is None:
            wait_for(lambda: n_finished(store))
        else:
            workers = at_work(log, store, process)
        os.kill(process.pid, signal.SIGTERM)
        process.join()
        assert process.exitcode == 128 + signal.SIGTERM
    wait_for(lambda: not any(map(psutil.pid_exists, workers)))
    assert copies(log) == []
    assert not os.path.exists(store + "-wal"), "the store is closed"
    os.remove(crashes.gate(log))
    assert_same(crashes.certify(log, store, None, None), store)


@pytest.mark.slow
def test_workers_end_with_their_driver_and_the_next_run_cleans_up(paths, monkeypatch):
    log, store = paths
    with running(log, store, "loky", 2, None) as process:
        workers = at_work(log, store, process)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    # The gate is closed: the workers do not end by themselves.
    wait_for(lambda: not any(map(psutil.pid_exists, workers)))
    assert copies(log)
    monkeypatch.setattr("tempfile.tempdir", os.path.dirname(log))
    os.remove(crashes.gate(log))
    assert_same(crashes.certify(log, store, "loky", 2), store)
    assert copies(log) == []
