"""Text of values and numbers, some of which decides whether votes and certificates belong together."""

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from smoothcert import Certificates, GreedyRadius, SmoothedClassifier, SplitNoise, UniformMixtureNoise
from smoothcert._utils.text import describe, exact, in_words, qualified_name
from smoothcert.results.metrics import check_one_kind


def test_arrays_are_told_apart():
    long = np.linspace(0, 1, 3072)
    middle = long.copy()
    middle[1500] = 0
    near = long.copy()
    near[0] = 1e-300
    texts = {exact(value) for value in (long, middle, near, long.reshape(3, 1024), long.astype(np.float32))}
    assert len(texts) == 5
    assert exact(np.array([0.1])) != exact(np.array([0.1 + 1e-12]))
    assert exact(pd.Series(long)) != exact(pd.Series(middle))
    assert exact(np.zeros(100, np.int64)) != exact(np.zeros(100, np.uint64))
    assert exact((0.0, long)) == exact((np.float64(0.0), long.copy()))
    assert max(map(len, texts)) < 200


def test_votes_of_a_slightly_different_noise_are_refused():
    def bright(batch):
        return batch.mean(axis=1) > 0.5

    lams, weights = np.linspace(0.5, 1, 1100), np.full(1100, 1 / 1100)
    wide = lams.copy()
    wide[500:600] = 9.0
    X = np.full((2, 3), 0.9)
    classifiers = [
        SmoothedClassifier.from_pretrained(
            bright, [False, True], UniformMixtureNoise(some, weights), n_samples=100, random_state=0
        )
        for some in (lams, wide)
    ]
    votes = classifiers[0].count_votes(X)
    with pytest.raises(ValueError, match="drawn with a different noise"):
        classifiers[1].certify(X, votes=votes)


def test_certificates_against_different_limits_are_not_compared():
    limits = np.ones(3072)
    fewer = limits.copy()
    fewer[1000:2000] = 0
    named = {
        str(i): Certificates(
            labels=np.array([1]),
            radii=np.array([1.0]),
            abstained=np.array([False]),
            p_a=np.array([0.9]),
            p_b=np.array([0.1]),
            alpha=0.001,
            norm=1,
            threat=GreedyRadius(max_change=change).threat,
        )
        for i, change in enumerate([limits, fewer])
    }
    with pytest.raises(ValueError, match="must be of one kind"):
        check_one_kind(named)


def test_printing_options_change_nothing():
    strategy = GreedyRadius(max_change=np.array([0.123456789, 1.0]))
    text = describe(strategy)
    with np.printoptions(precision=2):
        assert describe(strategy) == text


def test_texts_of_small_values():
    assert exact([1, (2.5,), ()]) == "[1, (2.5,), ()]"
    assert exact((1, [])) == "(1, [])"
    assert exact(np.float64(0.1)) == "0.1"
    assert exact(np.array(["a", None], dtype=object)) == "array(['a', None])"
    assert exact(np.zeros(16)).startswith("array([0.0, 0.0")
    assert exact(np.arange(17)).startswith("array([0, ..., 16], shape=(17,), hash=")
    # Objects are told apart by what they are, and not by where they lie.
    words = [np.array([text, *"bcdefghijklmnopqrs"], dtype=object) for text in ("a" * 20, "".join(["a"] * 20), "x")]
    assert exact(words[0]) == exact(words[1]) != exact(words[2])
    assert exact(np.arange(34)[::2]) == exact(np.arange(0, 34, 2))
    assert "SplitNoise(lam=2.0" in exact([SplitNoise(2.0)])


def test_strategies_are_described_by_all_parameters():
    assert describe(GreedyRadius(max_features=2)).startswith("GreedyRadius(")
    assert "max_features=2" in describe(GreedyRadius(max_features=2))
    assert describe(Ridge(alpha=2.0)).startswith("sklearn.linear_model._ridge.Ridge(alpha=2.0, ")
    assert (qualified_name(SplitNoise()), qualified_name(PCA())) == ("SplitNoise", "sklearn.decomposition._pca.PCA")

    class Own(SplitNoise):
        pass

    assert qualified_name(Own()).endswith("test_strategies_are_described_by_all_parameters.<locals>.Own")


def test_numbers_in_words():
    assert [in_words(n) for n in (0, 1, 3, 10, 11)] == ["no", "one", "three", "ten", "11"]
