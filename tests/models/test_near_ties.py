"""Votes on near ties: the same in batches of any size, and without asking about every row alone."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert import SmoothedClassifier, TorchInference, UniformNoise
from smoothcert.models.torch import NEAR_TIE, SMOOTH_NEAR_TIE, TorchVoter
from smoothcert.models.torch_outputs import is_smooth

X = np.random.default_rng(0).random((400, 64)).astype(np.float32)


class Network(nn.Module):
    """A network whose logits go through a function; it counts the rows that it is asked about alone."""

    def __init__(self, function, n_classes=10, gain=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, n_classes))
        with torch.no_grad():
            self.layers[2].weight *= gain
        self.function = function
        self.rng = {"alone": 0}

    def forward(self, rows):
        self.rng["alone"] += len(rows) == 1
        return self.function(self.layers(rows))


def shared(logits):
    """Take away most of what logits have in common: what is left is small, and its rounding errors are not."""
    return (100 + 1e-3 * logits) - 100


CASES = {
    "softmax of 1000": (lambda logits: logits.softmax(dim=1), 1000),
    "small": (lambda logits: 1e-3 * logits, 10),
    "tiny": (lambda logits: 1e-9 * logits, 10),
    "opposite": (lambda logits: 1e-4 * torch.stack([logits[:, 0], -logits[:, 0]], dim=1), 2),
    "single": (lambda logits: 1e-4 * (logits[:, 0] - logits[:, 1]), 2),
    "canceling": (shared, 10),
    "large": (lambda logits: 1e4 + logits, 10),
    "ties": (lambda logits: (8 * logits).round() / 8, 10),
    "usual": (lambda logits: logits, 10),
}


def alone(network, rows, n_classes):
    voter = TorchVoter(network, n_classes)
    return np.concatenate([voter(row[None]) for row in rows])


@pytest.mark.parametrize("case", CASES)
def test_votes_do_not_depend_on_the_batch(case):
    function, n_classes = CASES[case]
    network = Network(function, max(n_classes, 10))
    expected = alone(network, X, n_classes)
    assert len(np.unique(expected)) > 1
    for size in (7, 64, 400):
        voter = TorchVoter(network, n_classes)
        # The second time with the scale that the first has measured.
        for _ in range(2):
            found = np.concatenate([voter(X[start : start + size]) for start in range(0, len(X), size)])
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("device_type", ["cpu", "mps"])
@pytest.mark.parametrize("case", ["softmax of 1000", "small", "tiny", "opposite", "single"])
def test_few_rows_are_asked_about_alone(case, device_type):
    function, n_classes = CASES[case]
    network = Network(function, max(n_classes, 10))
    voter = TorchVoter(network, n_classes)
    # The way of an accelerator, on CPU tensors.
    voter.device_type = device_type
    assert (voter.vote(X[:200].copy())() < 0).mean() > 0.9
    voter(X[:200])
    assert voter.scale < 0.1
    # Once the scale is known, near ties are rare.
    assert (voter.vote(X[200:].copy())() < 0).mean() < 0.1
    voter(X[200:])
    assert network.rng["alone"] < 20


@pytest.mark.parametrize("case", ["softmax of 1000", "small", "tiny"])
def test_few_rows_are_asked_about_alone_in_float64(case):
    function, n_classes = CASES[case]
    network = Network(function, max(n_classes, 10)).double()
    expected = alone(network, X, n_classes)
    network.rng["alone"] = 0
    voter = TorchVoter(network, n_classes)
    np.testing.assert_array_equal(voter(X.astype(float)), expected)
    assert voter.near_tie == SMOOTH_NEAR_TIE
    assert network.rng["alone"] < 20


def test_float32_inside_of_a_network_in_float64_is_noticed():
    network = Network(lambda logits: (1e-3 * logits).float().double()).double()
    voter = TorchVoter(network, 10)
    np.testing.assert_array_equal(voter(X[:100].astype(float)), alone(network, X[:100], 10))
    assert voter.near_tie == NEAR_TIE


@pytest.mark.parametrize("d", [2, 8, 64])
def test_a_part_in_float32_of_a_network_in_float64_is_noticed_in_few_features(d):
    torch.manual_seed(0)
    first, last, wide = nn.Linear(d, 64), nn.Linear(64, 3), nn.Linear(d, 3).double()

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = wide

        def forward(self, rows):
            return last(first(rows.float()).relu()).double() + 1e-3 * self.wide(rows)

    for seed in range(5):
        voter = TorchVoter(Mixed(), 3)
        voter.settle(np.random.default_rng(seed).random((64, d)))
        assert voter.near_tie == NEAR_TIE


def test_larger_rounding_errors_of_later_rows_raise_the_scale():
    """As those of other inputs in the same task: what their logits have in common cancels."""
    network = Network(lambda logits: 1e-4 * logits)
    voter = TorchVoter(network, 10)
    voter(X)
    before, voter.many_near_ties = voter.scale, False
    network.function = shared
    voter.precise.module.function = shared
    voter.settle(X[:2])
    assert voter.scale > 2 * before


def test_rounding_errors_that_are_larger_than_the_logits_are_noticed():
    voter = TorchVoter(Network(shared), 10)
    voter(X)
    measured = voter.scale * NEAR_TIE
    # Numbers near 100 are rounded by up to 2**-18.
    assert measured > 8 * 2**-18


def test_usual_networks_keep_the_scale():
    network = Network(lambda logits: logits)
    voter = TorchVoter(network, 10)
    voter(X)
    assert voter.scale == 1


@pytest.mark.parametrize("constants", [[0.1, 0.1, 0.1], [0.1, 0.3, 0.3], [1e-9, 2e-9, 0.0]])
def test_constant_logits(constants):
    network = Network(lambda logits: torch.tensor(constants).expand(len(logits), -1) * 1.0)
    for size in (1, 100, 300):
        assert (TorchVoter(network, 3)(X[:size]) == np.argmax(constants)).all()


def test_copies_that_stay_in_float32_are_not_believed():
    network = Network(lambda logits: (1e-3 * logits).float())
    voter = TorchVoter(network, 10)
    np.testing.assert_array_equal(voter(X[:100]), alone(network, X[:100], 10))
    assert voter.scale == 1
    stubborn = Network(lambda logits: (1e-3 * logits).float().to(logits.dtype))
    voter = TorchVoter(stubborn, 10)
    np.testing.assert_array_equal(voter(X[:100]), alone(stubborn, X[:100], 10))
    assert voter.scale == 1


def test_a_copy_that_answers_differently_in_float64_is_not_believed():
    def fickle(logits):
        return 1e-5 * (logits if logits.dtype == torch.float32 else logits.flip(dims=[1]))

    network = Network(fickle)
    np.testing.assert_array_equal(TorchVoter(network, 10)(X[:300]), alone(network, X[:300], 10))


class NoCopies(Network):
    def __deepcopy__(self, memo):
        raise TypeError("no copies")


def test_networks_that_cannot_be_copied_are_asked_alone():
    network = NoCopies(CASES["small"][0])
    voter = TorchVoter(network, 10)
    voter(X[:100])
    assert network.rng["alone"] > 90
    assert voter.precise is False


def with_hook(network):
    network.layers[0].register_forward_hook(lambda *_: None)
    return network


def with_forward_of_its_own(network):
    network.forward = lambda rows: Network.forward(network, rows.float())
    return network


def compiled(network):
    return torch.compile(network, backend="eager")


def softmax_network():
    return Network(*CASES["softmax of 1000"])


@pytest.mark.parametrize("change", [with_hook, compiled])
def test_networks_that_do_not_vote_in_threads_have_a_float64_copy(change):
    network = softmax_network()
    expected = alone(network, X, 1000)
    network.rng["alone"] = 0
    voter = TorchVoter(change(network), 1000)
    for size in (100, 400):
        np.testing.assert_array_equal(np.concatenate([voter(X[i : i + size]) for i in range(0, 400, size)]), expected)
    assert network.rng["alone"] < 20
    # One copy serves all threads.
    assert all(one.original is voter for one in voter.for_threads())


def test_a_forward_of_the_instance_that_stays_in_float32_is_asked_alone():
    network = softmax_network()
    expected = alone(network, X[:50], 1000)
    np.testing.assert_array_equal(TorchVoter(with_forward_of_its_own(network), 1000)(X[:50]), expected)


@pytest.mark.parametrize("case", ["softmax of 1000", "small"])
def test_counts_do_not_depend_on_the_batch(case):
    function, n_classes = CASES[case]
    settings = {"n_selection": 64, "n_samples": 300, "random_state": 0}
    counts = []
    for size in ("auto", 50):
        network = Network(function, n_classes)
        clf = SmoothedClassifier.from_pretrained(network, range(n_classes), UniformNoise(0.5), **settings)
        counts.append(clf.set_params(batch_size=size).count_votes(X[:5]).estimation)
    np.testing.assert_array_equal(*counts)


REDUCED = {
    "autocast": lambda network: TorchVoter(network, 1000, inference=TorchInference(autocast="bfloat16")),
    "module": lambda network: TorchVoter(network.bfloat16(), 1000),
    "compiled": lambda network: TorchVoter(compiled(network), 1000, inference=TorchInference(autocast="bfloat16")),
}


@pytest.mark.parametrize("way", REDUCED)
def test_votes_in_reduced_precision_are_those_of_float32(way):
    network = softmax_network()
    voter = REDUCED[way](network)
    precise = TorchVoter(copy.deepcopy(network).float(), 1000)(X)
    tied = voter.vote(X.copy())() < 0
    assert 0.02 < tied.mean() < 0.5
    network.rng["alone"] = 0
    votes = voter(X)
    np.testing.assert_array_equal(votes, precise)
    assert network.rng["alone"] < 10
    for size in (1, 7, 100):
        np.testing.assert_array_equal(np.concatenate([voter(X[i : i + size]) for i in range(0, 400, size)]), votes)


def test_only_rows_that_overflow_in_float16_are_asked_again():
    class Large(Network):
        def forward(self, rows):
            return self.layers[2](self.layers[:2](rows) * 75_000) / 75_000

    network = Large(None)
    voter = TorchVoter(network, 10, inference=TorchInference(autocast="float16"))
    with torch.autocast("cpu", torch.float16):
        overflowed = ~network(torch.from_numpy(X)).isfinite().all(dim=1).numpy()
    assert 0.05 < overflowed.mean() < 0.4
    tied = voter.vote(X.copy())() < 0
    assert tied[overflowed].all()
    assert tied[~overflowed].mean() < 0.3
    np.testing.assert_array_equal(voter(X), TorchVoter(network, 10)(X))


def test_rows_with_larger_errors_of_reduced_precision_come_later():
    """Half of the rows have large activations that cancel in the logits, behind as many clear rows with small ones."""

    class Offset(Network):
        def forward(self, rows):
            hidden = self.layers[:2](rows)
            return self.layers[2](hidden + torch.where(rows[:, :1] > 0, 100.0, 0.0))

    network = Offset(None)
    with torch.no_grad():
        network.layers[2].weight -= network.layers[2].weight.mean(dim=1, keepdim=True)
    rows = X * np.r_[np.zeros(200), np.ones(200)].astype(np.float32)[:, None]
    rows[:200, 1:] = X[:200, 1:]
    precise = TorchVoter(network, 10)(rows)
    for size in (400, 200):
        voter = TorchVoter(network, 10, inference=TorchInference(autocast="bfloat16"))
        np.testing.assert_array_equal(np.concatenate([voter(rows[i : i + size]) for i in range(0, 400, size)]), precise)


@pytest.mark.parametrize("inference", [None, TorchInference(autocast="bfloat16")])
def test_a_single_class_needs_no_second_logit(inference):
    network = Network(lambda logits: logits[:, :1])
    assert (TorchVoter(network, 1, inference=inference)(X) == 0).all()
    with pytest.raises(ValueError, match="NaN logits"):
        TorchVoter(Network(lambda logits: logits[:, :1] * torch.nan), 1, inference=inference)(X)


def test_the_callers_autocast_reduces_precision_too():
    network = softmax_network()
    precise = TorchVoter(network, 1000)(X)
    expected = REDUCED["autocast"](network)(X)
    with torch.autocast("cpu", torch.bfloat16):
        voter = TorchVoter(network, 1000)
        tied = voter.vote(X.copy())() < 0
        np.testing.assert_array_equal(voter(X), expected)
    np.testing.assert_array_equal(expected[tied], precise[tied])


class Rough(Network):
    """A float32 module as on a CUDA device, whose products have errors of TF32; autocast inside has larger ones."""

    def __init__(self, function, inside=False):
        super().__init__(function)
        self.inside = inside

    def forward(self, rows):
        with torch.autocast("cpu", enabled=self.inside):
            logits = super().forward(rows)
        if logits.dtype == torch.float64:
            return logits
        step = 2.0**-10 if logits.dtype == torch.float32 else 0.0
        return logits * (1 + step * torch.randn(logits.shape, generator=torch.Generator().manual_seed(len(rows))))


@pytest.fixture
def tf32(monkeypatch):
    """Makes voters as on a CUDA device, which work on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def voter(network):
        made = TorchVoter(network, 10, device="cuda")
        made.device, made.device_type = torch.device("cpu"), "cpu"
        return made

    return voter


