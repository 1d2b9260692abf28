"""Robust conformal sets: against split conformal sets made here, with all kinds of base models, and bad input."""

import pickle
import warnings
from fractions import Fraction

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from smoothcert import (
    APSScore,
    BoxRadius,
    ConformityScore,
    GaussianNoise,
    GreedyRadius,
    LACScore,
    LipschitzRadius,
    PredictionSetDisplay,
    SmoothedConformalClassifier,
    SplitNoise,
    TorchInference,
    UniformNoise,
    mean_set_size_score,
    set_coverage_score,
)
from smoothcert.certify.conformal_sets import copies_lost
from smoothcert.noise import seeding
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling.sampler import fingerprints

X, Y = load_iris(return_X_y=True)
X = (X - X.min(axis=0)) / np.ptp(X, axis=0)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
FIT, CALIB, TEST = slice(0, None, 3), slice(1, None, 3), slice(2, None, 3)
NOISE = UniformNoise(lam=1.0)


def conformal(base=None, noise=NOISE, **params):
    params = {"radius": 0.05, "n_samples": 100, "random_state": 0} | params
    return SmoothedConformalClassifier(base or LogisticRegression(C=10, max_iter=500), noise, **params)


@pytest.fixture(scope="module")
def fitted():
    return conformal().fit(X[FIT], NAMES[FIT])


@parametrize_with_checks(
    [conformal(LogisticRegression(), UniformNoise(lam=0.1), radius=0.001, bounds="minmax", n_selection=32)],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "other rows have other noise, so that another model is fitted"
    },
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def noisy_scores(clf, inputs, stage, n, score=None, net=None):
    """Return scores of all labels, shape (n_inputs, n, n_classes), with noise that is drawn here."""
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), clf.noise_, inputs.shape[1:])
    keys = seeding.keys(0, fingerprints(mechanism, inputs), stage)
    found = []
    for i in range(len(inputs)):
        out = np.empty((n, inputs.shape[1]))
        mechanism.sample(mechanism.points(inputs[i : i + 1]), keys[i : i + 1], np.array([[0, 0, n]]), out)
        with torch.no_grad():
            p = clf.estimator_.predict_proba(out) if net is None else net(torch.tensor(out).float()).softmax(1).numpy()
        u = seeding.generator(seeding.derived_keys(keys[i : i + 1], b"score")[0], 0).random(n)
        found.append(1 - p if score is None else score(p, u))
    return np.array(found)


def adaptive(p, u):
    """Return the adaptive score, one label at a time."""
    above = (p[:, None, :] > p[:, :, None]) * p[:, None, :]
    return above.sum(axis=2) + u[:, None] * p


@pytest.mark.parametrize("score", ["lac", "aps"])
@pytest.mark.parametrize("radius", [0.0, 0.05])
def test_one_sample_sets_are_split_conformal_sets_of_noisy_scores_at_a_higher_level(fitted, score, radius):
    clf = clone(fitted).set_params(method="one-sample", radius=radius, conformity_score=score).fit(X[FIT], NAMES[FIT])
    sets = clf.conformalize(X[CALIB], NAMES[CALIB]).predict_set(X[TEST])
    function = adaptive if score == "aps" else None
    own = noisy_scores(clf, X[CALIB], seeding.SELECTION, 1, function)[np.arange(50), 0, Y[CALIB]]
    np.testing.assert_allclose(clf.calibration_scores_, np.sort(own), atol=1e-9)
    level = Fraction(1, 10) - Fraction(int(radius * NOISE.q), NOISE.n_offsets)
    threshold = clf.calibration_scores_[int(np.ceil(51 * float(1 - level) - 1e-9)) - 1]
    assert clf.threshold_ == threshold
    expected = noisy_scores(clf, X[TEST], seeding.ESTIMATION, 1, function)[:, 0] <= threshold + 1e-9
    np.testing.assert_array_equal(sets, expected)
    assert 0 < sets.mean() < 1


