"""Workers: every backend gives the same, and the model travels once to each."""

import os
import subprocess
import sys
import warnings
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import islice

import dask.array
import distributed
import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from smoothcert import SmoothedClassifier
from smoothcert.models.torch import TorchVoter
from smoothcert.runs import workers as scheduling

from ..base_models import MeanOfFirst
from ..processes import fresh_workers, processes, run_python
from . import crashes
from .models import Deadly, Traveller

DATA = np.random.default_rng(0).random((60, 4))
LABELS = (DATA[:, 0] > 0.5).astype(int)


def smoothed(base, **params):
    params = {"n_samples": 100, "n_selection": 20, "alpha": 0.1, "batch_size": 32, "random_state": 0} | params
    return SmoothedClassifier.from_pretrained(base, [0, 1], **params)


@pytest.mark.parametrize("rtol", [None, 0.1])
@pytest.mark.parametrize(
    "base", [RandomForestClassifier(5, random_state=0), KNeighborsClassifier()], ids=lambda base: type(base).__name__
)
def test_loky_and_threads_give_the_same(base, rtol):
    base.fit(DATA, LABELS)
    expected = smoothed(base, rtol=rtol).certify(DATA)
    for backend in ("loky", "threading"):
        with joblib.parallel_config(backend=backend):
            found = smoothed(base, rtol=rtol, n_jobs=2).certify(DATA)
        np.testing.assert_array_equal(found.radii, expected.radii)
        np.testing.assert_array_equal(found.n_samples, expected.n_samples)


def test_networks_travel_too():
    images = np.random.default_rng(0).random((30, 1, 4, 4)).astype(np.float32)
    expected = smoothed(MeanOfFirst()).certify(images)
    np.testing.assert_array_equal(smoothed(MeanOfFirst(), n_jobs=2).certify(images).radii, expected.radii)


SCRIPT = """
import numpy as np
import torch

def rule(batch):
    return np.where(batch[:, 0] > 0.5, 1, 0)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, rows):
        return self.linear(rows)
"""


@pytest.mark.slow
def test_functions_and_classes_of_a_script_travel_too(monkeypatch):
    """A worker's __main__ is not that of the script or notebook."""
    script = {"__name__": "__main__"}
    exec(SCRIPT, script)
    for name in ("rule", "Net"):
        monkeypatch.setattr(sys.modules["__main__"], name, script[name], raising=False)
    with fresh_workers(), joblib.parallel_config(backend="loky"):
        for base in (script["rule"], script["Net"]()):
            clf = smoothed(base)
            alone = clf.certify(DATA[:4, :3]).p_a
            np.testing.assert_array_equal(clf.set_params(n_jobs=2).certify(DATA[:4, :3]).p_a, alone)


@pytest.mark.parametrize(("n_jobs", "times"), [(None, 1), (2, 0)])
def test_a_driver_that_does_not_vote_needs_no_device(monkeypatch, n_jobs, times):
    images = np.random.default_rng(0).random((30, 1, 4, 4)).astype(np.float32)
    entered, original = [], TorchVoter.ready
    monkeypatch.setattr(TorchVoter, "ready", lambda voter: entered.append(voter) or original(voter))
    module = MeanOfFirst().train()
    smoothed(module, n_jobs=n_jobs).certify(images)
    assert len(entered) == times
    assert module.training


def arrivals(log) -> list[int]:
    return [int(line) for line in log.read_text().splitlines() if int(line) != os.getpid()]


def test_the_model_travels_once_per_worker(tmp_path):
    log = tmp_path / "log"
    clf = smoothed(Traveller(str(log)), n_jobs=2)
    assert clf.algorithm(DATA.shape[1:]).sampler(0).chunk_size(60) <= 7
    clf.certify(DATA)
    assert 1 <= len(arrivals(log)) == len(set(arrivals(log))) <= 2


def test_dask_gives_the_same_and_delivers_once(tmp_path):
    log = tmp_path / "log"
    expected = smoothed(Traveller(str(log))).certify(DATA)
    processes()  # before dask says what a server imports
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        log.unlink(missing_ok=True)
        found = smoothed(Traveller(str(log))).certify(DATA)
        np.testing.assert_array_equal(found.radii, expected.radii)
        assert 1 <= len(arrivals(log)) == len(set(arrivals(log))) <= 2
        # The array is computed on the cluster that the votes are drawn on.
        X = dask.array.from_array(DATA, chunks=(7, 4)).persist()
        np.testing.assert_array_equal(smoothed(Traveller(str(log))).certify(X).radii, expected.radii)


