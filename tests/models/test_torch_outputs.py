"""What torch modules may return, and how their errors arrive."""

from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from smoothcert import TorchInference
from smoothcert.models.adapt import make_voter
from smoothcert.models.torch import TorchVoter
from smoothcert.models.torch_outputs import Decision, explained, find_logits, lead_error, read_numbers, votes_by_lead

from ..base_models import fail_as_torch

X = np.random.default_rng(0).random((50, 4)).astype(np.float32)
RULE = np.array([[1.0, 0, 0, 0.5], [0, 1, 0, 0.4], [0, 0, 1, 0.6]], dtype=np.float32)
VOTES = (X @ RULE.T).argmax(axis=1)
SIGN = X[:, 0] - X[:, 1]


class Answering(nn.Module):
    """A network that packs three logits, or the sign of a difference for one, into an answer of any kind."""

    def __init__(self, pack, single=False):
        super().__init__()
        self.pack, self.single = pack, single
        self.rule = nn.Parameter(torch.from_numpy(RULE))

    def forward(self, rows):
        return self.pack(rows[:, :1] - rows[:, 1:2] if self.single else rows @ self.rule.T)


@pytest.mark.parametrize(
    "pack",
    [
        lambda logits: logits,
        lambda logits: {"logits": logits, "loss": None},
        lambda logits: {"out": logits},
        lambda logits: OrderedDict(hidden=-logits, logits=logits),
        lambda logits: SimpleNamespace(logits=logits, hidden=-logits),
        lambda logits: (logits, -logits),
        lambda logits: [logits, -logits],
        lambda logits: {"logits": (logits, -logits)},
        lambda logits: torch.nn.functional.one_hot(logits.argmax(dim=1), 3),
    ],
)
def test_logits_are_found(pack):
    np.testing.assert_array_equal(TorchVoter(Answering(pack), 3)(X), VOTES)


@pytest.mark.parametrize("pack", [lambda logit: logit, lambda logit: logit[:, 0], lambda logit: logit.squeeze()])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_a_positive_single_logit_is_a_vote_for_the_second_class(pack, n):
    voter = TorchVoter(Answering(pack, single=True), 2)
    voter(X)
    votes = voter(X[:n])
    np.testing.assert_array_equal(votes, SIGN[:n] > 0)
    assert n < 50 or 10 < votes.sum() < 40


def test_a_hook_finds_the_logits():
    module = Answering(lambda logits: {"a": -logits, "b": logits})
    hooks = [TorchInference(output=hook) for hook in (second, first)]
    voter, other = (make_voter(module, np.arange(3), inference=hook) for hook in hooks)
    np.testing.assert_array_equal(voter(X), VOTES)
    np.testing.assert_array_equal(other(X), (-X @ RULE.T).argmax(axis=1))
    for in_thread in voter.for_threads():
        np.testing.assert_array_equal(in_thread(X), VOTES)
    assert voter.content() != other.content()
    with pytest.raises(ValueError, match=r"inference=.* is for torch models, got a function\. Use inference=None"):
        make_voter(lambda rows: rows, np.arange(4), inference=hooks[0])


def first(answer):
    return answer["a"]


def second(answer):
    return answer["b"]


def test_single_probabilities_are_not_taken_for_logits():
    module = Answering(torch.sigmoid, single=True)
    with pytest.raises(
        ValueError, match=r"look like probabilities, but must be logits.* set TorchInference.output=torch"
    ):
        TorchVoter(module, 2)(X)
    np.testing.assert_array_equal(TorchVoter(module, 2, inference=TorchInference(output=torch.logit))(X), SIGN > 0)
    # Logits may all lie between 0 and 1.
    positive = Answering(torch.sigmoid, single=True)
    assert TorchVoter(positive, 2, inference=TorchInference(output=lambda logit: logit))(X).all()


def test_single_outputs_are_judged_until_one_is_no_probability():
    """A long run does not end because of a batch whose logits all lie between 0 and 1."""
    rows = np.column_stack([np.linspace(0, 0.9, 50), np.zeros((50, 3))]).astype(np.float32)
    voter = TorchVoter(Answering(lambda logit: logit, single=True), 2)
    copies = voter.for_threads()
    voter(X)
    assert voter(rows).sum() == 49
    assert all(copied(rows).sum() == 49 for copied in copies)
    for n in (1, 5, 50):
        with pytest.raises(ValueError, match="look like probabilities"):
            TorchVoter(Answering(lambda logit: logit, single=True), 2)(rows[:n])


@pytest.mark.parametrize(
    ("pack", "message"),
    [
        (lambda logits: {"a": logits, "b": logits}, r"keys \['a', 'b'\], and no 'logits' .* output=lambda .*\['a'\]"),
        (lambda logits: {}, r"keys \[\], and no 'logits'"),
        (
            lambda logits: logits[:, :2],
            r"shape \(50, 3\), but returned shape \(50, 2\).* last layer 3 outputs.* set TorchInference.* a function",
        ),
        (lambda logits: logits[:, 0], r"returned shape \(50,\)"),
        (lambda logits: logits[:, :1], r"returned shape \(50, 1\)"),
        (lambda logits: logits.T, r"returned shape \(3, 50\)"),
        (lambda logits: None, "returned a NoneType"),
        (lambda logits: (), "returned a tuple"),
    ],
)
def test_other_answers_name_the_remedy(pack, message):
    with pytest.raises(ValueError, match=f"The base model Answering .*{message}"):
        TorchVoter(Answering(pack), 3)(X)


