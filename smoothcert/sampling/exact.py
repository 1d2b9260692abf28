"""Exact probabilities: the noisy outcomes of trees and boosted stumps are counted, and nothing is sampled.

Noise of a lattice perturbs features independently, and a tree compares one feature at a time. So the probability of a
class is a finite sum of products of L-ths, L being the number of offsets. It is the same probability that votes
estimate: thresholds meet the sampler's own values, in the type in which the model compares them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from ..models.adapt import make_voter
from ..models.base import name_of
from ..models.sklearn import SklearnVoter
from ..models.timeout import TimedVoter
from ..noise._philox import OffsetRecipe
from ..noise.mechanism import NoiseMechanism
from ..noise.mixture import UniformMixtureNoise
from ._cells import Cells
from ._outcome_sums import LeafSum, OutcomeSum, ScoreSum, VoteTable
from ._step_models import NotExactError, read

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

#: Largest number of cells for which the model's vote in each cell is asked for and kept.
TABLE_CELLS = 2**14

#: Values that are compared with thresholds at once: few enough for the cache.
VALUES = 2**15

#: Grid cells of a sum of scores, and cells for inputs that have no majority on the first grid, or a wide gap.
GRID_CELLS, FINE_GRID_CELLS = 2**16, 2**19

#: Gap between the bounds that is wide.
WIDE_GAP = 0.005

#: Number of combinations of cells in which the model's vote is compared with what was read of it.
CHECKED = 128

#: Relative error of mixing bounds, per part.
EPS = float(np.finfo(np.float64).eps)


def exact_votes(model: Any, mechanism: NoiseMechanism, X: Any, classes: Any) -> tuple[FloatArray, FloatArray]:
    """Return bounds on the probability that a noisy copy of each input gets a vote for each class.

    Parameters
    ----------
    model : estimator
        A fitted decision tree, or boosted trees; see `ExactVotes`.
    mechanism : NoiseMechanism
        Box and noise.
    X : array-like of shape (n_inputs, n_features)
        Inputs in raw units.
    classes : array-like of shape (n_classes,)
        Labels in the order of the columns of the bounds.

    Returns
    -------
    lower, upper : ndarray of shape (n_inputs, n_classes)

    Raises
    ------
    NotExactError
        If the probabilities of this model and noise can be estimated only.

    See Also
    --------
    ExactVotes : The same for several calls.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from smoothcert.noise import Box, UniformNoise
    >>> from smoothcert.noise.mechanism import NoiseMechanism
    >>> tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    >>> mechanism = NoiseMechanism(Box.from_bounds((0, 1)), UniformNoise(lam=1.0), (1,))
    >>> lower, upper = exact_votes(tree, mechanism, np.array([[0.25]]), [0, 1])
    >>> print(lower.round(6), upper.round(6))
    [[0.625 0.375]] [[0.625 0.375]]
    """
    return ExactVotes(make_voter(model, np.asarray(classes)), mechanism).bounds(X)


class ExactVotes:
    """The probability of a vote for each class, for base models that are constant between thresholds.

    Uniform and splitting noise, and mixtures of uniform noises, are supported with these classifiers, alone or behind
    steps of a pipeline that scale or bin each column:

    - A decision tree of scikit-learn: the probability of a class is the sum over its leaves of the products of the
      features' probabilities.
    - Boosted trees of scikit-learn, XGBoost and LightGBM whose thresholds make few cells: the model is
      asked once for its vote in each cell.
    - Boosted trees of depth 1 for two classes: the score is a sum of independent numbers. Its distribution is computed
      on a grid, and what rounding to the grid leaves undecided lies between the bounds.

    What was read of a model is compared with its votes on both sides of some thresholds.

    Parameters
    ----------
    voter : Voter
        The base model.
    mechanism : NoiseMechanism
        Box and noise.

    Raises
    ------
    NotExactError
        If the probabilities of this model and noise can be estimated only. The message says why.

    References
    ----------
    Voracek and Hein (2023), "Improving l1-certified robustness via randomized smoothing by leveraging box constraints",
    Propositions 2.1 and 2.12: these probabilities take the place of confidence bounds, with alpha = 0.
    """

    def __init__(self, voter: Any, mechanism: NoiseMechanism) -> None:
        voter = voter.voter if isinstance(voter, TimedVoter) else voter
        if not isinstance(voter, SklearnVoter):
            raise NotExactError("Exact probabilities need a scikit-learn classifier. Use estimation='sample'.")
        self.voter, self.mechanism = voter, mechanism
        self.parts = noise_parts(mechanism)
        self.model = read(voter.estimator)
        self.q = self.parts[0][1].q
        self.cells = self._cut()
        self.outcome_sum = self._choose_sum()
        self._check_reading()
        self._fine: OutcomeSum | None = None

    def bounds(self, X: Any) -> tuple[FloatArray, FloatArray]:
        """Return bounds on the probabilities of all classes for inputs in raw units, shape (n_inputs, n_classes) each.

        See Also
        --------
        exact_votes : The same for a single call, with an example.
        """
        points = self.mechanism.points(X).astype(np.int64)
        lower, upper = self._bounds(points, self.outcome_sum)
        if isinstance(self.outcome_sum, ScoreSum):
            coarse = (lower.max(axis=1) <= 0.5) | ((upper - lower).max(axis=1) > WIDE_GAP)
            if coarse.any():
                self._fine = self._fine or self.outcome_sum.on_grid(FINE_GRID_CELLS)
                lower[coarse], upper[coarse] = self._bounds(points[coarse], self._fine)
        return lower, upper

    def _compared(self, unit: FloatArray) -> NDArray[np.floating]:
        """Return values in the unit box, which are overwritten, as the trees compare them."""
        self.mechanism.box.to_raw_inplace(unit)
        columns = self.voter.columns
        return self.model.compared(unit if columns is None or not self.model.steps else columns.frame(unit))

    def _bounds(self, points: IntArray, outcome_sum: OutcomeSum) -> tuple[FloatArray, FloatArray]:
        """Return bounds for lattice points."""
        lower, upper = np.zeros((2, len(points), self.voter.n_classes))
        for rows in gen_batches(len(points), max(1, VALUES // max(1, 2 * len(self.cells.feature)))):
            for weight, recipe in self.parts:
                for row, edges in enumerate(self.cells.counts(recipe, points[rows]), rows.start):
                    low, high = outcome_sum.bounds(edges, recipe.n_offsets)
                    lower[row] += weight * low
                    upper[row] += weight * high
        if len(self.parts) == 1:
            return lower, upper
        error = EPS * (len(self.parts) + 1)
        return lower * (1 - error), np.minimum(upper * (1 + error), 1.0)

    def _cut(self) -> Cells:
        """Cut the axis of each feature at the thresholds: find the largest noisy values that are not above them.

        All noisy values are whole numbers times 1/(4q), rounded, and comparisons are monotone: bisection finds them.
        """
        trees = self.model.trees
        column = np.concatenate([tree.feature[tree.inner] for tree in trees]).astype(np.int64)
        feature = self.model.feature_of(column)
        threshold = np.concatenate([tree.threshold[tree.inner] for tree in trees])
        rank = np.zeros_like(feature)
        for f in np.unique(feature):
            rank[feature == f] = np.arange(np.count_nonzero(feature == f))
        rows = np.zeros((rank.max(initial=-1) + 1, self.mechanism.n_features))
        low, high = (np.full(len(rank), end) for end in self._ends)
        while (high - low > 1).any():
            middle, values = (low + high) // 2, rows.copy()
            values[rank, feature] = middle * (0.25 / self.q)
            below = self._compared(values)[rank, column] <= threshold
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return Cells.from_cuts(feature, low, self.q)

    @property
    def _ends(self) -> tuple[int, int]:
        """Ends of an interval in whose interior all noisy values lie, in quarter steps."""
        width = max(recipe.n_offsets for _, recipe in self.parts)
        return -4 * width - 4, 4 * (self.q + width) + 4

    def _choose_sum(self) -> OutcomeSum:
        """Return the cheapest way to add the outcomes."""
        model, cells = self.model, self.cells
        labels = self.voter.labels.indices(model.classes, type(self.voter.estimator).__name__)
        if model.votes and len(model.trees[0].inner):
            low, high, starts, leaves = cells.leaf_edges(model.trees[0])
            labels = labels[model.trees[0].value[leaves]]
            return LeafSum(low, high, starts, cells.sizes, labels, self.voter.n_classes)
        if np.prod(cells.sizes, dtype=np.float64) <= TABLE_CELLS:
            rows = cells.representatives(self.mechanism.n_features)
            self.mechanism.box.to_raw_inplace(rows)
            votes = self.voter(rows)
            return VoteTable(votes.reshape(cells.sizes), self.voter.n_classes)
        if not model.scored or any(len(tree.inner) > 1 for tree in model.trees):
            raise NotExactError(
                f"Exact probabilities need boosted trees of depth 1 and two classes where thresholds make more than "
                f"{TABLE_CELLS} cells, got {name_of(self.voter.estimator)}. Use estimation='sample' or a decision tree."
            )
        scores, constant = cells.scores(model)
        size = abs(model.constant) + sum(float(np.abs(tree.value[tree.left < 0]).max()) for tree in model.trees)
        slack = model.error + 2 * EPS * (2 * len(model.trees) + len(cells.sizes) + 8) * size
        return ScoreSum(scores, constant, slack, labels, self.voter.n_classes, GRID_CELLS)

    def _check_reading(self) -> None:
        """Raise a NotExactError if the model votes otherwise than was read on both sides of some thresholds."""
        rng, (low, high), places = np.random.default_rng(0), self._ends, []
        rows = np.zeros((CHECKED, self.mechanism.n_features))
        for f in self.cells.features:
            cuts = self.cells.cut[self.cells.feature == f]
            steps = np.clip(rng.choice(cuts, size=CHECKED) + rng.integers(2, size=CHECKED), low + 1, high - 1)
            places.append(np.searchsorted(cuts, steps))
            rows[:, f] = steps * (0.25 / self.q)
        self.mechanism.box.to_raw_inplace(rows)
        read = self.outcome_sum.votes(places)
        if ((read >= 0) & (read != self.voter(rows))).any():
            raise NotExactError(
                f"Exact probabilities need a model that votes as its trees say, but {name_of(self.voter.estimator)} "
                f"does not. Use estimation='sample'."
            )


def noise_parts(mechanism: NoiseMechanism) -> list[tuple[float, OffsetRecipe]]:
    """Return the offset noises that are mixed, with the probability of each.

    Raises
    ------
    NotExactError
        If the noise is not independent for each feature and on a lattice.
    """
    noise = mechanism.noise
    if len(mechanism.shape) == 1:
        if isinstance(noise.recipe, OffsetRecipe):
            return [(1.0, noise.recipe)]
        if type(noise) is UniformMixtureNoise:
            recipes = [part.recipe for part in noise.parts if part.recipe is not None]
            return [part for part in zip(np.diff(noise._edges()).tolist(), recipes, strict=True) if part[0] > 0]
    raise NotExactError(
        f"Exact probabilities need tables and uniform noise, splitting noise or a mixture of uniform noises, got "
        f"{type(noise).__name__} on inputs of shape {mechanism.shape}. Use estimation='sample'."
    )
