"""The picture of a worst perturbation and its budget."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from smoothcert import GreedyBudgetDisplay, GreedyRadius, SmoothedClassifier, UniformNoise

from ..base_models import Rule, constant
from .examples import certificates


@pytest.mark.parametrize("shape", [(6, 4), (1, 6, 4), (6, 4, 1), (3, 4, 2), (4, 2, 3)])
def test_the_greedy_picture_is_a_perturbation_of_the_certified_size(shape):
    rng = np.random.default_rng(0)
    x = rng.choice([0.0, 51.0, 102.0, 255.0], size=24)
    rule = Rule(constant).fit(0, 0)
    clf = SmoothedClassifier.from_pretrained(rule, [0, 1], UniformNoise(2.0), bounds=(0, 255), n_samples=300)
    certified = clf.certify(x[None])
    display = GreedyBudgetDisplay.from_estimator(clf, x, certificate=certified, image_shape=shape)
    assert abs(display.moves).sum() == pytest.approx(certified.radii[0], rel=1e-9)
    assert display.radius == certified.radii[0]
    np.testing.assert_allclose(display.perturbed, display.image + 255 * display.moves, atol=1e-3)
    assert display.perturbed.min() >= 0
    assert display.perturbed.max() <= 255
    assert (abs(display.moves) <= display.reach).all()
    assert len(display.axes_) == 4
    flat = np.sort(
        display.image.ravel() if 3 not in shape or shape[-1] == 3 else np.moveaxis(display.image, -1, 0).ravel()
    )
    np.testing.assert_array_equal(flat, np.sort(x))
    assert f"l1 radius {str(certified.radii[0])[:4]}" in display.axes_[2].get_title()
    image, reach, moves, perturbed = (np.ma.filled(ax.images[-1].get_array(), 0) for ax in display.axes_)
    np.testing.assert_allclose(display.axes_[2].images[0].get_array(), image)  # below the moves
    np.testing.assert_allclose(image, display.image / 255)
    np.testing.assert_allclose(perturbed, display.perturbed / 255)
    colored = display.moves.ndim == 3
    np.testing.assert_allclose(reach, display.reach.sum(axis=2) if colored else display.reach)
    np.testing.assert_allclose(moves, abs(display.moves).sum(axis=2) if colored else display.moves)
    assert display.moves.min() < 0 < display.moves.max()
    most = abs(moves).max()
    assert display.axes_[1].images[0].get_clim() == (0, 3 if colored else 1)
    assert display.axes_[2].images[1].get_clim() == (0 if colored else -most, most)


def test_the_greedy_picture_respects_the_limits_of_the_adversary():
    x = np.array([[0.0, 0.2], [0.6, 1.0]])
    rule = Rule(constant).fit(0, 0)
    limits = GreedyRadius(max_change=(0.0, 0.5), max_features=2)
    clf = SmoothedClassifier.from_pretrained(rule, [0, 1], UniformNoise(0.8), n_samples=300, radius=limits)
    display = GreedyBudgetDisplay.from_estimator(clf, x.ravel(), image_shape=(2, 2))
    np.testing.assert_allclose(display.reach, [[0.5, 0.5], [0.4, 0]], atol=1e-6)
    np.testing.assert_allclose(display.moves, [[0.5, display.radius - 0.5], [0, 0]], atol=1e-6)
    assert 0.8 < display.radius < 0.9
    assert np.count_nonzero(display.moves) <= 2
    assert "2 pixels" in display.axes_[2].get_title()


def test_the_greedy_picture_is_drawn_in_the_whole_box():
    """Ranges of pixels may differ; all are drawn in the shades from the lowest end to the highest."""
    bounds = np.array([0.0, -1.0, 0.0, 1.0]), np.array([1.0, 1.0, 2.0, 3.0])
    rule = Rule(constant).fit(0, 0)
    clf = SmoothedClassifier.from_pretrained(rule, [0, 1], UniformNoise(0.8), bounds=bounds, n_samples=300)
    display = GreedyBudgetDisplay.from_estimator(clf, np.array([[0.0, 1.0], [2.0, 1.0]]).ravel(), image_shape=(2, 2))
    assert display.limits == (-1, 3)
    np.testing.assert_allclose(display.axes_[0].images[0].get_array(), [[0.25, 0.5], [0.75, 0.5]])
    two = certificates([0.1, 0.1])
    with pytest.raises(ValueError, match="certificate must be of a single input"):
        GreedyBudgetDisplay.from_estimator(clf, np.zeros(4), certificate=two, image_shape=(2, 2))


def test_the_greedy_picture_rounds_its_radius_down_and_takes_axes():
    image, spent = np.zeros((2, 2)), np.array([[0.29999, 0.0], [0.0, 0.0]])
    _, axes = plt.subplots(4)
    display = GreedyBudgetDisplay(image, spent, reach=np.ones((2, 2)), moves=spent, radius=0.29999).plot(axes)
    assert axes[2].get_title().endswith("l1 radius 0.299, 1 pixels")
    assert display.axes_.tolist() == axes.tolist()
