"""One decision about the row of a table explained."""

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from smoothcert import GreedyRadius, RowChanges, SmoothedClassifier, UniformNoise
from smoothcert.attacks import Adversarials, GreedyFaceAttack

N = 40
DATA = {
    "age": [float(20 + i) for i in range(N)],
    "member": [i % 2 == 0 for i in range(N)],
    "job": [("clerk", "cook", "nurse")[i % 3] for i in range(N)],
    "id": [f"id {i}" for i in range(N)],
}
NAMES = ["age", "member", "job", "id"]


class Members(ClassifierMixin, BaseEstimator):
    """Says yes to members, and where a mask hides them to the old; checks that the columns are the user's."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        assert list(X.columns) == NAMES
        member = np.asarray(X["member"]).astype(int)
        return np.where((member == 1) | ((member == 2) & (np.asarray(X["age"]) > 24.5)), "yes", "no")


def smoothed(library=pd.DataFrame, **params):
    y = np.where(DATA["member"], "yes", "no")
    params = {"noise": UniformNoise(1.0), "n_samples": 400, "n_selection": 50, "random_state": 0} | params
    bounds, costs = {"age": (0, 100)}, {"member": 0.75, "job": 0.5, "age": 2.0, "id": "fixed"}
    clf = SmoothedClassifier(Members(), bounds=bounds, costs=costs, categorical_features=["member", "job"], **params)
    return clf.fit(library(DATA), y)


def of(changes, feature, column):
    return changes.columns[column][changes.columns["feature"].index(feature)]


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_the_worst_perturbation_in_the_values_of_the_user(library):
    clf = smoothed(library)
    row = library(DATA)[4:5]
    certificate = clf.certify(row)
    changes = RowChanges.from_estimator(clf, row, certificate=certificate)
    frame = changes.to_frame()
    assert list(frame.columns) == ["feature", "value", "reach", "cost", "to", "share"]
    assert sorted(frame["feature"]) == ["age", "job", "member"]
    assert [of(changes, name, "value") for name in ("age", "member", "job")] == [24.0, True, "cook"]
    assert [of(changes, name, "cost") for name in ("age", "member", "job")] == [2.0, 0.75, 0.5]
    # An age of 24 can rise to 100. A category has no distance.
    assert of(changes, "age", "reach") == pytest.approx(76, abs=1e-4)
    assert np.isnan(of(changes, "job", "reach"))
    assert frame["share"].sum() == pytest.approx(1)
    assert (np.diff(frame["share"]) <= 0).all()
    # What the changes cost adds up to the radius, which is below the reach of the age.
    radius = certificate.radii[0]
    paid = of(changes, "age", "to") / 50 - 24 / 50
    paid += 0.75 * (of(changes, "member", "to") is False) + 0.5 * (of(changes, "job", "to") != "cook")
    assert paid == pytest.approx(radius, abs=1e-6)
    assert of(changes, "member", "to") in (True, False)
    assert "alpha=0.001" in changes.note
    assert frame.attrs["note"] == changes.note
    assert "The label is yes" in repr(changes)
    assert "<table>" in changes._repr_html_()


def test_a_series_is_a_row():
    clf, X = smoothed(), pd.DataFrame(DATA)
    given, found = (RowChanges.from_estimator(clf, x).to_frame() for x in (X.iloc[[4]], X.iloc[4]))
    pd.testing.assert_frame_equal(given, found)


def test_how_many_columns_may_change_in_any_way():
    clf, row = smoothed(), pd.DataFrame(DATA).iloc[[4]]
    certificate = clf.certify(row)

    def safe(radius, **limits):
        limited = clf.set_params(radius=GreedyRadius(**limits))
        note = RowChanges.from_estimator(limited, row, certificate=replace(certificate, radii=np.array([radius]))).note
        return note.partition("\n")[2]

    # The reaches are 1.52 for the age, 0.75 and 0.5.
    assert safe(1.5199) == ""
    assert safe(1.5202) == "This row is safe against any change of any one of these columns."
    assert safe(2.2699) == "This row is safe against any change of any one of these columns."
    assert safe(2.2702) == "This row is safe against any change of any two of these columns."
    assert safe(2.7702) == "This row is safe against any change of these columns."
    assert safe(np.inf) == "This row is safe against any change of these columns."
    assert safe(np.inf, max_features=2) == "This row is safe against any change of any two of these columns."
    assert safe(0.8, max_change={"age": 0.1, "job": 0.5}) == (
        "This row is safe against any change within max_change of any one of these columns."
    )


def test_certificates_say_what_limits_make_safe():
    clf = smoothed(radius=GreedyRadius(max_features=1))
    certificates = clf.certify(pd.DataFrame(DATA)[4:7])
    assert certificates.threat.startswith("perturbations of any one feature, that leave column 'id' as it is")
    assert "safe against" not in repr(replace(certificates, radii=np.array([0.1, 2.0, np.nan])))
    assert ", 2 safe against all, alpha=" in repr(replace(certificates, radii=np.array([np.inf, 1.0, np.inf])))


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_an_attack_in_the_values_of_the_user(library):
    clf, X = smoothed(library), library(DATA)[4:6]
    found = GreedyFaceAttack(n_votes=200, random_state=0).minimal(clf, X)
    assert found.original.tolist() == ["yes", "no"]
    assert found.success.all()
    table = clf.to_table(found.inputs, X)
    assert isinstance(table, library)
    assert list(table["id"]) == ["id 4", "id 5"]
    if library is pd.DataFrame:
        assert table.index.tolist() == [4, 5]
        assert str(table.dtypes["member"]) == "bool"
    assert (clf.predict(table) != found.original).all()
    best = int(np.argmin(found.upper_bounds))
    changes = RowChanges.from_adversarials(clf, X[best : best + 1], found[[best]])
    assert list(changes.columns) == ["feature", "from", "to", "cost"]
    assert sum(changes.columns["cost"]) == pytest.approx(found.distance[best])
    assert set(changes.columns["feature"]) <= {"age", "member", "job"}
    for name in changes.columns["feature"]:
        assert [of(changes, name, "from"), of(changes, name, "to")] == [list(X[name])[best], list(table[name])[best]]
        assert of(changes, name, "from") != of(changes, name, "to")
    assert f"instead of {found.original[best]} at l1 distance" in repr(changes)
    failed = found.__class__(**{**vars(found), "success": np.zeros(2, dtype=bool)})
    with pytest.raises(ValueError, match="adversarials must be a single success"):
        RowChanges.from_adversarials(clf, X[:1], failed[[0]])


def test_worst_perturbations_are_tables_like_the_inputs():
    X = pd.DataFrame(DATA, index=[f"row {i}" for i in range(N)])
    clf = smoothed()
    perturbed = clf.worst_perturbations(X[:3], 0.25).perturbed
    assert perturbed.index.tolist() == ["row 0", "row 1", "row 2"]
    assert perturbed["id"].tolist() == ["id 0", "id 1", "id 2"]
    assert set(perturbed["job"]) <= {"clerk", "cook", "nurse"}
    assert perturbed["member"].dtype == bool
    clf.predict(perturbed)


def test_arrays_stay_arrays_and_have_places_for_names():
    clf = SmoothedClassifier.from_pretrained(
        lambda X: X[:, 0] > 0.5, [False, True], UniformNoise(0.5), n_samples=400, random_state=0
    )
    perturbed = clf.worst_perturbations([[0.9, 0.5]], 0.1).perturbed
    assert isinstance(perturbed, np.ndarray)
    changes = RowChanges.from_estimator(clf, [0.9, 0.5])
    assert set(changes.columns["feature"]) == {"feature 0", "feature 1"}
    with pytest.raises(ValueError, match=r"x must be one row of a table, .*got shape \(2, 2\)"):
        RowChanges.from_estimator(clf, np.zeros((2, 2)))
    with pytest.raises(ValueError, match='radius must be "greedy"'):
        RowChanges.from_estimator(clf.set_params(radius="lipschitz"), [0.9, 0.5])


def test_the_plot_shows_the_values_before_and_after():
    pytest.importorskip("matplotlib").use("agg")
    columns = {"feature": ["age", "job"], "from": [24.0, "cook"], "to": [31.5, "clerk"], "cost": [0.2, 0.1]}
    ax = RowChanges(columns, "").plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["age: 24 → 31.5", "job: cook → clerk"]
    assert [bar.get_width() for bar in ax.patches] == [0.2, 0.1]
    assert ax.get_xlabel() == "cost"
    many = {
        "feature": [str(i) for i in range(25)],
        "value": [2 / 3] * 25,
        "to": [2 / 3] * 25,
        "share": [0.25] * 24 + [0.0],
    }
    ax = RowChanges(many, "").plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"{i}: 0.666667 → 0.666667" for i in range(20)]
    assert len(ax.patches) == 20
    few = RowChanges({name: values[-2:] for name, values in many.items()}, "").plot()
    assert [label.get_text() for label in few.get_yticklabels()] == ["23: 0.666667 → 0.666667", "24: 0.666667"]


@pytest.fixture
def plain():
    """A classifier of numbers from 0 to 10 and from -1 to 1, of costs 1/2 and 2, and a constant."""
    return SmoothedClassifier.from_pretrained(
        lambda X: X[:, 0] > 5,
        [False, True],
        UniformNoise(1.0),
        bounds=([0, -1, 3], [10, 1, 3]),
        costs=[0.5, 2.0, 1.0],
        n_samples=400,
        random_state=0,
    )


def test_what_an_attack_has_changed_costs_and_notes(plain):
    """The row lies outside the box, and is attacked from its face."""
    found = Adversarials(
        inputs=np.array([[5.0, 0.5, 3.0]]), distance=np.array([0.750001]), original=np.array([True]),
        labels=np.array([False]), success=np.array([True]), n_queries=np.array([9]), alpha=0.01,
    )  # fmt: skip
    changes = RowChanges.from_adversarials(plain, [12.0, 0.0, 3.0], found)
    assert changes.columns["feature"] == ["feature 1", "feature 0"]
    assert changes.columns["to"] == [0.5, 5.0]
    assert changes.columns["cost"] == [0.5, 0.25]
    assert changes.note == "The label is False instead of True at l1 distance 0.7501 from this row, alpha=0.01."


def test_reaches_are_in_raw_units_and_a_radius_of_0_moves_nothing(plain):
    certificate = replace(plain.certify([[10.0, 0.5, 3.0]]), radii=np.array([0.0]), alpha=0.25, threat="any pixel")
    changes = RowChanges.from_estimator(plain, [10.0, 0.5, 3.0], certificate=certificate)
    assert changes.note == "The label is True within l1 radius 0 of this row, against any pixel, alpha=0.25."
    columns = dict(zip(changes.columns["feature"], zip(*[*changes.columns.values()][1:], strict=True), strict=True))
    assert set(columns) == {"feature 0", "feature 1"}
    np.testing.assert_allclose(columns["feature 0"], [10, 10, 0.5, 10, 0], atol=1e-4)
    np.testing.assert_allclose(columns["feature 1"], [0.5, 1.5, 2.0, 0.5, 0], atol=1e-4)
    wide = replace(certificate, radii=np.array([0.299999]))
    changes = RowChanges.from_estimator(plain, [10.0, 0.5, 3.0], certificate=wide)
    assert changes.note.startswith("The label is True within l1 radius 0.2999 of this row")
    # Most reach has the second feature, 1.5 of 2 at a cost of 2.
    assert changes.columns["feature"] == ["feature 1", "feature 0"]
    assert changes.columns["share"] == pytest.approx([1, 0])
    assert changes.columns["to"] == pytest.approx([0.200001, 10.0], abs=1e-6)


def test_the_label_stands_within_the_radius():
    X = pd.DataFrame({"job": ["clerk", "nurse"] * 20, "smokes": [True, True, False, False] * 10})
    base = make_pipeline(OneHotEncoder(), DecisionTreeClassifier(random_state=0))
    costs = {"job": 0.9, "smokes": 0.4}
    clf = SmoothedClassifier(base, "uniform", costs=costs, categorical_features=["job", "smokes"], random_state=0)
    radius = clf.fit(X, X["job"]).certify(X[:1]).radii
    # The radius ends just below the cost of the other job, which is the other label.
    assert 0.9 - 1e-9 < radius < 0.9
    found = clf.worst_perturbations(X[:1], radius)
    assert found.moves.tolist() == [[0.0, 0.4]]
    assert clf.predict(found.perturbed) == ["clerk"]
    assert clf.worst_perturbations(X[:1], 0.9).perturbed["job"].tolist() == ["nurse"]
    assert RowChanges.from_estimator(clf, X[:1]).note.count("\n") == 0