RAY = """
import os
import joblib, numpy as np, ray
from ray.util.joblib import register_ray
from sklearn.linear_model import LogisticRegression
from smoothcert import SmoothedClassifier
ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
register_ray()
X = np.random.default_rng(0).random((30, 4))
base = LogisticRegression().fit(X, X[:, 0] > 0.5)
def certify():
    clf = SmoothedClassifier.from_pretrained(base, [False, True], n_samples=100, alpha=0.1, random_state=0)
    return clf.certify(X)
with joblib.parallel_config(backend="ray", n_jobs=2):
    found = certify()
assert np.array_equal(found.radii, certify().radii, equal_nan=True)

def on_the_gpu(rows):
    return np.full(len(rows), os.environ.get("CUDA_VISIBLE_DEVICES") == "0").astype(int)

clf = SmoothedClassifier.from_pretrained(on_the_gpu, [0, 1], n_samples=100, alpha=0.1, random_state=0)
assert clf.predict(X).sum() == 0
with joblib.parallel_config(backend="ray", ray_remote_args={"num_gpus": 1}):
    assert clf.predict(X).sum() == len(X)
print("equal")
"""


@pytest.mark.slow
def test_ray_gives_the_same():
    done = subprocess.run([sys.executable, "-c", RAY], capture_output=True, text=True)
    assert done.stdout.endswith("equal\n"), done.stderr


NESTED = """
import sys
import joblib, numpy as np
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from smoothcert import SmoothedClassifier, SplitNoise

X = np.random.default_rng(0).random((40, 3))
y = np.where(X[:, 0] > 0.5, "b", "a")
clf = SmoothedClassifier(GaussianNB(), SplitNoise(1.0), n_samples=60, n_selection=60, alpha=0.1, random_state=0)

def certified(clf, X, y):
    return np.nan_to_num(clf.certify(X).radii).mean()

def results(n_jobs):
    # Parallel work inside parallel work: folds, candidates and bags, and the votes of each.
    inner = clf.set_params(n_jobs=n_jobs)
    folds = cross_val_score(inner, X, y, cv=3, scoring=certified, n_jobs=n_jobs)
    search = GridSearchCV(inner, {"noise__lam": [0.6, 1.0]}, cv=2, scoring=certified, n_jobs=n_jobs).fit(X, y)
    bags = BaggingClassifier(inner, 3, random_state=0, n_jobs=n_jobs).fit(X, y).predict(X)
    return [folds, search.cv_results_["mean_test_score"], search.best_estimator_.certify(X).p_a, bags]

if __name__ == "__main__":
    expected = results(None)
    backend = sys.argv[1]
    if backend == "dask":
        import distributed
        client = distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    if backend == "ray":
        import ray
        from ray.util.joblib import register_ray
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
        register_ray()
    with joblib.parallel_config(backend=backend, n_jobs=2):
        found = results(2)
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)
    if backend == "dask":
        client.shutdown()
    print("equal")
"""


@pytest.mark.parametrize(
    "backend", ["threading", *(pytest.param(b, marks=pytest.mark.slow) for b in ("loky", "dask", "ray"))]
)
def test_parallel_work_inside_parallel_work(backend, tmp_path):
    if backend == "threading":
        assert run_python(NESTED, backend) == "equal\n"
        return
    script = tmp_path / "nested.py"
    script.write_text(NESTED)
    done = subprocess.run([sys.executable, script, backend], capture_output=True, text=True)
    assert done.stdout.endswith("equal\n"), done.stderr


# Failure


def test_an_input_that_kills_every_worker_ends_the_run(monkeypatch):
    monkeypatch.setattr(scheduling, "PATIENCE", 1)
    X = np.full((6, 400), 0.5)
    X[3] = 1.0
    clf = smoothed(Deadly(os.getpid()), noise="uniform", n_jobs=2)
    clf.set_params(noise=clf.noise_.set_params(lam=0.05))
    with pytest.raises(
        RuntimeError, match=r"Workers died 2 times in a row, the last time while one of the inputs .*3-3 was drawn"
    ):
        clf.certify(X)


def test_errors_of_the_model_are_not_repeated():
    class Wrong(Deadly):
        def predict(self, X):
            return np.zeros((len(X), 2))

    with pytest.raises(ValueError, match="must return one label per row"):
        smoothed(Wrong(0), n_jobs=2).certify(DATA)


