"""The axis of each feature, cut at the thresholds of a model, and the number of offsets of the noise in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..noise._philox import OffsetRecipe, apply_offsets
from ._step_models import StepModel, Tree

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

#: Features that share one noise, and its recipe.
Groups = Sequence[tuple[NDArray[np.intp], OffsetRecipe]]


@dataclass(frozen=True, eq=False)
class Cells:
    """The axis of each feature, cut at the thresholds of a model.

    Parameters
    ----------
    feature : ndarray of shape (n_cuts,)
        In increasing order; for fixed values, the number of features and the column of the model, added.
    cut : ndarray of shape (n_cuts,)
        The largest whole number of quarter steps of the lattice that is not above the threshold, or for fixed values
        the rank of the threshold; increasing for each feature.
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

    def counts(self, groups: Groups, points: NDArray[Any], below: NDArray[np.bool_]) -> IntArray:
        """Return how many offsets of a point give a noisy value below each edge, shape (n_inputs, n_edges).

        Parameters
        ----------
        groups : sequence of (columns, recipe)
            Features and their noise.
        points : ndarray of shape (n_inputs, n_features)
        below : ndarray of shape (n_inputs, n_fixed_cuts)
            Whether fixed values are not above their thresholds: a single outcome.
        """
        edges = np.zeros((len(points), len(self.feature) + 2 * len(self.features)), dtype=np.int64)
        last = np.cumsum(np.asarray(self.sizes, dtype=np.intp) + 1) - 1
        edges[:, last] = 1
        edges[:, self.edge[self.feature >= points.shape[1]]] = below
        for columns, recipe in groups:
            cuts = np.isin(self.feature, columns)
            edges[:, last[np.isin(self.features, columns)]] = recipe.n_offsets
            of_cuts = points[:, self.feature[cuts]].astype(np.int64)
            edges[:, self.edge[cuts]] = count_up_to(recipe, of_cuts, self.limits[cuts])
        return edges

    def representatives(self) -> IntArray:
        """Return quarter steps for each combination of cells: the largest value of each, or the next one."""
        values = [self.cut[self.feature == f] for f in self.features]
        grid = np.meshgrid(*[np.append(cuts, cuts[-1] + 1) for cuts in values], indexing="ij")
        return np.stack([column.ravel() for column in grid], axis=1) if grid else np.zeros((1, 0), dtype=np.int64)

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

    def leaf_edges(self, tree: Tree) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
        """Return the edges between which features keep to a leaf, and their last edges, leaf after leaf.

        The last two arrays are the place of the first factor of each leaf, and its node.
        """
        edge = dict(zip(tree.inner.tolist(), self.edge[self.of_split].tolist(), strict=True))
        feature = dict(zip(tree.inner.tolist(), self.feature[self.of_split].tolist(), strict=True))
        ends = np.cumsum(np.asarray(self.sizes) + 1)
        whole = {
            int(f): (int(end) - size - 1, int(end) - 1)
            for f, end, size in zip(self.features, ends, self.sizes, strict=True)
        }
        factors: list[tuple[int, int, int]] = []
        starts: list[int] = []
        leaves: list[int] = []
        stack: list[tuple[int, dict[int, tuple[int, int]]]] = [(0, {})]
        while stack:
            node, path = stack.pop()
            if node not in edge:
                starts.append(len(factors))
                leaves.append(node)
                factors += [(*pair, whole[f][1]) for f, pair in path.items()]
                continue
            f, at = feature[node], edge[node]
            start, end = path.get(f, whole[f])
            stack.append((int(tree.left[node]), {**path, f: (start, min(end, at))}))
            stack.append((int(tree.right[node]), {**path, f: (max(start, at), end)}))
        low, high, end = np.array(factors).T
        return low, high, end, np.array(starts), np.array(leaves)


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