@pytest.mark.parametrize("strategy", ["lipschitz", "greedy"])
def test_binarized_sets_count_copies_that_reach_the_threshold(fitted, strategy):
    clf = clone(fitted).set_params(radius=0.3, strategy=strategy).fit(X[FIT], NAMES[FIT])
    sets = clf.conformalize(X[CALIB], NAMES[CALIB]).predict_set(X[TEST])
    # The noise moves at most one feature out of its support, within this radius.
    apart = float(Fraction(int(0.3 * NOISE.q), NOISE.n_offsets))
    lost = next(k for k in range(101) if binom.sf(k, 100, apart) <= 0.01)
    needed = (100 + lost) // 2 + 1
    counts = (noisy_scores(clf, X[TEST], seeding.ESTIMATION, 100) <= clf.threshold_).sum(axis=1)
    np.testing.assert_array_equal(sets, counts >= needed - lost)
    level = 0.1 - binom.sf(lost, 100, apart)
    assert clf.threshold_ == clf.calibration_scores_[int(np.ceil(51 * (1 - level))) - 1]
    own = np.sort(noisy_scores(clf, X[CALIB], seeding.SELECTION, 100)[np.arange(50), :, Y[CALIB]], axis=1)
    np.testing.assert_allclose(clf.calibration_scores_, np.sort(own[:, needed - 1]), atol=1e-9)


def test_nothing_is_spent_at_radius_0(fitted):
    """So that sets are as large as those of split conformal prediction."""
    clf = clone(fitted).set_params(radius=0.0).fit(X[FIT], NAMES[FIT]).conformalize(X[CALIB], NAMES[CALIB])
    assert clf._rule(clf.algorithm((4,))).level == Fraction(1, 10)
    assert clf.threshold_ == clf.calibration_scores_[46 - 1]


def test_sets_grow_with_the_radius_and_the_confidence_level(fitted):
    sizes = []
    for change in ({"radius": r} for r in (0.0, 0.2, 0.4, 0.8)):
        clf = clone(fitted).set_params(**change, n_samples=400).fit(X[FIT], NAMES[FIT])
        sizes.append(mean_set_size_score(clf.conformalize(X[CALIB], NAMES[CALIB]).predict_set(X[TEST])))
    assert sizes == sorted(sizes)
    assert sizes[0] < 1.3 < sizes[-1]
    more = clf.set_params(radius=0.0, confidence_level=0.95).conformalize(X[CALIB], NAMES[CALIB]).predict_set(X[TEST])
    assert mean_set_size_score(more) > sizes[0]


@pytest.mark.parametrize("method", ["binarized", "one-sample"])
@pytest.mark.parametrize("score", ["lac", "aps"])
def test_sets_depend_neither_on_batches_nor_on_workers_nor_on_other_inputs(fitted, method, score):
    clf = clone(fitted).set_params(method=method, conformity_score=score).fit(X[FIT], NAMES[FIT])
    sets = clf.conformalize(X[CALIB], NAMES[CALIB]).predict_set(X[TEST])
    threshold = clf.threshold_
    clf.set_params(batch_size=7)
    np.testing.assert_array_equal(clf.predict_set(X[TEST][::-1])[::-1], sets)
    np.testing.assert_array_equal(clf.predict_set(X[TEST][3:4]), sets[3:4])
    with joblib.parallel_config(backend="threading", n_jobs=2):
        np.testing.assert_array_equal(clf.predict_set(X[TEST]), sets)
        assert clf.conformalize(X[CALIB], NAMES[CALIB]).threshold_ == pytest.approx(threshold, abs=1e-12)


@pytest.mark.parametrize(
    ("n_samples", "overlap", "eta"), [(1, 0.9, 0.1), (7, 0.5, 0.01), (100, 0.93, 0.05), (9, 0.0, 0.1)]
)
def test_copies_lost_are_the_fewest_that_are_rarely_exceeded(n_samples, overlap, eta):
    """By counting all outcomes of differing pairs, in rational numbers."""
    apart = 1 - Fraction(overlap)
    shares = [Fraction(1)]
    for _ in range(n_samples):
        shares = [
            (shares[k] if k < len(shares) else 0) * (1 - apart) + (shares[k - 1] * apart if k else 0)
            for k in range(len(shares) + 1)
        ]
    found = int(copies_lost(np.array([overlap]), n_samples, eta)[0])
    assert sum(shares[found + 1 :]) <= eta
    if found:
        assert sum(shares[found:]) > eta * (1 - 1e-6)


def linear_net():
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 3)
    with torch.no_grad():
        net.weight[:] = torch.tensor([[-3.0, 3.0, -5.0, -5.0], [1.0, -2.0, 1.0, 0.0], [1.0, -1.0, 5.0, 6.0]])
        net.bias[:] = torch.tensor([3.0, 1.0, -4.0])
    return net


