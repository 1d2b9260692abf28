"""What the displays draw, against the numbers that they are about."""

import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from smoothcert import (
    Certificates,
    CertifiedAccuracyDisplay,
    GreedyBudgetDisplay,
    GreedyRadius,
    ProbabilityDisplay,
    SmoothedClassifier,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
    VotesDisplay,
    certified_accuracy_envelope,
    certified_accuracy_score,
)
from smoothcert.noise.greedy import moves
from smoothcert.results.plotting import COLORS, Curve

from ..base_models import Rule, constant


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def certificates(radii, labels=None, **changes):
    radii = np.array(radii, dtype=np.float64)
    labels = np.zeros(len(radii), dtype=int) if labels is None else np.array(labels)
    p_a = np.full(len(radii), 0.9)
    arguments = {"alpha": 0.001, "norm": 1} | changes
    return Certificates(labels, radii, np.isnan(radii), p_a, 1 - p_a, **arguments)


def value_at(line, radius):
    """Height at which a drawn step curve passes over a radius; where it jumps, the upper end."""
    vertices = line.get_path().vertices if line.get_drawstyle() == "default" else step_vertices(line)
    x, height = vertices.T
    at = height[x == radius]
    if len(at):
        return at.max()
    after = np.flatnonzero(x > radius)[0]
    assert height[after - 1] == height[after]
    return height[after]


def step_vertices(line):
    assert line.get_drawstyle() == "steps-pre"
    x, y = line.get_data()
    return np.array([(x[0], y[0]), *[(x[i + k - 1], y[i]) for i in range(1, len(x)) for k in (0, 1)]])


def test_curves_are_exact_at_and_between_all_jumps():
    rng = np.random.default_rng(0)
    radii = rng.choice([0.0, 0.1 + 0.2, 0.3, 0.5, 1.0, np.inf, np.nan, 2.7], size=60)
    y = rng.integers(2, size=60)
    certified = certificates(radii)
    (line,) = CertifiedAccuracyDisplay.from_certificates(certified, y).lines_
    known = np.unique(radii[np.isfinite(radii)])
    for radius in [*known, *np.nextafter(known, np.inf), *np.nextafter(known[1:], 0), 1.5, 100.0]:
        assert value_at(line, radius) == certified_accuracy_score(y, certified, radius)


def test_infinite_radii_keep_the_curve_up_to_the_edge_and_beyond():
    display = CertifiedAccuracyDisplay.from_certificates(certificates([1, np.inf, np.nan, 2]), [0, 0, 0, 1])
    (line,) = display.lines_
    assert value_at(line, 1000) == 0.25
    (arrow,) = [one for one in display.ax_.lines if one.get_marker() == ">"]
    assert arrow.get_ydata() == [0.25]
    assert display.ax_.get_xlim() == (0, 1.05)
    endless = CertifiedAccuracyDisplay.from_certificates(certificates([np.inf, np.inf]), [0, 0])
    assert endless.ax_.get_xlim() == (0, 1)
    nothing = CertifiedAccuracyDisplay.from_certificates(certificates([np.nan, np.nan]), [0, 0])
    assert (nothing.lines_[0].get_ydata() == 0).all()


def test_several_curves_on_one_axis():
    y = [0, 0, 0]
    one, other, third = certificates([1, 2, 3]), certificates([0.5, 1, 7]), certificates([1, 1, 1])
    display = CertifiedAccuracyDisplay.from_certificates({"one": one, "other": other}, y)
    again = CertifiedAccuracyDisplay.from_certificates({"third": third}, y, ax=display.ax_)
    lines = [*display.lines_, *again.lines_]
    assert again.ax_ is display.ax_
    assert display.ax_.get_xlim() == pytest.approx((0, 7.35))
    entries = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert entries == ["one", "other", "third", "always the most frequent class"]
    assert len({line.get_color() for line in lines}) == 3
    assert len({str(line._dash_pattern) for line in lines}) == 3
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(set(widths), reverse=True)
    assert display.ax_.get_xlabel() == "l1 radius (1 = one feature across its range)"
    (styled,) = display.plot(plt.figure().gca(), color="red", linewidth=3).lines_[:1]
    assert (styled.get_color(), styled.get_linewidth()) == ("red", 3)


def test_curves_beyond_the_number_of_colors_start_again():
    display = CertifiedAccuracyDisplay.from_certificates({str(i): certificates([i]) for i in range(8)}, [0])
    colors = [line.get_color() for line in display.lines_]
    assert colors == [*COLORS["light"], *COLORS["light"][:2]]


