"""Votes from elsewhere, and certificates of votes without a model."""

import sqlite3
import warnings
from contextlib import closing

import numpy as np
import pytest

from smoothcert import (
    Certificates,
    DeterministicSplitNoise,
    GaussianNoise,
    Noise,
    SmoothedClassifier,
    SplitNoise,
    UniformMixtureNoise,
    VoteCounts,
    recertify,
)
from smoothcert.runs.metadata import from_spec, to_spec
from smoothcert.sampling.sampler import Votes

from ..base_models import Rule, steps

X = np.random.default_rng(0).integers(0, 51, size=(30, 4)) / 50
NOISES = [
    "split",
    SplitNoise(0.7, levels=50),
    "gaussian",
    GaussianNoise(0.4, levels=50),
    UniformMixtureNoise([0.5, 1.0], [0.5, 0.5]),
    "laplace",
    DeterministicSplitNoise(1.0, levels=50, template=[3, 1, 4, 1]),
]


def smoothed(noise="split", classes=("a", "b", "c"), **params):
    base = Rule(steps([0.3, 0.7]), range(3)).fit(None, None)
    params = {"n_samples": 2000, "n_selection": 50, "alpha": 0.01, "random_state": 0} | params
    return SmoothedClassifier.from_pretrained(
        lambda rows: np.array(classes)[base.predict(rows)], classes, noise, **params
    )


def same(found, expected):
    assert (found.alpha, found.norm, found.threat) == (expected.alpha, expected.norm, expected.threat)
    for name, values in expected._arrays().items():
        np.testing.assert_array_equal(getattr(found, name), values)


@pytest.mark.parametrize("noise", NOISES, ids=str)
@pytest.mark.parametrize("bound", ["clopper-pearson", "randomized-clopper-pearson"])
def test_votes_are_certified_as_the_classifier_certifies_them(noise, bound, tmp_path):
    clf = smoothed(noise, bound=bound)
    votes = clf.count_votes(X)
    expected = clf.certify(X, votes=votes)
    same(recertify(votes, X=X, bound=bound, alpha=0.01), expected)
    votes.save(tmp_path / "votes.npz")
    same(recertify(VoteCounts.load(tmp_path / "votes.npz"), X=X, bound=bound, alpha=0.01), expected)
    same(recertify(votes[5:], X=X[5:], bound=bound, alpha=0.01), expected[5:])


@pytest.mark.parametrize("noise", NOISES, ids=str)
def test_counts_from_elsewhere_give_the_certificates_of_these_counts(noise, tmp_path):
    clf = smoothed(noise)
    votes, strategy = clf.count_votes(X), "box" if clf.noise_.uses_box else "lipschitz"
    given = {"noise": noise, "classes": clf.classes_}
    expected = clf.certify(X, votes=votes)
    same(recertify(VoteCounts.from_counts(votes.selection, votes.estimation, X=X, **given), X=X, alpha=0.01), expected)
    blind = VoteCounts.from_counts(expected.labels, votes.estimation, n_features=4, **given)
    blind.save(tmp_path / "votes.parquet")
    blind = VoteCounts.load(tmp_path / "votes.parquet")
    same(recertify(blind, alpha=0.01, radius=strategy), clf.set_params(radius=strategy).certify(X, votes=votes))
    same(recertify(blind, X=X, alpha=0.01), expected)


@pytest.mark.parametrize("scheme", ["multiclass", "binary"])
@pytest.mark.parametrize("radius", ["box", "lipschitz"])
def test_scheme_and_strategy_are_those_asked_for(scheme, radius):
    votes = smoothed().count_votes(X)
    found = recertify(votes, scheme=scheme, radius=radius)
    same(found, smoothed(scheme=scheme, radius=radius, alpha=0.001).certify(X, votes=votes))
    assert found.alpha == 0.001
    other = recertify(votes, scheme="binary" if scheme == "multiclass" else "multiclass", radius=radius)
    assert not np.array_equal(found.p_b, other.p_b)
    same(recertify(votes, radius=radius), recertify(votes, scheme="multiclass", radius=radius))