def test_networks_and_functions_give_the_same_sets():
    net = linear_net()

    def function(batch):
        with torch.no_grad():
            return torch.softmax(net(torch.as_tensor(batch, dtype=torch.float32)), dim=1).numpy()

    sets = [
        SmoothedConformalClassifier.from_pretrained(
            model, sorted(set(NAMES)), NOISE, radius=0.1, n_samples=20, random_state=0, timeout=timeout
        )
        .conformalize(X[CALIB], NAMES[CALIB])
        .predict_set(X[TEST])
        for model, timeout in ((net, None), (function, None), (function, 60.0))
    ]
    np.testing.assert_array_equal(sets[0], sets[1])
    np.testing.assert_array_equal(sets[0], sets[2])
    assert 0 < sets[0].mean() < 1


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5])
def test_sets_that_hold_all_labels_for_lack_of_copies_say_so(p):
    """The threshold is beyond all scores, so that no copy supports a label and only the lost copies decide."""
    clf = conformal(radius=0.8, p=p).fit(X[FIT], NAMES[FIT]).conformalize(X[CALIB], NAMES[CALIB])
    clf.threshold_ = -1.0
    with pytest.warns(UserWarning, match=r"sets hold all labels, even those .* p=0.* asks for .* radius=0.8") as caught:
        sets = clf.predict_set(X[TEST])
    held = sets.all(axis=1)
    assert str(caught[-1].message).startswith(f"{held.sum()} of 50 sets hold")
    assert held.all() == (p < 0.5)
    np.testing.assert_array_equal(sets, np.broadcast_to(held[:, None], sets.shape))


@pytest.mark.parametrize(("p", "radius"), [("auto", 0.8), (0.1, 0.05), (0.7, 0.6)])
def test_sets_that_copies_decide_say_nothing(p, radius):
    clf = conformal(radius=radius, p=p).fit(X[FIT], NAMES[FIT]).conformalize(X[CALIB], NAMES[CALIB])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*hold all labels")
        assert clf.predict_set(X[TEST]).any()
    clf.threshold_ = -1.0
    assert not clf.predict_set(X[TEST]).any()


def test_scores_in_reduced_precision_may_exceed_the_threshold_by_more():
    """Their last bits depend on the batch."""
    net, sizes = linear_net(), []
    for inference in (None, TorchInference(autocast="bfloat16")):
        clf = SmoothedConformalClassifier.from_pretrained(
            net, [0, 1, 2], NOISE, radius=0.1, n_samples=50, random_state=0, inference=inference
        ).conformalize(X[CALIB], Y[CALIB])
        sets = clf.predict_set(X[TEST])
        sizes.append(mean_set_size_score(sets))
    scores = noisy_scores(clf, X[TEST], seeding.ESTIMATION, 50, lambda p, u: 1 - p, net)
    rule = clf._rule(clf.algorithm((4,)))
    counts = (scores <= clf.threshold_ + 2 * 2.0**-7).sum(axis=1)
    assert sets[counts >= rule.rank - copies_lost(np.float64(0.95), 50, rule.eta)].all()
    assert sizes[0] < sizes[1]


def test_a_table_with_categories_and_costs():
    """A category that changes costs 1/2, and so do all changes of the sets that protect against it."""
    frame = pd.DataFrame(X[:, :3], columns=["length", "width", "petal"]).assign(broad=X[:, 3] > 0.4)
    params = {"categorical_features": ["broad"], "costs": {"width": "fixed", "broad": 0.5}, "hidden": "uniform"}
    clf = conformal(**params, radius=0.5).fit(frame[FIT], NAMES[FIT])
    sizes = []
    for radius in (0.0, 0.45, 0.5):
        sets = clf.set_params(radius=radius).conformalize(frame[CALIB], NAMES[CALIB]).predict_set(frame[TEST])
        sizes.append(mean_set_size_score(sets))
        assert set_coverage_score(NAMES[TEST], sets, clf.classes_) >= 0.75
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] < 3


def test_pickles_clones_and_new_fits(fitted):
    clf = clone(fitted).fit(X[FIT], NAMES[FIT]).conformalize(X[CALIB], NAMES[CALIB])
    sets = clf.predict_set(X[TEST])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_set(X[TEST]), sets)
    assert not hasattr(clone(clf), "threshold_")
    with pytest.raises(ValueError, match=r"radius has changed to 0\.1 since conformalize"):
        clf.set_params(radius=0.1).predict_set(X[TEST])
    with pytest.raises(NotFittedError, match="call conformalize"):
        clf.fit(X[FIT], NAMES[FIT]).predict_set(X[TEST])
    assert (clf.predict(X[TEST]) == NAMES[TEST]).mean() > 0.8


