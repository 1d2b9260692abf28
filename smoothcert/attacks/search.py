"""The search that all attacks share: find where the label changes on a path, and verify the point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._utils.checks import check_choice, check_count, check_labels, check_open_unit, check_radii
from .._utils.pipelines import last_step
from ..classifier import SmoothedClassifier
from ..noise.seeding import resolve_seed
from ..results.certificates import FloatArray
from .results import Adversarials
from .target import Path, QueriesSpentError, Target
from .verification import Verifier

#: The number of verifications of one input, each with an equal share of alpha. If votes do not confirm the closest
#: candidate, the next verification takes more votes, or a candidate with a clearer lead.
ATTEMPTS = 4

#: The factor by which the number of votes grows where fewer votes leave doubt.
MORE = 4

#: The number of standard errors by which a lead may be wrong.
DOUBT = 3.0

#: The number of points on a path in the first step of the search.
POINTS = 16

#: Refinement of the search: the number of steps, of peaks, and of points on each side of a peak, and the share of the
#: remaining queries that one step may spend.
STEPS, PEAKS, CLOSER, STEP_SHARE = 6, 2, 3, 0.02

#: The relative precision of bisection for real-valued inputs; digital data stops at one lattice step.
RTOL = 1e-3

#: The distance below which bisection stops.
SMALLEST = 1e-6


@dataclass(eq=False, repr=False, kw_only=True)
class Attack(BaseEstimator, ABC):
    """An untargeted l1 attack on a smoothed classifier.

    An attack chooses paths that start at the input and move one feature after the other. Votes locate the first point
    on a path where the lead of a rival over the label is clear. Fresh votes, which the search has not seen, verify it.

    Parameters
    ----------
    n_votes : int, default=500
        The number of votes at each point that guides the search.
    n_samples : int, optional
        The number of votes at each point of a bisection, and the minimum number of fresh votes for a verification; that
        of the classifier by default. They can show a lead of about 4 / sqrt(n_samples).
    alpha : float, optional
        The probability, for each input, that a success is false; that of the classifier by default.
    max_queries : int, default=1_000_000
        The maximum number of noisy inputs that the base model classifies for each input, verification included.
    random_state : int, RandomState or None, default=None
        The random state of search and verification; that of the classifier plays no role.

    See Also
    --------
    GreedyFaceAttack, CoordinateAttack, GradientAttack : The attacks.

    Examples
    --------
    >>> from smoothcert.attacks import GreedyFaceAttack
    >>> issubclass(GreedyFaceAttack, Attack)
    True
    """

    n_votes: int = 500
    n_samples: int | None = None
    alpha: float | None = None
    max_queries: int = 1_000_000
    random_state: Any = None

    #: The parameters that are whole numbers of at least 1, and those that are one of a few strings.
    _counts: ClassVar[tuple[str, ...]] = ("n_votes", "max_queries")
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    def run(self, clf: SmoothedClassifier, X: Any, y: Any = None, *, radius: Any) -> Adversarials:
        """Look for any adversarial input within a budget.

        Parameters
        ----------
        clf : SmoothedClassifier, or Pipeline that ends in one
            The fitted classifier. Of a pipeline, the last step is attacked, and all inputs are those that it gets.
        X : array-like of shape (n_inputs, ...)
            Raw inputs, which are clipped to the box.
        y : array-like of shape (n_inputs,), optional
            The labels to change; true labels give robust accuracy. Predicted labels by default.
        radius : float or array-like of shape (n_inputs,)
            The budget, an l1 distance in the unit box.

        Returns
        -------
        adversarials : Adversarials
            No distance exceeds the budget.

        Raises
        ------
        ValueError
            If an argument or parameter is invalid, or the attack does not fit the base model.

        See Also
        --------
        minimal : Look for the closest adversarial input.
        """
        return self._attack(clf, X, y, radius, closest=False)

    def minimal(self, clf: SmoothedClassifier, X: Any, y: Any = None, *, radius: Any = np.inf) -> Adversarials:
        """Look for the closest adversarial input, an upper bound on the robust radius.

        Parameters
        ----------
        clf : SmoothedClassifier, or Pipeline that ends in one
            The fitted classifier. Of a pipeline, the last step is attacked, and all inputs are those that it gets.
        X : array-like of shape (n_inputs, ...)
            Raw inputs, which are clipped to the box.
        y : array-like of shape (n_inputs,), optional
            The labels to change, as in `run`.
        radius : float or array-like of shape (n_inputs,), default=inf
            The largest distance of interest.

        Returns
        -------
        adversarials : Adversarials
            ``adversarials.upper_bounds`` are the counterpart of ``clf.certify(X).radii``.

        Raises
        ------
        ValueError
            As in `run`.

        See Also
        --------
        run : Look for any adversarial input within a budget.
        """
        return self._attack(clf, X, y, radius, closest=True)

    @abstractmethod
    def _paths(self, target: Target, budget: float, closest: bool) -> Iterator[Path]:
        """Yield paths to search, which may leave the budget; the best point of all paths counts."""

    def _check(self, clf: SmoothedClassifier) -> None:
        """Raise a ValueError if a parameter is invalid, or the attack does not fit the classifier."""
        if not isinstance(clf, SmoothedClassifier):
            raise ValueError(f"clf must be a SmoothedClassifier, got a {type(clf).__name__}.")
        check_is_fitted(clf, "estimator_")
        for name in self._counts if self.n_samples is None else (*self._counts, "n_samples"):
            check_count(name, getattr(self, name))
        for name, known in self._choices.items():
            check_choice(name, getattr(self, name), known)
        if self.alpha is not None:
            check_open_unit("alpha", self.alpha)

    def _attack(self, clf: SmoothedClassifier, X: Any, y: Any, radius: Any, *, closest: bool) -> Adversarials:
        clf, X = last_step(clf, X)
        self._check(clf)
        opened = clf.open_inputs(X)
        # Votes read X as it was given: categories by their names, not by their codes.
        original = clf.predict(X) if y is None else check_labels(y, len(opened), clf.classes_)
        X = opened.read(np.arange(len(opened)))
        budgets = check_radii(radius, len(X))
        seeds = np.random.SeedSequence(resolve_seed(self.random_state))
        attempts = ATTEMPTS if closest else 2
        verifier = Verifier(clf, X.shape[1:], self.n_samples, self.alpha, attempts, seeds.spawn(1)[0])
        n_samples, spare = verifier.n_samples, self.max_queries - verifier.reserve
        clear = verifier.clear_lead(n_samples)
        if spare < 1:
            raise ValueError(
                f"max_queries must exceed {verifier.reserve}, the cost of verification, got {self.max_queries}. Lower "
                f"n_samples or raise max_queries."
            )
        rng = np.random.default_rng(seeds)
        known = {label: index for index, label in enumerate(clf.classes_.tolist())}
        found = []
        with verifier.voter.ready():
            for x, label, budget in zip(X, original.tolist(), budgets, strict=True):
                target = Target(verifier.algorithm, x, known.get(label, -1), rng, spare, n_samples, clear)
                found.append(self._attack_one(target, target.budget(float(budget)), verifier, closest))
        inputs, distance, labels, success, queries = map(np.array, zip(*found, strict=True))
        return Adversarials(inputs, distance, original, clf.classes_[labels], success, queries, verifier.alpha)

    def _attack_one(self, target: Target, budget: float, verifier: Verifier, closest: bool) -> tuple[Any, ...]:
        """Attack one input; return the adversarial input, its distance, its label, success and queries."""
        n = verifier.n_samples
        with suppress(QueriesSpentError):
            self._search(target, budget, closest)
        target.max_queries += verifier.reserve
        for left in reversed(range(verifier.attempts)):
            raw = target.raw(target.best[None])[0]
            target.spend(verifier.queries(n))
            label, success, ahead = verifier.verify(raw, target, n)
            if success or not left:
                break
            reserve = (left - 1) * verifier.queries(verifier.n_samples)
            if ahead and target.n_left - reserve >= verifier.queries(MORE * n):
                n *= MORE
                continue
            # Farther along the path the lead is clearer.
            n, target.clear = verifier.n_samples, 1.5 * target.clear
            if not closest or not self._search_onward(target, budget, left * verifier.queries(n)):
                break
        return raw, target.distance(raw), label, success, target.n_queries

    def _search(self, target: Target, budget: float, closest: bool) -> None:
        """Search all paths, unless the label is already wrong at the input."""
        if target.leads(target.start[None], target.n_samples)[0] > target.clear:
            return
        target.choose_categories(self.n_votes)
        largest = -np.inf
        for path in self._paths(target, budget, closest):
            end = min(budget, target.closest, target.length(path))
            if closest:
                self._search_path(target, path, 0.0, end)
            elif end > 0:
                distances, leads = self._sweep(target, path, 0.0, end, np.inf)
                if leads.max() > largest:
                    largest = leads.max()
                    target.best = target.walk(path, distances[leads.argmax()][None])[0]

    def _search_onward(self, target: Target, budget: float, reserve: int) -> bool:
        """Look for a clearer lead farther along the path of the best point, and tell whether there is one."""
        if target.path is None:
            return False
        target.max_queries -= reserve
        start, end = target.closest, min(budget, target.length(target.path))
        target.closest = np.inf
        try:
            return self._search_path(target, target.path, start, end)
        except QueriesSpentError:
            return False
        finally:
            target.max_queries += reserve

    def _search_path(self, target: Target, path: Path, start: float, end: float) -> bool:
        """Find the first point with a clear lead on part of a path, and tell whether there is one."""
        if end <= start:
            return False
        distances, leads = self._sweep(target, path, start, end, target.clear)
        for i in np.flatnonzero(leads > target.clear - self._doubt(target)):
            lead = self._lead(target, target.walk(path, distances[i : i + 1]))
            if lead > target.clear:
                self._bisect(target, path, distances[i - 1] if i else start, distances[i], lead)
                return True
        return False

    def _bisect(self, target: Target, path: Path, low: float, high: float, lead: float) -> None:
        """Move the point at `high`, whose lead is clear, toward `low` while its lead stays clear."""
        target.found(path, high)
        # A lead that is clear by less than its standard error cannot be told from the first clear one.
        near = 0.0 if target.exact else target.clear + 1 / np.sqrt(target.n_samples)
        smallest = 0.5 * target.finest or max(RTOL * high, SMALLEST)
        while high - low > smallest and lead > near:
            middle = (low + high) / 2
            at_middle = self._lead(target, target.walk(path, [middle]))
            if at_middle > target.clear:
                high, lead = middle, at_middle
                target.found(path, high)
            else:
                low = middle

    def _doubt(self, target: Target) -> float:
        """Return the possible error of a lead of `n_votes` votes."""
        return 0.0 if target.exact else DOUBT / np.sqrt(self.n_votes)

    def _lead(self, target: Target, point: FloatArray) -> float:
        """Return the lead at a point, with votes until it is clear or not, and at most ``target.n_samples``."""
        n = self.n_votes
        while True:
            lead = float(target.leads(point, n)[0])
            if target.exact or n >= target.n_samples or abs(lead - target.clear) > DOUBT / np.sqrt(n):
                return lead
            n = min(MORE * n, target.n_samples)

    def _sweep(
        self, target: Target, path: Path, start: float, end: float, clear: float
    ) -> tuple[FloatArray, FloatArray]:
        """Measure leads on part of a path, with more points around peaks before the first clear lead.

        All points share the same noise. Return their distances, increasing, and their leads.
        """
        key = target.new_key()
        distances = np.linspace(start, end, POINTS + 1)[1:]
        leads = target.leads(target.walk(path, distances), self.n_votes, key)
        for _ in range(STEPS):
            closer = self._closer(target, distances, leads, start, clear)
            if not len(closer) or len(closer) * target.cost(self.n_votes) > STEP_SHARE * target.n_left:
                break
            more = target.leads(target.walk(path, closer), self.n_votes, key)
            order = np.argsort(np.append(distances, closer), kind="stable")
            distances, leads = np.append(distances, closer)[order], np.append(leads, more)[order]
        return distances, leads

    def _closer(
        self, target: Target, distances: FloatArray, leads: FloatArray, start: float, clear: float
    ) -> FloatArray:
        """Return the next points to measure, on both sides of the highest peaks beside which the label may change."""
        doubt, noise = self._doubt(target), target.mechanism.prices
        finest = target.finest or RTOL * distances[-1]
        over = np.flatnonzero(leads > clear + doubt)
        before = over[0] if len(over) else len(leads)
        padded = np.concatenate([[-np.inf], leads, [-np.inf]])
        ends = np.concatenate([[start], distances, distances[-1:]])
        peaks = np.flatnonzero((leads >= padded[:-2]) & (leads >= padded[2:]))
        # Vote shares change no faster than the certificate allows, which rules out most peaks.
        gaps = np.maximum(ends[1:-1] - ends[:-2], ends[2:] - ends[1:-1])
        lag = np.clip(-leads - doubt / DOUBT, 0.0, 1.0)
        hopeful = noise.cost(gaps) > noise.budget((1 + lag) / 2, (1 - lag) / 2)
        peaks = peaks[(peaks < before) & (gaps[peaks] > finest) & hopeful[peaks]]
        peaks = peaks[np.argsort(-leads[peaks], kind="stable")[:PEAKS]]
        inside = np.arange(1, CLOSER + 1) / (CLOSER + 1)
        sides = [ends[i + side] + inside * (ends[i + side + 1] - ends[i + side]) for i in peaks for side in (0, 1)]
        return np.setdiff1d(np.concatenate([np.empty(0), *sides]), distances)
