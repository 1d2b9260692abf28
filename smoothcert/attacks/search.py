"""What all attacks share: the walk along a path to the point where the label changes, and its verification."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from .._utils.checks import check_count, check_open_unit, check_radii
from ..certify.names import resolve_radius
from ..classifier import SmoothedClassifier
from ..noise.seeding import resolve_seed
from ..results.certificates import FloatArray
from .results import Adversarials
from .target import Path, QueriesSpentError, Target
from .verification import Verifier

#: Verifications of one input at most, each with this share of alpha: if the closest candidate is not confirmed, it gets
#: more votes, or the next ones have clearer leads.
ATTEMPTS = 4

#: Factor by which votes grow where fewer have left doubt.
MORE = 4

#: Standard errors by which a lead may be wrong.
DOUBT = 3.0

#: Points at which a path is looked at first, to find the part of it where the label changes.
LOOKS = 16

#: How often a path is looked at more closely, at how many peaks, at how many points on each side of them, and the share
#: of the queries left that one round may spend.
ZOOMS, PEAKS, CLOSER, ZOOM_SHARE = 6, 2, 3, 0.02

#: Share of the distance to which that part is halved, for real-valued inputs; for digital ones, to one step.
RTOL = 1e-3

#: Distance below which halving has no point.
SMALLEST = 1e-6


class Attack(BaseEstimator, ABC):
    """An l1 attack on a smoothed classifier.

    Attacks minimise the lead of a label over its strongest rival (untargeted). They differ in the paths on which they
    leave an input; where on a path the label changes is found by bisection with votes, and what is returned has been
    verified with fresh votes, which the search has not seen.

    Parameters
    ----------
    n_votes : int, default=500
        Votes at each point that guides the search.
    n_samples : int or None, default=None
        Votes at each point where the path is bisected, and fresh ones that verify a candidate, at least; None takes the
        classifier's ``n_samples``. The lead that they can show is about 4 / sqrt(n_samples).
    alpha : float or None, default=None
        Probability, for each input, that a success is none; None takes the classifier's alpha.
    max_queries : int, default=1_000_000
        Noisy rows at most that the base model is asked about for each input, verification included.
    random_state : int, RandomState or None, default=None
        Of the search and the verification, whatever the classifier's is.
    """

    def __init__(
        self,
        n_votes: int = 500,
        n_samples: int | None = None,
        alpha: float | None = None,
        max_queries: int = 1_000_000,
        random_state: Any = None,
    ) -> None:
        self.n_votes = n_votes
        self.n_samples = n_samples
        self.alpha = alpha
        self.max_queries = max_queries
        self.random_state = random_state

    def run(self, clf: SmoothedClassifier, X: Any, y: Any = None, *, radius: Any) -> Adversarials:
        """Look for an adversarial input within a budget; any one will do.

        Parameters
        ----------
        clf : SmoothedClassifier
            Fitted.
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        y : array-like of shape (n_inputs,), optional
            Labels that the attack is to change: the true ones for robust accuracy. By default those that the
            classifier predicts.
        radius : float or array-like of shape (n_inputs,)
            Budget: l1 distance in the unit box.

        Returns
        -------
        adversarials : Adversarials
            No distance exceeds the budget.

        Raises
        ------
        ValueError
            If an argument or parameter is invalid, or the attack does not fit the base model.
        """
        return self._attack(clf, X, y, radius, closest=False)

    def minimal(self, clf: SmoothedClassifier, X: Any, y: Any = None, *, radius: Any = np.inf) -> Adversarials:
        """Look for the closest adversarial input: an upper bound on the robust radius of each input.

        Parameters
        ----------
        clf : SmoothedClassifier
            Fitted.
        X : array-like of shape (n_inputs, ...)
            Raw inputs; clipped into the box.
        y : array-like of shape (n_inputs,), optional
            Labels that the attack is to change; see `run`.
        radius : float or array-like of shape (n_inputs,), default=inf
            Largest distance of interest.

        Returns
        -------
        adversarials : Adversarials
            ``adversarials.upper_bounds`` stand beside ``clf.certify(X).radii``.

        Raises
        ------
        ValueError
            As in `run`.
        """
        return self._attack(clf, X, y, radius, closest=True)

    @abstractmethod
    def _paths(self, target: Target, budget: float, closest: bool) -> Iterator[Path]:
        """Yield paths to attack along, which need not end within the budget; the best point of all counts."""

    def _check(self, clf: SmoothedClassifier) -> None:
        """Raise a ValueError if a parameter is invalid, or the attack does not fit the classifier."""
        if not isinstance(clf, SmoothedClassifier):
            raise ValueError(f"clf must be a SmoothedClassifier, got a {type(clf).__name__}.")
        check_is_fitted(clf, "estimator_")
        check_count("n_votes", self.n_votes)
        if self.n_samples is not None:
            check_count("n_samples", self.n_samples)
        if self.alpha is not None:
            check_open_unit("alpha", self.alpha)
        check_count("max_queries", self.max_queries)

    def _attack(self, clf: SmoothedClassifier, X: Any, y: Any, radius: Any, *, closest: bool) -> Adversarials:
        self._check(clf)
        opened = clf.open_inputs(X)
        X = opened.read(np.arange(len(opened)))
        budgets = check_radii(radius, len(X))
        original = clf.predict(X) if y is None else np.asarray(y)
        if original.shape != (len(X),):
            raise ValueError(f"y must hold one label for each of {len(X)} inputs, got shape {original.shape}.")
        seeds = np.random.SeedSequence(resolve_seed(self.random_state))
        jury = Verifier(clf, X.shape[1:], self.n_samples, self.alpha, ATTEMPTS if closest else 2, seeds.spawn(1)[0])
        spare = self.max_queries - jury.reserve
        if spare < 1:
            raise ValueError(
                f"max_queries must exceed {jury.reserve}, the cost of verification, got {self.max_queries}. Lower "
                f"n_samples or raise max_queries."
            )
        rng = np.random.default_rng(seeds)
        strategy = resolve_radius(clf.radius, clf.noise_)
        found = []
        with jury.voter.ready():
            for x, label, budget in zip(X, original, budgets, strict=True):
                index = np.flatnonzero(clf.classes_ == label)
                label = int(index[0]) if len(index) else -1
                target = Target(jury.voter, jury.mechanism, strategy, x, label, rng, max_queries=spare)
                found.append(self._attack_one(target, target.budget(float(budget)), jury, closest))
        inputs, distance, labels, success, queries = zip(*found, strict=True)
        return Adversarials(
            inputs=np.stack(inputs),
            distance=np.array(distance),
            original=original,
            labels=clf.classes_[np.array(labels)],
            success=np.array(success),
            n_queries=np.array(queries, dtype=np.int64),
            alpha=jury.alpha,
        )

    def _attack_one(self, target: Target, budget: float, jury: Verifier, closest: bool) -> tuple[Any, ...]:
        """Attack one input; return the adversarial input, its distance, its label, success and queries."""
        clear = jury.clear_lead(jury.n_samples)
        route: Path | None = None
        try:
            if target.leads(target.start[None], jury.n_samples)[0] <= clear:
                for path in self._paths(target, budget, closest):
                    end = min(budget, target.closest, target.length(path))
                    if self._follow(target, path, 0.0, end, clear, jury.n_samples, closest):
                        route = path
            elif not closest:
                target.best = target.start
        except QueriesSpentError:
            pass
        n, attempts = jury.n_samples, 0
        target.max_queries += jury.reserve
        while True:
            raw = target.raw(target.best[None])[0]
            target.spend(jury.queries(n))
            label, success, ahead = jury.verify(raw, target, n)
            attempts += 1
            if success or attempts == jury.attempts:
                break
            reserve = (jury.attempts - attempts - 1) * jury.queries(jury.n_samples)
            if ahead and target.n_left - reserve >= jury.queries(MORE * n):
                n *= MORE
                continue
            # Farther along the path the lead is clearer.
            n, clear = jury.n_samples, 1.5 * clear
            if not closest or route is None or not self._walk_on(target, route, budget, clear, jury, attempts):
                break
        return raw, target.distance(raw), label, success, target.n_queries

    def _walk_on(self, target: Target, route: Path, budget: float, clear: float, jury: Verifier, attempts: int) -> bool:
        """Look for a point with a clearer lead, farther along a path; tell if there is one that can be verified."""
        reserve = (jury.attempts - attempts) * jury.queries(jury.n_samples)
        target.max_queries -= reserve
        start, end = target.closest, min(budget, target.length(route))
        target.closest = np.inf
        try:
            return self._follow(target, route, start, end, clear, jury.n_samples, closest=True)
        except QueriesSpentError:
            return False
        finally:
            target.max_queries += reserve

    def _follow(
        self, target: Target, path: Path, start: float, end: float, clear: float, n_samples: int, closest: bool
    ) -> bool:
        """Find the first point of part of a path that has a clear lead; it becomes the target's best. Tell if any."""
        if end <= start:
            return False
        looks, leads = self._look(target, path, start, end, clear if closest else np.inf)
        if not closest:
            top = int(leads.argmax())
            target.keep(target.walk(path, looks[top : top + 1])[0], float(leads[top]))
            return True
        for i in np.flatnonzero(leads > clear - self._doubt(target)):
            point = target.walk(path, looks[i : i + 1])
            lead = self._lead(target, point, clear, n_samples)
            if lead > clear:
                break
        else:
            return False
        low, high = (start if i == 0 else looks[i - 1]), looks[i]
        target.found(point[0], high)
        # A lead that is clear by less than its standard error cannot be told from the first clear one.
        near = 0.0 if target.exact else clear + 1 / np.sqrt(n_samples)
        smallest = max(RTOL * high, SMALLEST) if target.levels is None else 0.5 / target.levels
        while high - low > smallest and lead > near:
            middle = (low + high) / 2
            point = target.walk(path, [middle])
            at_middle = self._lead(target, point, clear, n_samples)
            if at_middle > clear:
                high, lead = middle, at_middle
                target.found(point[0], high)
            else:
                low = middle
        return True

    def _doubt(self, target: Target) -> float:
        """Return by how much a lead of `n_votes` votes may be wrong."""
        return 0.0 if target.exact else DOUBT / np.sqrt(self.n_votes)

    def _lead(self, target: Target, point: FloatArray, clear: float, n_samples: int) -> float:
        """Return the lead at a point, from as many votes as tell whether it is clear, `n_samples` at most."""
        n = self.n_votes
        while True:
            lead = float(target.leads(point, n)[0])
            if target.exact or n >= n_samples or abs(lead - clear) > DOUBT / np.sqrt(n):
                return lead
            n = min(MORE * n, n_samples)

    def _look(
        self, target: Target, path: Path, start: float, end: float, clear: float
    ) -> tuple[FloatArray, FloatArray]:
        """Look at points along part of a path, more closely where the lead peaks before the first that is clear.

        All looks meet the same noise. Return their distances, increasing, and their leads.
        """
        key = target.new_key()
        looks = np.linspace(start, end, LOOKS + 1)[1:]
        leads = target.leads(target.walk(path, looks), self.n_votes, key)
        for _ in range(ZOOMS):
            closer = self._closer(target, looks, leads, start, clear)
            if not len(closer) or len(closer) * target.cost(self.n_votes) > ZOOM_SHARE * target.n_left:
                break
            more = target.leads(target.walk(path, closer), self.n_votes, key)
            order = np.argsort(np.append(looks, closer), kind="stable")
            looks, leads = np.append(looks, closer)[order], np.append(leads, more)[order]
        return looks, leads

    def _closer(self, target: Target, looks: FloatArray, leads: FloatArray, start: float, clear: float) -> FloatArray:
        """Return where to look next: on both sides of the highest peaks at which the label may change unseen."""
        doubt, noise = self._doubt(target), target.mechanism.noise
        finest = RTOL * looks[-1] if target.levels is None else 1 / target.levels
        over = np.flatnonzero(leads > clear + doubt)
        before = over[0] if len(over) else len(leads)
        padded = np.concatenate([[-np.inf], leads, [-np.inf]])
        ends = np.concatenate([[start], looks, looks[-1:]])
        peaks = np.flatnonzero((leads >= padded[:-2]) & (leads >= padded[2:]))
        # A vote changes no faster than the certificate allows: that rules out most peaks.
        gaps = np.maximum(ends[1:-1] - ends[:-2], ends[2:] - ends[1:-1])
        lag = np.clip(-leads - doubt / DOUBT, 0.0, 1.0)
        hopeful = noise.cost(gaps) > noise.budget((1 + lag) / 2, (1 - lag) / 2)
        peaks = peaks[(peaks < before) & (gaps[peaks] > finest) & hopeful[peaks]]
        peaks = peaks[np.argsort(-leads[peaks], kind="stable")[:PEAKS]]
        inside = np.arange(1, CLOSER + 1) / (CLOSER + 1)
        sides = [ends[i + side] + inside * (ends[i + side + 1] - ends[i + side]) for i in peaks for side in (0, 1)]
        return np.setdiff1d(np.concatenate([np.empty(0), *sides]), looks)