def test_curves_of_large_radii_fall_to_0_beyond_them():
    (line,) = CertifiedAccuracyDisplay.from_certificates(certificates([3e6]), [0]).lines_
    assert [value_at(line, radius) for radius in (2e6, 3e6, 4e6)] == [1, 1, 0]


def test_names_styles_and_reference_lines():
    def references(display):
        return sorted(line.get_ydata()[0] for line in display.ax_.lines if line.get_gid() == "majority")

    passing = certificates([1.0, 2.0, 3.0])
    display = CertifiedAccuracyDisplay.from_certificates(passing, [0, 0, 1])
    assert references(display) == [2 / 3]
    display.plot(display.ax_, name="again", color="red")
    assert references(display) == [2 / 3]
    assert display.lines_[0].get_color() == "red"
    assert display.ax_.get_legend().get_texts()[0].get_text() == "again"
    CertifiedAccuracyDisplay.from_certificates(passing[[0, 1, 2, 2]], [0, 0, 0, 1], ax=display.ax_)
    assert references(display) == [2 / 3, 3 / 4]


def test_axes_say_which_norm_and_threat():
    limited = certificates([1], norm=2, threat="perturbations with " + "max_change=1, " * 30)
    label = CertifiedAccuracyDisplay.from_certificates(limited, [0]).ax_.get_xlabel()
    first, *others = label.split("\n")
    assert first == "l2 radius (1 = one feature across its range)"
    assert others[0].startswith("against perturbations with max_change=1")
    assert max(map(len, others)) <= 56
    assert label.endswith(" ...")
    assert 90 < len(" ".join(others)) <= 110
    assert len(others) <= 3
    assert "l-inf" in CertifiedAccuracyDisplay.from_certificates(certificates([1], norm=np.inf), [0]).ax_.get_xlabel()
    with pytest.raises(ValueError, match="certificates must be of one kind"):
        CertifiedAccuracyDisplay.from_certificates({"a": limited, "b": certificates([1])}, [0])
    with pytest.raises(ValueError, match="y must hold one label"):
        CertifiedAccuracyDisplay.from_certificates(limited, [0, 1])
    with pytest.raises(
        ValueError, match=r"certificates\['a\[0\]'\] must be the Certificates that certify returns, got int"
    ):
        CertifiedAccuracyDisplay.from_certificates({"a": (1, 2)}, [0])


def test_a_list_of_certificates_is_drawn_as_its_envelope():
    rng = np.random.default_rng(1)
    y = rng.integers(2, size=40)
    several = [certificates(rng.choice([0.0, 0.3, 0.7, 1.2, np.inf, np.nan], size=40)) for _ in range(3)]
    single = CertifiedAccuracyDisplay.from_certificates(several[0], y).lines_[0]
    (line,) = CertifiedAccuracyDisplay.from_certificates({"best": several}, y).lines_
    for radius in (0, 0.1, 0.3, 0.31, 0.7, 1.0, 1.2, 1.3, 50):
        assert value_at(line, radius) == certified_accuracy_envelope(y, several, radius)
        assert value_at(line, radius) >= value_at(single, radius)
    with pytest.raises(ValueError, match="got an empty list for 'best'"):
        CertifiedAccuracyDisplay.from_certificates({"best": []}, y)
    with pytest.raises(ValueError, match="certificates must be of one kind"):
        CertifiedAccuracyDisplay.from_certificates({"best": [several[0], certificates([1.0] * 40, norm=2)]}, y)


def test_the_envelope_of_curves_that_end_at_different_radii():
    steep, flat = Curve(np.array([0.0, 1.0]), np.array([0.9, 0.8])), Curve(np.array([2.0]), np.array([0.5]))
    best = Curve.envelope([steep, flat])
    np.testing.assert_array_equal(best.radii, [0, 1, 2])
    np.testing.assert_array_equal(best.accuracy, [0.9, 0.8, 0.5])


@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("radius", [1.5, np.inf])
def test_the_share_of_the_majority_class_shows_where_a_curve_is_as_high(radius, style):
    with plt.style.context(style):
        ax = plt.figure(figsize=(4, 3)).gca()
        shown = CertifiedAccuracyDisplay.from_certificates(
            certificates([radius] * 3, labels=[1, 1, 1]), [0, 1, 1], ax=ax
        )
        (majority,) = [line for line in ax.lines if line.get_gid() == "majority"]

        def pixels():
            shown.figure_.canvas.draw()
            x, y = ax.transData.transform((0.75, 2 / 3)).astype(int)
            strip = np.asarray(shown.figure_.canvas.buffer_rgba())[::-1][y - 2 : y + 3, x - 30 : x + 30, :3]
            return strip.astype(int)

        with_line = pixels()
        majority.set_visible(False)
        # The dots differ from the curve by more than half of the scale.
        assert (np.abs(with_line - pixels()).max(axis=(0, 2)) > 128).sum() > 10


