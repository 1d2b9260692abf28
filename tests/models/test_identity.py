"""The content of a model is the same where nothing was learnt anew, and "?" where it cannot be seen."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from smoothcert.models.adapt import make_voter
from smoothcert.models.identity import content_of, content_of_tensors

from ..processes import run_python

X, Y = load_iris(return_X_y=True)


def pipeline():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


@pytest.mark.parametrize(
    "make", [pipeline, GaussianNB, lambda: RandomForestClassifier(5, random_state=0), LogisticRegression]
)
def test_equal_fits_have_equal_content_and_other_fits_another(make):
    first, second, other = make().fit(X, Y), make().fit(X, Y), make().fit(X[::2], Y[::2])
    assert content_of(first) == content_of(second) != "?"
    assert content_of(first) != content_of(other)


def test_a_number_that_changes_in_the_last_bit_is_seen():
    forest, model = RandomForestClassifier(3, random_state=0).fit(X, Y), pipeline().fit(X, Y)
    before = content_of(forest), content_of(model)
    forest.estimators_[2].tree_.threshold[0] = np.nextafter(forest.estimators_[2].tree_.threshold[0], 9)
    model[1].coef_[2, 3] = np.nextafter(model[1].coef_[2, 3], 9)
    assert content_of(forest) != before[0]
    assert content_of(model) != before[1]


def test_content_is_the_same_in_another_process(tmp_path):
    models = [RandomForestClassifier(5, random_state=0).fit(X, Y), pipeline().fit(X, Y)]
    joblib.dump(models, tmp_path / "models")
    script = f"""
import joblib
from smoothcert.models.identity import content_of, content_of_tensors
print(*map(content_of, joblib.load({str(tmp_path / "models")!r})))
"""
    assert run_python(script).split() == [content_of(model) for model in models]


@pytest.mark.parametrize(
    "model",
    [
        KNeighborsClassifier(algorithm="kd_tree").fit(X, Y),
        make_pipeline(FunctionTransformer(lambda rows: rows), GaussianNB()).fit(X, Y),
        np.argmax,
    ],
    ids=["kd-tree", "function inside", "function"],
)
def test_what_is_opaque_has_no_content(model):
    assert content_of(model) == "?"


def test_content_of_a_module_is_that_of_its_tensors():
    def network():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)).eval()

    def content(module):
        return make_voter(module, np.arange(2)).content().split()[1]

    first, second = network(), network()
    scripted = torch.jit.trace(second, torch.zeros(1, 4))
    assert content(first) == content(network()) == content(scripted)
    second[1].running_mean[3] = 1e-9
    assert content(second) != content(first)
    assert content(torch.nn.Flatten()) == "?"


@pytest.mark.parametrize("name", ["children_left", "children_right", "feature", "threshold", "value"])
def test_everything_that_a_tree_decides_by_is_seen(name):
    forest = RandomForestClassifier(2, random_state=0).fit(X, Y)
    before, array = content_of(forest), getattr(forest.estimators_[1].tree_, name)
    array.flat[0] += 1
    assert content_of(forest) != before


def test_values_that_look_alike_are_told_apart():
    values = [
        np.array([1, 2]),
        np.array([1, 2], dtype=np.uint64),
        np.array([[1, 2]]),
        np.array([1, 2], dtype=object),
        [[1, 2], []],
        [[1], [2]],
        [1, 12],
        [11, 2],
        {"a": 1, "b": 2},
        {"a": 2, "b": 1},
        "1",
        b"1",
        1,
        1.0,
        True,
        None,
        int,
        LogisticRegression(),
        GaussianNB(),
        LogisticRegression(C=2.0),
    ]
    contents = [content_of(value) for value in values]
    assert len(set(contents)) == len(values)
    assert "?" not in contents
    assert content_of({"b": 2, "a": 1}) == content_of({"a": 1, "b": 2})
    assert content_of(np.arange(6)[::2]) == content_of(np.array([0, 2, 4]))
    nested = []
    nested.append(nested)
    assert content_of(nested) == content_of([object()]) == "?"


def test_content_of_tensors_has_their_type_and_shape():
    tensors = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(8, dtype=torch.int16), torch.ones(4)]
    contents = [content_of_tensors([one]) for one in tensors]
    assert len({*contents, content_of_tensors(tensors[:2]), content_of_tensors(tensors[1::-1])}) == 6
    assert content_of_tensors([torch.arange(6.0).reshape(2, 3).T]) == content_of_tensors(
        [torch.arange(6.0).reshape(2, 3).T.contiguous()]
    )
    assert content_of_tensors([torch.zeros(2, device="meta")]) == content_of_tensors([]) == "?"
