"""Columns of whole numbers, each on a lattice of its own, from `fit` to the last file."""

import pickle
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from smoothcert import (
    BoxRadius,
    Certificates,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    LipschitzRadius,
    SmoothedClassifier,
    SmoothedConformalClassifier,
    SmoothedRegressor,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
    VoteCounts,
    recertify,
    stored_classifier,
    verify_store,
)
from smoothcert.attacks import GreedyFaceAttack
from smoothcert.noise import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.pipeline import make_pipeline as smoothcert_pipeline
from smoothcert.results import RowChanges

LEVELS = {"age": 73, "children": 8}
BOUNDS = {"age": (17, 90), "children": (0, 8), "wage": (0.0, 1.0)}
NOISES = [
    SplitNoise(1.0, LEVELS),
    UniformNoise(1.0, pd.Series(LEVELS)),
    UniformMixtureNoise([0.5, 1.0], [0.5, 0.5], levels=[73, 8, "auto", "auto"]),
]
THREAT = "perturbations on the lattice of 73 levels in column 'age' and of 8 levels in column 'children'"
SETTINGS = {"bounds": BOUNDS, "n_samples": 300, "n_selection": 64, "random_state": 0, "categorical_features": ["job"]}


def table(n=120, seed=0):
    rng = np.random.default_rng(seed)
    age, children, wage = rng.integers(17, 91, n), rng.integers(0, 9, n), rng.random(n)
    job = rng.choice(["clerk", "cook"], n)
    y = (age - 17) / 73 + children / 8 + wage + 0.5 * (job == "cook") > 1.75
    return pd.DataFrame({"age": age, "children": children, "wage": wage, "job": job}), y.astype(int)


class WholeNumbers(ClassifierMixin, BaseEstimator):
    """A model that knows ages and children in whole numbers only."""

    def fit(self, X, y):
        self.check(X)
        self.classes_ = np.unique(y)
        return self

    def check(self, X):
        assert (np.asarray(X[["age", "children"]]) % 1 == 0).all()

    def predict(self, X):
        self.check(X)
        return (X["age"] + 8 * X["children"] > 100).to_numpy().astype(int)


X, Y = table()


def on_one_line(noise):
    """Return the name of a parameter: with an end of line in it, mutmut's workers do not find the test."""
    return " ".join(repr(noise).split())


@pytest.fixture(scope="module")
def clf():
    return SmoothedClassifier(WholeNumbers(), SplitNoise(1.0, LEVELS), **SETTINGS).fit(X, Y)


@pytest.mark.parametrize("noise", NOISES, ids=on_one_line)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_get_whole_noise(noise, dtype):
    clf = SmoothedClassifier(WholeNumbers(), noise, **SETTINGS).fit(X, Y)
    assert clf.noise_.levels == (73, 8, "auto", "auto")
    mechanism = clf.algorithm((4,)).mechanism
    inputs = clf.open_inputs(X).read(np.arange(50))
    noisy = mechanism.noisy(inputs, np.random.default_rng(0), dtype)
    keys = np.arange(200, dtype=np.uint32).reshape(50, 4)
    drawn = np.empty((50 * 20, 4), dtype=dtype)
    mechanism.sample(mechanism.points(inputs), keys, np.array([[i, 0, 20] for i in range(50)]), drawn)
    for values in (noisy, drawn):
        assert (values[:, :2] % 1 == 0).all()
        assert len(np.unique(values[:, 0])) > 5
        assert (values[:, 2] % 1 > 0).any()
    if type(noise) is SplitNoise:
        assert ((noisy[:, :2] >= [17, 0]) & (noisy[:, :2] <= [90, 8])).all()


def test_lattice_points_are_the_floats_of_the_data():
    """A column of tenths, where products with 1/10 are not what division by 10 gives."""
    tenths = pd.DataFrame({"share": np.arange(11) / 10, "other": np.linspace(0, 1, 11)})
    clf = SmoothedClassifier(DecisionTreeClassifier(max_depth=1), UniformNoise(0.4, {"share": 10}))
    clf.fit(tenths, np.arange(11) > 5)
    noisy = clf.algorithm((2,)).mechanism.noisy(np.repeat(tenths.to_numpy(), 50, axis=0), np.random.default_rng(0))
    assert set(noisy[:, 0]) <= {k / 10 for k in range(-4, 15)}


