"""What kill -9 leaves behind: every run ends with the certificates of one that was left alone."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from smoothcert import Certificates, SmoothedClassifier
from smoothcert.runs.store import read_store

from . import crashes

psutil = pytest.importorskip("psutil")

NEEDED = crashes.INPUTS * (crashes.SELECTION + crashes.ESTIMATION)
EACH = crashes.SELECTION + crashes.ESTIMATION


@pytest.fixture(scope="module")
def processes():
    """Start processes that have everything imported already."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), before])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.runs.crashes"])
    yield context
    os.environ["PYTHONPATH"] = before


def assert_same(found: Certificates, store: str, log: str, seconds: float) -> None:
    """Compare with a run that was left alone, with the seed that the store has drawn."""
    stored = read_store(store)
    assert len(stored) == crashes.INPUTS
    clf = SmoothedClassifier.from_pretrained(
        crashes.Slow("", 0.0), [0, 1, 2], n_selection=crashes.SELECTION, n_samples=crashes.ESTIMATION, alpha=0.01
    )
    clf._call_seed = lambda: stored.run.seed  # type: ignore[method-assign]
    expected = clf.certify(crashes.data())
    for name in ("labels", "radii", "abstained", "p_a", "p_b", "n_samples"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert 0 < expected.abstained.sum() < crashes.INPUTS


@pytest.mark.parametrize(
    ("backend", "n_jobs", "kills", "longest", "in_flight"),
    [(None, None, 9, 0.4, 1), ("threading", 2, 3, 0.4, 4), ("loky", 2, 4, 0.5, 8)],
)
def test_driver_killed(processes, tmp_path, backend, n_jobs, kills, longest, in_flight):
    moments = random.Random(repr(backend))
    log, store = str(tmp_path / "votes"), str(tmp_path / "run.sqlite")
    seconds = 0.005 * (n_jobs or 1)
    for kill in range(kills):
        process = processes.Process(target=crashes.run, args=(log, seconds, store, backend, n_jobs, None))
        process.start()
        if kill % 3:
            cast = crashes.votes_cast(log)
            wait_for(lambda cast=cast: crashes.votes_cast(log) > cast)
        if kill == kills - 1:
            wait_for(lambda: len(read_store(store)))
        process.join(moments.uniform(0.0, longest))
        assert process.is_alive(), "The run ended before it was killed."
        process.kill()
        process.join()
    interrupted = len(read_store(store))
    assert 0 < interrupted < crashes.INPUTS
    found = crashes.certify(log, seconds, store, None, None)
    assert_same(found, store, log, seconds)
    # Nothing finished is drawn again: a kill costs the tasks that were out.
    assert NEEDED <= crashes.votes_cast(log) <= NEEDED + kills * in_flight * EACH


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a run with loky."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            found += [child.pid] * any("popen_loky" in part for part in child.cmdline())
    return found


def wait_for(condition, limit: float = 60.0):
    """Return what a condition returns as soon as that is true."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise TimeoutError


def test_workers_killed(processes, tmp_path):
    moments, kills, seconds = random.Random(1), 3, 0.012
    log, store = str(tmp_path / "votes"), str(tmp_path / "run.sqlite")
    process = processes.Process(target=crashes.run, args=(log, seconds, store, "loky", 2, None))
    process.start()
    seen: set[int] = set()
    for _ in range(kills):
        # After a death, loky replaces all workers.
        wait_for(lambda seen=seen: set(workers_of(process.pid)) - seen)
        cast = crashes.votes_cast(log)
        wait_for(lambda cast=cast: crashes.votes_cast(log) > cast)
        time.sleep(moments.uniform(0.0, 0.3))
        victims = workers_of(process.pid)
        seen = seen | set(victims)
        os.kill(moments.choice(victims), 9)
    process.join(200)
    assert process.exitcode == 0
    found = crashes.certify(log, seconds, store, None, None)
    assert_same(found, store, log, seconds)
    assert NEEDED < crashes.votes_cast(log) <= NEEDED + kills * 8 * EACH


def test_dask_workers_killed(processes, tmp_path):
    distributed = pytest.importorskip("distributed")
    import dask

    moments, kills, seconds = random.Random(2), 2, 0.012
    log, store = str(tmp_path / "votes"), str(tmp_path / "run.sqlite")
    with (
        dask.config.set(
            {
                "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**27,
                "distributed.comm.timeouts.connect": "5s",
            }
        ),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        address = cluster.scheduler_address
        process = processes.Process(target=crashes.run, args=(log, seconds, store, "dask", None, address))
        process.start()
        for _ in range(kills):
            cast = crashes.votes_cast(log)
            wait_for(lambda cast=cast: crashes.votes_cast(log) > cast)
            time.sleep(moments.uniform(0.0, 0.3))
            victim = moments.choice([nanny.pid for nanny in cluster.workers.values()])
            os.kill(victim, 9)
            wait_for(lambda victim=victim: victim not in [nanny.pid for nanny in cluster.workers.values()])
        process.join(200)
        assert process.exitcode == 0
    found = crashes.certify(log, seconds, store, None, None)
    assert_same(found, store, log, seconds)
    assert NEEDED <= crashes.votes_cast(log) <= NEEDED + kills * 4 * EACH