def tasks_of(sizes, fail=lambda index: False, skip=True):
    """Return tasks of so many of the inputs 0, 1, 2, ... each."""
    positions = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])

    def read(index):
        if fail(index):
            raise KeyError("unreadable")
        return index * 10, None

    return scheduling._Tasks(positions, read, skip)


def died(tasks, killers, at_once=2):
    """Run a few tasks until one of them kills the workers; those before it are finished."""
    for task in islice(tasks, at_once):
        if np.isin(task[1], killers).any():
            raise BrokenProcessPool("a worker died")
        yield task[0], task[1]


def run_all(tasks, killers):
    """Draw all, as `draw_all` does, and return what was finished and how often workers died."""
    found, deaths = [], 0
    while tasks.missing:
        try:
            found += tasks.finished(died(tasks, killers))
        except BrokenProcessPool as error:
            deaths += 1
            found += tasks.lost(error)
    return found, deaths


def test_an_input_that_kills_its_worker_is_found_by_halves():
    found, deaths = run_all(tasks_of([4, 8, 3]), [9])
    skipped = [(index.tolist(), X, votes) for index, X, votes in found if isinstance(votes, str)]
    assert skipped == [([9], None, "it killed its worker 2 times (BrokenProcessPool)")]
    done = [index for index, _, votes in found if not isinstance(votes, str)]
    assert sorted(np.concatenate(done)) == [i for i in range(15) if i != 9]
    assert all(votes is index or (votes == index).all() for index, _, votes in found if not isinstance(votes, str))
    # Once with others, once alone in 8, 4 and 2, and twice by itself.
    assert deaths == 6


def test_deaths_count_in_a_row_and_end_a_run(monkeypatch):
    monkeypatch.setattr(scheduling, "PATIENCE", 2)
    tasks, error = tasks_of([2, 2], skip=False), BrokenProcessPool("dead")
    for _ in range(3):
        assert list(tasks.lost(error)) == list(tasks.lost(error)) == []
        # Something is finished in between.
        number, index, _, _ = next(iter(tasks))
        list(tasks.finished(iter_of((number, 1))))
        tasks.missing[number] = index
    assert len(list(tasks)) == 2
    assert list(tasks.lost(error)) == list(tasks.lost(error)) == []
    with pytest.raises(RuntimeError, match=r"died 3 times in a row, .* one of the inputs 0-1, 2-3 was drawn") as caught:
        list(tasks.lost(error))
    assert caught.value.__cause__ is error
    with pytest.raises(ZeroDivisionError):
        list(tasks_of([2]).lost(ZeroDivisionError()))
    for name in ("KilledWorker", "ActorDiedError", "RayActorError", "WorkerCrashedError", "NodeDiedError"):
        assert list(tasks_of([2], skip=False).lost(type(name, (Exception,), {})())) == []


def iter_of(*results):
    """Return a generator, which can be closed."""
    yield from results


def test_inputs_that_cannot_be_read_are_found_or_end_the_run():
    tasks = tasks_of([4, 4], fail=lambda index: 5 in index)

    def results():
        for number, index, X, target in tasks:
            yield number, target if X is None else index

    found = []
    while tasks.missing:
        found += tasks.finished(results())
    assert [(index.tolist(), votes) for index, _, votes in found if isinstance(votes, str)] == [
        ([5], "KeyError: 'unreadable'")
    ]
    assert sorted(np.concatenate([index for index, _, _ in found])) == list(range(8))
    tasks = tasks_of([4, 4], fail=lambda index: 5 in index, skip=False)
    with pytest.raises(KeyError):
        list(tasks.finished((number, index) for number, index, _, _ in tasks))


def test_what_an_error_says_on_one_line():
    errors = (ValueError("a\n  b"), ValueError(""), KeyError("c"), OSError("d\te"))
    assert [*map(scheduling.reason, errors)] == ["a b", "ValueError: ", "KeyError: 'c'", "OSError: d e"]


