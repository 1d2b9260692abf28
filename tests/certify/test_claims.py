"""A certificate names the perturbations that it covers, and none beyond its proof."""

import numpy as np
import pytest

from smoothcert import (
    Box,
    BoxRadius,
    CertifiedAccuracyDisplay,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LipschitzRadius,
    RadiusStrategy,
    SmoothedClassifier,
    SplitNoise,
)
from smoothcert.certify.reach import certified_radii, reaches_to_keep
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.results import summarize

from ..base_models import Rule, steps

X = np.array([[0.2, 0.5]])


def smoothed(noise="split", **params):
    base = Rule(steps([0.9])).fit(None, None)
    return SmoothedClassifier.from_pretrained(base, [0, 1], noise, random_state=0, **params)


class Halved(LipschitzRadius):
    def within(self, noise, budget, reach):
        return super().within(noise, budget, reach) / 2


class Stated(Halved):
    threat = "perturbations of the darkest pixel"


class Limited(GreedyRadius):
    pass


@pytest.mark.parametrize("noise", [SplitNoise(levels=10), GaussianNoise(levels=10), DeterministicSplitNoise(levels=10)])
def test_certificates_of_digital_noise_speak_of_the_lattice(noise):
    clf = smoothed(noise)
    certificates = clf.certify(X)
    assert certificates.threat == "perturbations on the lattice of 10 levels"
    assert clf.certify_at(X, 0.1).threat == certificates.threat
    assert certificates.verify(clf, X).consistent
    kinds = {"digital": certificates, "real": smoothed().certify(X)}
    with pytest.raises(ValueError, match=r"certificates must be of one kind, got .*every perturbation.*10 levels"):
        summarize(kinds, [0], [0.5])
    with pytest.raises(ValueError, match="certificates must be of one kind"):
        CertifiedAccuracyDisplay.from_certificates(kinds, [0])
    with pytest.raises(ValueError, match=r"against every perturbation, but clf has .*noise="):
        kinds["real"].verify(clf, X)
    if noise.uses_box:
        limited = clf.set_params(radius=GreedyRadius(max_features=1)).certify(X)
        assert limited.threat == "perturbations of any one feature, on the lattice of 10 levels"


def test_a_strategy_from_outside_the_library_does_not_claim_every_perturbation():
    own, limited = f"{__name__}.Halved", f"{__name__}.Limited"
    assert Halved().threat_under(SplitNoise()) == f"every perturbation that {own} covers"
    assert Stated().threat_under(SplitNoise()) == "perturbations of the darkest pixel"
    assert Stated().threat_under(SplitNoise(levels=9)) == f"{Stated.threat}, on the lattice of 9 levels"
    assert Limited().threat == f"every perturbation that {limited} covers"
    assert Limited(max_features=2).threat == f"perturbations of any two features that {limited} covers"
    assert smoothed(radius=Halved()).certify(X).threat == Halved().threat
    with pytest.raises(ValueError, match="certificates must be of one kind"):
        summarize({"own": smoothed(radius=Halved()).certify(X), "library": smoothed().certify(X)}, [0], [0.5])


class Broken(RadiusStrategy):
    """A strategy that answers as it was told to."""

    threat = "test"

    def __init__(self, radii=None, reach=None):
        self.radii_of, self.reach_of = radii, reach

    def get_params(self, deep=True):
        return {"radii": self.radii_of, "reach": self.reach_of}

    def reach(self, noise, down, up):
        return np.maximum(down, up) if self.reach_of is None else self.reach_of(down)

    def within(self, noise, budget, reach):
        return noise.inverse_cost(budget) if self.radii_of is None else self.radii_of(budget)


@pytest.mark.parametrize(
    ("answers", "method"),
    [
        ({"radii": lambda budget: budget * np.nan}, "within"),
        ({"radii": lambda budget: -budget}, "within"),
        ({"radii": lambda budget: 1.0}, "within"),
        ({"radii": lambda budget: None}, "within"),
        ({"reach": lambda down: -down - 1}, "reach"),
        ({"reach": lambda down: down.sum(axis=1)}, "reach"),
        ({"reach": lambda down: down * np.nan}, "reach"),
        ({"reach": lambda down: down[:, :1]}, "reach"),
        ({"reach": lambda down: down.repeat(2, axis=1)}, "reach"),
    ],
)
def test_a_strategy_of_ones_own_that_answers_wrongly_certifies_nothing(answers, method):
    mechanism, X = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(1.0), (3,)), np.full((2, 3), 0.25)
    p_a = np.array([0.9, 0.8])
    assert (certified_radii(Broken(), mechanism, X, p_a, 1 - p_a) > 0).all()
    with pytest.raises(ValueError, match=rf"(?s)Broken\.{method} must return .* Nothing was certified"):
        certified_radii(Broken(**answers), mechanism, X, p_a, 1 - p_a)


class Frozen(GreedyRadius):
    def reach(self, noise, down, up):
        reach = super().reach(noise, down, up)
        reach[:, :3] = 0
        return reach


class Priced(BoxRadius):
    def reach(self, noise, down, up):
        return 2 * np.maximum(down, up)


@pytest.mark.parametrize("strategy", [Frozen(), Priced()], ids=["greedy", "box"])
def test_reaches_of_a_subclass_are_not_taken_from_the_largest_alone(strategy):
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(3.0), (40,))
    X, p_a = np.random.default_rng(0).random((2, 40)), np.array([0.95, 0.99])
    largest = reaches_to_keep(mechanism, X, 0.49)
    assert np.isfinite(certified_radii(strategy, mechanism, X, p_a, 1 - p_a)).all()
    with pytest.raises(ValueError, match="looks at the features of each input, which are not known here"):
        certified_radii(strategy, mechanism, None, p_a, 1 - p_a, largest_reaches=largest)
