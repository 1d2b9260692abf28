"""Scores of labels under noise: how badly a label fits a noisy copy of an input, by the base model's probabilities."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from .._utils.checks import check_bool
from ..models.base import Voter
from ..noise import seeding
from .counters import ask_numbers, noisy_batches
from .sampler import Sampler, draw_votes, fingerprints

FloatArray = NDArray[np.float64]

#: Bound on what rounding in the base model adds to a score: the last bits of answers can depend on the batch. In
#: networks of float32 whose logits have a standard deviation of 100, probabilities changed by up to 2.3e-5.
ROUNDING = 2.0**-16

#: The same in reduced precision (half, bfloat16, autocast, TF32), in units of the distance of numbers around 1.
REDUCED_ROUNDING = 2


class ConformityScore(BaseEstimator, ABC):
    """How badly each label fits a noisy copy of an input: the smaller, the better.

    A score of your own defines `scores`.

    See Also
    --------
    LACScore, APSScore : The scores of the library.

    Examples
    --------
    A score that ranks the labels:

    >>> class RankScore(ConformityScore):
    ...     def scores(self, probabilities, uniforms):
    ...         return (probabilities[:, None, :] > probabilities[:, :, None]).sum(axis=2)
    >>> RankScore().scores(np.array([[0.5, 0.125, 0.375]]), np.ones((1, 1)))
    array([[0, 2, 1]])
    """

    #: Whether the score draws a uniform number for each noisy copy.
    randomized: bool = False

    @abstractmethod
    def scores(self, probabilities: FloatArray, uniforms: FloatArray) -> FloatArray:
        """Return the score of each label.

        Parameters
        ----------
        probabilities : ndarray of shape (n, n_classes)
            What the base model answers about noisy copies.
        uniforms : ndarray of shape (n, 1)
            Numbers from 0 to 1, independent of the noise; 1 if the score is not randomized.

        Returns
        -------
        scores : ndarray of shape (n, n_classes)
            A row must depend on its own row of the arguments alone.
        """

    def check(self) -> None:
        """Raise a ValueError if a parameter is invalid; by default nothing is checked."""


class LACScore(ConformityScore):
    """One minus the probability of the label: the smallest sets on average.

    See Also
    --------
    APSScore : Sets that adapt to how hard an input is.

    References
    ----------
    .. [1] Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", JASA 2019.

    Examples
    --------
    >>> LACScore().scores(np.array([[0.5, 0.375, 0.125]]), np.ones((1, 1)))
    array([[0.5  , 0.625, 0.875]])
    """

    def scores(self, probabilities: FloatArray, uniforms: FloatArray) -> FloatArray:
        """Return one minus the probabilities; see `ConformityScore.scores`."""
        return 1 - probabilities


class APSScore(ConformityScore):
    """The probability of all labels that are more probable, and a share of the label's own: adaptive prediction sets.

    Hard inputs get larger sets, and easy ones smaller sets, than with `LACScore`.

    Parameters
    ----------
    randomized : bool, default=True
        Whether the share of the label's own probability is a uniform random number, drawn for each noisy copy. If not,
        it is 1, and sets are larger.

    See Also
    --------
    LACScore : Smaller sets on average.

    References
    ----------
    .. [1] Romano, Sesia and Candes, "Classification with Valid and Adaptive Coverage", NeurIPS 2020.

    Examples
    --------
    >>> APSScore(randomized=False).scores(np.array([[0.5, 0.375, 0.125]]), np.ones((1, 1)))
    array([[0.5  , 0.875, 1.   ]])
    """

    def __init__(self, randomized: bool = True) -> None:
        self.randomized = randomized

    def check(self) -> None:
        """Raise a ValueError unless ``randomized`` is True or False."""
        check_bool("randomized", self.randomized)

    def scores(self, probabilities: FloatArray, uniforms: FloatArray) -> FloatArray:
        """Return the probability of what is more probable, and a share of the own; see `ConformityScore.scores`."""
        order = np.argsort(-probabilities, axis=1, kind="stable")
        ranked = np.take_along_axis(probabilities, order, axis=1)
        found = np.empty_like(probabilities)
        np.put_along_axis(found, order, np.cumsum(ranked, axis=1) - ranked, axis=1)
        return found + uniforms * probabilities


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreSampler(Sampler):
    """Draws the scores of labels on ``n_samples`` noisy copies of each input; for other parameters see `Sampler`.

    Parameters
    ----------
    score : ConformityScore
    rank : int
        Calibration returns the score of this rank among those of an input's own label, 1 being the smallest.
    threshold : float, optional
        Otherwise, the scores of each label that are no larger than this, apart from rounding, are counted.
    """

    score: ConformityScore
    rank: int
    threshold: float = np.inf

    def draw(self, X: NDArray[Any], target: Any = None) -> Any:
        """Return a score for each input that has a label, or else counts for each input and label.

        Calibration and later inputs have noise of separate stages, so that the noise of an input is independent of the
        threshold, wherever the adversary moves the input to.

        Parameters
        ----------
        X : ndarray of shape (n_inputs, *shape)
            In raw units.
        target : ndarray of int64, shape (n_inputs, 2), optional
            The index of the label of each input in calibration, and the number of equal inputs before it: each of them
            gets samples of its own.

        Returns
        -------
        found : ndarray of shape (n_inputs,) or of shape (n_inputs, n_classes)
        """
        stage = seeding.ESTIMATION if target is None else seeding.SELECTION
        labels, copies = (None, np.zeros(len(X), dtype=np.int64)) if target is None else target.T
        keys, points = seeding.keys(self.seed, fingerprints(self.mechanism, X), stage), self.mechanism.points(X)
        with self.voter.voting():
            counters = [ScoreCounter(one, self, points, keys, copies, labels) for one in self.voter.for_threads()]
            draw_votes(counters, np.arange(len(X)), 0, self.n_samples, self.rows)
        found: Any = sum(counter.found for counter in counters)
        return found if target is None else np.partition(found, self.rank - 1, axis=1)[:, self.rank - 1]


class ScoreCounter:
    """Collects the scores of labels, or counts those up to a threshold; several counters share the work in threads.

    Parameters
    ----------
    voter : Voter
    sampler : ScoreSampler
    points, keys
        As in `VoteCounter`.
    copies : ndarray of int64, shape (n_inputs,)
        The number of equal inputs before each.
    labels : ndarray of int64, shape (n_inputs,), optional
        The label whose scores are collected.

    Attributes
    ----------
    found : ndarray of shape (n_inputs, n_samples) or (n_inputs, n_classes)
        Scores of the label, 0 for those that other counters collect; or counts for each label.
    """

    def __init__(
        self,
        voter: Voter,
        sampler: ScoreSampler,
        points: NDArray[Any],
        keys: NDArray[np.uint32],
        copies: NDArray[np.int64],
        labels: NDArray[np.int64] | None,
    ) -> None:
        self.voter, self.sampler, self.copies, self.labels = voter, sampler, copies, labels
        self.batches = noisy_batches(voter, sampler.mechanism, points, keys)
        self.rounding = max(ROUNDING, REDUCED_ROUNDING * voter.coarse_step)
        self.keys = seeding.derived_keys(keys, b"score") if sampler.score.randomized else None
        counts = np.zeros((len(points), voter.n_classes), dtype=np.int64)
        self.found: NDArray[Any] = counts if labels is None else np.zeros((len(points), sampler.n_samples))

    def count_batch(self, segments: NDArray[np.int64]) -> None:
        """Take the scores of one batch; see `VoteCounter.count_batch`."""
        owners, first, count = segments.T
        drawn = np.column_stack([owners, first + self.copies[owners] * self.sampler.n_samples, count])
        probabilities = ask_numbers(self.voter, self.voter.probabilities, self.batches, drawn)
        scores = self._scores(probabilities, self._uniforms(segments))
        starts, rows = np.cumsum(count) - count, np.arange(len(scores))
        if self.labels is None:
            reached = scores <= self.sampler.threshold + 2 * self.rounding
            self.found[owners] += np.add.reduceat(reached, starts, axis=0, dtype=np.int64)
        else:
            owner = np.repeat(owners, count)
            self.found[owner, rows + np.repeat(first - starts, count)] = scores[rows, self.labels[owner]]

    def _scores(self, probabilities: FloatArray, uniforms: FloatArray) -> NDArray[Any]:
        """Return the scores of a batch, or raise a ValueError unless they are numbers that belong to single rows."""
        score = self.sampler.score
        # Copies: a score of the user may be computed in place, or kept in a buffer, which the check would overwrite.
        found, name = np.array(score.scores(probabilities.copy(), uniforms.copy())), type(score).__name__
        if found.shape != probabilities.shape or np.isnan(found).any():
            raise ValueError(
                f"{name}.scores must return one number for each label, shape {probabilities.shape}, but returned "
                f"{found!r}. No set was made."
            )
        if not np.allclose(score.scores(probabilities[:1], uniforms[:1]), found[:1], rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"{name}.scores must score each row by itself, but a row alone got other scores than among "
                f"{len(found)}. No set was made. Leave out what is random, and statistics over rows."
            )
        return found

    def _uniforms(self, segments: NDArray[np.int64]) -> FloatArray:
        """Return a uniform number for each noisy copy, a function of the input's key and the number of the sample."""
        if self.keys is None:
            return np.ones((int(segments[:, 2].sum()), 1))
        drawn = [
            seeding.generator(self.keys[owner], int(self.copies[owner])).random(first + count)[first:]
            for owner, first, count in segments.tolist()
        ]
        return np.concatenate(drawn)[:, None]


def copies_before(digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how many equal inputs come before each input, by their fingerprints.

    Examples
    --------
    >>> copies_before(np.array([[7, 1], [7, 2], [7, 1], [7, 1]], dtype=np.uint8))
    array([0, 0, 1, 2])
    """
    numbers: dict[bytes, Iterator[int]] = defaultdict(itertools.count)
    return np.array([next(numbers[digest.tobytes()]) for digest in digests], dtype=np.int64)