def test_a_watch_warns_once_each_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(scheduling.time, "monotonic", lambda: now[0])
    monkeypatch.delenv("SMOOTHCERT_WORKER_TIMEOUT", raising=False)
    watch, warned = scheduling._Watch(), []
    for seconds, slots in ((0, 0), (29.9, 0), (30, 0), (31, 0), (32, 1), (33, 0), (62.9, 0), (63, 0), (64, 0)):
        now[0] = 100 + seconds
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.check(slots)
        warned += [seconds] * len(caught)
    assert warned == [30, 63]
    now[0] = 100 + 33 + 3599.9
    watch.check(0)
    now[0] = 100 + 33 + 3600
    with pytest.raises(RuntimeError, match="no workers for 3600 seconds"):
        watch.check(0)


# Clusters that change their size


class Cluster:
    """Finishes one task at a time, and has another number of workers each time it is asked."""

    def __init__(self, sizes):
        self.sizes, self.under_way, self.sent = iter(sizes), [], 0

    def run(self, tasks, out):
        return scheduling._under_way(
            tasks, out, slots=lambda: next(self.sizes), submit=self.submit, finished=self.finished
        )

    def submit(self, task):
        self.sent += 1
        return task

    def finished(self, out):
        self.under_way.append(len(out))
        return out[:1], out[1:]


def test_workers_that_join_get_tasks_and_none_are_sent_for_those_that_left(monkeypatch):
    monkeypatch.setattr(scheduling, "TICK", 0.0)
    cluster, out = Cluster([0, 0, 1, 4, 4, 0, 0, 0, 1, 1, *[2] * 100]), []
    assert sorted(cluster.run(range(30), out)) == list(range(30))
    # Two tasks for each worker, and as many more as are still under way when workers leave.
    assert cluster.under_way[:9] == [2, 8, 8, 7, 6, 5, 4, 3, 4]
    assert (cluster.sent, out) == (30, [])


def test_a_cluster_without_workers_warns_and_raises(monkeypatch):
    monkeypatch.setattr(scheduling, "TICK", 0.01)
    monkeypatch.setattr(scheduling, "WARN", 0.02)
    monkeypatch.setenv("SMOOTHCERT_WORKER_TIMEOUT", "0.1")
    with (
        pytest.warns(UserWarning, match=r"The cluster has no workers. The run waits for them, 0.1 seconds in all"),
        pytest.raises(RuntimeError, match=r"The cluster has had no workers for 0 seconds.*SMOOTHCERT_WORKER_TIMEOUT"),
    ):
        list(Cluster([0] * 1000).run(range(3), []))
    assert 0 < scheduling.WARN < 60


def test_dask_workers_that_join_later_do_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(scheduling, "TICK", 0.1)
    expected = smoothed(Traveller(os.devnull)).certify(DATA)
    with (
        distributed.LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        started, original = [], scheduling._Watch.check

        def check(watch, n_slots):
            started.append(n_slots)
            if len(started) == 3:
                cluster.scale(2)
            original(watch, n_slots)

        monkeypatch.setattr(scheduling._Watch, "check", check)
        found = smoothed(Traveller(os.devnull)).certify(DATA, store=tmp_path / "run.sqlite")
        assert started[:3] == [0, 0, 0]
    np.testing.assert_array_equal(found.radii, expected.radii)


@pytest.mark.parametrize(("tags", "slots"), [({}, 8), ({"resources": {"GPU": 1}}, 2), ({"resources": {"GPU": 0.5}}, 4)])
def test_dask_tasks_may_need_resources(monkeypatch, tags, slots):
    seen, original = [], scheduling._Watch.check
    monkeypatch.setattr(scheduling._Watch, "check", lambda watch, n: seen.append(n) or original(watch, n))
    cluster = {"n_workers": 2, "threads_per_worker": 4, "processes": False, "dashboard_address": None}
    with (
        distributed.LocalCluster(**cluster, resources={"GPU": 1}) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask", **tags),
    ):
        asked, submit = [], client.submit
        monkeypatch.setattr(client, "submit", lambda *a, **options: asked.append(options) or submit(*a, **options))
        found = smoothed(Traveller(os.devnull)).certify(DATA)
    assert set(seen) == {slots}
    assert all(options == {"pure": False} | tags for options in asked)
    np.testing.assert_array_equal(found.radii, smoothed(Traveller(os.devnull)).certify(DATA).radii)


def test_chunks_depend_on_nothing_but_the_run():
    sampler = replace(smoothed(Traveller(os.devnull)).algorithm(DATA.shape[1:]).sampler(0), n_samples=0)
    assert [sampler.chunk_size(n) for n in (1, 60, 200, 1000, 10**6)] == [2, 6, 13, 16, 25]
    assert crashes.INPUTS == 100
