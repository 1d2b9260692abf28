"""The work of a task: which rows are drawn for whom, in which batches, and when they stop."""

import time
from collections import Counter
from threading import Event

import numpy as np
import pytest

from smoothcert import DeterministicSplitNoise, SplitNoise, UniformNoise
from smoothcert.models.function import FunctionVoter
from smoothcert.noise import seeding
from smoothcert.noise.box import Box
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.sampling import sampler as sampling
from smoothcert.sampling.counters import VoteCounter
from smoothcert.sampling.sampler import Sampler, Votes, count, draw_votes, fingerprints
from smoothcert.sampling.selection import selection_steps

X = np.random.default_rng(0).uniform(-3, 5, (5, 2))
MECHANISM = NoiseMechanism(Box.from_bounds((-3, 5)), UniformNoise(0.5), (2,))


def thirds(rows):
    return np.searchsorted([0.0, 2.0], rows[:, 0])


def voter(**attributes):
    made = FunctionVoter(thirds, np.arange(3))
    vars(made).update(attributes)
    return made


def sampler(**params):
    given = {"voter": voter(), "mechanism": MECHANISM, "seed": 7, "n_selection": 64, "n_samples": 90}
    return Sampler(**given | params)


def votes_one_by_one(stage, ends, seed=7):
    """Votes of the first samples of each input, each drawn alone."""
    points, found = MECHANISM.points(X), np.zeros((len(X), 3), dtype=int)
    keys, row = seeding.keys(seed, seeding.digests(points), stage), np.empty((1, 2))
    for i, end in enumerate(ends):
        for sample in range(end):
            MECHANISM.sample(points, keys, np.array([[i, sample, 1]]), row)
            found[i, thirds(row)[0]] += 1
    return found


# Sizes


def test_rows_of_a_batch():
    images = NoiseMechanism(Box.from_bounds((0, 1)), SplitNoise(), (3, 100, 10))
    small = voter(batch_values=2**20, most_rows=300)
    assert sampler(voter=small, mechanism=images).rows == 300
    assert sampler(voter=voter(batch_values=300_000), mechanism=images).rows == 100
    assert sampler(voter=voter(batch_values=30_000), mechanism=images).rows == 32
    assert sampler(voter=small, mechanism=images, batch_size=10**6).rows == (2**31 - 1) // 3000
    assert sampler(batch_size=1).rows == 1
    for size in (0, 2.0, "all"):
        with pytest.raises(ValueError, match=f"batch_size must be a whole number of at least 1, got {size!r}"):
            _ = sampler(batch_size=size).rows


@pytest.mark.parametrize(
    ("params", "sizes"),
    [
        # 8 batches are 16 inputs, 16 batches are 32; ceil(1300 / 64) lies between.
        ({"n_samples": 50}, {1: 2, 50: 5, 151: 16, 1000: 16, 1300: 21, 10_000: 32}),
        ({"n_samples": 30}, {1: 4, 300: 27, 10_000: 53}),
        ({"n_samples": 50, "rule": object()}, {1: 2, 50: 5, 1000: 16, 1025: 17, 10_000: 25}),
        ({"n_samples": 0, "n_selection": 256}, {1: 1, 200: 4, 300: 5, 10_000: 6}),
        ({"n_samples": 100_000}, {1: 1, 10_000: 1}),
    ],
)
def test_inputs_of_a_task(params, sizes):
    """A task has 100 rows in each batch. An input takes 50, 30, 64, 256 or 100,000 of them."""
    asked = sampler(batch_size=100, **params)
    assert {n: asked.chunk_size(n) for n in sizes} == sizes


def test_what_votes_say():
    selection, estimation = np.array([[3, 1, 0], [2, 0, 2]]), np.array([[5, 1, 1], [0, 0, 9]])
    votes = Votes(selection=selection, estimation=estimation, inputs=np.zeros((2, 16), np.uint8), seed=3)
    assert [stage.tolist() for stage in votes.drawn] == [[4, 4], [7, 9]]
    assert votes.n_votes == 24
    assert votes.unanimity.tolist() == [0.75, 0.5]
    assert votes.recorded[0] is selection
    assert votes.recorded[1] is estimation


# Draws


@pytest.mark.parametrize("batch_size", [7, 64, 10_000])
def test_votes_are_those_of_the_first_samples_of_each_stage(batch_size):
    found = sampler(batch_size=batch_size, all_selection=True).draw(X)
    np.testing.assert_array_equal(found.selection, votes_one_by_one(seeding.SELECTION, [64] * 5))
    np.testing.assert_array_equal(found.estimation, votes_one_by_one(seeding.ESTIMATION, [90] * 5))
    assert (found.seed, found.seconds > 0) == (7, True)
    np.testing.assert_array_equal(found.inputs, seeding.digests(MECHANISM.points(X)))