def test_the_legend_says_what_a_reader_must_know():
    few, many = (certificates([1, np.nan, 2], n_samples=np.array(n)) for n in ([100, 100, 100], [1000, 400, 10_000]))

    def title(display):
        return display.ax_.get_legend().get_title().get_text()

    display = CertifiedAccuracyDisplay.from_certificates(few, [0, 1, 1])
    assert title(display) == "3 inputs, n = 100, alpha = 0.001\nagainst every perturbation"
    (majority,) = [line for line in display.ax_.lines if line.get_gid() == "majority"]
    assert set(majority.get_ydata()) == {2 / 3}
    other = dataclasses.replace(many, alpha=0.01)
    CertifiedAccuracyDisplay.from_certificates({"a": few, "b": other}, [0, 1, 1], ax=display.ax_)
    assert "3 inputs, n = 100 to 10,000, alpha = 0.001 or 0.01" in title(display).splitlines()
    assert title(display).count("against every perturbation") == 1
    assert len([line for line in display.ax_.lines if line.get_gid() == "majority"]) == 1
    unknown = CertifiedAccuracyDisplay.from_certificates(certificates([1], threat="2 features"), [0])
    assert title(unknown) == "1 input, alpha = 0.001"


def test_probabilities_are_drawn_for_right_labels_whether_certified_or_not():
    certified = dataclasses.replace(
        certificates([2.0, np.nan, 1.0, 0.5], labels=[0, 1, 1, 0]), p_a=np.array([0.9, 0.45, 0.8, 0.6])
    )
    display = ProbabilityDisplay.from_certificates({"one": certified}, [0, 1, 0, 0])
    (line,) = display.lines_
    heights = [value_at(line, p) for p in (0, 0.45, 0.46, 0.6, 0.7, 0.8, 0.9, 0.91)]
    assert heights == [0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.25, 0]
    assert display.ax_.get_xlim() == (0, 1)
    (half,) = [line for line in display.ax_.lines if line.get_label() == "p_a = 1/2"]
    assert set(half.get_xdata()) == {0.5}
    assert "4 inputs, alpha = 0.001" in display.ax_.get_legend().get_title().get_text()
    again = ProbabilityDisplay.from_certificates({"two": certified}, [0, 1, 0, 0], ax=display.ax_, color="red")
    assert again.lines_[0].get_color() == "red"
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["one", "two", "p_a = 1/2"]
    for p_a in (np.full(4, np.nan), np.array([0.9, np.nan, 0.8, 0.6])):
        nothing = dataclasses.replace(certified, p_a=p_a)
        with pytest.raises(ValueError, match="certificates must hold probabilities, but p_a of 'x' is NaN"):
            ProbabilityDisplay.from_certificates({"x": nothing}, [0, 1, 0, 0])


def luminance(color):
    channels = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize(("style", "background"), [("default", "light"), ("dark_background", "dark")])
def test_colors_stand_out_from_the_background(style, background):
    with plt.style.context(style):
        _, ax = plt.subplots()
        ax.set_facecolor("none")
        display = CertifiedAccuracyDisplay.from_certificates({str(i): certificates([1]) for i in range(6)}, [0], ax=ax)
    assert [line.get_color() for line in display.lines_] == COLORS[background]
    ground = {"light": 1.0, "dark": 0.0}[background]
    for color in COLORS[background]:
        low, high = sorted([luminance(color), ground])
        assert (high + 0.05) / (low + 0.05) > 2


@pytest.fixture
def smoothed():
    classes = ["left", "right", "up"]
    rule = Rule(lambda X: np.array(classes)[np.searchsorted([0.4, 0.7], X.mean(axis=1))], classes=classes).fit(0, 0)
    return SmoothedClassifier.from_pretrained(rule, classes, UniformNoise(0.5), n_samples=300, random_state=0)


X = np.random.default_rng(0).random((5, 4))


def test_estimators_are_drawn(smoothed):
    y = np.array(["left", "right", "up", "left", "up"])
    votes = smoothed.count_votes(X)
    certified = smoothed.certify(X, votes=votes)
    (line,) = ProbabilityDisplay.from_estimator(smoothed, X, y, votes=votes).lines_
    assert value_at(line, 0) == (certified.labels == y).mean()
    display = CertifiedAccuracyDisplay.from_estimator(smoothed, X, y, votes=votes)
    again = CertifiedAccuracyDisplay.from_estimator(smoothed, X, y, name="again", ax=display.ax_)
    for radius in (0, 0.1, 0.3):
        for shown in (display, again):
            assert value_at(shown.lines_[0], radius) == certified_accuracy_score(y, certified, radius)
    shown = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert shown == ["UniformNoise(lam=0.5)", "again", "always the most frequent class"]


