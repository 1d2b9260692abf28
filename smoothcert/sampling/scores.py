"""Scores of labels under noise: how badly a label fits a noisy copy of an input, by the base model's probabilities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import gen_batches

from .._utils.checks import check_bool
from ..noise import seeding
from .counters import memory_errors, noisy_batches
from .sampler import Sampler, fingerprints

FloatArray = NDArray[np.float64]

#: Bound on what rounding in the base model adds to a score: the last bits of answers can depend on the batch.
ROUNDING = 2.0**-20


class ConformityScore(BaseEstimator, ABC):
    """How badly each label fits a noisy copy of an input: the smaller, the better.

    A score of your own defines `scores`.

    See Also
    --------
    LACScore, APSScore : The scores of the library.
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
        Otherwise, the scores of each label that reach no higher than this are counted.
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
        rows = self.rows
        while True:
            try:
                with self.voter.voting(), memory_errors():
                    return self._counts(X, rows) if target is None else self._own_scores(X, target, rows)
            except MemoryError:
                if rows == 1:
                    raise
                rows //= 2

    def _own_scores(self, X: NDArray[Any], target: NDArray[np.int64], rows: int) -> FloatArray:
        own = np.empty((len(X), self.n_samples))
        for inputs, samples, scores in self._scores(X, seeding.SELECTION, target[:, 1], rows):
            labels = target[inputs, 0][:, None, None]
            own[inputs, samples] = np.take_along_axis(scores, labels, axis=2)[..., 0]
        return np.partition(own, self.rank - 1, axis=1)[:, self.rank - 1]

    def _counts(self, X: NDArray[Any], rows: int) -> NDArray[np.int64]:
        counts = np.zeros((len(X), self.voter.n_classes), dtype=np.int64)
        for inputs, _, scores in self._scores(X, seeding.ESTIMATION, np.zeros(len(X), dtype=np.int64), rows):
            counts[inputs] += (scores <= self.threshold + 2 * ROUNDING).sum(axis=1)
        return counts

    def _scores(
        self, X: NDArray[Any], stage: int, copy: NDArray[np.int64], rows: int
    ) -> Iterator[tuple[slice, slice, FloatArray]]:
        """Yield some inputs, some of their samples, and the scores, shape (n_inputs, n_samples, n_classes)."""
        keys = seeding.keys(self.seed, fingerprints(self.mechanism, X), stage)
        batches = noisy_batches(self.voter, self.mechanism, self.mechanism.points(X), keys)
        for inputs in gen_batches(len(X), max(1, rows // self.n_samples)):
            index = np.arange(len(X))[inputs]
            for samples in gen_batches(self.n_samples, rows):
                n = samples.stop - samples.start
                segments = np.column_stack(
                    [index, copy[inputs] * self.n_samples + samples.start, np.full(len(index), n)]
                )
                probabilities = self.voter.probabilities(batches.draw(segments))
                scores = self.score.scores(probabilities, self._uniforms(keys[inputs], copy[inputs], samples))
                yield inputs, samples, scores.reshape(len(index), n, -1)

    def _uniforms(self, keys: NDArray[np.uint32], copy: NDArray[np.int64], samples: slice) -> FloatArray:
        """Return a uniform number for each noisy copy, a function of the input's key and the number of the sample."""
        if not self.score.randomized:
            return np.ones((len(keys) * (samples.stop - samples.start), 1))
        drawn = [
            seeding.generator(key, block).random(self.n_samples)[samples]
            for key, block in zip(seeding.derived_keys(keys, b"score"), copy.tolist(), strict=True)
        ]
        return np.concatenate(drawn)[:, None]
