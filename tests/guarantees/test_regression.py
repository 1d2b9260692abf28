"""Wrong variants of certified regression, each of which the suite must catch; and independence of both stages."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from smoothcert import LipschitzRadius
from smoothcert.certify import quantiles
from smoothcert.certify.strategy import RadiusStrategy
from smoothcert.sampling.values import ValueSampler

from .regression import LinearProblem
from .suite import ALPHA, failures, run

MUTANTS = {}


def mutant(**only):
    """Register a way to break the library, and the kinds of certificates that should suffer."""
    return lambda break_it: MUTANTS.setdefault(break_it.__name__, (break_it, only))


@mutant(noise="linear", strategy="greedy")
def bounds_at_the_quantile_itself(patch):
    patch.setattr(quantiles, "smallest_overlap", lambda strategy, mechanism, X, radius, **known: np.ones(radius.shape))


@mutant(noise="uniform, 8-bit", strategy="box")
def overlap_of_a_move_half_as_far(patch):
    original = quantiles.smallest_overlap
    patch.setattr(quantiles, "smallest_overlap", lambda *given, **known: original(*given[:-1], given[-1] / 2, **known))


@mutant(noise="uniform, 8-bit", strategy="box")
def overlap_of_the_greedy_walk_to_the_near_face(patch):
    patch.setattr(RadiusStrategy, "reach", lambda self, noise, down, up: np.where(np.minimum(down, up) > 0, 0.25, 0.0))
    patch.setattr("smoothcert.certify.radius.BoxRadius.reach", RadiusStrategy.reach)


@mutant(noise="split, 8-bit", strategy="lipschitz")
def a_margin_in_place_of_what_the_quantile_can_lose(patch):
    original = quantiles.certified_radii

    def certified_radii(strategy, mechanism, X, p_a, p_b, **options):
        lost = p_a - 0.5
        return original(strategy, mechanism, X, 0.5 + np.minimum(2 * lost, 0.5), 0.5 - np.minimum(2 * lost, 0.5))

    patch.setattr(quantiles, "certified_radii", certified_radii)


@mutant(noise="linear", strategy="greedy")
def bounds_from_the_selection_votes(patch):
    original = ValueSampler.draw

    def draw(self, X, target=None):
        votes = original(self, X, target)
        repeated = np.repeat(votes.selection, -(-self.n_samples // self.n_selection), axis=1)
        return replace(votes, estimation=repeated[:, : self.n_samples])

    patch.setattr(ValueSampler, "draw", draw)


@mutant(noise="linear", strategy="lipschitz")
def ranks_without_confidence(patch):
    patch.setattr(quantiles, "lower_rank", lambda p, bounds: np.clip(p * len(bounds), 0, None).astype(int))


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suite_catches(name, monkeypatch):
    break_it, only = MUTANTS[name]
    assert not failures(run(3, n_problems=10, n_inputs=60, mode="regression", **only))
    break_it(monkeypatch)
    assert failures(run(3, n_problems=10, n_inputs=60, mode="regression", **only))


def false_radii(n_inputs):
    """Return how many radii within a tolerance are false, for a linear model under uniform noise."""
    problem = LinearProblem(1.0, 4096, 2048, None, 0.5, LipschitzRadius())
    reg = problem.regressor(alpha=ALPHA, n_selection=160, n_samples=160, random_state=1)
    X, tolerance = problem.inputs(n_inputs, np.random.default_rng(0)), 0.24
    X[:, 1:] = np.random.default_rng(0).integers(4097, size=(n_inputs, 4)) / 4096
    predictions, radii = reg.certify_within(X, tolerance)
    far = np.abs(problem.true_quantile(2048) - predictions) + np.nan_to_num(radii, nan=-9.0)
    return int((far > tolerance + 1 / 4096).sum())


def simulated(same, n=160, n_inputs=20_000):
    """Return the share of false radii where both stages are independent, or the same, by the formulas alone."""
    rng, bounds = np.random.default_rng(0), np.append(quantiles.upper_bounds(n, ALPHA / 2), 1.0)
    votes = rng.random((n_inputs, n))
    selection = votes if same else rng.random((n_inputs, n))
    low = np.quantile(selection, 0.5, axis=1, method="inverted_cdf") - 0.12
    high = low + 0.24
    below, above = (votes < low[:, None]).sum(axis=1), (votes > high[:, None]).sum(axis=1)
    lost = 0.5 - np.maximum(bounds[below], bounds[above])
    return np.mean((lost > 0) & ((low > 0.5 - lost) | (1 - high > 0.5 - lost)))


def test_the_center_and_the_bounds_come_from_separate_votes(monkeypatch):
    """False radii stay below alpha even where they do not: what tells is their share, known from a simulation."""
    n_inputs, independent, same = 600, simulated(same=False), simulated(same=True)
    assert 5 * independent < same < ALPHA
    allowed = binom.isf(1e-6, n_inputs, independent)
    assert false_radii(n_inputs) <= allowed
    original = ValueSampler.draw

    def draw(self, X, target=None):
        votes = original(self, X, target)
        return replace(votes, selection=votes.estimation)

    monkeypatch.setattr(ValueSampler, "draw", draw)
    assert false_radii(n_inputs) > allowed