def test_large_whole_numbers_stay_whole_in_float32():
    box = Box.from_bounds((np.array([1000.0, 0]), np.array([51_001.0, 1])))
    mechanism = NoiseMechanism(box, UniformNoise(0.5, [50_001, "auto"]), (2,))
    X = np.column_stack([np.arange(1000, 51_000, 7), np.zeros(7143)])
    assert (mechanism.noisy(X, np.random.default_rng(0), np.float32)[:, 0] % 1 == 0).all()


@pytest.mark.parametrize("noise", NOISES, ids=on_one_line)
def test_exact_probabilities_are_those_of_votes(noise):
    encode = encoder()
    for base in (
        make_pipeline(encode, GradientBoostingClassifier(max_depth=1, n_estimators=30, random_state=0)),
        make_pipeline(clone(encode), DecisionTreeClassifier(max_leaf_nodes=20, random_state=0)),
    ):
        clf = SmoothedClassifier(base, noise, **SETTINGS, costs={"age": 0.5}).fit(X, Y)
        exact = clf.set_params(estimation="exact").certify(X[:6])
        votes = clf.set_params(estimation="sample", n_samples=2000).count_votes(X[:6])
        for row, label in enumerate(exact.labels):
            k = int(votes.estimation[row, label])
            low, high = beta.ppf(1e-6, k, 2001 - k), beta.ppf(1 - 1e-6, k + 1, max(2000 - k, 1e-9))
            assert np.nan_to_num(low) <= exact.p_a[row] + 0.006
            assert exact.p_a[row] <= np.nan_to_num(high, nan=1.0)


def encoder():
    return make_column_transformer((OneHotEncoder(sparse_output=False), ["job"]), remainder="passthrough")


def test_certificates_name_the_lattices_wherever_they_are_made(clf, tmp_path):
    found = clf.certify(X[:20], store=tmp_path / "run")
    assert found.threat == THREAT.replace("perturbations", "perturbations with changed categories of column 'job',")
    votes = clf.count_votes(X[:20])
    inputs = clf.open_inputs(X[:20]).read(np.arange(20))
    votes.save(tmp_path / "votes.npz")
    for again in (
        Certificates.from_store(tmp_path / "run"),
        recertify(VoteCounts.load(tmp_path / "votes.npz"), X=inputs),
        clf.certify(X[:20], votes=votes),
        stored_classifier(tmp_path / "run", clf).certify(X[:20]),
        pickle.loads(pickle.dumps(clf)).certify(X[:20]),
    ):
        assert again.threat == found.threat
        np.testing.assert_array_equal(again.radii, found.radii)
    assert verify_store(tmp_path / "run", clf, X[:20], fraction=1.0).consistent
    found.save(tmp_path / "certificates.npz")
    assert Certificates.load(tmp_path / "certificates.npz").threat == found.threat


def test_plain_numbers_keep_the_names_of_columns_with_lattices(tmp_path):
    numbers = X[["age", "children", "wage"]]
    clf = SmoothedClassifier(LogisticRegression(), SplitNoise(1.0, LEVELS), bounds=BOUNDS, n_samples=300)
    found = clf.fit(numbers, Y).certify(numbers[:9], store=tmp_path / "run")
    assert found.threat == THREAT
    assert Certificates.from_store(tmp_path / "run").threat == THREAT
    votes = clf.count_votes(numbers[:9])
    assert recertify(votes, radius="box").threat == THREAT
    counts = {"selection": votes.selection, "estimation": votes.estimation, "classes": [0, 1], "bounds": BOUNDS}
    elsewhere = VoteCounts.from_counts(**counts, noise=SplitNoise(1.0, LEVELS), X=numbers[:9])
    again = recertify(elsewhere, X=numbers[:9])
    np.testing.assert_array_equal(again.radii, clf.certify(numbers[:9], votes=votes).radii)
    assert again.threat == THREAT


