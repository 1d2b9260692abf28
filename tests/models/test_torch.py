"""Voters of torch modules: what follows from precision, size and device."""

import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier
from torch import nn

from smoothcert import TorchInference
from smoothcert.models.adapt import make_voter
from smoothcert.models.torch import NEAR_TIE, TorchVoter

from .problems import X, thirds


@pytest.mark.parametrize(
    ("dtype", "autocast", "expected"),
    [
        # dtype, near tie, scale, coarse step, votes that may change when rows are asked alone
        (torch.float32, None, (np.float32, NEAR_TIE, 1.0, 0.0, 0)),
        (torch.float64, None, (np.float64, NEAR_TIE, 1.0, 0.0, 0)),
        (torch.float16, None, (np.float32, 2**-10, 0.0, 2**-10, 5)),
        (torch.bfloat16, None, (np.float32, 2**-7, 0.0, 2**-7, 5)),
        (torch.float32, "bfloat16", (np.float32, 2**-7, 0.0, 2**-7, 5)),
        (torch.float32, "float16", (np.float32, 2**-10, 0.0, 2**-10, 5)),
        (torch.bfloat16, "float16", (np.float32, 2**-7, 0.0, 2**-7, 5)),
    ],
)
def test_what_follows_from_the_precision(dtype, autocast, expected):
    voter = TorchVoter(nn.Linear(3, 2).to(dtype), 2, inference=TorchInference(autocast=autocast))
    assert (voter.dtype, voter.near_tie, voter.scale, voter.coarse_step, voter.most_changed) == expected
    assert voter.is_reduced == (voter.coarse_step > 0) == (not voter.is_measured)


def test_what_follows_from_the_size_and_the_device():
    small, large = TorchVoter(nn.Linear(3, 2), 2), TorchVoter(nn.Linear(2**10, 2**10), 2**10)
    assert (small.n_parameters, small.batch_values, small.most_rows, small.most_together) == (8, 2**20, 2**15, 64)
    assert (large.n_parameters, large.batch_values) == (2**20 + 2**10, 2**17)
    assert TorchVoter(nn.Linear(2**10 - 1, 2**10, bias=False), 2**10).batch_values == 2**20
    assert TorchVoter(nn.Linear(2**10, 2**10, bias=False), 2**10).batch_values == 2**17
    other = TorchVoter(nn.Linear(3, 2), 2, device="meta")
    assert (other.batch_values, other.most_rows, other.most_together, other.most_changed) == (2**24, 2**24, 2**10, 5)
    assert (small.task_factor, other.task_factor) == (1, 8)
    assert str(TorchVoter(nn.Linear(3, 2, device="meta"), 2).device) == "meta"
    assert str(TorchVoter(nn.Flatten(), 2).device) == "cpu"
    # The first parameter of real numbers decides about the precision.
    module = nn.Linear(3, 2).double()
    module.register_buffer("count", torch.zeros(1, dtype=torch.int64))
    assert TorchVoter(module, 2).precision == torch.float64
    if not torch.cuda.is_available():
        with pytest.raises(
            ValueError, match=r"^device='cuda' is not there: torch finds no CUDA device\. Use set_params"
        ):
            TorchVoter(nn.Linear(3, 2), 2, device="cuda")


def test_rows_that_are_compared_with_higher_precision():
    voter = TorchVoter(nn.Linear(3, 2), 2, inference=TorchInference(autocast="bfloat16"))
    assert voter._compared(31) == slice(None)
    assert [voter._compared(n) for n in (32, 128, 500, 129)] == [slice(None, None, 1)] * 2 + [
        None,
        slice(None, None, 2),
    ]
    voter.is_measured = True
    assert voter._compared(31) is None
    assert [voter._compared(1000) for _ in range(4)] == [None, None, None, slice(None, None, 8)]
    assert not any(TorchVoter(nn.Linear(3, 2), 2)._compared(n) for n in (31, 32, 1000))