@pytest.mark.parametrize(
    "changed",
    [
        {"radius": 0.1},
        {"confidence_level": 0.8},
        {"method": "one-sample"},
        {"conformity_score": "aps"},
        {"strategy": "box"},
        {"p": 0.5},
        {"alpha": 0.02},
        {"n_samples": 99},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_no_threshold_outlives_a_parameter_that_it_depends_on(fitted, changed):
    clf = clone(fitted).fit(X[FIT], NAMES[FIT]).conformalize(X[CALIB], NAMES[CALIB])
    with pytest.raises(ValueError, match=f"{next(iter(changed))} has changed to .* since conformalize"):
        clf.set_params(**changed).predict_set(X[TEST])
    clf.conformalize(X[CALIB], NAMES[CALIB]).predict_set(X[TEST][:1])


def test_a_threshold_of_another_model_is_refused():
    """Trained networks and frozen estimators can be changed in place, and precision by a parameter."""
    net = linear_net()
    clf = SmoothedConformalClassifier.from_pretrained(net, [0, 1, 2], NOISE, radius=0.05, n_samples=20, random_state=0)
    clf.conformalize(X[CALIB], Y[CALIB]).predict_set(X[:2])
    with pytest.raises(ValueError, match=r"estimator_ has changed to Linear .* in steps of 0\.0078"):
        clf.set_params(inference=TorchInference(autocast="bfloat16")).predict_set(X[:2])
    clf.set_params(inference=None).predict_set(X[:2])
    with torch.no_grad():
        net.weight *= 2
    with pytest.raises(ValueError, match=r"estimator_ has changed to Linear .* since conformalize"):
        clf.predict_set(X[:2])
    clf.conformalize(X[CALIB], Y[CALIB]).predict_set(X[:2])


def test_a_threshold_of_other_limits_is_refused():
    """Also where they are too many to be written out."""
    X = np.random.default_rng(0).random((40, 300))
    clf = SmoothedConformalClassifier.from_pretrained(
        lambda rows: np.column_stack([rows[:, 0] > 0.5, rows[:, 0] <= 0.5]) * 1.0,
        [0, 1],
        NOISE,
        radius=0.05,
        n_samples=5,
        alpha=0.05,
        strategy=GreedyRadius(np.ones(300)),
    )
    clf.conformalize(X, X[:, 0] <= 0.5).predict_set(X)
    clf.strategy.max_change[150] = 0.0
    with pytest.raises(ValueError, match="strategy has changed to GreedyRadius"):
        clf.predict_set(X)


def test_fresh_noise_without_a_random_state(fitted):
    clf = clone(fitted).set_params(random_state=None, method="one-sample").fit(X[FIT], NAMES[FIT])
    clf.conformalize(X[CALIB], NAMES[CALIB])
    assert len({clf.predict_set(X[TEST]).tobytes() for _ in range(5)}) > 1


class Doubled(ConformityScore):
    """A score of the user's own."""

    def scores(self, probabilities, uniforms):
        return 2 * (1 - probabilities)


def test_a_score_of_ones_own(fitted):
    sets = [
        clone(fitted)
        .set_params(conformity_score=score)
        .fit(X[FIT], NAMES[FIT])
        .conformalize(X[CALIB], NAMES[CALIB])
        .predict_set(X[TEST])
        for score in (LACScore(), Doubled())
    ]
    np.testing.assert_array_equal(*sets)


class Missing(ConformityScore):
    """A score of the user's own that is not a number for some labels."""

    def scores(self, probabilities, uniforms):
        return np.where(probabilities > 0.5, probabilities, np.nan)


def test_scores_that_are_not_numbers_are_refused(fitted):
    clf = clone(fitted).set_params(conformity_score=Missing()).fit(X[FIT], NAMES[FIT])
    with pytest.raises(ValueError, match=r"Missing\.scores must return one number for each label"):
        clf.conformalize(X[CALIB], NAMES[CALIB])


class BatchRank(ConformityScore):
    """A score of the user's own that compares rows."""

    def scores(self, probabilities, uniforms):
        return 1 - probabilities / probabilities.max(axis=0)


def test_scores_that_compare_rows_are_refused(fitted):
    clf = clone(fitted).set_params(conformity_score=BatchRank()).fit(X[FIT], NAMES[FIT])
    with pytest.raises(ValueError, match=r"BatchRank\.scores must score each row by itself"):
        clf.conformalize(X[CALIB], NAMES[CALIB])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"radius": -1.0}, "radius must be 0 or a finite number above 0, got -1.0"),
        ({"radius": None}, "radius must be 0 or a finite number above 0, got None"),
        ({"confidence_level": 1.0}, "confidence_level must lie strictly between 0 and 1"),
        ({"method": "two-sample"}, "method must be one of 'binarized', 'one-sample', got 'two-sample'"),
        ({"conformity_score": "raps"}, "conformity_score must be one of 'lac', 'aps', or a ConformityScore object"),
        ({"conformity_score": APSScore(randomized=2)}, "randomized must be True or False"),
        ({"strategy": "tight"}, "strategy must be one of 'auto', 'lipschitz', 'box', 'greedy'"),
        ({"p": 1.5}, "p must lie strictly between 0 and 1, got 1.5"),
        ({"alpha": 0.2}, "alpha must lie between 0 and 1 - confidence_level = 0.1"),
        ({"n_samples": 0}, "n_samples must be a whole number of at least 1"),
        ({"method": "one-sample", "strategy": "greedy"}, "Its overlap depends on the input"),
        ({"noise": GaussianNoise(1.0)}, "noise must be uniform, splitting or mixture noise"),
        ({"noise": "deterministic-split"}, "noise must be uniform, splitting or mixture noise"),
        ({"estimator": LinearSVC()}, r"LinearSVC\(\) has no probabilities.*CalibratedClassifierCV"),
        ({"method": "one-sample", "radius": 0.3}, r"radius must be at most 0\.1999 with this noise.*got 0\.3"),
        ({"radius": 1.95, "strategy": "lipschitz"}, r"radius must be at most 1\.9\d+ with this noise"),
        ({"radius": 1.0, "p": 0.6}, r"radius must be at most"),
    ],
)
def test_invalid_parameters_are_refused_before_training(params, message):
    base = params.pop("estimator", LogisticRegression())
    strategy = {"strategy": "lipschitz"} if "p" in params else {}
    with pytest.raises(ValueError, match=message):
        conformal(base, **strategy | params).fit(X[FIT], NAMES[FIT])


