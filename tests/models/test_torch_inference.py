"""How torch models are run: precision, and where channels lie in memory."""

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert import SmoothedClassifier, TorchInference
from smoothcert.models.torch_inference import COMPILED_AFTER


def test_settings_of_torch_models():
    inference = TorchInference(autocast="float16", channels_last=True, output=torch.logit)
    inference.check()
    full = inference.in_full_precision()
    assert (full.autocast, full.channels_last, full.compile, full.output) == (None, True, False, torch.logit)
    assert [TorchInference(autocast=name).step("cpu") for name in ("bfloat16", "float16", None)] == [2**-7, 2**-10, 0]
    with torch.autocast("cpu", torch.bfloat16):
        assert TorchInference().step("cpu") == 2**-7
        assert full.step("cpu") == 0
        with full.context(torch.device("cpu")):
            assert not torch.is_autocast_enabled("cpu")
        with TorchInference().context(torch.device("cpu")):
            assert torch.is_autocast_enabled("cpu")
    with inference.context(torch.device("cpu")):
        assert torch.get_autocast_dtype("cpu") == torch.float16
    assert TorchInference().way() == ""
    assert TorchInference(compile=True).way() == " TorchInference(compile=True)"
    for name, value in (("autocast", "half"), ("channels_last", 1), ("compile", None), ("output", "logits")):
        with pytest.raises(ValueError, match=f"^{name} must be .*got {value!r}"):
            TorchInference(**{name: value}).check()


def test_channels_are_last_where_that_is_asked_for():
    seen = []

    class Seeing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(2, 2, 3)

        def forward(self, rows):
            seen.append(rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last))
            return rows

    for last in (False, True):
        module = Seeing()
        run = TorchInference(channels_last=last).prepare(module)
        for shape in ((2, 2, 4, 4), (2, 4)):
            run(torch.rand(shape))
        assert module.layer.weight.is_contiguous(memory_format=torch.channels_last) == last
    assert seen == [False, False, True, False]


def test_the_module_is_compiled_for_full_batches_of_which_there_are_many(monkeypatch):
    sizes, options = [], []

    def compiled(module, **given):
        options.append(given)
        return lambda rows: sizes.append(len(rows)) or module(rows)

    monkeypatch.setattr(torch, "compile", compiled)
    run = TorchInference(compile=True).prepare(nn.Identity())
    for size in (1, 40, *[100] * (COMPILED_AFTER + 1), 40, 1, 100, *[300] * (COMPILED_AFTER + 2), 100):
        assert len(run(torch.zeros(size, 2))) == size
    assert sizes == [100, 100, 300, 300]
    assert options == [{"dynamic": False}]


def test_batches_that_exhaust_memory_do_not_keep_smaller_ones_from_being_compiled(monkeypatch):
    class Small(nn.Identity):
        def forward(self, rows):
            if len(rows) > 50:
                raise MemoryError
            return rows

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: lambda rows: "compiled")
    run = TorchInference(compile=True).prepare(Small())
    with pytest.raises(MemoryError):
        run(torch.zeros(100, 2))
    answers = [run(torch.zeros(50, 2)) for _ in range(COMPILED_AFTER + 1)]
    assert [isinstance(answer, str) for answer in answers] == [False] * COMPILED_AFTER + [True]


@pytest.mark.parametrize(("convolution", "shape"), [(nn.Conv2d, (2, 4, 4)), (nn.Conv3d, (2, 4, 4, 4))])
def test_networks_that_have_voted_can_be_trained(convolution, shape):
    network = nn.Sequential(convolution(2, 1, 3), nn.Flatten(), nn.LazyLinear(3))
    X = np.random.default_rng(0).random((4, *shape)).astype(np.float32)
    network(torch.from_numpy(X))
    settings = {"inference": TorchInference(channels_last=True), "n_samples": 50, "random_state": 0}
    SmoothedClassifier.from_pretrained(network, range(3), **settings).count_votes(X)
    network(torch.from_numpy(X)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_networks_from_inference_mode_vote_with_channels_last():
    with torch.inference_mode():
        network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten())
    X = np.random.default_rng(0).random((2, 2, 3, 3)).astype(np.float32)
    plain, last = (
        SmoothedClassifier.from_pretrained(network, range(3), inference=inference, n_samples=50, random_state=0)
        for inference in (None, TorchInference(channels_last=True))
    )
    np.testing.assert_array_equal(plain.count_votes(X).estimation, last.count_votes(X).estimation)


@pytest.mark.parametrize(
    "inference",
    [
        TorchInference(),
        TorchInference(channels_last=True),
        TorchInference(autocast="bfloat16"),
        TorchInference(compile=True),
    ],
    ids=["plain", "channels last", "autocast", "compiled"],
)
def test_ways_to_run_a_network(inference):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    X = np.random.default_rng(0).random((4, 2, 6, 6))
    params = {"n_samples": 1000, "n_selection": 100, "random_state": 0}
    plain = SmoothedClassifier.from_pretrained(network, range(3), **params).count_votes(X)
    clf = SmoothedClassifier.from_pretrained(network, range(3), inference=inference, batch_size=128, **params)
    votes = clf.count_votes(X)
    assert np.abs(votes.estimation - plain.estimation).max() <= (0 if inference.autocast is None else 50)
    if repr(inference) == repr(TorchInference()):
        clf.certify(X, votes=plain)
    else:
        assert repr(inference) in votes.origin.model
        with pytest.raises(ValueError, match="votes were drawn with a different model"):
            clf.certify(X, votes=plain)


def test_unknown_devices_are_refused_before_training():
    X, y = np.eye(4), [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"device must be a device of torch, such as 'cpu' or 'cuda:0', got 'gpu'"):
        SmoothedClassifier(nn.Linear(4, 2), device="gpu").fit(X, y)
    clf = SmoothedClassifier.from_pretrained(nn.Linear(4, 2), [0, 1])
    with pytest.raises(ValueError, match="device must be"):
        clf.set_params(device="gpu").predict(X)