def test_parameters_are_never_changed(clf):
    levels = dict(LEVELS)
    noise = SplitNoise(1.0, levels)
    copied = clone(clf).set_params(noise=noise)
    copied.fit(X, Y)
    assert noise.levels is levels
    assert copied.noise.levels is levels
    assert levels == LEVELS
    assert clone(noise).get_params() == {"lam": 1.0, "levels": LEVELS}
    assert "levels={'age': 73, 'children': 8}" in repr(noise)
    copied.certify(X[:2])
    with pytest.raises(ValueError, match="noise has changed"):
        copied.set_params(noise__levels={"age": 73}).certify(X[:2])


def test_numbers_off_their_lattice_are_refused_by_name(clf):
    wrong = X.astype({"children": float})
    wrong.loc[3, "children"] = 2.5
    with pytest.raises(ValueError, match=r"lattice of levels=8 steps .* in column 'children', got 2.5. Round"):
        clf.certify(wrong)
    with pytest.raises(ValueError, match=r"lattice of levels=8 steps .* in column 'children', got 2.5. Round"):
        clone(clf).fit(wrong, Y)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"ages": 73}, r"levels must name columns of X, each once: missing \[\], unknown \['ages'\]"),
        ({"age": 0.5}, 'levels must be "auto" .* got 0.5'),
        ([73, 8], "levels by column must hold one number for each of 4 features, got 2"),
        (np.array(["73", "8", "auto", "auto"]), "levels must be .* got .*'73'"),
    ],
)
def test_wrong_levels_are_explained(clf, levels, message):
    with pytest.raises(ValueError, match=message):
        clone(clf).set_params(noise__levels=levels).fit(X, Y)


def test_levels_by_name_need_names():
    with pytest.raises(ValueError, match="levels by column name need columns with names"):
        SmoothedClassifier(LogisticRegression(), SplitNoise(1.0, LEVELS), bounds="minmax").fit(X.to_numpy()[:, :3], Y)
    noise = SplitNoise(1.0, LEVELS)
    for use in (lambda: noise.q, lambda: noise.recipe, lambda: noise.to_points(np.zeros((1, 3)))):
        with pytest.raises(ValueError, match="levels by column need inputs with columns"):
            use()


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (GaussianNoise(1.0, LEVELS), "Only uniform, splitting and mixture noise take levels by column"),
        (DeterministicSplitNoise(1.0, [4, 4, 4]), "for deterministic noise, got .*: all features move together"),
    ],
)
def test_other_families_refuse(noise, message):
    with pytest.raises(ValueError, match=message):
        SmoothedClassifier(LogisticRegression(), noise).fit(X[["age", "children", "wage"]], Y)


def test_lattices_that_take_much_of_lam_are_named():
    numbers = X[["age", "children", "wage"]]
    base, where = LogisticRegression(), {"bounds": BOUNDS}
    with pytest.warns(UserWarning, match=r"levels=8 in column 'children' are coarse .* use 0.25 .* lam=0.3125, or"):
        SmoothedClassifier(base, SplitNoise(0.3, {"children": 8}), **where).fit(numbers, Y)
    mixture = SmoothedClassifier(base, UniformMixtureNoise([0.3, 1.0], levels={"children": 8}), **where)
    with pytest.warns(UserWarning, match=r"levels=8 in column 'children' are coarse for lam=0.3: "):
        mixture.fit(numbers, Y)
    with pytest.raises(ValueError, match=r"levels must leave .* at cost 2 in column 'children', lam must lie between"):
        SmoothedClassifier(base, SplitNoise(0.1, {"children": 8}), costs={"children": 2}, **where).fit(numbers, Y)
    noise = SplitNoise(0.3, (8, 0)).with_groups(((1.0, 8), (1.0, 0)))
    assert noise.effective_lam == 0.25
    for lam in (0.3, 0.47, 1.3):
        groups = ((1.0, 8), (2.0, 4), (1.0, 0))
        near = SplitNoise(lam, (8, 4, "auto")).with_groups(groups).whole_lam(1.0, 8)
        assert SplitNoise(near, (8, 4, "auto")).with_groups(groups).effective_lam >= 0.99 * near
    # No lam near 0.3 suits both 16ths and 7ths.
    assert SplitNoise(0.3, (8, 7)).with_groups(((1.0, 8), (2.0, 7))).whole_lam(1.0, 8) == 0.3125


