"""The noise of training: where it is drawn, what passes through it, and what `NoisyModule` refuses."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from smoothcert import (
    DeterministicSplitNoise,
    GaussianNoise,
    LaplaceNoise,
    SmoothedClassifier,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.training import NoisyModule, make_net, noisy_statistics
from smoothcert.training.carried_noise import carried
from smoothcert.training.torch_noise import (
    InputScaling,
    NoiseHooks,
    OutputScaling,
    noisy_copies,
    noisy_on_device,
    split_copies,
)

from .problems import MECHANISM, X


class OwnNoise(UniformNoise):
    """A family of the user's, which torch does not know."""


@pytest.mark.parametrize(
    "noise",
    [
        UniformNoise(0.7),
        SplitNoise(1.5),
        SplitNoise(0.2),
        GaussianNoise(0.5),
        LaplaceNoise(0.5),
        UniformMixtureNoise(lams=[0.2, 2.0], weights=[0.3, 0.7]),
    ],
    ids=str,
)
@pytest.mark.parametrize("costs", [1.0, [[2.0, 0.5], [1.0, np.inf]]])
def test_noise_on_the_device_has_the_distribution_of_certification(noise, costs):
    if isinstance(noise, LaplaceNoise) and costs != 1:
        return
    box = Box.from_bounds(([[-1.0], [0.0]], [[1.0], [4.0]]))
    mechanism = NoiseMechanism(box, noise, (2, 2), Features.from_costs(costs))
    one = np.array([[0.4, -0.9], [2.5, 3.9]])
    X = np.broadcast_to(one, (40_000, 2, 2))
    expected = mechanism.noisy(X, np.random.default_rng(0))
    found = noisy_on_device(torch.tensor(X), mechanism, np.random.default_rng(1)).numpy()
    levels = [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98]
    for place in np.ndindex(2, 2):
        a, b = (np.sort(drawn[(slice(None), *place)]) for drawn in (expected, found))
        for level in levels:
            # Quantiles by their ranks in the other sample: values may have atoms.
            assert np.searchsorted(b, np.quantile(a, level) - 1e-4) / len(b) <= level + 0.02
            assert np.searchsorted(b, np.quantile(a, level) + 1e-4) / len(b) >= level - 0.02
    features = found.reshape(len(found), 4)
    n_noisy = 4 if costs == 1 else 3
    np.testing.assert_allclose(np.corrcoef(features[:, :n_noisy].T) - np.eye(n_noisy), 0, atol=0.03)
    assert n_noisy == 4 or (features[:, 3] == np.float32(3.9)).all()


@pytest.mark.parametrize("noise", [UniformNoise(1.0, levels=2), SplitNoise(1.0, levels=3), SplitNoise(0.4, levels=5)])
def test_noise_on_the_device_lives_on_the_lattice(noise):
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (1,))
    X = np.tile(np.arange(noise.q + 1)[:, None] / noise.q, (3000, 1))
    expected = mechanism.noisy(X, np.random.default_rng(0))
    found = noisy_on_device(torch.tensor(X), mechanism, np.random.default_rng(1)).numpy()
    for start in range(noise.q + 1):
        a, b = (np.unique(drawn[start :: noise.q + 1].round(5), return_counts=True) for drawn in (expected, found))
        np.testing.assert_allclose(a[0], b[0], atol=2e-5)
        np.testing.assert_allclose(a[1] / 3000, b[1] / 3000, atol=0.06)


@pytest.mark.parametrize(
    "noise",
    [
        UniformNoise(1.0, levels=[3, 8]),
        SplitNoise(0.7, levels=[3, 8]),
        SplitNoise(1.5, levels=[3, 8]),
        UniformMixtureNoise([0.5, 1.0], [0.4, 0.6], levels=[3, 8]),
    ],
    ids=str,
)
def test_noise_on_the_device_is_rounded_to_the_lattices_of_columns(noise):
    mechanism = NoiseMechanism(Box.from_bounds(([0.0, 10.0], [3.0, 26.0])), noise, (2,))
    for start in ([0.0, 10.0], [2.0, 24.0]):
        X = np.tile(start, (4000, 1))
        expected = mechanism.noisy(X, np.random.default_rng(0))
        found = noisy_on_device(torch.tensor(X), mechanism, np.random.default_rng(1)).numpy()
        for a, b, step in zip(expected.T, found.T, (1, 2), strict=True):
            a, b = (np.unique(drawn.round(4), return_counts=True) for drawn in (a, b))
            np.testing.assert_array_equal(a[0], b[0])
            assert (a[0] % step == 0).all()
            np.testing.assert_allclose(a[1] / 4000, b[1] / 4000, atol=0.04)