def test_clear_inputs_take_few_selection_votes():
    early, whole = sampler().draw(X), sampler(all_selection=True).draw(X)
    n_votes = early.drawn[0]
    assert set(n_votes) <= {16, 32, 64}
    assert len(set(n_votes)) > 1
    np.testing.assert_array_equal(early.selection, votes_one_by_one(seeding.SELECTION, n_votes))
    np.testing.assert_array_equal(early.estimation, whole.estimation)
    assert (whole.drawn[0] == 64).all()


def test_all_outcomes_are_drawn_where_noise_is_not_sampled():
    noise = DeterministicSplitNoise(0.5, levels=100)
    mechanism = NoiseMechanism(Box.from_bounds((0, 1)), noise, (2,))
    n = int(noise.n_outcomes)
    assert n > 32
    asked = Sampler(voter=voter(), mechanism=mechanism, seed=0, n_selection=n, n_samples=0)
    found = asked.draw(np.full((2, 2), 0.9))
    assert (found.selection.sum(axis=1) == n).all()
    assert found.estimation is found.selection


class Rule:
    """Stops inputs at checkpoints of their own; it remembers what it was asked."""

    def __init__(self, ends, checkpoints):
        self.ends, self.checkpoints, self.asked = ends, np.array(checkpoints), []

    def known(self, selection, X, target):
        self.told = selection, X, target
        return {"ends": self.ends, "place": np.arange(len(X))}

    def enough(self, counts, ends, place):
        self.asked.append((place.tolist(), counts.sum(axis=1).tolist()))
        return counts.sum(axis=1) >= ends


ENDS, CHECKPOINTS = np.array([20, 90, 10, 45, 16]), [10, 12, 16, 20, 40, 60, 70, 90]


@pytest.mark.parametrize("free_rows", [1, 24, 60, 10**6])
def test_a_rule_is_asked_at_each_checkpoint_about_those_that_are_left(free_rows):
    rule, target = Rule(ENDS, CHECKPOINTS), np.array([4, 3, 2, 1, 0])
    found = sampler(rule=rule, voter=voter(free_rows=free_rows)).draw(X, target)
    np.testing.assert_array_equal(found.estimation, votes_one_by_one(seeding.ESTIMATION, [20, 90, 10, 60, 16]))
    left = [0, 1, 2, 3, 4], [0, 1, 3, 4], [0, 1, 3, 4], [0, 1, 3], [1, 3], [1, 3], [1]
    assert rule.asked == [(inputs, [n] * len(inputs)) for inputs, n in zip(left, CHECKPOINTS, strict=False)]
    assert rule.told[0] is found.selection
    assert rule.told[1] is X
    assert rule.told[2] is target


def test_votes_ahead_are_drawn_one_by_one_where_memory_does_not_suffice(monkeypatch):
    tried = []

    def fails(*_):
        tried.append(1)
        raise MemoryError

    expected = sampler(rule=Rule(ENDS, CHECKPOINTS)).draw(X).estimation
    monkeypatch.setattr(VoteCounter, "count_apart", fails)
    rule = Rule(ENDS, CHECKPOINTS)
    found = sampler(rule=rule, voter=voter(free_rows=10**6)).draw(X)
    np.testing.assert_array_equal(found.estimation, expected)
    assert [counts[0] for _, counts in rule.asked] == CHECKPOINTS[:-1]
    assert tried == [1]


def test_votes_ahead_stay_below_twice_those_so_far():
    """Of checkpoints 10, 15, 20, 40, 41, 90 the batches end at 10, 20, 40 and then at 41 and 90 together."""
    ends = []

    class Counting(FunctionVoter):
        def vote(self, batch):
            ends.append(len(batch))
            return super().vote(batch)

    rule = Rule(np.full(5, 10**6), [10, 15, 20, 40, 41, 60, 90])
    asked = Counting(thirds, np.arange(3))
    asked.free_rows, asked.most_changed = 200, None
    points = MECHANISM.points(X)
    keys = seeding.keys(0, seeding.digests(points), 0)
    known = {"ends": rule.ends, "place": np.arange(5)}
    assert (count(asked, MECHANISM, points, keys, 90, 1000, rule, known).sum(axis=1) == 90).all()
    # At 5 inputs, up to 40 votes ahead cost nothing.
    assert ends == [50, 50, 100, 100, 150]


