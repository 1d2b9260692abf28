"""An explanation of one decision about a row of a table: which columns change, and what each change costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._utils.optional import optional
from .._utils.pipelines import last_step
from .._utils.text import in_words
from .budget_display import certificate_of
from .certificates import Certificates, FloatArray
from .plotting import COLORS, background, new_axes
from .tables import format_table, rounded_down, rounded_up

#: The number of changes that a plot shows: the largest ones.
MAX_CHANGES = 20

#: The relative rounding error that sums of reaches stay below.
SUM_ERROR = 1e-12


@dataclass(eq=False, repr=False)
class RowChanges:
    """An explanation of one decision about a row of a table: which columns change, and what each change costs.

    It prints as a table, which starts with the largest changes.

    Parameters
    ----------
    columns : dict of str to list
        The columns of the table, with one entry for each feature. The last one holds the sizes of the changes.
    note : str
        What the table shows, and what holds for this row.

    See Also
    --------
    GreedyBudgetDisplay : The worst perturbation of an image.
    SmoothedClassifier.worst_perturbations : The numbers behind the table, for several inputs.

    References
    ----------
    .. [1] Voracek and Hein, "Improving l1-Certified Robustness via Randomized Smoothing by Leveraging Box
       Constraints", ICML 2023, Theorem 2.8.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from smoothcert import RowChanges, SmoothedClassifier, UniformNoise
    >>> X = pd.DataFrame({"job": ["clerk", "nurse"] * 20, "smokes": [True, True, False, False] * 10})
    >>> base = make_pipeline(OneHotEncoder(), DecisionTreeClassifier(random_state=0))
    >>> clf = SmoothedClassifier(
    ...     base, noise=UniformNoise(2.0), costs={"job": 0.9}, categorical_features=["job", "smokes"], random_state=0)
    >>> changes = RowChanges.from_estimator(clf.fit(X, X["smokes"] | (X["job"] == "clerk")), X.iloc[[0]])
    >>> print(changes.to_frame())
      feature  value  reach  cost     to     share
    0  smokes   True    NaN   1.0  False  0.526316
    1     job  clerk    NaN   0.9  nurse  0.473684
    >>> print(changes.note.splitlines()[1])
    This row is safe against any change of these columns.
    """

    columns: dict[str, list[Any]]
    note: str

    @classmethod
    def from_estimator(cls, estimator: Any, x: Any, *, certificate: Certificates | None = None) -> Self:
        """Compute the worst perturbation of a row within its certified radius (Theorem 2.8).

        Parameters
        ----------
        estimator : SmoothedClassifier, or Pipeline that ends in one
            The fitted classifier, with ``radius="greedy"`` or the default for its noise. Values are those that it gets,
            after the other steps of the pipeline.
        x : DataFrame or array of one row, Series, or array-like of shape (n_features,)
        certificate : Certificates, optional
            The certificate of the row, of length 1; the classifier makes it by default.

        Returns
        -------
        changes : RowChanges
            All columns that can change, with ``feature``; ``value``; ``reach``, how far a number can move, in its own
            unit, or NaN for a category, which can become any other one; ``cost``, that of the whole range or of a
            change of category; ``to``, the value in the worst perturbation; ``share``, the part of its l1 distance that
            this change takes. ``note`` says how many columns may change in any way without a change of the label.

        Raises
        ------
        ValueError
            If the radius strategy is not greedy, the classifier abstains, or x is not one row.
        """
        estimator, row, X, algorithm = _opened(estimator, x)
        certificate = certificate_of(estimator, row, certificate)
        radius = float(certificate.radii[0])
        reach, moves, perturbed = estimator.worst_perturbations(row, radius)
        reach, spent = reach[0], np.abs(moves[0])
        numeric, costs, width = _features(algorithm.mechanism)
        movable = reach > 0
        far = np.divide(reach * width, costs, out=np.full(len(reach), np.nan), where=movable & numeric)
        before, after = _values(estimator.to_table(X, row)), _values(perturbed)
        columns = {
            "feature": _names(estimator, len(reach)),
            "value": before,
            "reach": far.tolist(),
            "cost": costs.tolist(),
            "to": [new if move else old for old, new, move in zip(before, after, spent, strict=True)],
            "share": (spent / (spent.sum() or 1.0)).tolist(),
        }
        note = (
            f"The label is {certificate.labels[0]} within l1 radius {rounded_down(radius)} of this row, against "
            f"{certificate.threat}, alpha={certificate.alpha:g}."
        )
        safe = _safe_changes(algorithm, reach[movable], radius)
        return cls(_sorted(columns, movable), note + safe)

    @classmethod
    def from_adversarials(cls, estimator: Any, x: Any, adversarials: Any) -> Self:
        """Show what an attack has changed in a row.

        Parameters
        ----------
        estimator : SmoothedClassifier, or Pipeline that ends in one
            The fitted classifier.
        x : DataFrame or array of one row, Series, or array-like of shape (n_features,)
            The row that was attacked.
        adversarials : Adversarials
            The result of the attack, of length 1: ``found[[0]]``.

        Returns
        -------
        changes : RowChanges
            All columns that were changed, with ``feature``, ``from``, ``to`` and ``cost``, what the adversary paid for
            the change.

        Raises
        ------
        ValueError
            If the attack was no success, or x is not one row.
        """
        estimator, row, X, algorithm = _opened(estimator, x)
        if len(adversarials) != 1 or not adversarials.success[0]:
            raise ValueError(f"adversarials must be a single success, such as found[[0]], got {adversarials!r}.")
        found = np.asarray(adversarials.inputs, dtype=np.float64)
        numeric, costs, width = _features(algorithm.mechanism)
        shares = np.where(numeric, np.abs(found[0] - X[0]) / np.where(width > 0, width, 1.0), found[0] != X[0])
        paid = np.multiply(shares, costs, out=np.zeros(len(costs)), where=np.isfinite(costs) & (shares > 0))
        columns = {
            "feature": _names(estimator, len(paid)),
            "from": _values(estimator.to_table(X, row)),
            "to": _values(estimator.to_table(found, row)),
            "cost": paid.tolist(),
        }
        note = (
            f"The label is {adversarials.labels[0]} instead of {adversarials.original[0]} at l1 distance "
            f"{rounded_up(float(adversarials.distance[0]))} from this row, alpha={adversarials.alpha:g}."
        )
        return cls(_sorted(columns, paid > 0), note)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row for each feature; its ``attrs`` hold the note.

        Returns
        -------
        frame : pandas.DataFrame

        Raises
        ------
        ImportError
            If pandas is missing; ``smoothcert[tables]`` brings it.
        """
        frame = optional("pandas", "tables").DataFrame(self.columns)
        frame.attrs["note"] = self.note
        return frame

    def plot(self, ax: Any = None) -> Any:
        """Draw the sizes of the largest changes as bars, beside the values before and after.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        ax : matplotlib Axes
        """
        ax = new_axes(ax)
        feature, old, *_ = self.columns.values()
        *_, (size, sizes) = self.columns.items()
        labels = [
            f"{name}: {_text(before)}" + (f" \N{RIGHTWARDS ARROW} {_text(after)}" if part else "")
            for name, before, after, part in zip(feature, old, self.columns["to"], sizes, strict=True)
        ][:MAX_CHANGES]
        ax.barh(np.arange(len(labels)), sizes[:MAX_CHANGES], color=COLORS[background(ax)][0])
        ax.set(xlabel=size, ylim=(len(labels) - 0.4, -0.6), yticks=range(len(labels)), yticklabels=labels)
        return ax

    def _table(self, style: str) -> str:
        rows = [[_text(value) for value in row] for row in zip(*self.columns.values(), strict=True)]
        return format_table([list(self.columns), *rows], self.note, style)

    def __repr__(self) -> str:
        return self._table("plain")

    def _repr_html_(self) -> str:
        return self._table("html")


