"""Labels as indices, for estimators that take nothing else."""

import numpy as np
from sklearn.naive_bayes import GaussianNB

from smoothcert.models.columns import Columns, NamedColumns
from smoothcert.training.labels import IndexedLabels, indexed

from .problems import Seen, X, Y


def test_labels_by_index():
    columns = Columns(("a", "b"), "pandas")
    wrapped = indexed(NamedColumns(Seen(), columns))
    assert (type(wrapped), type(wrapped.estimator), wrapped.columns) == (NamedColumns, IndexedLabels, columns)
    assert type(indexed(Seen())) is IndexedLabels
    fitted = IndexedLabels(Seen()).fit(X, Y, eval_set=[(X, Y[:3])], y_val=["yes"], weight=[4])
    assert fitted.estimator.params_["eval_set"][0][1].tolist() == [1, 2, 0]
    assert fitted.estimator.params_["eval_set"][0][0] is X
    assert fitted.estimator.params_["y_val"].tolist() == [2]
    assert fitted.estimator.params_["weight"] == [4]
    fitted.estimator.predict = lambda X: np.array([2.0, 0.0])
    assert fitted.predict(X).tolist() == ["yes", "maybe"]
    assert not hasattr(fitted, "predict_proba")


def test_probabilities_are_in_the_order_of_the_labels():
    X, y = np.array([[0.0], [1.0], [2.0]] * 5), np.array(["yes", "maybe", "no"] * 5)
    probabilities = IndexedLabels(GaussianNB()).fit(X, y).predict_proba(X[:3])
    np.testing.assert_array_equal(probabilities, GaussianNB().fit(X, y).predict_proba(X[:3]))
    assert probabilities.argmax(axis=1).tolist() == [2, 0, 1]
