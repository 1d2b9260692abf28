"""Exact probabilities: the noisy outcomes of trees and boosted stumps are counted, and nothing is sampled.

Noise of a lattice perturbs features independently, and a tree compares one feature at a time. So the probability of a
class is a finite sum of products of L-ths, L being the number of offsets. It is the same probability that votes
estimate: thresholds meet the sampler's own values, in the type in which the model compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from ..models.adapt import make_voter
from ..models.sklearn import SklearnVoter
from ..noise._philox import OffsetRecipe, apply_offsets
from ..noise.mechanism import NoiseMechanism
from ..noise.mixture import UniformMixtureNoise
from ._outcome_sums import LeafSum, OutcomeSum, ScoreSum, VoteTable
from ._step_models import NotExactError, StepModel, Tree, read

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

#: Relative error of mixing bounds, per part.
EPS = float(np.finfo(np.float64).eps)


def exact_votes(model: Any, mechanism: NoiseMechanism, X: Any, classes: Any) -> tuple[FloatArray, FloatArray]:
    """Return bounds on the probability that a noisy copy of each input gets a vote for each class.

    Parameters
    ----------
    model : estimator
        A fitted decision tree, or boosted trees, of scikit-learn; see `ExactVotes`.
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

    Uniform and splitting noise, and mixtures of uniform noises, are supported with these classifiers of scikit-learn,
    alone or behind steps of a pipeline that scale each column:

    - A decision tree: the probability of a class is the sum over its leaves of the products of the features'
      probabilities.
    - AdaBoost, GradientBoosting and HistGradientBoosting whose thresholds make few cells: the model is asked once for
      its vote in each cell.
    - The same with trees of depth 1 and two classes: the score is a sum of independent numbers. Its distribution is
      computed on a grid, and what rounding to the grid leaves undecided lies between the bounds.

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
        if not isinstance(voter, SklearnVoter):
            raise NotExactError("Exact probabilities need a scikit-learn classifier. Use estimation='sample'.")
        self.voter, self.mechanism = voter, mechanism
        self.parts = noise_parts(mechanism)
        self.model = read(voter.estimator)
        self.q = self.parts[0][1].q
        self.cells = self._cut()
        self.outcome_sum = self._choose_sum()
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
        return self.model.scale(unit if columns is None or not self.model.scalers else columns.frame(unit))

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
        feature = np.concatenate([tree.feature[tree.inner] for tree in trees]).astype(np.int64)
        threshold = np.concatenate([tree.threshold[tree.inner] for tree in trees])
        rank = np.zeros_like(feature)
        for f in np.unique(feature):
            rank[feature == f] = np.arange(np.count_nonzero(feature == f))
        limits = np.full((rank.max(initial=-1) + 1, self.mechanism.n_features), np.inf)
        limits[rank, feature] = threshold
        width = max(recipe.n_offsets for _, recipe in self.parts)
        # Noisy values lie strictly between these ends.
        low, high = np.full(limits.shape, -4 * width - 4), np.full(limits.shape, 4 * (self.q + width) + 4)
        while limits.size and (high - low > 1).any():
            middle = (low + high) // 2
            below = self._compared(middle * (0.25 / self.q)) <= limits
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return Cells.from_cuts(feature, low[rank, feature], self.q)

    def _choose_sum(self) -> OutcomeSum:
        """Return the cheapest way to add the outcomes."""
        model, cells = self.model, self.cells
        labels = self.voter.labels.indices(model.classes, type(self.voter.estimator).__name__)
        if model.votes and len(model.trees[0].inner):
            low, high, starts, leaves = cells.leaf_edges(model.trees[0])
            return LeafSum(low, high, starts, labels[model.trees[0].value[leaves]], self.voter.n_classes)
        if np.prod(cells.sizes, dtype=np.float64) <= TABLE_CELLS:
            rows = cells.representatives(self.mechanism.n_features)
            self.mechanism.box.to_raw_inplace(rows)
            votes = self.voter(rows)
            return VoteTable(votes.reshape(cells.sizes), self.voter.n_classes)
        if not model.scored or any(len(tree.inner) > 1 for tree in model.trees):
            raise NotExactError(
                f"Exact probabilities need trees of depth 1 and two classes where thresholds make more than "
                f"{TABLE_CELLS} cells. Use estimation='sample', or a base model with max_depth=1."
            )
        scores, constant = cells.scores(model)
        size = abs(model.constant) + sum(float(np.abs(tree.value[tree.left < 0]).max()) for tree in model.trees)
        slack = 2 * EPS * (2 * len(model.trees) + len(cells.sizes) + 8) * size
        return ScoreSum(scores, constant, slack, labels, self.voter.n_classes, GRID_CELLS)


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