def test_the_largest_radius_that_is_named_is_allowed(fitted):
    clf = clone(fitted).set_params(method="one-sample", confidence_level=0.5, radius=9.0)
    with pytest.raises(ValueError, match="radius must be at most") as error:
        clf.fit(X[FIT], NAMES[FIT])
    largest = float(str(error.value).split("at most ")[1].split()[0])
    clf.set_params(radius=largest).fit(X[FIT], NAMES[FIT])
    with pytest.raises(ValueError, match="radius must be at most"):
        clf.set_params(radius=largest + 0.001).fit(X[FIT], NAMES[FIT])


class Own(BoxRadius):
    """A strategy of the user's own."""


def test_strategies_of_ones_own_are_refused(fitted):
    with pytest.raises(ValueError, match="strategy must be 'lipschitz', 'box' or 'greedy'"):
        clone(fitted).set_params(strategy=Own()).fit(X[FIT], NAMES[FIT])


def test_invalid_calibration_data_are_refused(fitted):
    with pytest.raises(ValueError, match=r"X_calib must hold at least \d+ inputs for a conformal level of"):
        fitted.conformalize(X[:8], NAMES[:8])
    with pytest.raises(ValueError, match=r"y_calib must hold labels among the classes .*, got 'rose'"):
        fitted.conformalize(X[:8], ["rose"] * 8)
    with pytest.raises(ValueError, match="y_calib must hold one label for each of 8 inputs"):
        fitted.conformalize(X[:8], NAMES[:7])
    with pytest.raises(ValueError, match="y_calib must hold labels like the classes"):
        fitted.conformalize(X[:8], Y[:8])
    with pytest.raises(NotFittedError):
        fitted.predict_set(X[TEST])
    with pytest.raises(NotFittedError):
        conformal().conformalize(X[CALIB], NAMES[CALIB])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda batch: np.zeros(len(batch), dtype=int), "has no probabilities"),
        (lambda batch: batch[:, :2], "must return probabilities, at least 0 and with sum 1"),
        (lambda batch: np.full((len(batch), 2), np.nan), "values that are not finite"),
        (lambda batch: np.ones((len(batch), 3)), "must return one finite probability per class"),
    ],
)
def test_functions_must_return_probabilities(function, message):
    clf = SmoothedConformalClassifier.from_pretrained(function, [0, 1], NOISE, radius=0.1, n_samples=20)
    with pytest.raises(ValueError, match=message):
        clf.conformalize(X[CALIB], Y[CALIB] % 2)


