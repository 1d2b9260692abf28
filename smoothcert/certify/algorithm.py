"""What a certificate is made of besides votes: which votes it takes, and what they prove (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..noise.base import Noise
from ..noise.mechanism import NoiseMechanism
from ..noise.seeding import auxiliary
from ..results.certificates import Certificates
from ..sampling.sampler import Votes
from .betting import checkpoints
from .binomial import class_probabilities, exact_probabilities
from .radius import RadiusStrategy, required_probability
from .stopping import RadiusPrecision, RadiusTest, Rule

FloatArray = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Procedure:
    """Algorithm 1 with all of its choices made; parameters are those of `SmoothedClassifier`.

    Parameters
    ----------
    noise : Noise
    strategy : RadiusStrategy
    classes : ndarray of shape (n_classes,)
    n_features : int
    scheme, bound : str
    alpha : float
    n_samples : int
        Estimation votes of an input, at most.
    rtol : float or None
    seed : int
        Of the auxiliary numbers of a randomised bound.
    """

    noise: Noise
    strategy: RadiusStrategy
    classes: NDArray[Any]
    n_features: int
    scheme: str
    bound: str
    alpha: float
    n_samples: int
    rtol: float | None
    seed: int

    @property
    def exact(self) -> bool:
        """Whether all outcomes of the noise are evaluated."""
        return self.noise.n_outcomes is not None

    @property
    def can_stop(self) -> bool:
        """Whether there is anything to stop early: votes that are sampled, for one of several classes."""
        return not self.exact and len(self.classes) > 1

    @property
    def stops(self) -> bool:
        """Whether drawing for certificates stops early. No bound for a fixed number of votes holds then."""
        return self.rtol is not None and self.can_stop

    @property
    def level(self) -> float:
        """What the noise's drawing leaves of alpha."""
        return self._level(self.n_samples)

    def _level(self, n_samples: int) -> float:
        drawing = self.noise.draw_error * n_samples * self.n_features
        if drawing >= self.alpha:
            raise ValueError(
                f"alpha={self.alpha:g} must exceed {drawing:.3g}, the error of drawing {n_samples} votes of "
                f"{self.noise} for {self.n_features} features."
            )
        return float(self.alpha - drawing)

    def precision(self, selection: Counts, mechanism: NoiseMechanism, X: NDArray[Any], target: Any) -> RadiusPrecision:
        """Return the rule that stops once radii are precise to ``rtol``."""
        return RadiusPrecision(
            **self._evidence(selection),
            checkpoints=checkpoints(self.n_samples, growth=1.15, step=64),
            rtol=float(self.rtol or 0.0),
            strategy=self.strategy,
            mechanism=mechanism,
            X=X,
        )

    def test(self, selection: Counts, mechanism: NoiseMechanism, X: NDArray[Any], target: Any) -> RadiusTest:
        """Return the rule that stops once it is decided whether inputs are certified at the radii ``target``."""
        return RadiusTest(
            **self._evidence(selection),
            checkpoints=checkpoints(self.n_samples),
            required=required_probability(self.strategy, mechanism, X, target),
        )

    def _evidence(self, selection: Counts) -> dict[str, Any]:
        """Return what rules share."""
        return {
            "selection": selection,
            "top": selection.argmax(axis=1),
            "rivals_apart": self.scheme == "multiclass" and len(self.classes) > 2 and self.noise.by_margin,
            "alpha": self.level,
        }

    def probabilities(self, votes: Votes) -> tuple[FloatArray, FloatArray]:
        """Bound the probabilities of the selected class and of its strongest rival."""
        top = votes.selection.argmax(axis=1)
        if self.exact:
            return exact_probabilities(votes.estimation, top)
        if self.stops:
            return Rule(**self._evidence(votes.selection), checkpoints=np.arange(0)).probabilities(votes.estimation)
        return class_probabilities(
            votes.estimation,
            top,
            scheme=self.scheme,
            bound=self.bound,
            alpha=self._level(int(votes.estimation.sum(axis=1).max())),
            uniforms=auxiliary(self.seed, votes.inputs) if self.bound.startswith("randomized") else None,
        )

    def certify(
        self, votes: Votes, radii: Callable[[NDArray[np.bool_], FloatArray, FloatArray], FloatArray]
    ) -> Certificates:
        """Make certificates of votes.

        Parameters
        ----------
        votes : Votes
        radii : callable
            Returns the radii of the inputs that a mask picks, for bounds p_a and p_b of these.
        """
        p_a, p_b = self.probabilities(votes)
        # Where nothing was sampled there is nothing to be unsure of: even a tie has its winner.
        certified = (p_a > p_b) | self.exact
        found = np.full(len(p_a), np.nan)
        if len(self.classes) == 1:
            found[:] = np.inf
        else:
            found[certified] = radii(certified, p_a[certified], p_b[certified])
        return Certificates(
            labels=self.classes[votes.selection.argmax(axis=1)],
            radii=found,
            abstained=~certified,
            p_a=p_a,
            p_b=p_b,
            alpha=0.0 if self.exact else self.alpha,
            norm=self.strategy.norm,
            threat=self.strategy.threat,
            n_samples=votes.estimation.sum(axis=1),
        )