@dataclass(frozen=True, eq=False)
class Cells:
    """The axis of each feature, cut at the thresholds of a model.

    Parameters
    ----------
    feature : ndarray of shape (n_cuts,)
        In increasing order.
    cut : ndarray of shape (n_cuts,)
        The largest whole number of quarter steps of the lattice that is not above the threshold; increasing for each
        feature.
    of_split : ndarray of shape (n_splits,)
        The cut of each split of the trees, tree after tree.
    q : int
        Lattice steps per unit.
    """

    feature: IntArray
    cut: IntArray
    of_split: IntArray
    q: int

    @classmethod
    def from_cuts(cls, feature: IntArray, cut: IntArray, q: int) -> Cells:
        """Return the cells of splits, several of which may share a cut."""
        pairs, of_split = np.unique(np.stack([feature, cut], axis=1), axis=0, return_inverse=True)
        return cls(pairs[:, 0], pairs[:, 1], of_split.reshape(-1), q)

    @property
    def features(self) -> IntArray:
        """The features that are cut."""
        return np.unique(self.feature)

    @property
    def sizes(self) -> list[int]:
        """Number of cells of each feature that is cut."""
        return [int(np.count_nonzero(self.feature == f)) + 1 for f in self.features]

    @property
    def edge(self) -> IntArray:
        """The edge of each cut. A feature has one more in front, and one more behind."""
        return np.arange(len(self.feature)) + 2 * np.searchsorted(self.features, self.feature) + 1

    @property
    def limits(self) -> FloatArray:
        """The cuts in the unit box."""
        return self.cut * np.float64(0.25 / self.q)

    def counts(self, recipe: OffsetRecipe, points: IntArray) -> IntArray:
        """Return how many offsets of a point give a noisy value below each edge, shape (n_inputs, n_edges)."""
        edges = np.zeros((len(points), len(self.feature) + 2 * len(self.features)), dtype=np.int64)
        edges[:, np.cumsum(np.asarray(self.sizes, dtype=np.intp) + 1) - 1] = recipe.n_offsets
        edges[:, self.edge] = count_up_to(recipe, points[:, self.feature], self.limits)
        return edges

    def representatives(self, n_features: int) -> FloatArray:
        """Return a place in the unit box for each combination of cells: the largest value of each, or the next one."""
        values = [self.cut[self.feature == f] for f in self.features]
        grid = np.meshgrid(*[np.append(cuts, cuts[-1] + 1) for cuts in values], indexing="ij")
        rows = np.zeros((int(np.prod(self.sizes)), n_features))
        for f, column in zip(self.features, grid, strict=True):
            rows[:, f] = column.ravel() * (0.25 / self.q)
        return rows

    def scores(self, model: StepModel) -> tuple[list[FloatArray], float]:
        """Return what trees of depth 1 add to the score in each cell of each feature, and the constant part."""
        scores, constant = [np.zeros(size) for size in self.sizes], model.constant
        cuts = iter(self.of_split.tolist())
        first = np.searchsorted(self.feature, self.features)
        for tree in model.trees:
            if not len(tree.inner):
                constant += float(tree.value[0])
                continue
            cut = next(cuts)
            f = int(np.searchsorted(self.features, self.feature[cut]))
            after = cut - int(first[f]) + 1
            scores[f][:after] += tree.value[tree.left[0]]
            scores[f][after:] += tree.value[tree.right[0]]
        return scores, constant

    def leaf_edges(self, tree: Tree) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Return the edges between which features keep to a leaf, leaf after leaf, the first of each leaf, its node."""
        edge = dict(zip(tree.inner.tolist(), self.edge[self.of_split].tolist(), strict=True))
        ends = np.cumsum(np.asarray(self.sizes) + 1)
        whole = {
            int(f): (int(end) - size - 1, int(end) - 1)
            for f, end, size in zip(self.features, ends, self.sizes, strict=True)
        }
        low: list[int] = []
        high: list[int] = []
        starts: list[int] = []
        leaves: list[int] = []
        stack: list[tuple[int, dict[int, tuple[int, int]]]] = [(0, {})]
        while stack:
            node, path = stack.pop()
            if node not in edge:
                starts.append(len(low))
                leaves.append(node)
                low += [pair[0] for pair in path.values()]
                high += [pair[1] for pair in path.values()]
                continue
            f, at = int(tree.feature[node]), edge[node]
            start, end = path.get(f, whole[f])
            stack.append((int(tree.left[node]), {**path, f: (start, min(end, at))}))
            stack.append((int(tree.right[node]), {**path, f: (max(start, at), end)}))
        return np.array(low), np.array(high), np.array(starts), np.array(leaves)


def count_up_to(recipe: OffsetRecipe, points: IntArray, limits: FloatArray) -> IntArray:
    """Return for how many offsets the noisy value of a lattice point is at most a limit.

    The noisy value increases with the offset up to the point modulo L, where splitting noise starts again, and from
    there on. Bisection finds the limit in both parts.

    Parameters
    ----------
    recipe : OffsetRecipe
    points : ndarray of int64, shape (n_inputs, n_limits)
    limits : ndarray of shape (n_limits,)
        In the unit box.
    """
    turn = points % recipe.n_offsets
    first = np.stack([np.zeros_like(turn), turn])
    low, high = first.copy(), np.stack([turn, np.full_like(turn, recipe.n_offsets)])
    noisy = np.empty(low.shape)
    for _ in range(recipe.n_offsets.bit_length()):
        middle = (low + high) // 2
        apply_offsets(recipe, points, middle, noisy)
        below = (noisy <= limits) & (low < high)
        low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
    return (low - first).sum(axis=0)