def test_functions_may_answer_in_the_batch():
    def in_place(batch):
        batch[:, 0] = np.clip(batch[:, 0], 0, 1)
        batch[:, 1] = 1 - batch[:, 0]
        return batch[:, :2]

    found = []
    for function in (in_place, lambda batch: in_place(batch.copy())):
        clf = SmoothedConformalClassifier.from_pretrained(
            function, [0, 1], NOISE, radius=0.1, n_samples=20, batch_size=64, random_state=0
        )
        clf.conformalize(X[CALIB], Y[CALIB] % 2)
        found.append((clf.calibration_scores_, clf.predict_set(X[TEST])))
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_classes_that_the_base_model_does_not_know_have_probability_0():
    model = LogisticRegression().fit(X[:100], NAMES[:100])
    clf = SmoothedConformalClassifier.from_pretrained(
        model, ["virginica", "versicolor", "setosa"], NOISE, radius=0.1, n_samples=50, random_state=0
    )
    some = X[:100][1::2], NAMES[:100][1::2]
    sets = clf.conformalize(*some).predict_set(X[:100][::2])
    assert not sets[:, 0].any()
    assert set_coverage_score(NAMES[:100][::2], sets, clf.classes_) > 0.9


def test_display(fitted):
    data = {"X_calib": X[CALIB], "y_calib": NAMES[CALIB]}
    display = PredictionSetDisplay.from_estimator(fitted, X[TEST], NAMES[TEST], radii=[0.0, 0.2, 0.4], **data)
    assert not hasattr(fitted, "threshold_")
    assert (np.diff(display.sizes) >= 0).all()
    sets = clone(fitted).set_params(radius=0.2).fit(X[FIT], NAMES[FIT]).conformalize(X[CALIB], NAMES[CALIB])
    assert display.sizes[1] == mean_set_size_score(sets.predict_set(X[TEST]))
    assert display.coverage[1] == set_coverage_score(NAMES[TEST], sets.predict_set(X[TEST]), fitted.classes_)
    size, coverage = display.axes_
    assert size.get_ylabel() == "mean set size"
    np.testing.assert_array_equal(size.lines[0].get_xydata()[:, 1], display.sizes)
    assert coverage.get_legend().get_texts()[-1].get_text() == "promised under attack"
    top = size.get_ylim()[1]
    display.sizes = 2 * display.sizes
    display.plot(display.axes_)
    assert size.get_ylim()[1] == pytest.approx(2 * top)
    assert size.lines[1].get_color() != size.lines[0].get_color()
    assert [text.get_text() for text in size.get_legend().get_texts()] == ["UniformNoise(lam=1.0), binarized"] * 2
    for radii in ([0.2, 0.1], [0.1, 0.1], [[0.1, 0.2]]):
        with pytest.raises(ValueError, match="radii must be a list of increasing numbers"):
            PredictionSetDisplay.from_estimator(fitted, X[TEST], NAMES[TEST], radii=radii, **data)
    named = PredictionSetDisplay.from_estimator(fitted, X[TEST], NAMES[TEST], radii=0.1, name="mine", **data)
    assert (named.name, named.radii.tolist()) == ("mine", [0.1])


def test_an_adversary_who_can_only_increase_features_has_come_from_below(fitted):
    """At the lower face nothing can have been increased, so that nothing is lost; at the upper face it can."""
    clf = SmoothedConformalClassifier.from_pretrained(
        fitted.estimator_, fitted.classes_, NOISE, radius=0.3, strategy=GreedyRadius(max_change=(0.0, np.inf))
    )
    strategy, faces = clf.algorithm((4,)).strategy, np.array([[0.0] * 4, [1.0] * 4])
    np.testing.assert_allclose(strategy.overlap(NOISE, 0.3, faces, 1 - faces), [1.0, 0.85])


def test_splitting_noise_and_lipschitz_agree_for_small_radii(fitted):
    clf = conformal(noise=SplitNoise(1.0), strategy=LipschitzRadius()).fit(X[FIT], NAMES[FIT])
    sets = clf.conformalize(X[CALIB], NAMES[CALIB]).predict_set(X[TEST])
    other = clf.set_params(strategy="box").conformalize(X[CALIB], NAMES[CALIB]).predict_set(X[TEST])
    np.testing.assert_array_equal(sets, other)