def in_float64(network, rows):
    return TorchVoter(copy.deepcopy(network).double(), 10)(rows.astype(np.float64))


@pytest.mark.parametrize("inside", [False, True])
def test_votes_in_tf32_are_those_of_float64(tf32, inside):
    network = Rough(lambda logits: logits, inside)
    voter, precise = tf32(network), in_float64(network, X)
    found = np.concatenate([voter(X[i : i + size]) for size in (400, 40, 1) for i in range(0, 400, size)])
    np.testing.assert_array_equal(found.reshape(3, 400), np.tile(precise, (3, 1)))
    assert (voter.vote(X.copy())() < 0).mean() < (0.2 if inside else 0.05)


MANY = np.random.default_rng(1).random((20_000, 64)).astype(np.float32)


def test_near_ties_in_tf32_are_settled_together(tf32):
    """Only rounding in float64 can change votes of a float64 copy: leads above 1e-12 are clear."""
    network = Rough(lambda logits: logits)
    voter = tf32(network)
    assert (voter.vote(MANY.copy())() < 0).sum() > 100
    np.testing.assert_array_equal(voter(MANY), in_float64(network, MANY))
    assert voter.precise.near_tie == SMOOTH_NEAR_TIE
    assert voter.precise.module.rng["alone"] == 0