class Recorder:
    """A classifier that records what it is asked, and has certificates of two inputs."""

    classes_ = np.array([0, 1, 2])

    def __init__(self):
        self.asked = []

    def certify(self, X, **options):
        self.asked.append(options)
        return certificates([0.5, 0.7])


@pytest.mark.parametrize("display", [CertifiedAccuracyDisplay, ProbabilityDisplay, VotesDisplay])
def test_votes_that_are_given_are_certified(display, smoothed):
    votes, clf = smoothed.count_votes(X[:2]), Recorder()
    shown = display.from_estimator(clf, X[:2], [0, 0], votes=votes, color="red")
    assert clf.asked == [{"votes": votes}]
    if display is VotesDisplay:
        assert {patch.get_facecolor() for ax in shown.axes_ for patch in ax.containers[0]} == {(1.0, 0.0, 0.0, 1.0)}
    else:
        assert shown.lines_[0].get_color() == "red"
        display.from_estimator(clf, X[:2], [0, 0])
        assert clf.asked[1:] == [{}]


def test_titles_and_colors_of_votes(smoothed):
    counts = np.tile([70, 20, 10], (5, 1))
    votes = dataclasses.replace(smoothed.count_votes(X), estimation=counts)
    names = np.array(["left", "right", "left", "left", "up"])
    found = certificates([0.29999, 1.0, np.nan, 0.5, 2.0], labels=names, norm=2)
    found = dataclasses.replace(found, p_a=np.full(5, 2 / 3), p_b=np.full(5, 1 / 6))
    _, axes = plt.subplots(1, 5)
    display = VotesDisplay(votes, found, classes=smoothed.classes_, y=["left", "left", "left", "up", "up"]).plot(axes)
    assert [ax.get_title().splitlines() for ax in display.axes_] == [
        ["predicted left (right)", "l2 radius 0.299, margin 0.5"],
        ["predicted right (it is left)", "l2 radius 1, margin 0.5"],
        ["predicted left (right)", "abstained"],
        ["predicted left (it is up)", "l2 radius 0.5, margin 0.5"],
        ["predicted up (right)", "l2 radius 2, margin 0.5"],
    ]
    assert display.axes_.tolist() == axes.tolist()
    strong = matplotlib.colors.to_rgba(COLORS["light"][0])
    for ax, name in zip(axes, names, strict=True):
        shown = [bar.get_facecolor() == strong for bar in ax.containers[0]]
        assert shown == (smoothed.classes_ == name).tolist()
    below = VotesDisplay(votes, found, classes=smoothed.classes_).plot()
    assert [ax.get_xlabel() for ax in below.axes_] == ["", "", *["share of votes"] * 3]
    assert below.axes_[0].get_title().startswith("predicted left\n")
    for n in (4, 6):
        with pytest.raises(ValueError, match=f"got 5, 5 and {n}. Slice them"):
            VotesDisplay(votes, found, classes=smoothed.classes_, y=["up"] * n).plot()


def test_votes_are_the_bars_and_bounds_the_lines(smoothed):
    votes = smoothed.count_votes(X)
    certified = smoothed.certify(X, votes=votes)
    display = VotesDisplay.from_estimator(smoothed, X, certified.labels, votes=votes)
    assert len(display.axes_) == 5
    for i, ax in enumerate(display.axes_):
        np.testing.assert_allclose([bar.get_width() for bar in ax.containers[0]], votes.estimation[i] / 300)
        lines = {line.get_label(): line.get_xdata()[0] for line in ax.lines}
        assert lines == {"p_a, at least": certified.p_a[i], "p_b, at most": certified.p_b[i]}
        spans = [patch for patch in ax.patches if patch.get_label() == "margin"]
        assert len(spans) == (certified.p_a[i] > certified.p_b[i])
        for span in spans:
            assert (span.get_x(), span.get_x() + span.get_width()) == (certified.p_b[i], certified.p_a[i])
        assert f"predicted {certified.labels[i]} (right)" in ax.get_title()
        shown = "abstained" if certified.abstained[i] else f"l1 radius {str(certified.radii[i])[:4]}"
        assert shown in ax.get_title()
        assert [text.get_text() for text in ax.get_yticklabels()] == ["left", "right", "up"]
    with pytest.raises(ValueError, match=r"votes, certificates and y must be of the same 1 to 12 inputs"):
        VotesDisplay(votes, certified[:3], classes=smoothed.classes_).plot()
    with pytest.raises(ValueError, match=r"1 to 12 inputs, got 13"):
        VotesDisplay.from_estimator(smoothed, np.full((13, 4), 0.5))


