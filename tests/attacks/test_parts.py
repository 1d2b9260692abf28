"""The parts of attacks, against numbers found by hand."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import nn

from smoothcert import (
    Certificates,
    DeterministicSplitNoise,
    GaussianNoise,
    GreedyRadius,
    SmoothedClassifier,
    SplitNoise,
    UniformNoise,
)
from smoothcert.attacks import (
    Adversarials,
    AttackDisplay,
    CoordinateAttack,
    GradientAttack,
    GreedyFaceAttack,
)
from smoothcert.attacks.blackbox import face_moves
from smoothcert.attacks.target import Path, QueriesSpentError, Target, far_faces
from smoothcert.attacks.verification import Verifier, shown_different

from ..base_models import Rule, constant, steps


def smooth(base=None, noise=None, **params):
    base, noise = base or Rule(constant).fit(None, None), noise or UniformNoise(1.0)
    return SmoothedClassifier.from_pretrained(base, [0, 1], noise, **{"n_samples": 500, "random_state": 0} | params)


def attacked(x, clf=None, label=0, max_queries=1000, **params):
    clf = clf or smooth(**params)
    x = np.asarray(x, dtype=np.float64)
    return Target(clf.algorithm(x.shape), x, label, np.random.default_rng(0), max_queries, n_samples=100, clear=0.1)


def adversarials(distance, success, original=(0, 1, 0), **changes):
    n = len(distance)
    given = {"inputs": np.zeros((n, 2)), "distance": np.array(distance), "original": np.array(original[:n])}
    given |= {"labels": np.ones(n, dtype=int), "success": np.array(success), "n_queries": np.arange(n) * 100}
    return Adversarials(**given | {"alpha": 0.01} | changes)


def test_what_results_say():
    found = adversarials([0.25, 0.5, 0.75], [True, True, False])
    words = "3 inputs, 2 successes at median l1 distance 0.375, 100 queries each on average, alpha=0.01"
    assert repr(found) == f"Adversarials({words})"
    assert "0 successes at median l1 distance nan" in repr(found[2:])
    assert found.upper_bounds.tolist() == [0.25, 0.5, np.inf]
    # An adversarial input at exactly the radius counts.
    at = [0.0, 0.25, np.nextafter(0.25, 0), 0.5, 9.0]
    np.testing.assert_array_equal(found.robust_accuracy(at), [1, 2 / 3, 1, 1 / 3, 1 / 3])
    assert isinstance(found.robust_accuracy(0.25), float)


# The display


def results(**changes):
    radii = np.array([0.2, np.inf, np.nan])
    given = {"labels": np.array([0, 1, 0]), "radii": radii, "abstained": np.isnan(radii), "alpha": 0.01, "norm": 1}
    certificates = Certificates(**given | {"p_a": np.full(3, 0.9), "p_b": np.full(3, 0.1)} | changes)
    return certificates, adversarials([0.5, 0.75, 0.125], [True, False, True])


def test_the_display_ends_beyond_all_radii_and_distances():
    pytest.importorskip("matplotlib").use("agg")
    certificates, found = results()
    display = AttackDisplay.from_results([0, 1, 0], certificates, found)
    assert display.radius[-1] == pytest.approx(0.5 * 1.05)
    assert display.ax_.get_xlim() == (0, display.radius[-1])
    for radius, low, high in ((0.0, 2 / 3, 1), (0.2, 2 / 3, 2 / 3), (0.5, 1 / 3, 1 / 3)):
        place = display.radius.tolist().index(radius)
        assert [display.certified[place], display.attacked[place]] == pytest.approx([low, high])
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert [text.split(" (")[0] for text in texts] == ["not broken by the attack", "certified", "gap: neither"]
    near = AttackDisplay.from_results([0, 1, 0], certificates, found, max_radius=0.3, ax=display.ax_)
    assert (near.ax_, near.radius[-1]) == (display.ax_, 0.3)
    assert (near.radius <= 0.3).all()


def test_results_that_cannot_be_compared():
    certificates, found = results()
    for y, one, other, message in (
        ([0, 1, 0], certificates, certificates, "adversarials must be Adversarials, .*, got a Certificates"),
        ([0, 1, 0], found, found, "certificates must be Certificates of l1 radii, got Adversarials"),
        ([0, 1, 0], results(norm=2)[0], found, "certificates must be Certificates of l1 radii, got .*l2"),
        ([0, 1, 0], certificates[:2], found, "y must be the labels that were attacked, one for each certificate"),
        ([0, 1], certificates[:2], found, "y must be the labels that were attacked"),
        ([0, 0, 0], certificates, found, "y must be the labels that were attacked"),
    ):
        with pytest.raises(ValueError, match=message):
            AttackDisplay.from_results(y, one, other)


# Paths and points


def test_paths_make_the_largest_moves_first():
    path = Path.to(np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.75, 0.5, 0.0, 0.25]))
    assert (path.features.tolist(), path.targets.tolist()) == ([2, 0, 3], [0.0, 0.75, 0.25])


def test_points_on_a_path():
    """Moves of .5, .25 and .125, of which two features at most may move."""
    target = attacked([0.5, 0.25, 0.5], radius=GreedyRadius(max_features=2))
    path = Path(np.array([2, 1, 0]), np.array([1.0, 0.0, 0.625]))
    assert target.length(path) == 0.75
    found = target.walk(path, [0.0, 0.25, 0.5, 0.625, 2.0])
    expected = [[0.5, 0.25, 0.5], [0.5, 0.25, 0.75], [0.5, 0.25, 1], [0.5, 0.125, 1], [0.5, 0, 1]]
    np.testing.assert_array_equal(found, expected)
    assert attacked([0.5, 0.25, 0.5]).length(path) == 0.875


def test_far_faces_and_the_way_on_to_faces():
    """The room is .3 and .7, 0 and .1, .5 and .5, .9 and 0."""
    target = attacked([0.3, 0.4, 0.5, 0.9], radius=GreedyRadius(max_change=([1, 0, 1, 1], [1, 0.1, 1, 0])))
    np.testing.assert_allclose(target.reach, [0.7, 0.1, 0.5, 0.9])
    faces = far_faces(target)
    assert faces.features.tolist() == [3, 0, 2, 1]
    np.testing.assert_allclose(faces.targets, [0, 1, 1, 0.5])
    onward = target.onward(Path(np.array([2, 0, 1]), np.array([0.4, 0.1, 0.45])))
    assert onward.features.tolist() == [2, 0, 1]
    np.testing.assert_allclose(onward.targets, [0, 0, 0.5])
    up = target.onward(Path(np.array([2, 0]), np.array([0.4, 0.4])))
    assert up.features.tolist() == [0, 2]
    np.testing.assert_allclose(up.targets, [1, 0])


def test_moves_to_faces_leave_out_faces_where_the_input_is():
    target = attacked([0.0, 0.25, 1.0])
    features, faces = face_moves(target, np.array([2, 1, 0]))
    assert sorted(zip(features.tolist(), faces.tolist(), strict=True)) == [(0, 1.0), (1, 0.0), (1, 1.0), (2, 0.0)]


def test_inputs_outside_the_box_are_attacked_from_its_face():
    for levels in ("auto", 4):
        target = attacked([-3.0, 2.5], noise=UniformNoise(1.0, levels), bounds=([-1, 0], [1, 2]))
        assert target.start.tolist() == [0, 1]
        assert target.distance(np.array([-1.0, 2.0])) == 0
        assert target.distance(np.array([0.0, 0.5])) == pytest.approx(0.5 + 0.75)


def test_budgets_of_lattices_are_whole_steps():
    """In floats, .29 times 100 lies below 29."""
    target = attacked([0.5], noise=UniformNoise(1.0, levels=100))
    assert [target.budget(r) for r in (0.29, 0.299, np.nextafter(0.29, 0), 0.0)] == [0.29, 0.29, 0.28, 0.0]
    real = attacked([0.5])
    assert 0.29 * (1 - 1e-13) < real.budget(0.29) < 0.29
    assert real.budget(np.inf) == target.budget(np.inf) == np.inf


def test_points_of_lattices_are_moved_toward_the_input():
    target = attacked([0.5, 0.5], noise=UniformNoise(1.0, levels=10))
    found = target.snap(np.array([[0.69, 0.31], [0.7, 0.3], [0.55, 0.5]]))
    np.testing.assert_allclose(found, [[0.6, 0.4], [0.7, 0.3], [0.5, 0.5]])
    assert target.finest == pytest.approx(0.1)
    np.testing.assert_array_equal(attacked([0.5, 0.5]).snap(np.array([[0.69, 0.31]])), [[0.69, 0.31]])
    assert attacked([0.5, 0.5]).finest == 0
    mixed = attacked([0.5, 0.5], noise=UniformNoise(1.0, levels=[10, "auto"]))
    np.testing.assert_allclose(mixed.snap(np.array([[0.69, 0.31]])), [[0.6, 0.31]])
    assert mixed.finest == 0
    several = attacked([0.5, 0.5], noise=UniformNoise(1.0, levels=[10, 4]), costs=[0.5, 1.0])
    assert several.finest == pytest.approx(0.05)
    np.testing.assert_allclose(several.distance(np.array([0.3, 0.75])), 0.1 + 0.25)


def test_queries_may_be_spent_to_the_last():
    target = attacked([0.5], max_queries=10)
    target.spend(4)
    target.spend(6)
    assert (target.n_queries, target.n_left) == (10, 0)
    with pytest.raises(QueriesSpentError):
        target.spend(1)
    assert target.n_queries == 10


def test_rivals_are_in_the_order_of_their_votes_at_the_input():
    target = attacked([0.5], label=2)
    target.votes = np.array([5, 9, 70, 16])
    assert target.rivals.tolist() == [3, 1, 0]
    other = attacked([0.0], smooth(Rule(steps([0.5])).fit(None, None)))
    other.leads(other.start[None], 50)
    before = other.votes.copy()
    assert before[0] > before[1]
    other.leads(np.array([[1.0]]), 50)
    np.testing.assert_array_equal(other.votes, before)


def test_distances_are_never_below_the_exact_ones():
    rng, bounds = np.random.default_rng(0), ([-0.3, 0.0, 7.0], [1.1, 1e-3, 7e5])
    lo, hi = map(np.array, bounds)
    target = attacked(lo + 0.3 * (hi - lo), bounds=bounds, costs=[0.7, 1.3, 2.1])
    costs = [Fraction(cost) for cost in (0.7, 1.3, 2.1)]
    for raw in lo + rng.random((100, 3)) * (hi - lo):
        ends = zip(raw.tolist(), target.x.tolist(), lo.tolist(), hi.tolist(), costs, strict=True)
        exact = sum(
            abs(Fraction(a) - Fraction(b)) / (Fraction(h) - Fraction(low)) * cost for a, b, low, h, cost in ends
        )
        assert exact <= Fraction(target.distance(raw)) <= exact * (1 + Fraction(1, 10**13))


@pytest.mark.parametrize(
    "attack", [GreedyFaceAttack(), CoordinateAttack(), GradientAttack(n_steps=4, n_restarts=1)], ids=str
)
def test_queries_are_the_rows_that_the_base_model_has_seen(attack):
    class Counting(nn.Linear):
        seen = 0

        def forward(self, rows):
            self.seen += len(rows) * (len(rows) > 1)
            return super().forward(rows)

    torch.manual_seed(0)
    net = Counting(3, 2).requires_grad_(False)
    net.weight[:], net.bias[:] = torch.tensor([[1.0, 2, 0], [-1, 0, 1]]), torch.tensor([-0.5, 0.5])
    clf = smooth(net, UniformNoise(0.5), n_selection=16)
    attack.set_params(n_votes=50, max_queries=20_000, random_state=0)
    found = attack.minimal(clf, np.array([[0.8, 0.6, 0.1]]), [0])
    # Rows that answer alone, to see whether the answer depends on the batch, are no part of the attack.
    assert 1000 < net.seen <= found.n_queries[0] <= min(net.seen + 20, 20_000)


# What black-box attacks try


def linear(start, slopes, n_left=10**6, **given):
    """A target whose lead grows with the features, at some slopes."""
    start = np.array(start)
    found = SimpleNamespace(start=start, high=np.ones(len(start)), low=np.zeros(len(start)), n_left=n_left, **given)
    found.reach, found.max_features = np.maximum(start, 1 - start), len(start)
    found.cost, found.leads = (lambda n: n), (lambda points, n: (points - start) @ np.array(slopes))
    found.rng, found.snap, found.onward = np.random.default_rng(0), (lambda points: points), (lambda path: path)
    return found


def test_orders_of_moves():
    target = linear([0.2, 0.5, 0.6], [0.1, 0.3, -0.2])
    reach, effect = ([0, 2, 1], [1.0, 0.0, 1.0]), ([1, 2, 0], [1.0, 0.0, 1.0])
    for order, expected in (("reach", [reach]), ("effect", [effect]), ("both", [reach, effect])):
        paths = GreedyFaceAttack(order=order)._paths(target, np.inf, True)
        assert [(path.features.tolist(), path.targets.tolist()) for path in paths] == expected


def test_of_many_features_those_with_the_largest_reach_are_measured():
    target = linear([0.2, 0.5, 0.6], [0.1, 0.3, -0.2], n_left=1000)
    for n_votes, expected in ((125, [2, 0]), (126, [0]), (10_000, [0]), (83, [1, 2, 0])):
        assert GreedyFaceAttack(n_votes=n_votes)._by_effect(target).features.tolist() == expected


def test_the_coordinate_attack_makes_the_best_move_per_distance_until_budget_or_lead_are_reached():
    """The moves to the best faces have lengths .8, .5 and .6; the fourth feature does nothing."""
    slopes = (0.25, 0.3, -0.2, 0.0)
    target = linear([0.2, 0.5, 0.6, 0.5], slopes)

    def moves(budget, slopes=slopes, **params):
        target.leads = lambda points, n: (points - target.start) @ np.array(slopes)
        path = next(CoordinateAttack(n_votes=10, **params)._paths(target, budget, True))
        return path.features.tolist(), path.targets.tolist()

    assert moves(1.9) == ([1, 0, 2], [1, 1, 0])
    assert moves(1.0) == ([1, 0], [1, 1])
    assert moves(0.5) == ([1], [1])
    # A lead above one half ends the path.
    assert moves(9.0, (0.25, 1.1, -0.2, 0.0)) == ([1], [1])
    assert moves(9.0, (0.25, 1.0, -0.2, 0.0))[0][:2] == [1, 0]
    target.max_features = 1
    assert moves(9.0) == ([1], [1])
    # 9 points of 10 votes must leave half of the queries.
    target.max_features, target.n_left = 4, 170
    assert moves(9.0) == ([], [])
    target.n_left = 180
    assert len(moves(9.0)[0]) == 4
    # With fewer candidates, there are fewer points at a time.
    target.n_left = 100
    assert len(moves(9.0, n_candidates=2)[0]) == 4


# Gradients


def test_losses():
    logits = torch.tensor([[1.0, 3.0, 0.5], [2.0, 0.0, -1.0]], dtype=torch.float64)
    shares = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
    label, rival = np.log(shares.sum(axis=0))[[1, 2]]
    others = np.log(np.exp(logits.numpy()[:, [0, 2]]).sum(axis=1))
    for loss, toward, expected in (
        ("probability", None, label),
        ("probability", 2, label - rival),
        ("margin", None, np.mean([3 - others[0], 0 - others[1]])),
        ("margin", 2, np.mean([3 - 0.5, 0 + 1])),
    ):
        assert GradientAttack(loss=loss)._loss(logits, 1, toward).item() == pytest.approx(expected)


@pytest.mark.parametrize(("noise", "share"), [(UniformNoise(0.5), 1.0), (SplitNoise(0.25), None)])
def test_gradients_are_per_unit_of_what_is_paid(noise, share):
    net = nn.Linear(2, 2).requires_grad_(False)
    net.weight[:], net.bias[:] = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), torch.tensor([0.0, 0.0])
    clf = smooth(net, noise, bounds=([0, -1], [2, 3]), costs=[0.5, 2.0])
    target = attacked([1.0, 0.0], clf)
    attack, key = GradientAttack(loss="margin", n_copies=200), target.new_key()
    loss, slope = attack._gradient(target, target.start, key, None)
    assert target.n_queries == 200
    # The margin is 2 x + 1.5 y, over ranges of 2 and 4; a whole range costs 1/2 and 2.
    expected = np.array([2 * 2 / 0.5, 1.5 * 4 / 2])
    if share is None:
        assert (slope <= expected).all()
        assert (slope >= expected / 2).all()
    else:
        np.testing.assert_allclose(slope, expected, rtol=1e-6)
    assert loss == pytest.approx(2.0, abs=0.7)


def test_gradients_of_noise_with_few_outcomes_count_each_once():
    net = nn.Linear(2, 2).requires_grad_(False)
    target = attacked([0.5, 0.25], smooth(net, DeterministicSplitNoise(0.5, levels=4)))
    total = target.mechanism.noise.n_outcomes
    GradientAttack(n_copies=1000)._gradient(target, target.start, target.new_key(), None)
    GradientAttack(n_copies=3)._gradient(target, target.start, target.new_key(), None)
    assert target.n_queries == total + 3


def test_steps_move_the_largest_gradients_that_can_move():
    target = attacked([0.0, 0.5, 0.5, 1.0, 0.5])
    slope = np.array([9.0, -2.0, 1.0, -9.0, 0.5])
    attack = GradientAttack()
    # The first feature cannot fall, and the fourth cannot rise.
    for k, expected in ((1, [0.0, 0.9, 0.5, 1.0, 0.5]), (2, [0.0, 0.7, 0.3, 1.0, 0.5])):
        np.testing.assert_allclose(attack._move(target, target.start, slope, 0.4, k), expected)
    np.testing.assert_array_equal(attack._move(target, target.start, 0 * slope, 0.4, 2), target.start)


def test_projections_keep_the_features_that_move_most():
    target = attacked([0.5, 0.5, 0.5], radius=GreedyRadius(max_features=2))
    found = GradientAttack()._project(target, np.array([0.6, 0.2, 0.9]), 9.0)
    np.testing.assert_allclose(found, [0.5, 0.2, 0.9])
    found = GradientAttack()._project(target, np.array([0.6, 0.2, 0.9]), 0.3)
    np.testing.assert_allclose(found, [0.5, 0.4, 0.7])
    free = GradientAttack()._project(attacked([0.5, 0.5, 0.5]), np.array([0.6, 0.2, 2.0]), 9.0)
    np.testing.assert_allclose(free, [0.6, 0.2, 1.0])


# Verification


@pytest.mark.parametrize("label", [0, 2])
def test_the_rival_is_chosen_by_selection_votes_and_tested_by_estimation_votes(label):
    selection = np.roll([9, 5, 7], label)
    rival, other = (label + 2) % 3, (label + 1) % 3

    def shown(alpha, for_label, for_rival, for_other=0):
        estimation = np.zeros(3, dtype=int)
        estimation[[label, rival, other]] = for_label, for_rival, for_other
        return shown_different(selection, estimation, label, alpha)

    level = binomtest(60, 100, alternative="greater").pvalue
    assert shown(level * 1.001, 40, 60)
    assert not shown(level * 0.999, 40, 60)
    assert shown(level * 1.001, 40, 60, for_other=500)
    # Votes for a third class prove nothing, nor do no votes.
    assert not shown(0.05, 40, 40, for_other=500)
    assert not shown(0.05, 0, 0, for_other=500)
    # A bound of exactly one half is none above it.
    assert not shown(0.5, 0, 1)
    assert shown_different(selection, np.array([100, 0, 0]), -1, 0.001)


def test_votes_of_verifications_are_fresh_each_time():
    clf, seeds = smooth(n_selection=40, alpha=0.02), []
    verifier = Verifier(clf, (1,), None, None, 4, np.random.SeedSequence(3))
    sampler = verifier.algorithm.sampler
    verifier.algorithm = SimpleNamespace(
        sampler=lambda seed: seeds.append(seed) or sampler(seed), n_selection=40, exact=False
    )
    target = attacked([0.5], clf)
    for _ in range(3):
        assert verifier.verify(np.array([0.5]), target, 100) == (0, False, False)
    assert len(set(seeds)) == 3
    assert min(seeds) > 2**64
    assert (verifier.n_samples, verifier.alpha) == (500, 0.02)
    assert (verifier.queries(100), verifier.reserve) == (140, 4 * 540)
    assert verifier.clear_lead(500) == pytest.approx((norm.isf(0.02 / 4) + 1) / np.sqrt(500), rel=1e-6)
    given = Verifier(clf, (1,), 300, 0.04, 2, np.random.SeedSequence(3))
    assert (given.n_samples, given.alpha, given.level(300)) == (300, 0.04, pytest.approx(0.02, rel=1e-6))


def test_noise_with_few_outcomes_is_verified_once_and_for_certain():
    clf = smooth(Rule(steps([0.5])).fit(None, None), DeterministicSplitNoise(0.5, levels=4))
    verifier = Verifier(clf, (1,), None, None, 4, np.random.SeedSequence(3))
    assert (verifier.attempts, verifier.alpha, verifier.clear_lead(9)) == (1, 0.0, 0.0)
    assert verifier.queries(500) == verifier.reserve == clf.noise_.n_outcomes
    for x, winner in ((0.0, 0), (1.0, 1)):
        for label in (0, 1):
            found = verifier.verify(np.array([x]), attacked([0.5], clf, label=label), 500)
            assert found == (winner, winner != label, winner != label)


# The search


def test_verification_must_leave_queries_for_the_search():
    clf = smooth(n_selection=40)
    attack, x = GreedyFaceAttack(n_votes=1, random_state=0), np.array([[0.5]])
    for n, search, call in ((4, "minimal", {}), (2, "run", {"radius": 0.5})):
        reserve = n * (40 + 500)
        attack.set_params(max_queries=reserve)
        with pytest.raises(ValueError, match=f"max_queries must exceed {reserve}, the cost of verification, got"):
            getattr(attack, search)(clf, x, **call)
        getattr(attack.set_params(max_queries=reserve + 1), search)(clf, x, **call)


def test_inputs_beyond_the_distance_of_interest_are_not_sought():
    clf = smooth(Rule(steps([0.501])).fit(None, None), DeterministicSplitNoise(0.5, levels=20))
    x = np.full((3, 1), 0.25)
    truth = GreedyFaceAttack(random_state=0).minimal(clf, x[:1]).distance[0]
    assert 0 < truth < 0.5
    found = GreedyFaceAttack(random_state=0).minimal(clf, x, radius=[truth - 0.05, truth, 0.5])
    np.testing.assert_array_equal(found.success, [False, True, True])
    np.testing.assert_allclose(found.distance[1:], truth)


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (GradientAttack(n_steps=0), "n_steps must be"),
        (GradientAttack(n_copies=0), "n_copies must be"),
        (GradientAttack(n_restarts=0), "n_restarts must be"),
        (GradientAttack(loss="hinge"), "loss must be one of 'probability', 'margin'"),
        (CoordinateAttack(n_candidates=0), "n_candidates must be"),
        (CoordinateAttack(n_samples=0), "n_samples must be"),
        (CoordinateAttack(max_queries=0), "max_queries must be"),
    ],
)
def test_bad_parameters(attack, message):
    with pytest.raises(ValueError, match=message):
        attack.minimal(smooth(nn.Linear(1, 2)), np.array([[0.5]]))


def test_alpha_must_exceed_the_error_of_drawing():
    """Each number of digital Gaussian noise has an error, which a million votes add up."""
    clf = smooth(noise=GaussianNoise(0.5, levels=255))
    error = clf.algorithm((1,)).mechanism.draw_error * 10**6
    for alpha, attempts in ((1.9 * error, 2), (3.9 * error, 4)):
        with pytest.raises(ValueError, match=r"alpha must exceed .*, the error of drawing, got"):
            Verifier(clf, (1,), 10**6, alpha, attempts, np.random.SeedSequence(0))
        Verifier(clf, (1,), 10**6, alpha + 0.2 * error, attempts, np.random.SeedSequence(0))


def test_bad_arguments():
    attack, clf, x = GreedyFaceAttack(), smooth(), np.array([[0.5]])
    with pytest.raises(ValueError, match="clf must be a SmoothedClassifier, got a Rule"):
        attack.minimal(Rule(constant), x)
    with pytest.raises(ValueError, match="y must hold one label for each of 1 inputs"):
        attack.minimal(clf, x, [0, 1])
    with pytest.raises(ValueError, match="radius must be"):
        attack.run(clf, x, radius=-1.0)
