"""Wrong variants of the library, each of which the guarantee suite must catch: else it would prove nothing."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from smoothcert import GaussianNoise
from smoothcert.certify import algorithm, betting, changes, evidence, radius, reach, stopping
from smoothcert.certify import binomial as bounds
from smoothcert.certify.radius import GreedyRadius, LipschitzRadius
from smoothcert.noise import categories, deterministic, mechanism, mixed_features, mixture, seeding
from smoothcert.noise import greedy as calculus
from smoothcert.noise import lattice as noise
from smoothcert.sampling import _trees, exact
from smoothcert.sampling.sampler import Sampler

from ..noise import reference
from .suite import failures, run

MUTANTS = {}

#: Problems and certificates that a mutant is tried on; rare errors take more of them.
SIZES = {
    "fixed": {"n_problems": 10, "n_inputs": 300},
    "bonferroni_forgotten": {"n_problems": 30, "n_inputs": 300},
    # As few as in test_guarantees.py.
    "fixed_column_noised": {"n_inputs": 30},
    "threshold_in_float64": {"n_inputs": 30},
    "noisy_values_of_columns_not_rounded": {"n_inputs": 30},
    "rtol": {"n_problems": 4, "n_inputs": 150},
    "certify_at": {"n_problems": 4, "n_inputs": 400},
}


def mutant(**only):
    """Register a way to break the library, and the kinds of certificates that should suffer."""
    return lambda break_it: MUTANTS.setdefault(break_it.__name__, (break_it, only))


@mutant(noise="uniform, tie", scheme="binary", bound="clopper-pearson", mode="fixed")
def class_from_the_estimation_counts(patch):
    original = Sampler.draw

    def draw(self, X, target=None):
        votes = original(self, X, target)
        return replace(votes, selection=votes.estimation)

    patch.setattr(Sampler, "draw", draw)


@mutant(noise="uniform, tie", scheme="binary", bound="clopper-pearson", mode="fixed")
def margin_from_the_selection_counts(patch):
    original = Sampler.draw

    def draw(self, X, target=None):
        votes = original(self, X, target)
        return replace(votes, estimation=votes.selection)

    patch.setattr(Sampler, "draw", draw)


@mutant(noise="uniform, tie", scheme="binary", bound="clopper-pearson", mode="fixed")
def stages_that_share_their_noise(patch):
    original = Sampler.draw
    patch.setattr(seeding, "ESTIMATION", seeding.SELECTION)
    patch.setattr(Sampler, "draw", lambda self, X, target=None: original(replace(self, n_selection=160), X, target))


@mutant(noise="uniform, 8-bit", strategy="greedy", mode="exact")
def reach_to_the_near_face(patch):
    patch.setattr(GreedyRadius, "reach", lambda self, noise, down, up: np.minimum(down, up))


@mutant(noise="uniform, 8-bit", strategy="greedy", mode="fixed", bound="clopper-pearson")
def reach_to_the_near_face_of_sampled_certificates(patch):
    patch.setattr(GreedyRadius, "reach", lambda self, noise, down, up: np.minimum(down, up))


@mutant(noise="uniform, wide", mode="fixed", bound="clopper-pearson")
def offsets_by_a_modulo(patch):
    words = reference.offsets

    def offsets(key, first, count, n_features, n_offsets):
        return words(key, first, count, n_features, 2**32) % np.uint32(n_offsets)

    patch.setattr(reference, "offsets", offsets)
    patch.setattr("smoothcert.noise._cpu.sample", reference.sample)


@mutant(noise=("uniform, 8-bit", "split, 8-bit"), mode="exact")
def radius_rounded_up(patch):
    original = reach.certified_radii
    patch.setattr("tests.guarantees.suite.certified_radii", lambda *args: np.ceil(original(*args) * 255) / 255)


@mutant(noise=("uniform, 8-bit", "split, 8-bit"), mode="exact")
def errors_added_where_they_should_be_taken_off(patch):
    for module in (calculus, radius, reach, mixture):
        patch.setattr(module, "STEP_ERROR", -module.STEP_ERROR)


@mutant(noise=("deterministic-split", "deterministic-split, narrow"))
def steps_rounded_up(patch):
    def inverse_cost(self, spent):
        return np.ceil(np.asarray(spent) * self.n_offsets) / self.q

    patch.setattr(deterministic.DeterministicSplitNoise, "inverse_cost", inverse_cost)


@mutant(noise=("deterministic-split", "deterministic-split, narrow"))
def ties_forgotten(patch):
    def shares(counts, top):
        rivals = counts.copy()
        rivals[np.arange(len(counts)), top] = 0
        n = counts.sum(axis=1)
        return counts[np.arange(len(counts)), top] / n, rivals.max(axis=1) / n

    patch.setattr(algorithm, "exact_probabilities", shares)


@mutant(noise="uniform, three classes", scheme="multiclass", mode="fixed")
def bonferroni_forgotten(patch):
    original = algorithm.class_probabilities

    def bound(counts, top, *, alpha, **rest):
        return original(counts, top, alpha=alpha if counts.shape[1] < 3 else 2 * alpha, **rest)

    patch.setattr(algorithm, "class_probabilities", bound)


@mutant(noise="uniform, 8-bit", strategy="greedy", mode="fixed", bound="clopper-pearson")
def two_sided_levels(patch):
    original = bounds.clopper_pearson
    patch.setitem(bounds.BOUNDS, "clopper-pearson", lambda k, n, alpha: original(k, n, 2 * alpha))


@mutant(noise="uniform, 8-bit", strategy="lipschitz", mode="fixed", bound="clopper-pearson")
def frequencies_for_bounds(patch):
    patch.setitem(bounds.BOUNDS, "clopper-pearson", lambda k, n, alpha: np.asarray(k) / n)


@mutant(noise="uniform, 8-bit", strategy="greedy", mode="exact")
def cost_with_lam_for_2_lam(patch):
    def cost(self, z):
        with np.errstate(divide="ignore"):
            return -np.log1p(-np.minimum(z / self.effective_lam, 1.0))

    patch.setattr(noise.LatticeNoise, "cost", cost)
    patch.setattr(
        noise.LatticeNoise, "inverse_cost", lambda self, spent: -self.effective_lam * np.expm1(-np.asarray(spent))
    )


@mutant(noise="uniform, 8-bit", strategy="greedy", mode="exact")
def budget_of_the_whole_margin(patch):
    patch.setattr(noise.LatticeNoise, "budget", lambda self, p_a, p_b: -np.log1p(-np.minimum(p_a - p_b, 1 - 1e-9)))


@mutant(noise="uniform, 8-bit", strategy="greedy, upwards", mode="exact")
def limits_swapped(patch):
    original = GreedyRadius._limits
    patch.setattr(GreedyRadius, "_limits", lambda self: original(self)[::-1])


@mutant(noise="uniform-mixture", strategy=("box", "greedy"), mode="exact")
def mixture_taken_for_its_widest_part(patch):
    def walk(self, budget, reach):
        return noise.UniformNoise(max(self.lams), self.levels).walk(budget, reach)

    patch.setattr(mixture.UniformMixtureNoise, "walk", walk)


@mutant(noise="gaussian, real", strategy=("box", "greedy"), mode="exact")
def gaussian_lead_not_halved(patch):
    budget = GaussianNoise.budget
    patch.setattr(GaussianNoise, "budget", lambda self, p_a, p_b: 4 * budget(self, p_a, p_b))


@mutant(noise="uniform, tie", mode="certify_at")
def evidence_of_a_fifth_of_1_over_alpha(patch):
    original = evidence.rejected
    patch.setattr(
        evidence,
        "rejected",
        lambda selection, estimation, required, alpha, **rest: original(
            selection, estimation, required, min(5 * alpha, 0.999), **rest
        ),
    )


@mutant(noise="uniform, tie", mode="certify_at")
def a_new_level_at_each_look(patch):
    """Clopper and Pearson's bound at every look, as if it were the only one."""

    def robust(selection, estimation, required, *, alpha, strongest_rival, cap):
        k_a = estimation[np.arange(len(estimation)), selection.argmax(axis=1)]
        return bounds.clopper_pearson(k_a, estimation.sum(axis=1), alpha) > required

    for module in (stopping, algorithm):
        patch.setattr(module, "certified_at", robust)