def test_box_and_costs_of_counts_from_elsewhere():
    params = {"bounds": (0, np.array([1.0, 2.0, 4.0, 1.0])), "costs": [1.0, 2.0, 0.5, 1.0], "noise": SplitNoise(0.7)}
    clf = smoothed(**params)
    votes = clf.count_votes(X)
    expected = clf.certify(X, votes=votes)
    found = VoteCounts.from_counts(votes.selection, votes.estimation, classes=clf.classes_, X=X, **params)
    same(recertify(found, X=X, alpha=0.01), expected)
    assert found.origin.box == votes.origin.box
    assert found.origin.costs == votes.origin.costs
    assert expected.threat != "every perturbation"


def test_inputs_are_matched_in_parts(tmp_path, monkeypatch):
    """Positions of a run of which some inputs are missing, and more inputs than are read at once."""
    path = tmp_path / "run.sqlite"
    expected = smoothed().certify(X, store=path)
    kept = ~np.isin(np.arange(30), [0, 4, 5, 6, 7, 17, 29])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("DELETE FROM results WHERE input = ?", [(int(i),) for i in np.flatnonzero(~kept)])
    monkeypatch.setattr("smoothcert.runs.inputs.CHUNK_VALUES", 16)
    same(Certificates.from_store(path, X=X, partial=True), expected[kept])
    spoiled = X.copy()
    spoiled[9, 0] = 1 - spoiled[9, 0]
    with pytest.raises(ValueError, match="X must be the inputs of the votes: some of 8 to 11 differ from those"):
        Certificates.from_store(path, X=spoiled, partial=True)
    with pytest.raises(ValueError, match="holds 23 of 30 inputs: the run has not ended"):
        Certificates.from_store(path, X=X)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM results")
    with pytest.raises(ValueError, match="holds no finished input yet"):
        Certificates.from_store(path, partial=True)


def test_only_fixed_features_may_be_missing():
    clf = smoothed(costs=[1, 1, "fixed", 1])
    missing = X.copy()
    missing[3, 2] = np.nan
    given = {"noise": "split", "classes": clf.classes_, "costs": [1, 1, "fixed", 1]}
    votes = clf.count_votes(X)
    assert len(VoteCounts.from_counts(votes.selection, votes.estimation, X=missing, **given)) == 30
    missing[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        VoteCounts.from_counts(votes.selection, votes.estimation, X=missing, **given)


def test_counts_and_classes_stay_what_they_are_when_their_arrays_are_used_again():
    counts, classes = np.array([[900, 100]]), np.array(["a", "b"])
    votes = VoteCounts.from_counts(counts, counts, noise="split", classes=classes, n_features=4)
    clf = smoothed(classes=classes)
    counts[:], classes[:] = counts[:, ::-1].copy(), classes[::-1].copy()
    assert (votes.selection.tolist(), votes.estimation.tolist()) == ([[900, 100]], [[900, 100]])
    assert recertify(votes, radius="box").labels.tolist() == ["a"]
    assert clf.classes_.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X": np.ma.array([[0.5, 0.5]], mask=[[False, True]])}, "X holds masked values"),
        ({"X": np.array([[0, 2**53]])}, "X holds whole numbers of 2\\*\\*53 or more"),
        ({"estimation": np.ma.array([[900, 100]], mask=[[False, True]])}, "estimation holds masked values"),
        ({"selection": np.ma.array([0], mask=[True])}, "selection holds masked values"),
    ],
)
def test_inputs_and_counts_that_arrays_would_change_are_refused(given, message):
    given = {"selection": [0], "estimation": [[900, 100]], "X": [[0.5, 0.5]]} | given
    with pytest.raises(ValueError, match=message):
        VoteCounts.from_counts(given.pop("selection"), given.pop("estimation"), noise="split", classes=[0, 1], **given)


def test_greedy_radii_ask_for_the_inputs():
    votes = VoteCounts.from_counts([0], [[900, 100]], noise="split", classes=[0, 1], n_features=4)
    with pytest.raises(ValueError, match="Give X=, the inputs that were voted on, or use the strategy 'box'"):
        recertify(votes)
    with pytest.raises(ValueError, match=r"X must be the inputs of the votes, of shape \(1, 4\), got shape \(1, 3\)"):
        recertify(votes, X=X[:1, :3])
    known = smoothed().count_votes(X)
    with pytest.raises(ValueError, match="X must be the inputs of the votes: some of 0 to 29 differ"):
        recertify(known, X=1 - X)
    with pytest.raises(ValueError, match="n_samples=9 cannot certify even a unanimous vote"):
        recertify(VoteCounts.from_counts([0], [[9, 0]], noise="split", classes=[0, 1], n_features=1), radius="box")
    with pytest.raises(ValueError, match="votes must be of at least one input, got none"):
        recertify(votes[:0], radius="box")