def _opened(estimator: Any, x: Any) -> tuple[Any, Any, FloatArray, Any]:
    """Return the classifier, one row as a table and as a matrix with numbers inside the box, and Algorithm 1 for it."""
    if hasattr(x, "to_frame") and hasattr(x, "iloc"):
        x = x.to_frame().T
    estimator, row = last_step(estimator, x if np.ndim(x) >= 2 else np.array([x], dtype=object))
    inputs = estimator.open_inputs(row)
    if len(inputs) != 1 or len(inputs.shape) != 1:
        raise ValueError(
            f"x must be one row of a table, such as X.iloc[[0]] or X[0], got shape {(len(inputs), *inputs.shape)}. "
            f"GreedyBudgetDisplay draws images."
        )
    algorithm = estimator.algorithm(inputs.shape)
    X, box = np.asarray(inputs.read(np.arange(1)), dtype=np.float64), algorithm.mechanism.box
    return estimator, row, np.where(_features(algorithm.mechanism)[0], np.clip(X, box.lo, box.hi), X), algorithm


def _features(mechanism: Any) -> tuple[NDArray[np.bool_], FloatArray, FloatArray]:
    """Return which features are numbers that can move, the cost of each feature, and the width of its range."""
    parts = (mechanism.features.numeric, mechanism.features.costs, mechanism.box.width)
    numeric, costs, width = map(mechanism.per_feature, parts)
    return numeric, costs, width


def _safe_changes(algorithm: Any, reach: FloatArray, radius: float) -> str:
    """Return a sentence about the number of features whose changes together cannot exceed the radius."""
    largest = np.cumsum(np.sort(reach)[::-1]) * (1 + SUM_ERROR) + algorithm.mechanism.rounding()
    limit = algorithm.strategy.max_features or len(reach)
    n_safe = min(int(np.count_nonzero(largest <= radius)), limit)
    if n_safe == 0:
        return ""
    change = "any change" if algorithm.strategy.max_change is None else "any change within max_change"
    which = "these columns" if n_safe == len(reach) else f"any {in_words(n_safe)} of these columns"
    return f"\nThis row is safe against {change} of {which}."


def _names(estimator: Any, n_features: int) -> list[str]:
    """Return the names of the columns, or their places."""
    names = getattr(estimator, "feature_names_in_", None)
    return [f"feature {i}" for i in range(n_features)] if names is None else [str(name) for name in names]


def _values(table: Any) -> list[Any]:
    """Return the values of the first row of a table."""
    return list(table.row(0)) if hasattr(table, "row") else np.asarray(table, dtype=object)[0].tolist()


def _sorted(columns: dict[str, list[Any]], shown: NDArray[np.bool_]) -> dict[str, list[Any]]:
    """Return some of the features, those with the largest entries in the last column first."""
    *_, sizes = columns.values()
    order = [i for i in np.argsort(-np.array(sizes), kind="stable") if shown[i]]
    return {name: [values[i] for i in order] for name, values in columns.items()}


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
