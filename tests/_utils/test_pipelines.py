"""The last step of a pipeline, and its inputs."""

import numpy as np
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from smoothcert._utils.pipelines import last_step


def test_the_last_step_of_a_pipeline_and_its_inputs():
    double, shift = FunctionTransformer(lambda X: 2 * X), FunctionTransformer(lambda X: X + 1)
    last = GaussianNB()
    one, two = np.ones(2), np.zeros(2)
    found = last_step(make_pipeline(double, make_pipeline(shift, last)), one, two)
    assert found[0] is last
    assert [list(X) for X in found[1:]] == [[3, 3], [1, 1]]
    assert last_step(Pipeline([("a", last)]), one)[1] is one
    assert last_step(last, one) == (last, one)