def test_each_run_tells_anew_how_smooth_logits_are(tf32):
    """A run with a store follows others, which check the model; workers get the voter from a pickle."""
    voter = tf32(Rough(torch.relu))
    for _ in range(2):
        with voter.ready():
            voter.vote(MANY.copy())()
            assert voter.precise.near_tie == SMOOTH_NEAR_TIE
    voter.module = nn.Identity()
    copied = pickle.loads(pickle.dumps(voter))
    assert (copied.is_measured, copied.n_large_batches) == (False, 0)


def through_numpy(logits):
    product = logits.detach().numpy().astype(np.float32) @ (np.eye(10, dtype=np.float32) * 3)
    return torch.from_numpy(product).to(logits.dtype)


def through_complex(logits):
    wide = torch.complex128 if logits.dtype == torch.float64 else torch.complex64
    return (logits.to(torch.complex64) * 3).to(wide).real


@pytest.mark.parametrize(
    "narrow",
    [
        lambda logits: (logits.float() / 3).to(logits.dtype) * 3,
        lambda logits: (logits[:, :5].float() * 3).to(logits.dtype).repeat(1, 2) + logits,
        through_numpy,
        through_complex,
    ],
)
def test_copies_with_a_step_in_float32_keep_wide_near_ties(tf32, narrow):
    voter = tf32(Rough(narrow))
    found = voter(MANY)
    assert voter.precise.near_tie == NEAR_TIE
    np.testing.assert_array_equal(found, np.concatenate([voter(MANY[i : i + 1999]) for i in range(0, 20_000, 1999)]))


