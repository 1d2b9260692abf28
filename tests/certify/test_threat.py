"""A certificate names the perturbations that it covers, and none beyond its proof."""

import numpy as np
import pytest

from smoothcert import (
    CertifiedAccuracyDisplay,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LipschitzRadius,
    SmoothedClassifier,
    SplitNoise,
)
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
        assert limited.threat == "perturbations with max_features=1, on the lattice of 10 levels"


def test_a_strategy_from_outside_the_library_does_not_claim_every_perturbation():
    own, limited = f"{__name__}.Halved", f"{__name__}.Limited"
    assert Halved().threat_under(SplitNoise()) == f"every perturbation that {own} covers"
    assert Stated().threat_under(SplitNoise()) == "perturbations of the darkest pixel"
    assert Stated().threat_under(SplitNoise(levels=9)) == f"{Stated.threat}, on the lattice of 9 levels"
    assert Limited().threat == f"every perturbation that {limited} covers"
    assert Limited(max_features=2).threat == f"perturbations with max_features=2 that {limited} covers"
    assert smoothed(radius=Halved()).certify(X).threat == Halved().threat
    with pytest.raises(ValueError, match="certificates must be of one kind"):
        summarize({"own": smoothed(radius=Halved()).certify(X), "library": smoothed().certify(X)}, [0], [0.5])