class Failing(nn.Module):
    def __init__(self, fail):
        super().__init__()
        self.fail = fail
        self.linear = nn.Linear(4, 3)

    def forward(self, rows):
        return self.fail(self, rows)


def raises(error):
    def fail(module, rows):
        raise error

    return fail


SHAPE = "Give X the shape that the network takes"
TYPE = "Convert them in its forward method"


@pytest.mark.parametrize(
    ("fail", "kind", "advice"),
    [
        (lambda m, rows: m.linear(rows[:, :3]), ValueError, SHAPE),
        (lambda m, rows: rows + torch.zeros(3), ValueError, SHAPE),
        (lambda m, rows: rows.view(-1, 7), ValueError, SHAPE),
        (lambda m, rows: nn.functional.conv2d(rows, torch.zeros(1, 3, 2, 2)), ValueError, SHAPE),
        (lambda m, rows: m.linear(rows.double()), ValueError, TYPE),
        (lambda m, rows: m.linear(rows.half()), ValueError, TYPE),
        (lambda m, rows: nn.functional.embedding(rows, torch.zeros(3, 3)), ValueError, TYPE),
        (lambda m, rows: torch.cat([rows, rows[:7, :1]], dim=1), ValueError, SHAPE),
        (lambda m, rows: nn.LSTM(7, 3)(rows), ValueError, SHAPE),
        (lambda m, rows: torch.einsum("bij,jk->bik", rows, torch.rand(4, 2)), ValueError, SHAPE),
        (lambda m, rows: nn.LayerNorm(3)(rows), ValueError, SHAPE),
        (lambda m, rows: nn.MaxPool2d(2)(rows), ValueError, SHAPE),
        (raises(RuntimeError("the license server is away")), RuntimeError, None),
        (raises(RuntimeError("no row in the dimension table has the shape of a 2D input")), RuntimeError, None),
        (raises(RuntimeError("the data type of column 3 must match its dtype")), RuntimeError, None),
        (raises(RuntimeError("my cache is out of memory slots")), RuntimeError, None),
        (raises(RuntimeError("a 32-bit index, please")), RuntimeError, None),
        (lambda m, rows: torch.linalg.cholesky(-torch.eye(3)), RuntimeError, None),
        (lambda m, rows: rows.sum().backward(), RuntimeError, None),
        (raises(KeyError("a bug")), KeyError, None),
        (raises(ConnectionError("no route to host")), ConnectionError, None),
    ],
)
def test_errors_of_the_model_arrive_with_their_own_cause(fail, kind, advice):
    with pytest.raises(kind) as caught:
        TorchVoter(Failing(fail), 3)(X)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert (SHAPE in message, TYPE in message) == (advice == SHAPE, advice == TYPE)
    if kind in (ValueError, RuntimeError):
        assert message.startswith("The base model Failing failed on a batch of shape (50, 4)")
        assert str(caught.value.__cause__) in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_of_other_precision(dtype):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)
    voter = TorchVoter(module, 3)
    assert voter.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    with torch.no_grad():
        expected = [int(module(torch.from_numpy(row[None]).to(dtype)).argmax()) for row in X]
    assert len(set(expected)) > 1
    np.testing.assert_array_equal(voter(X.astype(voter.dtype)), expected)


def test_networks_that_scale_bytes_take_real_numbers():
    class Bytes(nn.Module):
        def forward(self, rows):
            return (rows.float() / 255) @ torch.from_numpy(RULE).T

    np.testing.assert_array_equal(TorchVoter(Bytes(), 3)(255 * X), VOTES)


class NoFloat64(TorchDispatchMode):
    """An accelerator that has no numbers of 64 bits, such as those of Apple: only what is done on the CPU has them."""

    def __init__(self):
        super().__init__()
        self.moves, self.seen = 0, False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if getattr(result, "dtype", None) == torch.float64:
            assert self.moves, f"{function} made a float64 tensor"
            self.seen = True
        return result


def test_accelerators_need_no_float64(monkeypatch):
    torch.manual_seed(0)
    module = nn.Linear(4, 3)
    with torch.no_grad():
        module.weight[1] = module.weight[0] * (1 + 1e-4)
        module.bias[1] = module.bias[0]
        module.bias[2] = -10
    voter = TorchVoter(module, 3)
    voter.device_type = "mps"
    with NoFloat64() as device:
        on_cpu, settled = TorchVoter._exact_logits, TorchVoter._settle_together

        def leave(self, rows):
            device.moves += 1
            return on_cpu(self, rows)

        def together(self, rows):
            votes = settled(self, rows)
            device.moves = 0
            return votes

        monkeypatch.setattr(TorchVoter, "_exact_logits", leave)
        monkeypatch.setattr(TorchVoter, "_settle_together", together)
        found = voter(X)
    assert device.seen
    assert (voter.vote(X.copy())() < 0).mean() > 0.2
    np.testing.assert_array_equal(found, TorchVoter(module, 3)(X))
    assert voter.precise.device.type == "cpu"