@pytest.mark.parametrize("act", [torch.relu, torch.tanh, nn.functional.gelu, lambda x: x.softmax(dim=1), torch.sort])
def test_smooth_functions_and_kinks_are_told_from_rounding(act):
    torch.manual_seed(0)
    first, second = nn.Linear(64, 4096).double(), nn.Linear(4096, 10).double()

    def network(rows, cast=lambda x: x):
        hidden = act(cast(first(rows)))
        return second(hidden if isinstance(hidden, torch.Tensor) else hidden.values)

    rows = torch.from_numpy(X[:128]).double()
    assert is_smooth(network, rows)
    assert not is_smooth(lambda rows: network(rows, lambda x: x.float().double()), rows)
    assert not is_smooth(lambda rows: network(rows).float(), rows)
    assert not is_smooth(lambda rows: network((rows * 255).round()), rows)


def test_modules_that_answer_in_a_buffer_of_their_own():
    """As CUDA graphs do: the answer to the rows that are compared must not overwrite that to their batch."""

    class Buffered(Network):
        def forward(self, rows):
            logits = self.layers(rows).float()
            return self.buffer[: len(logits)].copy_(logits)

    network = Buffered(None)
    network.buffer = torch.empty(400, 10)
    precise = TorchVoter(Network(lambda logits: logits), 10)(X)
    voter = TorchVoter(network, 10, inference=TorchInference(autocast="bfloat16"))
    np.testing.assert_array_equal(np.concatenate([voter(X[i : i + 100]) for i in range(0, 400, 100)]), precise)
    assert 0 < voter.scale < np.inf
    # While one thread reads the buffer, another may ask the voter of higher precision.
    assert voter.precise.module is not network
    assert all(a is b for a, b in zip(voter.precise.module.parameters(), network.parameters(), strict=True))


def test_a_compiled_part_stays_compiled():
    runs = []

    def backend(module, examples):
        return lambda *args: runs.append(1) or module(*args)

    network = Network(torch.compile(torch.sin, backend=backend, fullgraph=True)).eval()
    TorchVoter(network, 10, inference=TorchInference(autocast="bfloat16"))(X)
    runs.clear()
    network(torch.from_numpy(X[:7]))
    assert runs == [1]


def test_networks_with_complex_parameters_have_no_copy(tf32):
    class Filter(Rough):
        def __init__(self):
            super().__init__(lambda logits: logits)
            self.weight = nn.Parameter(torch.randn(33, dtype=torch.complex64))

        def forward(self, rows):
            return self.layers(torch.fft.irfft(torch.fft.rfft(rows) * self.weight, n=64))

    network = Filter()
    voter = tf32(network)
    np.testing.assert_array_equal(voter(X[:200]), network(torch.from_numpy(X[:200])).argmax(dim=1))
    assert voter.precise is False