def test_worst_perturbations_and_attacks_stay_on_the_lattice(clf):
    rows = X[20:22]
    _, moves, perturbed = clf.worst_perturbations(rows, 0.7)
    assert (np.asarray(perturbed[["age", "children"]]) % 1 == 0).all()
    assert (np.abs(moves).sum(axis=1) <= 0.7 + 1e-9).all()
    label = clf.predict(rows)
    found = GreedyFaceAttack(max_queries=40_000, n_samples=3000, random_state=0).run(clf, rows, label, radius=2.0)
    assert found.success.any()
    changed = found.inputs[found.success]
    assert (changed[:, :2] % 1 == 0).all()
    before = clf.open_inputs(rows).read(np.arange(2))[found.success]
    paid = np.abs(changed - before)[:, :3] @ [1 / 73, 1 / 8, 1] + (changed != before)[:, 3]
    np.testing.assert_allclose(found.distance[found.success], paid, rtol=1e-9)


def test_one_decision_moves_by_whole_numbers(clf):
    row = next(i for i, radius in enumerate(clf.certify(X).radii) if radius > 0.2)
    shown = RowChanges.from_estimator(clf, X.iloc[[row]])
    to = dict(zip(shown.columns["feature"], shown.columns["to"], strict=True))
    assert float(to["age"]) % 1 == float(to["children"]) % 1 == 0


def test_limits_of_single_features_count_whole_steps(clf):
    mechanism = clf.algorithm((4,)).mechanism
    strategy = GreedyRadius(max_change=0.3)
    reach = strategy.reach(mechanism.noise, *mechanism.room(clf.open_inputs(X).read(np.arange(1))))[0]
    np.testing.assert_array_equal(reach[1], max(0.3, 2 / 8))
    np.testing.assert_allclose(reach[2], 0.3 + 2 / (256 * 65535), rtol=1e-12)


def test_regressors_and_sets(tmp_path):
    numbers = X[["age", "children", "wage"]]
    noise = UniformNoise(1.0, LEVELS)
    reg = SmoothedRegressor(LinearRegression(), noise, bounds=BOUNDS, n_samples=300, random_state=0)
    lower, upper = reg.fit(numbers, numbers["age"] / 73 + Y).certify(numbers[:5], 0.1)
    assert (lower <= upper).all()
    sets = SmoothedConformalClassifier(
        LogisticRegression(), noise, bounds=BOUNDS, radius=0.1, n_samples=100, random_state=0
    )
    sets.fit(numbers[:60], Y[:60]).conformalize(numbers[60:], Y[60:])
    assert sets.predict_set(numbers[:5]) is not None


def test_radii_in_raw_units():
    data = X[["age", "children", "wage"]].to_numpy(dtype=float)
    pipe = smoothcert_pipeline(
        MinMaxScaler(feature_range=(0, 1)),
        SmoothedClassifier(LogisticRegression(), SplitNoise(1.0, [73, 8, "auto"]), n_samples=300, random_state=0),
    )
    data = np.vstack([[17, 0, 0], [90, 8, 1], data])
    found = pipe.fit(data, np.concatenate([[0, 1], Y])).certify(data[:9])
    raw = pipe.to_raw_units(found, data[:9])
    lattices = "the lattice of 73 levels in feature 0 and of 8 levels in feature 1"
    assert raw.threat == f"perturbations on {lattices}, in raw units"