@mutant(noise="uniform, 8-bit", strategy="lipschitz", mode="rtol")
def confidence_sequence_taken_for_one_look(patch):
    def bound(k, n, alpha, a, b):
        return np.asarray(k) / np.asarray(n)

    patch.setattr(evidence, "anytime_lower_bound", bound)
    assert betting.anytime_lower_bound is not bound


@mutant(noise=("uniform, 8-bit", "uniform, real"), mode="exact")
def box_map_with_half_the_width(patch):
    original = mechanism.NoiseMechanism.room
    patch.setattr(mechanism.NoiseMechanism, "room", lambda self, X: tuple(side / 2 for side in original(self, X)))


@mutant(noise="uniform, 8-bit", strategy=("lipschitz", "greedy"), mode="exact")
def lam_not_rounded_to_the_lattice(patch):
    patch.setattr(noise.LatticeNoise, "effective_lam", property(lambda self: 1.01 * self.lam))


@mutant(noise=("uniform, dear categories", "split, dear categories"), strategy="greedy", mode="exact")
def changes_of_categories_for_free(patch):
    patch.setattr(categories.CategoryNoise, "moves", property(lambda self: 0 * self.costs))


@mutant(noise=("uniform, costs off the lattice", "split, costs off the lattice"), strategy="greedy", mode="exact")
def walk_with_the_largest_lam(patch):
    def effective_lam(self):
        return max(self.lam_of(*group) for group in self._groups)

    patch.setattr(noise.LatticeNoise, "effective_lam", property(effective_lam))


