"""How the sampler, with its model, gets to the workers: once to each worker, not with every task."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import cloudpickle
import joblib
from filelock import FileLock, Timeout

from ..models.torch import TorchVoter
from ..sampling.exact_sampler import Source
from .signals import end_with_parent

#: In a worker process: the sampler that was loaded last, by its name. A worker serves one run at a time.
_loaded: dict[str, Source] = {}

#: In a dask worker: pickled samplers that the scheduler has sent, by name.
_received: dict[str, bytes] = {}

#: In a worker process: what keeps the model in the state in which it votes.
_voting_state = contextlib.ExitStack()

#: In a worker process: the file lock that stands for its number. The system frees it when the process ends.
_number_lock: list[FileLock] = []

_lock = threading.Lock()


class SharedSampler:
    """A sampler that is pickled once: tasks carry only its address.

    In the process that made it, and its threads, the sampler itself is used. Workers on this machine read it from a
    temporary file. dask's scheduler sends it to all workers, including those that join later; ray keeps it in its
    object store. Worker processes keep the model in the state in which it votes, and a torch model on a GPU of their
    own if there are several.

    Parameters
    ----------
    sampler : Sampler

    Examples
    --------
    >>> with SharedSampler("anything") as shared:
    ...     print(shared.open())
    anything
    """

    def __init__(self, sampler: Source) -> None:
        self.name = uuid4().hex
        self.sampler: Source | None = sampler
        self.folder: str | None = None
        self.object: Any = None
        self.sent = False
        self.owned: Any = None
        self.ready, self.held = contextlib.ExitStack(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.ready.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.owned.release()
            with contextlib.suppress(OSError):
                Path(f"{self.folder}.lock").unlink()

    def open(self) -> Source:
        """Return the sampler. A worker process loads it when it is first asked for."""
        with _lock:
            if self.sampler is not None:
                if not self.held:
                    # Not earlier: a driver that leaves all work to others may lack the device.
                    self.held = True
                    self.ready.enter_context(voting_state(self.sampler))
                return self.sampler
            if self.name not in _loaded:
                if self.folder is not None:
                    end_with_parent()
                sampler = self._load()
                prepare_worker(sampler)
                _loaded.clear()
                _loaded[self.name] = sampler
            return _loaded[self.name]

    def _load(self) -> Any:
        if self.name in _received:
            return pickle.loads(_received[self.name])
        if self.object is not None:
            import ray

            return pickle.loads(ray.get(self.object))
        # Arrays are mapped into memory, so that the workers of a machine share those of a large forest.
        return joblib.load(Path(str(self.folder)) / "sampler", mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        with _lock:
            if self.sampler is not None and not self.sent:
                self._write()
                self.sent = True
        return self.__dict__ | {"sampler": None, "ready": None, "owned": None}

    def _write(self) -> None:
        """Write the sampler to a file for workers on this machine."""
        self.folder, self.owned = own_folder()
        target, content = Path(self.folder) / "sampler", cloudpickle.dumps(self.sampler)
        # A worker has another __main__, so functions and classes of scripts and notebooks must travel by value.
        if b"__main__" not in content:
            # cloudpickle takes lambdas and other objects that joblib does not.
            with contextlib.suppress(AttributeError, TypeError, pickle.PicklingError):
                joblib.dump(self.sampler, target)
                return
        target.write_bytes(content)


@contextlib.contextmanager
def on_ray(shared: SharedSampler) -> Iterator[None]:
    """Keep a sampler in ray's object store while the context lasts."""
    import ray

    shared.object = ray.put(cloudpickle.dumps(shared.sampler))
    shared.sent = True
    try:
        yield
    finally:
        shared.object = None


@contextlib.contextmanager
def on_dask(shared: SharedSampler, client: Any) -> Iterator[None]:
    """Send a sampler to all present and future workers of a dask cluster while the context lasts."""
    from distributed import WorkerPlugin

    class Receive(WorkerPlugin):
        def __init__(self, name: str, content: bytes) -> None:
            self.name, self.content = name, content

        def setup(self, worker: Any) -> None:
            _receive(self.name, self.content)

        def teardown(self, worker: Any) -> None:
            _discard(self.name)

    client.register_plugin(Receive(shared.name, cloudpickle.dumps(shared.sampler)))
    shared.sent = True
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            client.unregister_worker_plugin(shared.name)


def _receive(name: str, content: bytes) -> None:
    _received[name] = content


def _discard(name: str) -> None:
    _received.pop(name, None)
    _loaded.pop(name, None)


def prepare_worker(sampler: Any) -> None:
    """Put the model of a worker process in the state in which it votes, on this worker's GPU if there are several."""
    voter = getattr(sampler, "voter", None)
    if isinstance(voter, TorchVoter):
        voter.device = own_device(voter.device)
    # The state is never left: the process does nothing else.
    _voting_state.enter_context(voting_state(sampler))


def voting_state(sampler: Any) -> Any:
    """Return the context in which the sampler's model votes."""
    voter = getattr(sampler, "voter", None)
    return contextlib.nullcontext() if voter is None else voter.ready()


def own_device(device: Any) -> Any:
    """Return this worker's device: worker i of a machine takes GPU i mod count, unless a GPU is named."""
    import torch

    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", worker_number() % torch.cuda.device_count())


@cache
def worker_number() -> int:
    """Return the smallest number that no other living worker process of this user on this machine has."""
    folder = _user_folder()
    for number in range(2**16):
        if lock := _locked(folder / str(number)):
            _number_lock.append(lock)
            return number
    raise RuntimeError(f"All numbers in {folder} are taken: remove the folder if no run is going on.")


def own_folder() -> tuple[str, Any]:
    """Make a temporary folder, and return it with a lock that shows that it is used; remove folders of dead runs.

    The system frees the lock when the process ends, in whatever way.
    """
    base = _user_folder()
    with FileLock(base / "folders.lock"):
        for old in (folder for folder in base.glob("model-*") if folder.is_dir()):
            if lock := _locked(Path(f"{old}.lock")):
                shutil.rmtree(old, ignore_errors=True)
                Path(f"{old}.lock").unlink(missing_ok=True)
                lock.release()
        folder = tempfile.mkdtemp(prefix="model-", dir=base)
        return folder, _locked(Path(f"{folder}.lock"))


def _locked(path: Path) -> FileLock | None:
    """Return a lock of a file, or None if another process holds it."""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def _user_folder() -> Path:
    """Return the folder in which the worker processes of this user on this machine find one another."""
    user = getattr(os, "getuid", lambda: 0)()
    folder = Path(tempfile.gettempdir()) / f"smoothcert-workers-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != user:
        raise PermissionError(f"{folder} belongs to another user: remove it, or set TMPDIR.")
    return folder
