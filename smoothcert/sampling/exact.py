"""Exact probabilities: the noisy outcomes of trees and boosted stumps are counted, and nothing is sampled.

Noise of a lattice perturbs features independently, and a tree compares one feature at a time. So the probability of a
class is a finite sum of products of L-ths, L being the number of offsets. It is the same probability that votes
estimate: thresholds meet the sampler's own values, in the type in which the model compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from ..models.adapt import make_voter
from ..models.base import name_of
from ..models.codes import FixedValues
from ..models.sklearn import SklearnVoter
from ..models.timeout import TimedVoter
from ..noise._philox import OffsetRecipe
from ..noise.categories import CategoryNoise
from ..noise.mechanism import NoiseMechanism
from ..noise.mixed_features import MixedNoise
from ..noise.mixture import UniformMixtureNoise
from ._axis_cells import Cells, Groups
from ._outcome_sums import LeafSum, OutcomeSum, ScoreSum, VoteTable
from ._trees import NotExactError, read

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

#: The steps of no feature at all, for rows without noise.
NO_STEPS = np.zeros(0, dtype=np.int64)

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
    steps of a pipeline that scale or bin numbers, encode categories, and do anything with fixed features:

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
        kinds = mechanism.features.numeric, mechanism.features.categorical
        self.numeric, self.categorical = map(mechanism.per_feature, kinds)
        self.model = read(voter.estimator, self.numeric, self.categorical)
        self.q = np.ones(mechanism.n_features, dtype=np.int64)
        for columns, recipe in self.parts[0][1]:
            self.q[columns] = recipe.q
        #: Columns with lattices of their own, whose noisy values are whole numbers of steps.
        self.whole = (mechanism.steps > 0) & (mechanism.noise.column_steps is not None)
        self._row = self._some_row()
        self.cells = self._cut()
        self.outcome_sum = self._choose_sum()
        self._missing_checked = False
        self._check_reading(self._rows(1)[0])
        self._fine: OutcomeSum | None = None

    def bounds(self, X: Any) -> tuple[FloatArray, FloatArray]:
        """Return bounds on the probabilities of all classes for inputs in raw units, shape (n_inputs, n_classes) each.

        See Also
        --------
        exact_votes : The same for a single call, with an example.
        """
        points, below = self.mechanism.points(X), self._below(X)
        lower, upper = self._bounds(points, below, self.outcome_sum)
        if isinstance(self.outcome_sum, ScoreSum):
            coarse = (lower.max(axis=1) <= 0.5) | ((upper - lower).max(axis=1) > WIDE_GAP)
            if coarse.any():
                self._fine = self._fine or self.outcome_sum.on_grid(FINE_GRID_CELLS)
                lower[coarse], upper[coarse] = self._bounds(points[coarse], below[coarse], self._fine)
        return lower, upper

    def _compared(self, rows: FloatArray) -> NDArray[np.floating]:
        """Return raw rows as the trees compare them."""
        columns = self.voter.columns
        if columns is not None and (self.model.steps or columns.codecs is not None):
            rows = columns.frame(rows)
        return self.model.compared(rows)

    def _some_row(self) -> FloatArray:
        """Return a row with 0 for noisy values, numbers in the unit box, and any known value for fixed ones."""
        row, columns = np.zeros(self.mechanism.n_features), self.voter.columns
        for i, codec in enumerate((columns.codecs if columns is not None else None) or ()):
            if isinstance(codec, FixedValues):
                row[i] = min(codec.known, default=0)
        return row

    def _rows(self, n: int, places: tuple[Any, Any] = (0, []), steps: Any = NO_STEPS) -> FloatArray:
        """Return raw rows in which some noisy numbers are whole numbers of quarter steps, or rounded to whole steps."""
        rows, features = np.repeat(self._row[None], n, axis=0), places[1]
        rows[places] = np.where(self.whole[features], (steps + 2) // 4, steps * (0.25 / self.q[features]))
        self.mechanism.to_raw_inplace(rows)
        return rows

    def _below(self, X: Any) -> NDArray[np.bool_]:
        """Return whether fixed values of raw inputs are not above their thresholds, shape (n_inputs, n_cuts).

        Missing values are above all of them.
        """
        cuts, d = self.cells.feature >= self.mechanism.n_features, self.mechanism.n_features
        if not cuts.any():
            return np.zeros((len(X), 0), dtype=bool)
        # A copy: scalers with copy=False write into their input.
        values = self._compared(np.array(X, dtype=np.float64))[:, self.cells.feature[cuts] - d]
        missing = np.isnan(values).any(axis=1)
        if missing.any() and not self._missing_checked:
            self._missing_checked = True
            self._check_reading(X[missing.argmax()])
        return values <= np.append(self._thresholds, np.inf)[self.cells.cut[cuts]]

    def _bounds(
        self, points: NDArray[Any], below: NDArray[np.bool_], outcome_sum: OutcomeSum
    ) -> tuple[FloatArray, FloatArray]:
        """Return bounds for points."""
        lower, upper = np.zeros((2, len(points), self.voter.n_classes))
        for rows in gen_batches(len(points), max(1, VALUES // max(1, 2 * len(self.cells.feature)))):
            for weight, groups, categories in self.parts:
                counts = self.cells.counts(groups, categories, points[rows], below[rows])
                for row, edges in enumerate(counts, rows.start):
                    low, high = outcome_sum.bounds(edges)
                    lower[row] += weight * low
                    upper[row] += weight * high
        if len(self.parts) == 1:
            return lower, upper
        error = EPS * (len(self.parts) + 1)
        return lower * (1 - error), np.minimum(upper * (1 + error), 1.0)

    def _cut(self) -> Cells:
        """Cut the axis of each feature at the thresholds: find the largest noisy values that are not above them.

        All noisy values are whole numbers times 1/(4q), rounded, and comparisons are monotone: bisection finds them. So
        they are where noisy values are rounded to whole steps: the cut is then the largest value before that.
        Fixed values are compared with the thresholds themselves, and so are the codes of categories.
        """
        trees = self.model.trees
        column = np.concatenate([tree.feature[tree.inner] for tree in trees]).astype(np.int64)
        feature = self.model.source[column]
        threshold = np.concatenate([tree.threshold[tree.inner] for tree in trees])
        fixed, rank = feature < 0, np.zeros_like(feature)
        self._thresholds = np.unique(threshold[fixed])
        moving = np.flatnonzero(~fixed & self.numeric[feature])
        for f in np.unique(feature[moving]):
            rank[feature == f] = np.arange(np.count_nonzero(feature == f))
        low, high = np.zeros((2, len(feature)), dtype=np.int64)
        low[moving], high[moving] = self._ends
        places, width = (rank[moving], feature[moving]), rank.max(initial=-1) + 1
        while (high - low > 1).any():
            middle = (low[moving] + high[moving]) // 2
            rows = self._compared(self._rows(width, places, middle))
            below = rows[rank[moving], column[moving]] <= threshold[moving]
            low[moving], high[moving] = np.where(below, middle, low[moving]), np.where(below, high[moving], middle)
        low[fixed] = np.searchsorted(self._thresholds, threshold[fixed])
        codes, values = {}, self._compared(self._code_rows())
        for split in np.flatnonzero(~fixed & self.categorical[feature]).tolist():
            of_codes = values[: self._n_codes(int(feature[split])), column[split]]
            if np.isnan(of_codes).any():
                raise NotExactError(
                    "Exact probabilities need categories that the steps encode as numbers, got missing values. Use "
                    "estimation='sample', or encode missing values, as OrdinalEncoder(encoded_missing_value=-1) does."
                )
            codes[split] = of_codes <= threshold[split]
        missing_left = np.concatenate([tree.missing_left[tree.inner] for tree in trees])
        missing = dict.fromkeys(np.flatnonzero(fixed & missing_left).tolist(), len(self._thresholds))
        feature = np.where(fixed, self.mechanism.n_features + column, feature)
        return Cells.from_cuts(feature, low, codes, self.q, missing)

    def _n_codes(self, feature: int) -> int:
        """Return the number of codes that the model may see in place of a category, with that of a mask at the end."""
        noises = [noise for _, _, noise in self.parts if noise is not None]
        place = noises[0].columns.tolist().index(feature)
        masked = any(noise.hidden == "mask" and noise.n_shown[place] < noise.n_offsets for noise in noises)
        return int(noises[0].n_categories[place]) + masked

    def _code_rows(self) -> FloatArray:
        """Return raw rows that hold all codes of all categories, one after the other."""
        n_codes = [self._n_codes(f) for f in np.flatnonzero(self.categorical).tolist()]
        rows = self._rows(max(n_codes, default=1))
        rows[:, self.categorical] = np.minimum(np.arange(len(rows))[:, None], np.array(n_codes) - 1)
        return rows

    @property
    def _ends(self) -> tuple[int, int]:
        """Ends of an interval in whose interior all noisy values lie, in quarter steps."""
        width = max((recipe.n_offsets for _, groups, _ in self.parts for _, recipe in groups), default=1)
        return -4 * width - 4, 4 * (int(self.q.max()) + width) + 4

    def _choose_sum(self) -> OutcomeSum:
        """Return the cheapest way to add the outcomes."""
        model, cells = self.model, self.cells
        labels = self.voter.labels.indices(model.classes, type(self.voter.estimator).__name__)
        if model.votes and len(model.trees[0].inner):
            low, high, end, starts, leaves = cells.leaf_edges(model.trees[0])
            labels = labels[model.trees[0].value[leaves]]
            return LeafSum(low, high, end, starts, cells.sizes, labels, self.voter.n_classes)
        few = np.prod(cells.sizes, dtype=np.float64) <= TABLE_CELLS
        if few and not len(np.setdiff1d(cells.features, np.flatnonzero(self.numeric))):
            steps = cells.representatives()
            votes = self.voter(self._rows(len(steps), (slice(None), cells.features), steps))
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

    def _check_reading(self, row: FloatArray) -> None:
        """Raise a NotExactError if the model votes otherwise than was read on both sides of some thresholds.

        Fixed values are those of the row.
        """
        rng, (low, high), places = np.random.default_rng(0), self._ends, []
        fixed = self.cells.feature[self.cells.feature >= self.mechanism.n_features]
        below, rows = self._below(row[None])[0], np.repeat(row[None], CHECKED, axis=0)
        for f in self.cells.features:
            cuts = self.cells.cut[self.cells.feature == f]
            if f >= self.mechanism.n_features:
                places.append(np.full(CHECKED, np.count_nonzero(~below[fixed == f])))
            elif self.categorical[f]:
                places.append(rng.integers(len(cuts) + 1, size=CHECKED))
                rows[:, f] = places[-1]
            else:
                steps = np.clip(rng.choice(cuts, size=CHECKED) + rng.integers(2, size=CHECKED), low + 1, high - 1)
                places.append(np.searchsorted(cuts, steps))
                rows[:, f] = self._rows(CHECKED, (slice(None), f), steps)[:, f]
        read = self.outcome_sum.votes(places)
        if ((read >= 0) & (read != self.voter(rows))).any():
            raise NotExactError(
                f"Exact probabilities need a model that votes as its trees say, but {name_of(self.voter.estimator)} "
                f"does not. Use estimation='sample'."
            )


def noise_parts(mechanism: NoiseMechanism) -> list[tuple[float, Groups, CategoryNoise | None]]:
    """Return the noises that are mixed: the probability of each, the noise of numbers, and that of categories.

    Raises
    ------
    NotExactError
        If the noise is not independent for each feature and on a lattice.
    """
    noise, mixed = mechanism.noise, mechanism.mixed
    weights: list[float] = [1.0]
    parts: Sequence[Any] = [mixed or noise]
    if type(noise) is UniformMixtureNoise:
        weights, parts = noise._shares.tolist(), (mixed or noise).parts
    return [
        (weight, _groups(part, mechanism), getattr(part, "categories", None))
        for weight, part in zip(weights, parts, strict=True)
        if weight > 0
    ]


def _groups(noise: Any, mechanism: NoiseMechanism) -> Groups:
    """Return the numbers that share one noise, and its recipe."""
    noises = [(np.arange(mechanism.n_features), noise)]
    if isinstance(noise, MixedNoise):
        noises = [(group.columns, group.noise) for group in noise.groups]
    groups = [(columns, one.recipe) for columns, one in noises if isinstance(one.recipe, OffsetRecipe)]
    if len(mechanism.shape) != 1 or len(groups) < len(noises):
        raise NotExactError(
            f"Exact probabilities need tables and uniform noise, splitting noise or a mixture of uniform noises, got "
            f"{type(mechanism.noise).__name__} on inputs of shape {mechanism.shape}. Use estimation='sample'."
        )
    return groups