def test_free_rows_are_no_more_than_a_batch():
    assert selection_steps(64).tolist() == [16, 32, 64]
    sizes = []
    asked = voter(free_rows=10**6)
    asked.function = lambda rows: sizes.append(len(rows)) or thirds(rows)
    sampler(voter=asked, batch_size=20, rule=Rule(np.full(5, 10**6), [10, 12, 14, 90])).draw(X)
    assert max(sizes) == 20


def test_fingerprints_are_those_of_points(monkeypatch):
    expected = seeding.digests(MECHANISM.points(X))
    for values in (1, 4, 2**20):
        monkeypatch.setattr(sampling, "POINT_VALUES", values)
        np.testing.assert_array_equal(fingerprints(MECHANISM, X), expected)


# Batches


class Recorder:
    """A counter that only remembers rows, and whose memory suffices for some of them."""

    def __init__(self, most=10**9):
        self.voter, self.most = voter(), most
        self.voter.n_classes = 3
        self.batches, self.failed = [], 0

    def count_batch(self, segments):
        if segments[:, 2].sum() > self.most:
            self.failed += 1
            raise MemoryError("too large")
        assert (segments[:, 2] > 0).all()
        assert len(set(segments[:, 0])) == len(segments)
        self.batches.append(segments.copy())


def rows_of(recorders):
    return Counter(
        (int(owner), sample)
        for one in recorders
        for batch in one.batches
        for owner, first, n in batch
        for sample in range(first, first + n)
    )


@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 13), (5, 12), (3, 43)])
@pytest.mark.parametrize("rows", [1, 4, 7, 20, 1000])
@pytest.mark.parametrize("most", [10**9, 3])
def test_every_vote_is_drawn_once(first, end, rows, most):
    inputs, recorder = np.array([4, 0, 2]), Recorder(most)
    left = draw_votes([recorder], inputs, first, end, rows)
    assert rows_of([recorder]) == Counter((i, sample) for i in (4, 0, 2) for sample in range(first, end))
    sizes = [batch[:, 2].sum() for batch in recorder.batches]
    assert max(sizes) <= min(rows, most)
    if most > rows:
        assert set(sizes[:-1]) <= {rows}
        assert left == rows
    elif rows > 3 and end > 4:
        # What was too large once is not tried again.
        assert left <= 3
        assert recorder.failed <= 10


def test_batches_are_halved_until_memory_suffices():
    recorder = Recorder(30)
    assert draw_votes([recorder], np.arange(2), 0, 200, 200) == 25
    assert [batch[:, 2].sum() for batch in recorder.batches] == [25] * 16
    assert recorder.failed == 3
    single = Recorder(1)
    assert draw_votes([single], np.arange(2), 0, 5, 4) == 1
    assert [batch[:, 2].tolist() for batch in single.batches] == [[1]] * 10
    with pytest.raises(MemoryError, match="too large"):
        draw_votes([Recorder(0)], np.arange(2), 0, 5, 4)


def test_counters_get_batches_of_one_size():
    recorders = [Recorder(), Recorder()]
    assert draw_votes(recorders, np.arange(3), 0, 100, 40) == 40
    assert rows_of(recorders) == Counter((i, sample) for i in range(3) for sample in range(100))
    # 300 rows are 4 rounds of 2 batches, 38 rows each.
    assert sorted(int(batch[:, 2].sum()) for one in recorders for batch in one.batches) == [34, *[38] * 7]


def test_after_a_failure_no_thread_takes_a_batch():
    failed, started = Event(), Event()

    class Failing(Recorder):
        def count_batch(self, segments):
            started.wait(5)
            failed.set()
            raise ValueError("no answer")

    class Slow(Recorder):
        def count_batch(self, segments):
            started.set()
            failed.wait(5)
            time.sleep(0.05)
            super().count_batch(segments)

    slow = Slow()
    with pytest.raises(ValueError, match="no answer"):
        draw_votes([Failing(), slow], np.arange(3), 0, 100, 10)
    assert len(slow.batches) == 1


def test_points_of_a_task_are_computed_once(monkeypatch):
    """The host computes them while an accelerator waits."""
    calls, points = [], NoiseMechanism.points
    monkeypatch.setattr(NoiseMechanism, "points", lambda self, X: calls.append(len(X)) or points(self, X))
    sampler().draw(X)
    assert calls == [len(X)]
