"""The axis of each feature, cut at the thresholds of a model, and the number of offsets of the noise in each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..noise._philox import OffsetRecipe, apply_offsets
from ..noise.categories import CategoryNoise
from ._trees import NotExactError, StepModel, Tree

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

#: Maximum number of leaves, and of nodes that wait, where a tree is taken apart.
MOST_LEAVES = 200_000

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
        the rank of the threshold; increasing for each feature. A category has a cut after each code but the last. Fixed
        values have a cut above all numbers, behind which they are missing, if these go left at some split.
    of_split : ndarray of shape (n_splits,)
        The cut of each split of the trees, tree after tree.
    codes : dict of int to ndarray of bool
        For each split of a category, the codes that go left. For each split of fixed values at which missing values go
        left, the cells that do.
    q : ndarray of shape (n_features,)
        Lattice steps per unit of each feature.
    """

    feature: IntArray
    cut: IntArray
    of_split: IntArray
    codes: dict[int, NDArray[np.bool_]]
    q: IntArray

    @classmethod
    def from_cuts(
        cls, feature: IntArray, cut: IntArray, codes: dict[int, NDArray[np.bool_]], q: IntArray, missing: dict[int, int]
    ) -> Cells:
        """Return the cells of splits, several of which may share a cut.

        ``missing`` holds the splits of fixed values at which missing values go left, and the cut in front of these.
        """
        own = [(feature[split], code) for split, left in codes.items() for code in range(len(left) - 1)]
        own += [(feature[split], last) for split, last in missing.items()]
        pairs = np.concatenate([np.stack([feature, cut], axis=1), np.array(own, dtype=np.int64).reshape(-1, 2)])
        pairs, places = np.unique(pairs, axis=0, return_inverse=True)
        of_split = places.reshape(-1)[: len(feature)]
        for split in missing:
            own_cuts = np.flatnonzero(pairs[:, 0] == feature[split])
            codes[split] = np.append(own_cuts <= of_split[split], True)
        return cls(pairs[:, 0], pairs[:, 1], of_split, codes, q)

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
        """The cuts in the unit box; those of fixed values have no place there."""
        return self.cut * (0.25 / np.append(self.q, 1)[np.minimum(self.feature, len(self.q))])

    def counts(
        self, groups: Groups, categories: CategoryNoise | None, points: NDArray[Any], below: NDArray[np.bool_]
    ) -> IntArray:
        """Return how many offsets of a point give a noisy value below each edge, shape (n_inputs, n_edges).

        Parameters
        ----------
        groups : sequence of (columns, recipe)
            Numbers and their noise.
        categories : CategoryNoise, optional
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
        if categories is None:
            return edges
        for place, f in enumerate(categories.columns):
            edges[:, last[self.features == f]] = categories.n_offsets
            up_to = np.cumsum(code_counts(categories, place, points[:, f].astype(np.int64)), axis=1)
            cuts = self.feature == f
            edges[:, self.edge[cuts]] = up_to[:, self.cut[cuts]]
        return edges

    def representatives(self) -> IntArray:
        """Return quarter steps for each combination of cells: the largest value of each, or the next one."""
        values = [self.cut[self.feature == f] for f in self.features]
        grid = np.meshgrid(*[np.append(cuts, cuts[-1] + 1) for cuts in values], indexing="ij")
        return np.stack([column.ravel() for column in grid], axis=1) if grid else np.zeros((1, 0), dtype=np.int64)

    def scores(self, model: StepModel) -> tuple[list[FloatArray], float]:
        """Return what trees of depth 1 add to the score in each cell of each feature, and the constant part."""
        scores, constant = [np.zeros(size) for size in self.sizes], model.constant
        splits = iter(enumerate(self.of_split.tolist()))
        first = np.searchsorted(self.feature, self.features)
        for tree in model.trees:
            if not len(tree.inner):
                constant += float(tree.value[0])
                continue
            split, cut = next(splits)
            f = int(np.searchsorted(self.features, self.feature[cut]))
            left = self.codes.get(split, np.arange(self.sizes[f]) <= cut - first[f])
            scores[f] += np.where(left, tree.value[tree.left[0]], tree.value[tree.right[0]])
        return scores, constant

    def leaf_edges(self, tree: Tree) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
        """Return the edges between which features keep to a leaf, and their last edges, leaf after leaf.

        The last two arrays are the place of the first factor of each leaf, and its node.
        """
        split_of = {node: split for split, node in enumerate(tree.inner.tolist())}
        edge, feature = self.edge[self.of_split].tolist(), self.feature[self.of_split].tolist()
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
            if node not in split_of:
                starts.append(len(factors))
                leaves.append(node)
                factors += [(*pair, whole[f][1]) for f, pair in path.items()]
                continue
            split = split_of[node]
            f, at = feature[split], edge[split]
            start, end = path.get(f, whole[f])
            sides = [(start, min(end, at))], [(max(start, at), end)]
            if split in self.codes:
                codes = np.arange(start, end)[self.codes[split][start - whole[f][0] : end - whole[f][0]]]
                sides = _runs(codes), _runs(np.setdiff1d(np.arange(start, end), codes))
            for child, runs in zip((int(tree.left[node]), int(tree.right[node])), sides, strict=True):
                stack += [(child, {**path, f: run}) for run in runs]
            if len(stack) + len(leaves) > MOST_LEAVES:
                raise NotExactError(
                    f"Exact probabilities need a tree that splits categories into fewer than {MOST_LEAVES} parts. Use "
                    f"estimation='sample', or a smaller tree."
                )
        low, high, end = np.array(factors).T
        return low, high, end, np.array(starts), np.array(leaves)


def _runs(places: IntArray) -> list[tuple[int, int]]:
    """Return the runs of consecutive numbers among increasing ones, each as its first number and the next after it."""
    starts = places[np.diff(places, prepend=-2) > 1].tolist()
    ends = places[np.diff(places, append=2**62) > 1].tolist()
    return [(start, end + 1) for start, end in zip(starts, ends, strict=True)]


def code_counts(noise: CategoryNoise, place: int, codes: IntArray) -> IntArray:
    """Return for how many offsets the model sees each code, shape (n_inputs, n_codes); the last may be the mask.

    Parameters
    ----------
    noise : CategoryNoise
    place : int
        Of the category among those of the noise.
    codes : ndarray of int64, shape (n_inputs,)
        The category of each input.
    """
    shown, n = int(noise.n_shown[place]), int(noise.n_categories[place])
    hidden = noise.n_offsets - shown
    replaced = [0] * n + [hidden] if noise.hidden == "mask" else [(hidden - code + n - 1) // n for code in range(n)]
    counts = np.repeat(np.array(replaced, dtype=np.int64)[None], len(codes), axis=0)
    counts[np.arange(len(codes)), codes] += shown
    return counts


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
