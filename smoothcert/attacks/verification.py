"""Verification of candidates with fresh votes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from ..certify.binomial import clopper_pearson
from .target import Target


class Verifier:
    """Tests of candidates with fresh votes, which neither the search nor another attempt has seen.

    All attempts on one input share alpha by a union bound. The bound holds because the point and the number of votes of
    an attempt depend only on votes that its test does not use. Selection votes choose the rival, and estimation votes
    test that it is ahead of the label. Noise with few outcomes is counted in full: one attempt decides with certainty.

    Parameters
    ----------
    clf : SmoothedClassifier
        The fitted classifier.
    shape : tuple of int
        The shape of one input.
    n_samples : int or None
        The minimum number of estimation votes of an attempt; None takes that of the classifier.
    alpha : float or None
        The probability, for each input, that an attempt succeeds wrongly; None takes that of the classifier.
    attempts : int
        The maximum number of attempts on one input.
    seeds : numpy.random.SeedSequence
        The seeds of the votes.
    """

    def __init__(
        self,
        clf: Any,
        shape: tuple[int, ...],
        n_samples: int | None,
        alpha: float | None,
        attempts: int,
        seeds: np.random.SeedSequence,
    ) -> None:
        self.algorithm = clf.algorithm(shape)
        self.voter, self.mechanism, self.exact = self.algorithm.voter, self.algorithm.mechanism, self.algorithm.exact
        self.n_samples = n_samples or clf.n_samples
        self.attempts = 1 if self.exact else attempts
        self.alpha = 0.0 if self.exact else clf.alpha if alpha is None else alpha
        self.seeds = seeds
        if not self.exact and self.level(self.n_samples) <= 0:
            drawing = self.attempts * self.mechanism.draw_error * self.n_samples
            raise ValueError(f"alpha must exceed {drawing:.3g}, the error of drawing, got {self.alpha}.")

    def level(self, n: int) -> float:
        """Return the level of one attempt with ``n`` estimation votes, without the error of drawing them."""
        return self.alpha / self.attempts - self.mechanism.draw_error * n

    def queries(self, n: int) -> int:
        """Return the number of queries of one attempt with ``n`` estimation votes."""
        return self.mechanism.noise.n_outcomes or self.algorithm.n_selection + n

    @property
    def reserve(self) -> int:
        """The minimum number of queries of all attempts."""
        return self.attempts * self.queries(self.n_samples)

    def clear_lead(self, n: int) -> float:
        """Return the lead that ``n`` votes are likely to confirm."""
        return 0.0 if self.exact else float((norm.isf(self.level(n)) + 1) / np.sqrt(n))

    def verify(self, raw: NDArray[Any], target: Target, n: int) -> tuple[int, bool, bool]:
        """Vote on a raw input.

        Returns
        -------
        label : int
            The index of the class with most votes.
        success : bool
            Whether the votes show that the label of the target does not win.
        ahead : bool
            Whether another class than the label has most votes, so that more votes are worthwhile.
        """
        words = self.seeds.spawn(1)[0].generate_state(4)
        sampler = self.algorithm.sampler(int.from_bytes(words.tobytes(), "little"))
        votes = replace(sampler, n_samples=0 if self.exact else n).draw(raw[None])
        selection, estimation = votes.selection[0], votes.estimation[0]
        label = int((selection if self.exact else estimation).argmax())
        different = label != target.label
        level = self.level(n)
        success = different if self.exact else level > 0 and shown_different(selection, estimation, target.label, level)
        return label, success, different


def shown_different(selection: NDArray[np.int64], estimation: NDArray[np.int64], label: int, alpha: float) -> bool:
    """Return whether votes show that another class than the label wins.

    The selection votes choose the rival. Among the estimation votes for the rival or the label, each is for the rival
    with probability above 1/2 if and only if the rival is ahead. So a binomial test is exact at level alpha.
    """
    if label < 0:
        return True
    rival = int(np.where(np.arange(len(selection)) == label, -1, selection).argmax())
    both = int(estimation[rival] + estimation[label])
    return both > 0 and float(clopper_pearson(estimation[rival], both, alpha)) > 0.5
