"""The display of attacks beside certificates."""

import numpy as np
import pytest

from smoothcert import Certificates, UniformNoise
from smoothcert.attacks import AttackDisplay, GreedyFaceAttack
from smoothcert.results.metrics import certified_accuracy_score as accuracy

from ..base_models import Rule, steps
from .targets import adversarials, smooth


def results(**changes):
    radii = np.array([0.2, np.inf, np.nan])
    given = {"labels": np.array([0, 1, 0]), "radii": radii, "abstained": np.isnan(radii), "alpha": 0.01, "norm": 1}
    certificates = Certificates(**given | {"p_a": np.full(3, 0.9), "p_b": np.full(3, 0.1)} | changes)
    return certificates, adversarials([0.5, 0.75, 0.125], [True, False, True])


def test_the_display_ends_beyond_all_radii_and_distances():
    pytest.importorskip("matplotlib").use("agg")
    certificates, found = results()
    display = AttackDisplay.from_results([0, 1, 0], certificates, found)
    assert display.radius[-1] == pytest.approx(0.5 * 1.05)
    assert display.ax_.get_xlim() == (0, display.radius[-1])
    for radius, low, high in ((0.0, 2 / 3, 1), (0.2, 2 / 3, 2 / 3), (0.5, 1 / 3, 1 / 3)):
        place = display.radius.tolist().index(radius)
        assert [display.certified[place], display.attacked[place]] == pytest.approx([low, high])
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert [text.split(" (")[0] for text in texts] == ["not broken by the attack", "certified", "gap: neither"]
    near = AttackDisplay.from_results([0, 1, 0], certificates, found, max_radius=0.3, ax=display.ax_)
    assert (near.ax_, near.radius[-1]) == (display.ax_, 0.3)
    assert (near.radius <= 0.3).all()


def test_results_that_cannot_be_compared():
    certificates, found = results()
    for y, one, other, message in (
        ([0, 1, 0], certificates, certificates, "adversarials must be Adversarials, .*, got a Certificates"),
        ([0, 1, 0], found, found, "certificates must be Certificates of l1 radii, got Adversarials"),
        ([0, 1, 0], results(norm=2)[0], found, "certificates must be Certificates of l1 radii, got .*l2"),
        ([0, 1, 0], certificates[:2], found, "y must be the labels that were attacked, one for each certificate"),
        ([0, 1], certificates[:2], found, "y must be the labels that were attacked"),
        ([0, 0, 0], certificates, found, "y must be the labels that were attacked"),
    ):
        with pytest.raises(ValueError, match=message):
            AttackDisplay.from_results(y, one, other)


def test_display_draws_both_curves_with_the_gap():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    clf = smooth(Rule(steps([0.8])).fit(None, None), noise=UniformNoise(1.0), n_samples=500, random_state=0)
    X, y = np.array([[0.1], [0.3], [0.5]]), np.zeros(3, dtype=int)
    certificates = clf.certify(X)
    found = GreedyFaceAttack(random_state=0).minimal(clf, X, y)
    display = AttackDisplay.from_results(y, certificates, found)
    assert (display.certified <= display.attacked).all()
    assert (display.certified < display.attacked).any()
    between = (display.radius[1:] + display.radius[:-1]) / 2
    for curve, share in (("attacked", found.robust_accuracy), ("certified", lambda r: accuracy(y, certificates, r))):
        np.testing.assert_array_equal(share(display.radius), getattr(display, curve))
        flat = np.diff(display.radius) > 1e-9
        np.testing.assert_array_equal(getattr(display, curve)[:-1][flat], share(between[flat]))
        np.testing.assert_array_equal(getattr(display, curve)[1:][flat], share(between[flat]))
    lower, upper = display.lines_
    np.testing.assert_array_equal(upper.get_ydata(), display.attacked)
    np.testing.assert_array_equal(lower.get_ydata(), display.certified)
    assert "l1" in display.ax_.get_xlabel()
    with pytest.raises(ValueError, match="y must be the labels that were attacked"):
        AttackDisplay.from_results(y + 1, certificates, found)
    matplotlib.pyplot.close("all")