@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.5])
def test_stores_keep_the_reaches_of_unanimous_votes_at_every_alpha(alpha, tmp_path):
    """Few votes and wide noise: at a larger alpha, radii are larger, and need more reaches."""
    base = Rule(lambda X: np.zeros(len(X), dtype=int), [0, 1]).fit(None, None)
    clf = SmoothedClassifier.from_pretrained(
        base, [0, 1], SplitNoise(100.0), n_samples=100, alpha=alpha, random_state=0
    )
    found = clf.certify(np.full((2, 3000), 0.5), store=tmp_path / "run.sqlite")
    assert found.radii[0] > 80
    same(Certificates.from_store(tmp_path / "run.sqlite"), found)


def test_a_classifier_warns_that_it_cannot_check_votes_from_elsewhere():
    clf = smoothed()
    votes = clf.count_votes(X)
    given = {"noise": "split", "classes": clf.classes_}
    known = VoteCounts.from_counts(votes.selection, votes.estimation, X=X, **given)
    blind = VoteCounts.from_counts(votes.selection, votes.estimation, n_features=4, **given)
    for elsewhere in (known, blind):
        with pytest.warns(UserWarning, match="votes come from elsewhere: without seed and model nothing shows"):
            same(clf.certify(X, votes=elsewhere), clf.certify(X, votes=votes))
    with pytest.raises(ValueError, match="votes were drawn with a different X"):
        clf.certify(1 - X, votes=known)
    with pytest.raises(ValueError, match="votes were drawn with a different X"):
        clf.certify(X[:9], votes=blind)
    with pytest.raises(ValueError, match="votes were drawn with a different noise"):
        smoothed(SplitNoise(2.0)).certify(X, votes=known)
    with pytest.raises(ValueError, match="votes were drawn with a different classes"):
        smoothed(classes=("a", "b", "d")).certify(X, votes=known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clf.certify(X, votes=votes)


def test_randomized_bounds_of_unknown_inputs_differ():
    """Each input has numbers of its own, which nobody knew when the votes were counted."""
    counts = {"noise": "split", "classes": [0, 1], "n_features": 1}
    first, second = (VoteCounts.from_counts([0] * 50, [[900, 100]] * 50, **counts) for _ in range(2))
    found = [recertify(v, radius="box", bound="randomized-clopper-pearson").p_a for v in (first, first, second)]
    np.testing.assert_array_equal(found[0], found[1])
    assert len(np.unique(found[0])) == 50
    assert not np.isin(found[0], found[2]).any()


IMPOSSIBLE = [
    ([[9, 1]], [[950, -50]], "estimation must hold whole numbers of at least 0, got .*-50"),
    ([[-1, 9]], [[950, 50]], "selection must hold whole numbers of at least 0"),
    ([[9, 1]], [[900.5, 99.5]], "estimation must hold whole numbers"),
    ([[9, 1]], [[np.nan, 99]], "estimation must hold whole numbers"),
    ([[9, 1]], [[1e300, 99]], "estimation must hold whole numbers"),
    (
        [[9, 1]],
        [[900, 90, 10]],
        r"estimation must hold counts of shape \(1, 2\), one row for each input and one column",
    ),
    ([[9, 1]], [[900, 100], [900, 100]], r"estimation must hold counts of shape \(1, 2\)"),
    ([[9, 1]], [900, 100], r"estimation must hold counts of shape \(1, 2\)"),
    ([[9, 1]], [["900", "100"]], r"estimation must hold counts of shape \(1, 2\)"),
    ([[9, 1]], [[True, False]], r"estimation must hold counts of shape \(1, 2\)"),
    ([[0, 0]], [[900, 100]], "selection must hold at least one vote for each input, got none in row 0"),
    ([[9, 1]], [[0, 0]], "estimation must hold at least one vote for each input"),
]


@pytest.mark.parametrize(("selection", "estimation", "message"), IMPOSSIBLE)
def test_impossible_counts_are_refused_wherever_they_enter(selection, estimation, message, tmp_path):
    clf = smoothed(classes=("a", "b", "c"))
    sound = VoteCounts.from_counts([[9, 1]], [[900, 100]], noise="split", classes=[0, 1], X=X[:1])
    with pytest.raises(ValueError, match=message):
        VoteCounts.from_counts(selection, estimation, noise="split", classes=[0, 1], X=X[:1])
    with pytest.raises(ValueError, match=message):
        VoteCounts(np.array(selection), np.array(estimation), sound.inputs, sound.origin)
    # A file and a store that another program wrote, and votes that were changed in memory.
    forged = object.__new__(VoteCounts)
    forged.__dict__.update(vars(sound) | {"selection": np.array(selection), "estimation": np.array(estimation)})
    if np.asarray(estimation).dtype.kind != "U":
        forged.save(tmp_path / "forged.npz")
        with pytest.raises(ValueError, match=message):
            VoteCounts.load(tmp_path / "forged.npz")
    with pytest.raises(ValueError, match="must hold"):
        clf.algorithm((4,)).certify(
            Votes(selection=forged.selection, estimation=forged.estimation, inputs=sound.inputs, seed=0), X[:1]
        )


def test_outcomes_of_deterministic_noise_are_complete():
    given = {"noise": DeterministicSplitNoise(1.0, levels=4), "classes": [0, 1], "n_features": 3}
    assert recertify(VoteCounts.from_counts([0], [[7, 1]], **given)).radii == [0.75]
    assert recertify(VoteCounts.from_counts([1], [[1, 7]], **given)).radii == [0.5]
    with pytest.raises(ValueError, match=r"estimation must hold the votes of all 8 outcomes of Determ.* input, got 9"):
        recertify(VoteCounts.from_counts([0], [[8, 1]], **given))
    with pytest.raises(ValueError, match="selection must choose the class that most outcomes vote for"):
        recertify(VoteCounts.from_counts([1], [[7, 1]], **given))
    with pytest.raises(ValueError, match=r"selection must choose .* ties to the lower index"):
        recertify(VoteCounts.from_counts([1], [[4, 4]], **given))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": [0, 0]}, "classes must be a list of distinct labels"),
        ({"selection": [2]}, "selection must hold classes or counts, got .*2"),
        ({"n_features": None}, "Give either X, the inputs, or n_features"),
        ({"X": X[:1]}, "Give either X, the inputs, or n_features"),
        ({"n_features": 0}, "n_features must be"),
        ({"noise": "splat"}, "noise must be one of"),
        ({"noise": SplitNoise(-1.0)}, "lam must"),
        ({"bounds": (1, 0)}, "bounds must be a pair"),
        ({"n_features": None, "X": X[:2]}, "inputs must hold a row for each of 1 inputs, got 2"),
    ],
)
def test_other_arguments_are_checked(changes, message):
    given = {"selection": [0], "estimation": [[9, 1]], "noise": "split", "classes": [0, 1], "n_features": 4}
    with pytest.raises(ValueError, match=message):
        VoteCounts.from_counts(**(given | changes))


