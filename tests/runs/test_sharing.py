"""Samplers that are shared with workers: what is sent, where it lies, and who removes it."""

import os
import pickle
from contextlib import ExitStack

import numpy as np
import pytest
import torch

from smoothcert.models.torch import TorchVoter
from smoothcert.runs import sharing as delivery

from ..base_models import MeanOfFirst
from ..processes import running


def test_parcels_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # The process that made it is no worker that ends with its parent.
    monkeypatch.setattr(delivery, "end_with_parent", lambda: None)

    def copies():
        return list(tmp_path.glob("*/model-*"))

    with delivery.SharedSampler("a sampler") as shared:
        assert copies() == []
        copy = pickle.loads(pickle.dumps(shared))
        assert copy.open() == "a sampler"
        assert len(copies()) == 2, "a folder and its lock"
        pickle.dumps(shared)
        assert len(copies()) == 2
        assert len(pickle.dumps(shared)) < 500
    assert copies() == []


@pytest.mark.parametrize("local", [False, True])
def test_what_joblib_does_not_take_and_what_is_large_travels_too(tmp_path, monkeypatch, local):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(delivery, "end_with_parent", lambda: None)
    large = {"array": np.arange(10_000.0)} | ({"function": lambda: 7} if local else {})
    with delivery.SharedSampler(large) as shared:
        copy = pickle.loads(pickle.dumps(shared)).open()
        np.testing.assert_array_equal(copy["array"], large["array"])
        # Workers of a machine share what joblib has written.
        assert isinstance(copy["array"], np.memmap) != local
        assert not local or copy["function"]() == 7
        assert shared.open() is large


def test_a_worker_keeps_one_sampler(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(delivery, "end_with_parent", lambda: None)
    with delivery.SharedSampler(["a"]) as one, delivery.SharedSampler(["b"]) as two:
        first, second = (pickle.loads(pickle.dumps(shared)) for shared in (one, two))
        assert first.open() is first.open()
        assert second.open() == ["b"]
        assert list(delivery._loaded) == [two.name]
        assert first.open() == ["a"]
    delivery._receive("name", pickle.dumps(["c"]))
    with delivery.SharedSampler(["c"]) as shared:
        shared.name, shared.sent = "name", True
        assert pickle.loads(pickle.dumps(shared)).open() == ["c"]
    assert "name" in delivery._loaded
    delivery._discard("name")
    assert "name" not in delivery._loaded
    assert "name" not in delivery._received
    delivery._discard("name")


def test_the_folder_of_workers_is_that_of_one_user(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = delivery._user_folder()
    assert folder == tmp_path / f"smoothcert-workers-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(
        PermissionError, match="smoothcert-workers-12345 belongs to another user: remove it, or set TMP"
    ):
        delivery._user_folder()


def test_copies_of_dead_runs_are_removed_and_those_of_others_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = "import pickle; from smoothcert.runs.sharing import SharedSampler\n"
    script += "shared = SharedSampler('x'); pickle.dumps(shared); connection.send(shared.folder); connection.recv()"
    with running(script, TMPDIR=tmp_path) as (_, living), running(script, TMPDIR=tmp_path) as (process, dead):
        folders = [living.recv(), dead.recv()]
        process.kill()
        process.join()
        assert all(map(os.path.exists, folders))
        with delivery.SharedSampler("a sampler") as shared:
            pickle.dumps(shared)
            assert [os.path.exists(folder) for folder in folders] == [True, False]


def test_each_worker_has_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    given = []
    for number in range(7):
        monkeypatch.setattr(delivery, "worker_number", lambda number=number: number)
        given.append(str(delivery.own_device(torch.device("cuda"))))
    assert given == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert delivery.own_device(torch.device("cuda:1")) == torch.device("cuda:1")
    assert delivery.own_device(torch.device("cpu")) == torch.device("cpu")


def test_settled_models_vote(monkeypatch):
    module = MeanOfFirst().train()
    voter = TorchVoter(module, 2)
    with ExitStack() as state:
        monkeypatch.setattr(delivery, "_voting_state", state)
        delivery.prepare_worker(type("Sampler", (), {"voter": voter})())
        assert not module.training
    assert module.training


def test_numbers_of_dead_workers_are_given_again(tmp_path):
    script = "from smoothcert.runs.sharing import worker_number\nconnection.send(worker_number()); connection.recv()"
    with ExitStack() as stack:

        def start():
            process, connection = stack.enter_context(running(script, TMPDIR=tmp_path))
            return process, connection.recv()

        (first, _), _ = living = [start() for _ in range(2)]
        assert [number for _, number in living] == [0, 1]
        first.kill()
        first.join()
        assert start()[1] == 0
