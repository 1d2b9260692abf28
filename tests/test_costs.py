"""Costs through the public API: fit, votes, stores, recertification, audits, weights."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import MinMaxScaler
from sklearn.tree import DecisionTreeClassifier

from smoothcert import (
    BoxRadius,
    Certificates,
    GreedyRadius,
    LipschitzRadius,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
    VoteCounts,
    recertify,
)
from smoothcert.pipeline import make_pipeline
from smoothcert.training import NoisyModule
from smoothcert.weights import load_weights, save_weights

rng = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {"age": rng.uniform(20, 80, 300), "wage": rng.random(300), "sex": rng.integers(2, size=300), "x": 0.5}
)
FRAME.loc[::7, "sex"] = np.nan
Y = np.where(FRAME["wage"] + 0.3 * FRAME["sex"].fillna(0.5) + (FRAME["age"] > 50) / 2 > 0.9, "yes", "no")
BOUNDS = {"age": (18, 90), "wage": (0, 1), "x": (0, 1)}
COSTS = {"age": 0.5, "sex": "fixed", "x": 2}


def smoothed(costs=COSTS, bounds=BOUNDS, **params):
    base = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    params = {"noise": UniformNoise(0.5), "n_samples": 1500, "random_state": 0} | params
    return SmoothedClassifier(base, costs=costs, bounds=bounds, **params)


@pytest.fixture(scope="module")
def clf():
    return smoothed().fit(FRAME[::2], Y[::2])


def test_costs_by_name_series_and_position_are_the_same(clf):
    by_position = [0.5, 1, np.inf, 2]
    expected = clf.certify(FRAME[:6])
    assert (expected.labels == clf.predict(FRAME[:6])).all()
    assert (expected.radii > 0).any()
    for costs in (pd.Series(COSTS), by_position, np.array(by_position)):
        other = smoothed(costs).fit(FRAME[::2], Y[::2]).certify(FRAME[:6])
        np.testing.assert_array_equal(other.radii, expected.radii)
    assert expected.threat == (
        "perturbations that leave column 'sex' as it is, at costs of 2 for column 'x', 0.5 for column 'age' and 1 for "
        "the others"
    )


def test_fixed_values_are_part_of_the_input_and_stay_as_they_are(clf):
    rows = FRAME[:3].assign(sex=[np.nan, 1e30, -0.5])
    seen = []

    class Watch(DecisionTreeClassifier):
        def predict(self, X):
            seen.append(np.asarray(X, dtype=float)[:, 2])
            return super().predict(X)

    watched = SmoothedClassifier(Watch(max_depth=2), UniformNoise(0.5), costs=COSTS, bounds=BOUNDS, n_samples=200)
    watched.fit(FRAME, Y)
    seen.clear()
    watched.certify(rows)
    assert set(np.concatenate(seen)[~np.isnan(np.concatenate(seen))]) == {1e30, -0.5}
    votes = clf.count_votes(pd.concat([FRAME[:1], FRAME[:1].assign(sex=5.0)]))
    assert (votes.inputs[0] != votes.inputs[1]).any()
    with pytest.raises(ValueError, match=r"(?s)NaN"):
        clf.certify(FRAME[:3].assign(wage=np.nan))


def test_a_store_and_votes_carry_the_costs(clf, tmp_path):
    X, path = FRAME[:12], tmp_path / "run.sqlite"
    expected = clf.certify(X, store=path)
    for radius in (BoxRadius(), GreedyRadius()):
        stored = Certificates.from_store(path, radius=radius)
        again = Certificates.from_store(path, radius=radius, X=X)
        np.testing.assert_array_equal(stored.radii, again.radii)
        assert stored.threat == again.threat == expected.threat
    np.testing.assert_array_equal(again.radii, expected.radii)
    votes = clf.count_votes(X)
    np.testing.assert_array_equal(recertify(votes, X=X).radii, expected.radii)
    np.testing.assert_array_equal(clf.certify(X, votes=votes).radii, expected.radii)
    other = smoothed(COSTS | {"age": 0.6}).fit(FRAME[::2], Y[::2])
    with pytest.raises(ValueError, match="costs"):
        other.certify(X, votes=votes)
    with pytest.raises(ValueError, match="costs: "):
        other.certify(X, store=path)


def test_audits_and_decisions_count_costs(clf):
    X = FRAME[:30]
    certificates = clf.certify(X)
    assert certificates.verify(clf, X, fraction=1.0, random_state=1).consistent
    wrong = Certificates(**{**vars(certificates), "threat": "every perturbation"})
    with pytest.raises(ValueError, match=r"and costs=.* Set the parameters"):
        wrong.verify(clf, X)
    decisions = clf.certify_at(X, 0.1)
    assert decisions.threat == certificates.threat
    assert (decisions.robust & (certificates.radii < 0.05)).sum() == 0
    assert decisions.robust.any()


def test_changed_costs_need_a_new_fit(clf):
    changed = pickle.loads(pickle.dumps(clf)).set_params(costs={"age": 0.5})
    with pytest.raises(ValueError, match=r"costs has changed to .* after fit"):
        changed.certify(FRAME[:2])
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(clf)).certify(FRAME[:4]).radii, clf.certify(FRAME[:4]).radii
    )


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"agee": 1}, r"costs must name columns of X, each once: .*unknown \['agee'\]"),
        ([1, 2], r"costs must be numbers above 0, or \"fixed\""),
        ({"age": 0}, r"costs must be above 0, or \"fixed\" .* got 0"),
        ({"age": "free"}, r"costs must be numbers above 0, or \"fixed\""),
        ({"age": -1}, r"costs must be above 0"),
        (np.nan, r"costs must be above 0"),
    ],
)
def test_invalid_costs_are_explained(costs, message):
    with pytest.raises(ValueError, match=message):
        smoothed(costs, bounds=BOUNDS | {"sex": (0, 1)}).fit(FRAME.fillna(0), Y)


def test_bounds_may_leave_out_fixed_columns_only():
    with pytest.raises(ValueError, match=r"bounds must name each column of X once: missing \['sex'\]"):
        smoothed({"age": 2}).fit(FRAME.fillna(0), Y)
    box = smoothed(bounds="minmax").fit(FRAME, Y).box_
    np.testing.assert_allclose(box.lo, [FRAME["age"].min(), FRAME["wage"].min(), 0, 0.5])


def test_radii_scale_with_one_cost_for_all():
    """Cost 2 under twice the noise is the same noise, whose distances count twice."""
    counts = [[900, 100], [990, 10], [999, 1], [1000, 0]]
    radii = [
        recertify(
            VoteCounts.from_counts([0] * 4, counts, noise=noise, classes=[0, 1], n_features=50, costs=costs),
            radius="box",
        )
        for noise, costs in ((SplitNoise(1.5), 1.0), (SplitNoise(3.0), 2.0))
    ]
    np.testing.assert_allclose(radii[1].radii, 2 * radii[0].radii, rtol=1e-12)
    assert radii[1].threat == "perturbations at a cost of 2 for each feature"
    fixed = VoteCounts.from_counts([0], [[1000, 0]], noise="split", classes=[0, 1], n_features=2, costs=["fixed"] * 2)
    assert recertify(fixed, radius="box").radii == np.inf


def test_all_features_fixed_is_the_base_model():
    X, y = FRAME.fillna(0).to_numpy(), Y
    clf = SmoothedClassifier(DecisionTreeClassifier(), costs="fixed", n_samples=100, random_state=0).fit(X, y)
    certificates = clf.certify(X[:20])
    np.testing.assert_array_equal(certificates.labels, y[:20])
    assert (certificates.radii == np.inf).all()


def test_images_have_costs_that_broadcast(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    costs = np.array([1.0, 2.0, np.inf]).reshape(3, 1, 1)
    X = torch.rand(5, 3, 2, 2).numpy()
    clf = SmoothedClassifier.from_pretrained(net, [0, 1], UniformNoise(0.3), costs=costs, n_samples=300, random_state=0)
    full = np.broadcast_to(costs, (3, 2, 2))
    other = SmoothedClassifier.from_pretrained(
        net, [0, 1], UniformNoise(0.3), costs=full, n_samples=300, random_state=0
    ).certify(X)
    certificates = clf.certify(X)
    np.testing.assert_array_equal(certificates.radii, other.radii)
    assert certificates.threat == other.threat
    path = tmp_path / "weights.safetensors"
    save_weights(clf, path)
    loaded = load_weights(path, net, n_samples=300, random_state=0)
    np.testing.assert_array_equal(loaded.certify(X).radii, certificates.radii)
    noisy = SmoothedClassifier.from_pretrained(
        NoisyModule(net, UniformNoise(0.3), costs=full.ravel()), [0, 1], n_samples=300, random_state=0
    )
    save_weights(noisy, path)
    loaded = load_weights(path, net, n_samples=300, random_state=0)
    np.testing.assert_array_equal(loaded.certify(X).radii, certificates.radii)
    with pytest.raises(ValueError, match=r"costs must be one number, one for each feature"):
        clf.certify(X[:, :2])
    perturbed = clf.set_params(radius="greedy").worst_perturbations(X, 1.0).perturbed
    np.testing.assert_array_equal(perturbed[:, 2], X[:, 2])


def test_other_units_are_seen_in_movable_columns_only(clf):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.predict(FRAME[:4].assign(sex=1e9))
    with pytest.warns(UserWarning, match=r"X ranges from .* and was clipped"):
        clf.predict(FRAME[:4].assign(age=1e3))


def test_weights_of_raw_units_count_costs():
    X, y = FRAME[["age", "wage"]].to_numpy(), Y
    plain, dear, fixed = (
        make_pipeline(MinMaxScaler(), SmoothedClassifier(DecisionTreeClassifier(), costs=costs, n_samples=100)).fit(
            X, y
        )
        for costs in (1.0, [2.0, 0.5], [1.0, "fixed"])
    )
    np.testing.assert_allclose(dear.raw_weights(), plain.raw_weights() * [2, 0.5], rtol=1e-14)
    with pytest.raises(ValueError, match="limits that cannot be converted"):
        dear.to_raw_units(dear.certify(X[:2]), X[:2])
    with pytest.raises(ValueError, match="fixed features and categories have no weight"):
        fixed.raw_weights()


@pytest.mark.parametrize("names", [None, ["a", "b", "c"]], ids=["array", "names"])
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda n: {"noise": SplitNoise(levels=(3, *["auto"] * (n - 1)))}, "levels by column must hold one number for"),
        (lambda n: {"costs": np.arange(1, n + 1)}, r"costs must be .* inputs of shape \(3,\), got shape"),
        (lambda n: {"bounds": (np.zeros(n), np.ones(n))}, r"bounds must be .* inputs of shape \(3,\), but one has"),
        (lambda n: {"radius": GreedyRadius(max_change=([0.1] * n, 0.2))}, "max_change must hold .* of 3 features, got"),
    ],
)
def test_parameters_by_column_fit_the_columns_as_soon_as_these_are_known(wrong, message, n, names):
    X, y = rng.random((12, 3)), np.arange(12) % 2
    model = GaussianNB().fit(X if names is None else pd.DataFrame(X, columns=names), y)
    with pytest.raises(ValueError, match=message):
        SmoothedClassifier.from_pretrained(model, [0, 1], **wrong(n))
    with pytest.raises(ValueError, match=message.split()[0]):
        SmoothedClassifier(GaussianNB(), **wrong(n)).fit(X, y)
    # A function does not say how many columns it takes.
    unknown = SmoothedClassifier.from_pretrained(lambda rows: rows[:, 0] > 0.5, [False, True], **wrong(n))
    with pytest.raises(ValueError, match=message):
        unknown.certify(X)
    SmoothedClassifier.from_pretrained(model, [0, 1], **wrong(3))


class Whole(GreedyRadius):
    """Relies on inputs that lie in the box."""

    def reach(self, noise, down, up):
        np.testing.assert_allclose(down + up, 1.0)
        return np.maximum(down, up) / np.maximum(down, up).max(axis=1, keepdims=True)


class Unneeded(LipschitzRadius):
    """Has no reach, for which nobody asks where the box does not count."""

    def reach(self, noise, down, up):
        raise NotImplementedError


@pytest.mark.parametrize("radius", [Whole(), Unneeded()])
def test_early_checks_ask_strategies_of_users_only_what_certification_asks(radius):
    X, y = rng.random((12, 3)), np.arange(12) % 2
    trained = SmoothedClassifier(GaussianNB(), radius=radius, n_samples=100).fit(X, y)
    again = SmoothedClassifier.from_pretrained(trained.estimator_, [0, 1], radius=radius, n_samples=100)
    assert len(again.certify(X)) == len(trained.certify(X)) == 12


class OnTwo:
    """A model of the first two columns, whose attributes it passes on."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        if name == "n_features_in_":
            return self.model.n_features_in_
        raise AttributeError(name)

    def predict(self, X):
        return self.model.predict(X[:, :2])


def test_wrappers_of_models_take_columns_of_their_own():
    X, y = rng.random((12, 3)), np.arange(12) % 2
    model = OnTwo(GaussianNB().fit(X[:, :2], y))
    for columns in ({"costs": [1.0, 2.0, np.inf]}, {"bounds": (np.zeros(3), np.ones(3))}):
        clf = SmoothedClassifier.from_pretrained(model, [0, 1], n_samples=100, **columns)
        assert len(clf.certify(X)) == 12