def test_families_that_torch_does_not_know_are_drawn_by_numpy():
    X, box = torch.rand(4, 3), Box.from_bounds((0, 1))
    for noise in (OwnNoise(), DeterministicSplitNoise()):
        assert noisy_on_device(X, NoiseMechanism(box, noise, (3,)), np.random.default_rng(0)) is None
    categories = Features(n_categories=np.array([0, 0, 2]))
    assert noisy_on_device(X, NoiseMechanism(box, SplitNoise(), (3,), categories), np.random.default_rng(0)) is None


def test_one_seed_gives_one_noise_on_the_device():
    X, mechanism = torch.rand(4, 3), NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(), (3,))
    a, b, other = (noisy_on_device(X, mechanism, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


@pytest.mark.parametrize("noise", [UniformNoise(0.5), SplitNoise(1.0), GaussianNoise(0.3)])
def test_gradients_reach_the_inputs(noise):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    X = torch.rand(5, 4, requires_grad=True)
    module = NoisyModule(network, noise, scale=2.0, n_copies=2, seed=0)
    first, second = module(X)
    (first.sum() + 3 * second.sum()).backward()
    mechanism = NoiseMechanism(module.box, noise, (4,))
    noisy = noisy_copies(X.detach(), mechanism, np.random.default_rng(0), 2).requires_grad_()
    answers = network(noisy / 2.0).chunk(2)
    torch.testing.assert_close(first, answers[0])
    (answers[0].sum() + 3 * answers[1].sum()).backward()
    torch.testing.assert_close(X.grad, sum(noisy.grad.chunk(2)))
    assert (X.grad != 0).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_modules_of_any_precision(dtype):
    module = NoisyModule(nn.Linear(4, 2), SplitNoise(levels=2), center=0.5, scale=0.25, seed=0).to(dtype)
    assert module(torch.tensor([[0.0, 0.5, 1.0, 0.5]], dtype=dtype)).dtype == dtype


# The box


def test_other_units_are_refused():
    images = torch.rand(3, 1, 4, 4) * 255
    module = NoisyModule(nn.Flatten(), SplitNoise())
    with pytest.raises(ValueError, match=r"X must lie inside bounds=\(0, 1\), but ranges from .* Scale X into the box"):
        module(images)
    with pytest.raises(ValueError, match="X must lie inside bounds"):
        noisy_statistics(images.numpy(), SplitNoise())
    assert module.eval()(images).shape == (3, 16)
    module.noisy_evaluation = True
    with pytest.raises(ValueError, match="X must lie inside bounds"):
        module(images)
    assert NoisyModule(nn.Flatten(), SplitNoise(), bounds=(0, 255))(images).max() <= 255
    per_feature = NoisyModule(nn.Identity(), SplitNoise(), bounds=([0, 0], [1, 9]))
    assert per_feature(torch.tensor([[1.0, 9.0]])).shape == (1, 2)
    with pytest.raises(ValueError, match="X must lie inside bounds"):
        per_feature(torch.tensor([[9.0, 1.0]]))


# Modules inside modules, and checkpoints


def test_a_noisy_module_does_not_nest():
    inner = nn.Linear(4, 2)
    noisy = NoisyModule(NoisyModule(inner, SplitNoise(5.0), center=9.0), UniformNoise(0.1))
    assert noisy.module is inner
    X, y = np.random.default_rng(0).random((40, 4)), np.arange(40) % 2
    fitted = SmoothedClassifier(noisy, UniformNoise(0.1), random_state=0).fit(X, y).estimator_
    assert type(fitted.module_) is nn.Linear
    for given in ({"noise": "split"}, {"bounds": (-1, 1)}, {"costs": 2.0}):
        with pytest.raises(
            ValueError, match=rf"{next(iter(given))} must be th.* of the NoisyModule.* or fit the network"
        ):
            SmoothedClassifier(noisy, **{"noise": UniformNoise(0.1)} | given).fit(X, y)
    costs = [*[1.0] * (X.shape[1] - 1), "fixed"]
    fixed = NoisyModule(copy.deepcopy(inner), UniformNoise(0.1), costs=costs)
    SmoothedClassifier(fixed, UniformNoise(0.1), costs=costs, random_state=0).fit(X, y)
    below = [torch.compile(noisy, backend="eager"), *(wrap(noisy) for wrap in list(WRAPPED.values())[:3])]
    for base in [make_net(noisy, max_epochs=1), *below, *(make_net(module, max_epochs=1) for module in below)]:
        with pytest.raises(ValueError, match=r"holds a NoisyModule, but fit adds the noise itself\. Use the network"):
            SmoothedClassifier(base, random_state=0).fit(X, y)
    for module in below:
        with pytest.raises(ValueError, match="module must hold no NoisyModule below the top"):
            NoisyModule(module, SplitNoise())


class Wrapper(nn.Module):
    """A module of the user's own around another."""

    def __init__(self, inner):
        super().__init__()
        self.inner = nn.ModuleDict({"one": inner})

    def forward(self, X):
        return self.inner["one"](X)


WRAPPED = {
    "sequential": nn.Sequential,
    "parallel": nn.DataParallel,
    "wrapper": Wrapper,
    "compiled": lambda module: torch.compile(nn.Sequential(module), backend="eager"),
    "averaged": torch.optim.swa_utils.AveragedModel,
    "frozen": FrozenEstimator,
    "net": lambda module: make_net(nn.Sequential(module)).initialize(),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_noise_is_found_wherever_it_is(wrap):
    torch.manual_seed(0)
    noise, ends, rows = UniformNoise(2.0), (0.0, 255.0), 255 * np.random.default_rng(0).random((4, 3))
    module = NoisyModule(nn.Linear(3, 2), noise, ends, costs=[1, 2, "fixed"], center=9.0)
    params = {"random_state": 0, "n_samples": 200}
    expected = SmoothedClassifier.from_pretrained(
        module.module, [0, 1], noise, bounds=ends, costs=module.costs, **params
    )
    clf = SmoothedClassifier.from_pretrained(wrap(module), [0, 1], **params)
    assert (repr(clf.noise_), clf.box_.fingerprint()) == (repr(noise), expected.box_.fingerprint())
    assert clf.features_.fingerprint() == expected.features_.fingerprint() != ""
    for other in ({"noise": "split"}, {"bounds": (0, 1)}, {"costs": 1.0}):
        name = next(iter(other))
        with pytest.raises(ValueError, match=rf"{name} must be th(at|ose) of the NoisyModule"):
            SmoothedClassifier.from_pretrained(wrap(module), [0, 1], **other)
    frozen = SmoothedClassifier(
        wrap(module) if wrap is FrozenEstimator else FrozenEstimator(wrap(module)), noise, **params
    )
    own = {"bounds": ends, "costs": np.array([1, 2, np.inf])}
    fitted = frozen.set_params(**own).fit(rows, [0, 1, 0, 1])
    np.testing.assert_array_equal(fitted.certify(rows).radii, clf.certify(rows).radii)
    for name, other in {"noise": "split", "bounds": (0, 256), "costs": [1, 2, 3]}.items():
        with pytest.raises(ValueError, match=rf"{name} must be th(at|ose) of the NoisyModule"):
            clone(frozen).set_params(**own | {name: other}).fit(rows, [0, 1, 0, 1])


def test_several_noisy_modules_must_agree():
    modules = [NoisyModule(nn.Linear(3, 2), UniformNoise(lam)) for lam in (1.0, 1.0, 2.0)]
    assert SmoothedClassifier.from_pretrained(nn.Sequential(*modules[:2]), [0, 1]).noise_.lam == 1
    with pytest.raises(ValueError, match="noise must be that of the NoisyModule"):
        SmoothedClassifier.from_pretrained(nn.Sequential(*modules), [0, 1])


def test_what_torchscript_forgets_must_be_given():
    module = NoisyModule(nn.Linear(3, 2), UniformNoise(1.0)).eval()
    traced = nn.Sequential(torch.jit.trace(module, torch.rand(2, 3)))
    with pytest.raises(ValueError, match="noise and bounds must be given: TorchScript does not keep"):
        SmoothedClassifier.from_pretrained(traced, [0, 1])
    given = SmoothedClassifier.from_pretrained(traced, [0, 1], UniformNoise(1.0), bounds=(0, 1))
    assert given.predict(np.full((1, 3), 0.5)).shape == (1,)


def test_values_that_are_no_numbers_are_refused():
    rows = torch.rand(5, 3)
    rows[2, 1] = torch.nan
    module = NoisyModule(nn.Identity(), UniformNoise(1.0), costs=[1, 1, "fixed"])
    with pytest.raises(ValueError, match="X must lie inside bounds"):
        module(rows)
    with pytest.raises(ValueError, match="X must lie inside bounds"):
        noisy_statistics(rows.numpy(), UniformNoise(1.0))
    fixed = rows[:, [0, 2, 1]]
    assert module(fixed).isnan().sum() == 1


# Inputs by name, and the compilers of torch


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, pixels, gain=1.0):
        return gain * self.linear(pixels)


def test_the_scaling_takes_inputs_by_name():
    module, rows = Named(), torch.rand(5, 3)
    InputScaling([0.5, 0.4, 0.3], [2.0, 3.0, 4.0]).attach(module)
    expected = 2 * module(rows)
    for found in (module(pixels=rows, gain=2.0), module(gain=2.0, pixels=rows), module(rows, gain=2.0)):
        assert torch.equal(found, expected)
    assert torch.equal(copy.deepcopy(module)(gain=2.0, pixels=rows), expected)
    # As torch.ao.quantization registers hooks anew.
    again = Named()
    again.load_state_dict(module.state_dict())
    again.register_forward_pre_hook(InputScaling.of(module))
    assert torch.equal(again(rows, gain=2.0), expected)


def test_fit_trains_nets_that_pass_inputs_by_name():
    class ByName(NeuralNetClassifier):
        def infer(self, x, **params):
            return self.module_(pixels=x)

    X, y = np.random.default_rng(0).random((40, 3)).astype(np.float32), np.arange(40) % 2
    settings = {"criterion": nn.CrossEntropyLoss, "max_epochs": 2, "train_split": None, "verbose": 0}
    torch.manual_seed(0)
    module = Named()
    found, expected = (
        SmoothedClassifier(kind(module, **settings), random_state=0).fit(X, y).estimator_.module_.linear.weight
        for kind in (ByName, NeuralNetClassifier)
    )
    assert torch.equal(found, expected)
    assert not torch.equal(found, module.linear.weight)


@pytest.mark.filterwarnings("ignore")
def test_compilers_keep_the_scaling_or_refuse_it():
    module, rows = Named().eval(), torch.rand(5, 3)
    InputScaling(0.5, 2.0).attach(module)
    expected = module(rows)
    compiled = (
        torch.jit.trace(module, rows),
        torch.compile(module, backend="eager"),
        torch.export.export(module, (rows,)),
    )
    for found in (compiled[0](rows), compiled[1](rows), compiled[2].module()(rows)):
        torch.testing.assert_close(found, expected)
    with pytest.raises(AttributeError, match=r"torch.jit.script cannot compile the input scaling.* Use torch.export"):
        torch.jit.script(module)


def test_a_checkpoint_is_loaded_before_the_statistics_are_known():
    center, scale = noisy_statistics(np.random.default_rng(0).random((100, 3, 4, 4)), SplitNoise(), seed=0)
    trained = NoisyModule(nn.Flatten(), SplitNoise(), center=center, scale=scale)
    fresh = nn.Sequential(NoisyModule(nn.Flatten(), SplitNoise())).eval()
    fresh.load_state_dict(nn.Sequential(trained).state_dict())
    X = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(fresh(X), trained.eval()(X))
    assert not torch.equal(fresh(X), X.flatten(1))
    assert torch.equal(copy.deepcopy(fresh)[0].center, trained.center)


def test_a_noisy_module_says_what_it_was_trained_for():
    module = NoisyModule(nn.Linear(4, 2), SplitNoise(2.0), bounds=(0, 255))
    noise, bounds, _ = carried(module, None, None)
    assert (noise.lam, type(noise), *bounds) == (2.0, SplitNoise, 0, 255)
    assert carried(module, SplitNoise(2.0), (0.0, 255.0))[0] is noise
    with pytest.raises(
        ValueError, match=r"noise must be that of the NoisyModule, SplitNoise\(lam=2.0, .*got SplitNoise"
    ):
        carried(module, SplitNoise(1.0), None)
    with pytest.raises(ValueError, match=r"noise must be that of the NoisyModule, SplitNoise\(lam=2.0, .*got UniformN"):
        carried(module, UniformNoise(2.0), None)
    with pytest.raises(ValueError, match=r"bounds must be those of the NoisyModule, \(0.0, 255.0\), got \(0, 1\)"):
        carried(module, None, (0, 1))
    with pytest.raises(ValueError, match=r"costs must be those of the NoisyModule, 1.0, got 2"):
        carried(module, None, None, 2)
    image = NoisyModule(nn.Flatten(), SplitNoise(), costs=np.full((1, 2, 2), 3.0))
    assert carried(image, None, None, [3.0] * 4)[2] is image.costs
    given = (SplitNoise(1.0), (0, 1), [1, 2, 3, 4])
    assert carried(module.module, *given) == given


def test_a_noisy_module_leaves_fixed_features_as_they_are():
    network, X = nn.Identity(), torch.rand(6, 2, 2)
    X[:, 1, 1] = 1e6
    module = NoisyModule(network, SplitNoise(1.0), costs=[[1, 1], [2, "fixed"]], seed=0)
    noisy = module(X)
    assert torch.equal(noisy[:, 1, 1], X[:, 1, 1])
    assert (noisy[:, 0] != X[:, 0]).all()
    noise, _, costs = carried(module, None, None)
    assert (noise.lam, costs) == (1.0, [[1, 1], [2, "fixed"]])


def test_the_output_scaling_belongs_to_the_module_inside_a_compiled_one():
    """The float64 copy, which settles near ties, is one of the module inside."""
    module, X = torch.nn.Linear(2, 1), torch.rand(4, 2)
    plain = module(X)
    for center in (7.0, 3.0):
        OutputScaling(center, 2.0).attach(torch.compile(module, backend="eager"))
    torch.testing.assert_close(module(X), 2 * plain + 3)


def test_copies_of_answers():
    answer = torch.arange(6.0).reshape(6, 1)
    assert split_copies(nn.ReLU(), answer, 1) is answer
    assert [part.flatten().tolist() for part in split_copies(nn.ReLU(), answer, 3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(
        ValueError, match=r"^The module ReLU must return a tensor of logits to be trained, but returned a tuple"
    ):
        split_copies(nn.ReLU(), (answer,), 2)
    assert split_copies(nn.ReLU(), (answer,), 1) == (answer,)


def test_hooks_of_training():
    rows = torch.from_numpy(X).float()
    module = nn.Identity()
    for n_copies, parts in ((0, 1), (1, 1), (2, 2)):
        with NoiseHooks(MECHANISM, n_copies, 3, None).attached(module):
            module.train()
            answer = module([rows, torch.ones(12)])
            answer = answer if isinstance(answer, tuple) else (answer,)
            assert len(answer) == parts
            assert torch.equal(answer[0], rows) == (n_copies == 0)
            module.eval()
            assert torch.equal(module(rows), rows) == (n_copies == 0)
        assert module(rows) is rows
    half = nn.Identity()
    with NoiseHooks(MECHANISM, 0, 3, lambda answer: answer["a"]).attached(half):
        assert half({"a": rows.half()}).dtype == torch.float32
        with pytest.raises(ValueError, match="must return a tensor of logits"):
            half({"a": [rows]})
    state = NoiseHooks(MECHANISM, 2, 3, abs).__getstate__()
    assert (state["n_copies"], state["output"]) == (0, None)


def test_scalings_of_a_module():
    module, rows = nn.Identity(), torch.from_numpy(X)
    order = []
    module.register_forward_pre_hook(lambda *_: order.append("own"))
    for center in (9.0, 1.0):
        InputScaling([center, 2.0], [2.0, 4.0]).attach(module)
        OutputScaling(center, 3.0).attach(module)
    found = module(rows)
    assert found.dtype == torch.float32
    expected = (rows.float() - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 4.0])
    torch.testing.assert_close(found, 3 * expected + 1)
    assert next(iter(module._forward_pre_hooks.values())) is InputScaling.of(module)
    assert InputScaling.of(nn.ReLU()) is None
    assert OutputScaling(1.0, 2.0)(module, (), "text") == "text"
    double = nn.Linear(2, 2).double()
    InputScaling(1.0, 2.0).attach(double)
    assert double(rows.float()).dtype == torch.float64
    assert (InputScaling.is_pure, OutputScaling.is_pure) == (True, True)


def test_input_scaling_does_not_wait_for_a_cuda_device():
    """Each batch of votes goes through it: a blocking copy would wait for the batches before."""
    copies = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._to_copy.default:
                copies.append(kwargs.get("non_blocking", False))
            return function(*args, **kwargs or {})

    class OnCuda(torch.Tensor):
        is_cuda = True

    module = torch.nn.Linear(3, 2).double()
    InputScaling([0.5, 0.4, 0.3], [2.0, 3.0, 4.0]).attach(module)
    X = torch.rand(4, 3, dtype=torch.float64)
    with Copies():
        module(X.as_subclass(OnCuda))
        # Elsewhere the source of a copy might be freed before it is read.
        module(X)
    assert copies == [True, True, False, False]