def test_torch_models_train_on_whole_numbers_and_keep_their_levels(tmp_path):
    torch = pytest.importorskip("torch")
    from smoothcert.training import NoisyModule
    from smoothcert.training.torch_noise import noisy_on_device
    from smoothcert.weights import load_weights, save_weights

    noise, bounds = SplitNoise(1.0, [73, 8, "auto"]), (np.array([17.0, 0, 0]), np.array([90.0, 8, 1]))
    module = NoisyModule(torch.nn.Linear(3, 2), noise, bounds)
    clf = SmoothedClassifier.from_pretrained(module, [0, 1], n_samples=100, random_state=0)
    data = X[["age", "children", "wage"]].to_numpy(dtype=np.float32)
    assert clf.certify(data[:3]).threat.startswith("perturbations on the lattice of 73 levels in feature 0")
    mechanism = clf.algorithm((3,)).mechanism
    drawn = noisy_on_device(torch.from_numpy(data).repeat(50, 1), mechanism, np.random.default_rng(0)).numpy()
    kept = mechanism.noisy(np.tile(data.astype(float), (50, 1)), np.random.default_rng(0))
    np.testing.assert_allclose(drawn.mean(axis=0), kept.mean(axis=0), rtol=0.05)
    np.testing.assert_allclose(drawn[:, :2], np.rint(drawn[:, :2]), atol=1e-4)
    assert set(np.rint(drawn[:, 1])) == set(kept[:, 1])
    save_weights(clf, tmp_path / "weights.safetensors")
    loaded = load_weights(tmp_path / "weights.safetensors", torch.nn.Linear(3, 2), n_samples=100, random_state=0)
    np.testing.assert_array_equal(loaded.certify(data[:3]).radii, clf.certify(data[:3]).radii)


def test_the_command_line(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from smoothcert.cli.main import cli

    monkeypatch.chdir(tmp_path)
    numbers = X[["age", "children", "wage"]]
    joblib.dump(LogisticRegression().fit(numbers, Y), "model.joblib")
    numbers[:9].to_csv("data.csv", index=False)
    np.save("bounds.npy", np.array([[17, 0, 0], [90, 8, 1.0]]))
    options = ["certify", "model.joblib", "data.csv", "--allow-pickle", "--bounds", "bounds.npy", "--n", "300"]
    options += ["--quiet", "--seed", "0"]
    shown = CliRunner().invoke(cli, [*options, "--levels", "age=73", "--levels", "children=8", "--store", "run"])
    assert shown.exit_code == 0, shown.output
    assert Certificates.from_store("run").threat == THREAT
    for twice in (["age=73", "--levels", "age=70"], ["=73"], ["age=73", "--levels", "8"]):
        refused = CliRunner().invoke(cli, [*options, "--levels", *twice])
        assert refused.exit_code == 2
        assert "COLUMN=N once for some of the columns" in refused.output.replace("\n", " ")
    wrong = CliRunner().invoke(cli, [*options, "--levels", "ages=73"])
    assert wrong.exit_code == 2
    assert "COLUMN=N once for some of the columns ['age', 'children', 'wage'], got 'ages=73'" in wrong.output


@pytest.mark.parametrize("levels", [[6, 7], (6, 7), {"a": 1}], ids=str)
@pytest.mark.parametrize("family", [UniformNoise, SplitNoise, partial(UniformMixtureNoise, (0.4, 0.6), (0.5, 0.5))])
def test_noise_whose_columns_are_not_known_has_no_price(family, levels):
    noise, room = family(levels=levels), np.ones((1, 2))
    for ask in (
        lambda: noise.cost(0.1),
        lambda: noise.inverse_cost(0.1),
        lambda: GreedyRadius().radii(noise, 0.9, 0.1, room, room),
        lambda: BoxRadius().overlap(noise, 0.3, room, room),
        lambda: LipschitzRadius().radii(noise, 0.9, 0.1, room, room),
    ):
        with pytest.raises(ValueError, match="levels by column need inputs with columns"):
            ask()


def test_wrong_levels_are_named_with_their_column():
    with pytest.raises(ValueError, match=r"levels of column 'kids': .*got nan.*give a list or a dict"):
        SplitNoise(levels={"age": 73, "kids": np.nan}).check()
    with pytest.raises(ValueError, match=r"levels of column 0: .*got np.str_\('73'\)"):
        SplitNoise(levels=np.array([73, "auto"])).check()
    with pytest.raises(ValueError, match=r"levels by column must be flat.*got shape \(1, 2\)"):
        SplitNoise(levels=[[73, 8]]).check()