def test_probabilities_and_numbers_of_modules():
    module, rows = nn.Linear(3, 3), torch.from_numpy(X).float()
    voter = TorchVoter(module, 3)
    expected = module(rows).detach().double().softmax(dim=1).numpy()
    np.testing.assert_allclose(voter.probabilities(X), expected, rtol=1e-6)
    assert voter.probabilities(X).dtype == np.float64
    picked = TorchVoter(module, 1, inference=TorchInference(output=lambda answer: answer[:, 2]))
    np.testing.assert_allclose(picked.values(X), module(rows)[:, 2].detach().numpy(), rtol=1e-6)
    with pytest.raises(
        ValueError,
        match=r"^The base model Linear must return one number per row, shape \(60,\), but returned shape \(60, 3\)",
    ):
        voter.values(X)


def test_the_voter_of_higher_precision():
    def made(module, n_classes=2, **inference):
        voter = TorchVoter(module, n_classes, inference=TorchInference(**inference))
        return voter._make_precise()

    plain = nn.Linear(3, 2)
    for dtype, higher in (
        (torch.float32, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ):
        found = made(nn.Linear(3, 2).to(dtype))
        assert found.precision == higher
    assert made(plain.double()) is None
    assert made(nn.Linear(3, 1), 1) is None
    # Without autocast; a copy shares the parameters.
    plain.float()
    found = made(plain, autocast="bfloat16", channels_last=True)
    assert found.module.weight is plain.weight
    assert (found.inference.autocast, found.inference.channels_last, found.is_reduced) == (None, True, False)
    assert made(plain.bfloat16(), autocast="float16").precision == torch.float32
    voter = TorchVoter(nn.Linear(3, 2), 2)
    voter.device_type = "mps"
    assert (voter._make_precise().device.type, voter._make_precise().precision) == ("cpu", torch.float64)
    voter.n_parameters = 2**28
    assert voter._make_precise() is not None
    voter.n_parameters += 1
    assert voter._make_precise() is None


def test_content_of_modules_names_the_way_they_are_run():
    module = nn.Linear(3, 2)
    plain = TorchVoter(module, 2).content()
    way = TorchInference(autocast="bfloat16", channels_last=True, output=thirds)
    assert TorchVoter(module, 2, inference=way).content() == (
        f"{plain} TorchInference(autocast='bfloat16', channels_last=True) output=thirds"
    )
    net = NeuralNetBinaryClassifier(nn.Linear(3, 1), threshold=0.75).initialize()
    assert make_voter(net, np.arange(2)).content().endswith(" above 1.09861")
    net.set_params(predict_nonlinearity=lambda z: z)
    assert " by " in make_voter(net, np.arange(2)).content()


def test_a_pickled_voter_makes_its_helpers_anew():
    voter = TorchVoter(nn.Linear(3, 2), 2)
    voter(X.astype(np.float32))
    voter.for_threads()
    copied = pickle.loads(pickle.dumps(voter))
    assert copied.original is copied
    assert (copied.forward, copied.thread_voters, copied.precise) == (None, [], None)
    np.testing.assert_array_equal(copied(X.astype(np.float32)), voter(X.astype(np.float32)))


def test_a_module_that_changes_between_runs_is_read_anew():
    module = nn.Linear(3, 2)
    voter, rows = TorchVoter(module, 2), X.astype(np.float32)
    with torch.no_grad():
        module.weight[:], module.bias[:] = torch.tensor([[0.0] * 3, [1e-7] * 3]), 0.0
    with voter.ready():
        assert voter(rows).all()
        assert voter.precise is not None
    assert (voter.forward, voter.precise, voter.thread_voters) == (None, None, [])
    with torch.no_grad():
        module.weight[1] = -1e-7
    with voter.ready():
        assert not module.training
        assert not voter(rows).any()
    assert module.training
