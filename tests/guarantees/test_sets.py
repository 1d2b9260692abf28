"""Prediction sets against the truth, and wrong variants of the library that the counts must catch."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from smoothcert import GreedyRadius, SmoothedConformalClassifier
from smoothcert import conformal as module
from smoothcert.certify import conformal_sets
from smoothcert.certify.reach import smallest_overlap
from smoothcert.sampling.scores import ScoreCounter

from .sets import CONFIDENCE, KINDS, Problem, run_sets, table

MUTANTS = {}


def mutant(only, n_splits=20):
    """Register a way to break the library, and the kinds of sets that should suffer."""
    return lambda break_it: MUTANTS.setdefault(break_it.__name__, (break_it, only, n_splits))


@mutant("one-sample, uniform, 8-bit")
def level_that_is_not_raised(patch):
    original = conformal_sets.set_rule
    patch.setattr(module, "set_rule", lambda *args, **params: replace(original(*args, **params), level=Fraction(1, 5)))


@mutant("one-sample, places", 40)
def level_by_the_overlap_of_each_input(patch):
    original = SmoothedConformalClassifier.predict_set

    def predict_set(self, X):
        algorithm = self.algorithm(X.shape[1:])
        radius, found = np.full(len(X), self.radius), np.empty((len(X), 2), dtype=bool)
        overlap = smallest_overlap(GreedyRadius(), algorithm.mechanism, X, radius)
        for value in np.unique(overlap):
            rule = replace(self._rule(algorithm), level=Fraction(1 / 5) - Fraction(1 - value))
            self.threshold_ = rule.threshold(self.calibration_scores_)
            found[overlap == value] = original(self, X[overlap == value])
        return found

    patch.setattr(SmoothedConformalClassifier, "predict_set", predict_set)


@mutant("one-sample, uniform, 8-bit", 60)
def smallest_threshold_of_several_subsets(patch):
    """The calibration data choose among the thresholds that they make."""
    original, rng = conformal_sets.SetRule.threshold, np.random.default_rng(0)

    def threshold(self, scores):
        return min(original(self, rng.permutation(scores)[: len(scores) // 4]) for _ in range(30))

    patch.setattr(conformal_sets.SetRule, "threshold", threshold)


@mutant("one-sample, uniform, 8-bit")
def calibration_on_half_of_the_labels(patch):
    """Those that fit best, as if the model had been trained on them."""
    original = conformal_sets.SetRule.threshold
    patch.setattr(
        conformal_sets.SetRule, "threshold", lambda self, scores: original(self, np.sort(scores)[: len(scores) // 2])
    )


@mutant("binarized, lipschitz", 8)
def copies_that_are_never_lost(patch):
    patch.setattr(conformal_sets.SetRule, "holds", lambda self, counts, overlap: counts >= self.rank)


@mutant("binarized, upwards", 8)
def limits_that_are_not_turned_round(patch):
    patch.setattr(module, "way_back", lambda strategy: strategy)


@mutant("binarized, greedy", 8)
def overlap_within_half_the_radius(patch):
    patch.setattr(module, "smallest_overlap", lambda s, m, X, radius: smallest_overlap(s, m, X, radius / 2))


def test_no_kind_of_set_misses_more_labels_than_promised():
    """The short version of ``python -m tests.guarantees``."""
    rows = [*run_sets(1, n_splits=12, only="uniform, 8-bit"), *run_sets(1, n_splits=12, only="upwards")]
    assert not [row for row in rows if row.fails]
    assert rows[0].missed >= 0.75 * (1 - CONFIDENCE) * rows[0].tried, "the base model is not the worst"
    assert table(rows).count("|") == 6 * (2 + len(rows))


@pytest.mark.slow
@pytest.mark.parametrize("only", ["one-sample", "binarized"])
def test_no_kind_of_set_misses_more_labels_than_promised_in_more_splits(only):
    rows = run_sets(2, n_splits=8, only=only)
    assert not [row for row in rows if row.fails]
    assert {row.kind for row in rows} == {kind for kind in KINDS if only in kind}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_counts_catch(name, monkeypatch):
    break_it, only, n_splits = MUTANTS[name]
    break_it(monkeypatch)
    (row,) = run_sets(5, n_splits=n_splits, only=only)
    assert row.fails, row


def test_calibration_and_later_inputs_have_noise_of_separate_stages(monkeypatch):
    """An adversary who moves an input onto one of the calibration data must not meet its noise again."""
    keys, copies, original = [], [], ScoreCounter.__init__

    def init(self, voter, sampler, points, key, copy, labels):
        keys.append(key)
        copies.append(copy.tolist())
        original(self, voter, sampler, points, key, copy, labels)

    monkeypatch.setattr(ScoreCounter, "__init__", init)
    clf = Problem("one-sample, uniform, 8-bit").clf
    X = np.array([[0.0, 0.0, 0.5]] * 20)
    clf.set_params(random_state=0).conformalize(X, np.zeros(20, dtype=int)).predict_set(X[:2])
    assert (copies[0], copies[-1]) == (list(range(20)), [0, 0])
    assert (keys[0][:1] == keys[0]).all()
    assert (keys[-1][:1] != keys[0][:1]).any()
    assert len(set(clf.calibration_scores_)) > 10