@mutant(noise=("uniform, levels off the lattice", "split, levels off the lattice"), strategy="greedy", mode="exact")
def lattices_of_columns_forgotten_in_lam(patch):
    patch.setattr(noise.LatticeNoise, "effective_lam", property(lambda self: self.lam))


@mutant(noise=("uniform, costs", "split, categories, masked"), strategy="greedy", mode="fixed", bound="clopper-pearson")
def fixed_column_noised(patch):
    original = mixed_features.MixedNoise.sample

    def sample(self, points, keys, segments, out):
        original(self, points, keys, segments, out)
        drawn = np.empty((len(out), len(self.fixed)))
        noise.UniformNoise(1.0, levels=4).sample(np.zeros((len(points), len(self.fixed))), keys, segments, drawn)
        out[:, self.fixed] += drawn

    patch.setattr(mixed_features.MixedNoise, "sample", sample)


@mutant(noise=("uniform, tree", "split, tree"))
def threshold_in_float64(patch):
    def compared(self, rows):
        for step in self.steps:
            rows = step.transform(rows)
        return np.asarray(rows, dtype=np.float64)

    patch.setattr(_trees.StepModel, "compared", compared)
    # The library compares what it has read of a model with some of its votes. The suite must not need that.
    patch.setattr(exact.ExactVotes, "_check_reading", lambda self, row: None)


@mutant(noise=("uniform, tree", "split, tree"))
def noisy_values_of_columns_not_rounded(patch):
    patch.setattr(exact.ExactVotes, "_check_reading", lambda self, row: None)
    original = exact.ExactVotes._rows

    def rows(self, n, places=(0, []), steps=exact.NO_STEPS):
        whole, self.whole = self.whole, np.zeros_like(self.whole)
        found = original(self, n, places, steps * np.where(whole, self.q, 1)[places[1]])
        self.whole = whole
        return found

    patch.setattr(exact.ExactVotes, "_rows", rows)


@mutant(noise=("uniform, costs", "split, costs"), strategy=("box", "greedy"), mode="exact")
def costs_forgotten_in_reaches(patch):
    patch.setattr(mechanism.NoiseMechanism, "costs", property(lambda self: 1.0 * self.features.numeric))


@mutant(noise=("uniform, dear categories", "split, dear categories"), strategy="greedy", mode="exact")
def categories_that_cannot_change(patch):
    original = changes.Changes.within

    def within(self, strategy, budget, reaches):
        self.sets = self.sets[:1]
        return original(self, strategy, budget, reaches)

    patch.setattr(changes.Changes, "within", within)


@mutant(noise="uniform, 8-bit", strategy="lipschitz", mode="exact")
def only_the_first_feature_counts(patch):
    patch.setattr(LipschitzRadius, "within", lambda self, noise, budget, reach: noise.inverse_cost(budget) * 1.001)


@mutant(noise=("uniform, 8-bit", "split, real", "gaussian, real"), strategy="l-inf", mode="exact")
def one_moved_feature_too_few(patch):
    within = LipschitzRadius.within
    patch.setattr(LipschitzRadius, "within", lambda self, noise, *rest: within(self, noise, rest[0], rest[1][:, 1:]))


@mutant(noise="uniform, 8-bit", strategy="greedy, max_features", mode="exact")
def one_feature_too_few_for_the_adversary(patch):
    within = GreedyRadius.within
    patch.setattr(GreedyRadius, "within", lambda self, noise, *rest: within(self, noise, rest[0], rest[1][:, 1:]))


@cache
def unbroken_passes(**only):
    """Tell whether the library passes as it is; several mutants ask about the same certificates."""
    return not failures(run(5, **only))


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_suite_catches(name, monkeypatch):
    break_it, only = MUTANTS[name]
    size = SIZES.get(name, SIZES.get(only.get("mode"), {}))
    assert unbroken_passes(**size, **only)
    break_it(monkeypatch)
    changes.changes_of.cache_clear()
    found = failures(run(5, **size, **only))
    changes.changes_of.cache_clear()
    assert found


def test_evidence_must_outweigh_what_is_bet():
    """The suite cannot see a factor of 2: bets leave about half of what they may spend."""
    selection, required = np.repeat([[28, 4]], 101, axis=0), np.full(101, 0.7)
    counts = np.column_stack([np.arange(100, 201), np.arange(100, -1, -1)])
    duels = [evidence.Duel.of(votes, np.zeros(101, dtype=int), strongest_rival=False) for votes in (selection, counts)]
    found = betting.log_e_value(duels[1].k_a, 200, required, 28.5, 4.5)
    rule = {"alpha": 0.01, "strongest_rival": False, "cap": 10_000}
    robust = evidence.certified_at(selection, counts, required, **rule)
    np.testing.assert_array_equal(robust, found >= -np.log(0.01 * evidence.BET))
    assert robust.any()
    assert not robust.all()