def test_leads_of_up_to_a_least_one_are_near_ties():
    logits = torch.tensor([[1.0, 1.5, 0.0], [4.0, 1.0, 2.0], [0.0, 0.0, 2.5]])
    assert votes_by_lead(logits, 0.0, 0.0, 0.5).tolist() == [-1, 0, 2]
    assert votes_by_lead(logits, 0.0, 0.0, 0.4).tolist() == [1, 0, 2]
    # The part of the size, or the least lead, whichever is larger.
    assert votes_by_lead(logits, 0.0, 0.5, 0.4).tolist() == [-1, -1, 2]
    assert votes_by_lead(logits, 1.0, 0.5, 2.4).tolist() == [-1, -1, 2]
    assert votes_by_lead(logits, 4.0, 0.5).tolist() == [-1, -1, -1]


def test_the_error_of_the_lead():
    rough = torch.tensor([[1.0, 2.0, 0.0], [5.0, 4.0, 0.0]])
    precise = torch.tensor([[1.25, 1.5, 9.0], [5.0, 4.25, -9.0]]).double()
    # Of the first logit over the second, as the rough ones order them: .5 + .25, and .25.
    assert lead_error(rough, precise) == 0.75
    assert lead_error(rough[1:], precise[1:]) == 0.25
    assert lead_error(rough, precise * torch.nan) == np.inf
    # A few rows that overflow are near ties themselves; of one with a second logit of -inf nothing is known.
    for overflowed in (torch.inf, torch.nan):
        some = torch.cat([rough, torch.tensor([[0.0, overflowed, 0.0]])])
        assert lead_error(some, torch.cat([precise, precise[:1]])) == 0.75
        assert votes_by_lead(some, 0.0, 0.1).tolist() == [1, 0, -1]
        least = torch.cat([rough, torch.tensor([[0.0, 1.0, -torch.inf]])])
        assert votes_by_lead(least, 0.0, 0.1).tolist() == [1, 0, 1]
        assert votes_by_lead(least, 0.0, 0.1, overflows=True).tolist() == [1, 0, -1]
        assert lead_error(some[1:], torch.cat([precise[1:], precise[:1]])) == 0.25
        assert lead_error(some[2:], precise[:1]) == np.inf
    assert lead_error(torch.tensor([[1.0, -torch.inf]]), torch.tensor([[1.0, -torch.inf]]).double()) == np.inf

    class OnMps(torch.Tensor):
        def double(self):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )

        def cpu(self):
            return self.as_subclass(torch.Tensor)

    assert lead_error(rough.as_subclass(OnMps), precise.float().as_subclass(OnMps)) == 0.75


def test_numbers_in_an_answer():
    for answer in (torch.tensor([1.0, 2.0]), {"logits": torch.tensor([[1.0], [2.0]])}, [torch.tensor([1, 2])]):
        found = read_numbers(answer, 2, "Net")
        assert (found.tolist(), found.dtype) == ([1.0, 2.0], np.float64)
    assert read_numbers({"a": 1, "b": torch.ones(2)}, 2, "Net", lambda answer: answer["b"]).tolist() == [1, 1]
    for answer, what in ((torch.ones(2, 2), r"shape \(2, 2\)"), ([], "a list"), (torch.ones(3), r"shape \(3,\)")):
        with pytest.raises(
            ValueError, match=rf"^The base model Net must return one number per row, .* returned {what}\."
        ):
            read_numbers(answer, 2, "Net")
    assert find_logits({"logits": 1, "a": 2}, "Net") == 1


def test_what_a_decision_says():
    assert [str(one) for one in (Decision(), Decision(threshold=0.0), Decision(threshold=-1.5))] == [
        "",
        "",
        " above -1.5",
    ]
    assert str(Decision(torch.nn.functional.softplus, 0.5)).endswith(" above 0.5")
    assert str(Decision(first)) == " by first"
    logits = torch.tensor([[1.0, 3.0]])
    assert Decision(threshold=2.0)(logits).tolist() == [[-1.0, 1.0]]
    assert Decision(lambda z: 2 * z)(logits).tolist() == [[2.0, 6.0]]
    assert Decision(lambda z: 2 * z, 0.5)(logits).tolist() == [5.5]


def test_exhausted_memory_is_told_as_such():
    for error in (
        torch.OutOfMemoryError("full"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.56 GB, max allowed: 6.80 GB)."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        # Of attention to 65,536 rows or more, and of pooling to 2**31 values or more.
        RuntimeError("CUDA error: invalid configuration argument"),
        RuntimeError("input tensor must fit into 32-bit index math"),
    ):
        with pytest.raises(RuntimeError) as caught:
            fail_as_torch(error)
        found = explained(caught.value, nn.ReLU(), (2, 3))
        assert (type(found), str(found)) == (MemoryError, str(error))
