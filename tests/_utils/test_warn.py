"""Tests of warnings that point at the caller."""

import threading
import warnings

import numpy as np
import pytest
import sklearn.pipeline
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from smoothcert import SmoothedClassifier, UniformNoise
from smoothcert._utils.warn import warn

X, Y = np.linspace(0, 1, 200).reshape(100, 2), np.repeat([0, 1], 50)


def test_the_line_that_called_fit_is_named():
    clf = SmoothedClassifier(DummyClassifier(), UniformNoise(1.0))
    with pytest.warns(UserWarning, match="predicts 0 for all") as caught:
        clf.fit(X, Y)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="predicts 0 for all") as caught:
        make_pipeline(FunctionTransformer(), clf).fit(X, Y)
    assert caught[0].filename == sklearn.pipeline.__file__


def test_threads_of_the_library_alone_may_warn():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=warn, args=("a thread warns",))
        thread.start()
        thread.join()
    assert [str(one.message) for one in caught] == ["a thread warns"]