def test_of_many_classes_those_with_most_votes_are_shown_and_the_predicted_one():
    """The predicted class, 0, has no estimation votes; of the others, those with the highest numbers have most."""
    rule = Rule(constant, classes=range(40)).fit(0, 0)
    clf = SmoothedClassifier.from_pretrained(rule, range(40), "uniform", n_samples=300, random_state=0)
    votes = dataclasses.replace(clf.count_votes(X[:1]), estimation=np.arange(40)[None] * 10)
    display = VotesDisplay(votes, certificates([0.5]), classes=clf.classes_, y=[3])
    (ax,) = display.plot().axes_
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0", *map(str, range(31, 40))]
    widths = [bar.get_width() for bar in ax.containers[0]]
    np.testing.assert_allclose(widths, np.array([0, *range(31, 40)]) / np.arange(40).sum())
    assert "predicted 0 (it is 3)" in ax.get_title()


@pytest.mark.parametrize("noise", [UniformNoise(2.0), SplitNoise(1.5), UniformMixtureNoise((0.7, 2.0), (0.3, 0.7))])
def test_moves_add_up_to_the_radius_and_cost_the_budget(noise):

    def paid(moved):
        inside = np.minimum(moved, 1.0)
        return -np.log(noise.overlap(inside)) if hasattr(noise, "overlap") else noise.cost(inside).sum(axis=1)

    rng = np.random.default_rng(0)
    x = rng.choice([0.0, 0.2, 0.5, 0.9, 1.0], size=(50, 30))
    p_a = rng.uniform(0.51, 0.97, 50)
    radii = GreedyRadius().radii(noise, p_a, 1 - p_a, x, 1 - x)
    reach = np.maximum(x, 1 - x)
    found = moves(reach, radii)
    np.testing.assert_allclose(found.sum(axis=1), radii, rtol=1e-12)
    assert ((found >= 0) & (found <= reach)).all()
    # One feature at most is moved in part, and no other reach is larger than one that is moved in full.
    assert (((found > 0) & (found < reach)).sum(axis=1) <= 1).all()
    spent = paid(found)
    np.testing.assert_allclose(spent, noise.budget(p_a, 1 - p_a), rtol=1e-9)
    for _ in range(20):  # Nobody who goes as far pays more: the drawn perturbation is a worst one.
        other = rng.dirichlet(np.full(30, 0.1), size=50) * radii[:, None]
        inside = (other <= reach).all(axis=1)
        assert (paid(other)[inside] <= spent[inside] * (1 + 1e-9)).all()


def test_moves_of_the_whole_way_and_of_few_features():
    reach = np.array([[0.5, 1.0, 0.7, 1.0]])
    np.testing.assert_array_equal(moves(reach, np.array([np.inf])), reach)
    np.testing.assert_array_equal(moves(reach, np.array([np.inf]), 2), [[0, 1, 0, 1]])
    np.testing.assert_array_equal(moves(reach, np.array([1.5]), 2), [[0, 1, 0, 0.5]])
    np.testing.assert_array_equal(moves(reach, np.array([0.0])), [[0, 0, 0, 0]])


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


def test_pictures_that_cannot_be_drawn(smoothed):
    wide = X[:1].repeat(1, axis=0)
    with pytest.raises(ValueError, match=r'estimator must have radius="greedy".*BoxRadius'):
        GreedyBudgetDisplay.from_estimator(smoothed.set_params(radius="box"), X[0], image_shape=(2, 2))
    smoothed.set_params(radius="greedy")
    for shape in (None, (2, 3), (2, 2, 1, 1), (4,)):
        with pytest.raises(ValueError, match="image_shape must be"):
            GreedyBudgetDisplay.from_estimator(smoothed, X[0], image_shape=shape)
    with pytest.raises(
        ValueError, match="certificate must be of a single input for which the classifier does not abstain"
    ):
        GreedyBudgetDisplay.from_estimator(smoothed, wide[0], certificate=certificates([np.nan]), image_shape=(2, 2))


def test_matplotlib_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "smoothcert\[plots\]"'):
        CertifiedAccuracyDisplay.from_certificates(certificates([1]), [0])


def test_importing_the_displays_does_not_import_matplotlib():
    code = "import sys, smoothcert.results.display; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