class Copied(GaussianNoise):
    pass


def test_noise_of_ones_own_cannot_be_built_anew():
    votes = VoteCounts.from_counts([0], [[900, 100]], noise=Copied(), classes=[0, 1], n_features=4)
    assert issubclass(Copied, Noise)
    with pytest.raises(ValueError, match="is not one of smoothcert's own, so it cannot be built anew from votes"):
        recertify(votes)


def test_a_template_belongs_to_the_noise(tmp_path):
    noise = DeterministicSplitNoise(1.0, levels=50, template=np.arange(4))
    again = from_spec("noise", to_spec(noise))
    np.testing.assert_array_equal(again.template, noise.template)
    clf = smoothed(noise)
    path = tmp_path / "run.sqlite"
    expected = clf.certify(X, store=path)
    same(Certificates.from_store(path), expected)
    other = smoothed(DeterministicSplitNoise(1.0, levels=50, template=np.arange(4)[::-1]))
    with pytest.raises(ValueError, match="noise: DeterministicSplitNoise"):
        other.certify(X, store=path)
    with pytest.raises(ValueError, match="votes were drawn with a different noise"):
        other.certify(X, votes=clf.count_votes(X))


def test_inputs_in_other_units_than_the_box_warn():
    images = np.random.default_rng(0).random((2, 4)) * 255
    given, message = {"noise": "split", "classes": [0, 1], "X": images}, "X ranges from .* and was clipped"
    with pytest.warns(UserWarning, match=message):
        votes = VoteCounts.from_counts([0, 1], [[90, 10], [10, 90]], **given)
    with pytest.warns(UserWarning, match=message):
        recertify(votes, X=images)
