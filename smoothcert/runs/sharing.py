"""How the model gets to the workers: once to each, not with every task."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import cloudpickle
import joblib

from ..models.torch import TorchVoter
from ..sampling.sampler import Sampler

#: In a worker process: the shared that came last, by its name. A worker serves one run at a time.
_opened: dict[str, Sampler] = {}

#: In a dask worker: what the scheduler has sent ahead, by name.
_delivered: dict[str, bytes] = {}

_lock = threading.Lock()

#: In a worker process: what holds models in the state in which they vote.
_ready = contextlib.ExitStack()

#: In a worker process: a lock and the number that it stands for; the system frees it when the process ends.
_slot: list[Any] = []


class SharedSampler:
    """A sampler that is pickled once: tasks carry its address.

    In the process that made it, and its threads, the sampler itself is used. Workers on this machine read it from a
    temporary file; dask's scheduler sends it to every worker, also to those that come later; ray keeps it in its
    object store. In worker processes the model is put in the state in which it votes, torch models on a GPU of their
    own where there are several.

    Parameters
    ----------
    sampler : Sampler

    Examples
    --------
    >>> with SharedSampler("anything") as shared:
    ...     print(shared.open())
    anything
    """

    def __init__(self, sampler: Sampler) -> None:
        self.name = uuid4().hex
        self.sampler: Sampler | None = sampler
        self.folder: str | None = None
        self.object: Any = None
        self.sent = False
        self.ready, self.held = contextlib.ExitStack(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.ready.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def open(self) -> Sampler:
        """Return the sampler; in a worker process it is loaded when first asked for."""
        with _lock:
            if self.sampler is not None:
                if not self.held:
                    # Here and not before: a driver that leaves the work to others may lack the device.
                    self.held = True
                    self.ready.enter_context(voting_state(self.sampler))
                return self.sampler
            if self.name not in _opened:
                sampler = self._load()
                prepare_worker(sampler)
                _opened.clear()
                _opened[self.name] = sampler
            return _opened[self.name]

    def _load(self) -> Any:
        if self.name in _delivered:
            return pickle.loads(_delivered[self.name])
        if self.object is not None:
            import ray

            return pickle.loads(ray.get(self.object))
        # Arrays of a large forest are mapped into memory: workers share it.
        return joblib.load(Path(str(self.folder)) / "sampler", mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        with _lock:
            if self.sampler is not None and not self.sent:
                self._send()
                self.sent = True
        return self.__dict__ | {"sampler": None, "ready": None}

    def _send(self) -> None:
        """Put the sampler where workers find it."""
        self.folder = tempfile.mkdtemp(prefix="smoothcert-")
        target, content = Path(self.folder) / "sampler", self.pickled()
        # A worker's __main__ is another one: functions and classes of scripts and notebooks must come along.
        if b"__main__" not in content:
            # Lambdas and some others only cloudpickle takes.
            with contextlib.suppress(AttributeError, TypeError, pickle.PicklingError):
                joblib.dump(self.sampler, target)
                return
        target.write_bytes(content)

    def pickled(self) -> bytes:
        """Return the sampler as bytes."""
        return cloudpickle.dumps(self.sampler)


@contextlib.contextmanager
def on_ray(shared: SharedSampler) -> Iterator[None]:
    """Deliver a shared through ray's object store, as long as the context lasts."""
    import ray

    shared.object = ray.put(shared.pickled())
    shared.sent = True
    try:
        yield
    finally:
        shared.object = None


@contextlib.contextmanager
def on_dask(shared: SharedSampler, client: Any) -> Iterator[None]:
    """Deliver a shared to all workers of a dask cluster, now and later, as long as the context lasts."""
    client.register_plugin(_plugin(shared.name, shared.pickled()))
    shared.sent = True
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            client.unregister_worker_plugin(shared.name)


def _plugin(name: str, content: bytes) -> Any:
    from distributed import WorkerPlugin

    class Delivery(WorkerPlugin):
        def __init__(self) -> None:
            self.name = name

        def setup(self, worker: Any) -> None:
            _receive(name, content)

        def teardown(self, worker: Any) -> None:
            _discard(name)

    return Delivery()


def _receive(name: str, content: bytes) -> None:
    _delivered[name] = content


def _discard(name: str) -> None:
    _delivered.pop(name, None)
    _opened.pop(name, None)


def prepare_worker(sampler: Any) -> None:
    """Put the model of a worker process in the state in which it votes, on the GPU that is this worker's."""
    voter = getattr(sampler, "voter", None)
    if isinstance(voter, TorchVoter):
        voter.device = own_device(voter.device)
    # Never left: the process does nothing else.
    _ready.enter_context(voting_state(sampler))


def voting_state(sampler: Any) -> Any:
    """Return the context in which the sampler's model votes."""
    voter = getattr(sampler, "voter", None)
    return contextlib.nullcontext() if voter is None else voter.ready()


def own_device(device: Any) -> Any:
    """Return this worker's device: where none of several GPUs is named, worker i of a machine has GPU i mod count."""
    import torch

    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", worker_number() % torch.cuda.device_count())


def worker_number() -> int:
    """Return the smallest number that no other living worker process of this user on this machine has."""
    if not _slot:
        from filelock import FileLock, Timeout

        user = getattr(os, "getuid", lambda: 0)()
        place = Path(tempfile.gettempdir()) / f"smoothcert-workers-{user}"
        place.mkdir(mode=0o700, exist_ok=True)
        if place.stat().st_uid != user:
            raise PermissionError(f"{place} belongs to another user: remove it, or set TMPDIR.")
        for number in range(2**16):
            lock = FileLock(place / str(number), timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            _slot[:] = [lock, number]
            break
    return int(_slot[1])
