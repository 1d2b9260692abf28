"""What prediction sets are worth: coverage, mean size, and a plot of both against the radius."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._utils.checks import check_classes, check_labels, check_thresholds
from .._utils.optional import optional
from .._utils.text import describe
from .display import NORMS
from .plotting import COLORS, LINE_STYLES, NEUTRAL, add_legend, background

FloatArray = NDArray[np.float64]


def check_sets(sets: Any) -> NDArray[np.bool_]:
    """Return sets as a boolean array, or raise a ValueError unless they are one, with at least one row."""
    found = np.asarray(sets)
    if found.ndim != 2 or found.dtype != bool or not len(found):
        raise ValueError(
            f"sets must be booleans of shape (n_inputs, n_classes), as predict_set returns them, got an array of "
            f"{found.dtype} of shape {found.shape}."
        )
    return found


def set_coverage_score(y_true: ArrayLike, sets: ArrayLike, classes: ArrayLike) -> float:
    """Return the share of sets that hold the true label.

    Parameters
    ----------
    y_true : array-like of shape (n_inputs,)
        True labels. One that is not among the classes is in no set.
    sets : array-like of bool, shape (n_inputs, n_classes)
        What `SmoothedConformalClassifier.predict_set` returned.
    classes : array-like of shape (n_classes,)
        The label of each column: ``classes_`` of the classifier.

    Returns
    -------
    coverage : float

    Raises
    ------
    ValueError
        If the arguments do not fit together.

    See Also
    --------
    mean_set_size_score : The price of coverage.

    Examples
    --------
    >>> set_coverage_score(["cat", "dog"], [[True, False], [True, False]], classes=["cat", "dog"])
    0.5
    """
    found, labels = check_sets(sets), check_classes(classes)
    if found.shape[1] != len(labels):
        raise ValueError(f"classes must hold one label for each of {found.shape[1]} columns, got {len(labels)}.")
    y = check_labels(y_true, len(found), labels, "y_true")
    return float(((y[:, None] == labels) & found).any(axis=1).mean())


def mean_set_size_score(sets: ArrayLike) -> float:
    """Return the mean number of labels in a set.

    Parameters
    ----------
    sets : array-like of bool, shape (n_inputs, n_classes)
        What `SmoothedConformalClassifier.predict_set` returned.

    Returns
    -------
    size : float

    Raises
    ------
    ValueError
        If the sets are not booleans of this shape.

    See Also
    --------
    set_coverage_score : What the labels are there for.

    Examples
    --------
    >>> mean_set_size_score([[True, False], [True, True]])
    1.5
    """
    return float(check_sets(sets).sum(axis=1).mean())


@dataclass(eq=False, repr=False)
class PredictionSetDisplay:
    """Mean size and coverage of prediction sets against the radius that they are protected against.

    Parameters
    ----------
    radii : ndarray of shape (n_radii,)
        Increasing.
    sizes, coverage : ndarray of shape (n_radii,)
        Mean size of the sets, and share of sets that hold the true label, for each radius.
    confidence_level : float
        The promised coverage under attack.
    name : str, optional
        The name of the curve.
    norm : float, default=1
        The norm of the radii.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (2,)
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D

    See Also
    --------
    SmoothedConformalClassifier : What makes the sets.
    set_coverage_score, mean_set_size_score : The numbers behind the plot.

    Examples
    --------
    >>> import numpy as np
    >>> display = PredictionSetDisplay(
    ...     np.array([0.0, 0.5]), np.array([1.1, 2.3]), np.array([0.91, 0.98]), confidence_level=0.9, name="BinCP")
    >>> float(display.sizes[1])
    2.3
    """

    radii: FloatArray
    sizes: FloatArray
    coverage: FloatArray
    _: KW_ONLY
    confidence_level: float
    name: str = ""
    norm: float = 1

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        X_calib: Any,
        y_calib: ArrayLike,
        radii: Sequence[float],
        name: str | None = None,
        axes: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Calibrate for each radius anew, make sets, and draw what they are worth.

        The inputs are not attacked, so that the coverage is that of inputs that nobody has moved.

        Parameters
        ----------
        estimator : SmoothedConformalClassifier
            The fitted classifier, which stays as it is.
        X : array-like of shape (n_inputs, ...)
        y : array-like of shape (n_inputs,)
            True labels.
        X_calib, y_calib : array-like
            As for `SmoothedConformalClassifier.conformalize`.
        radii : sequence of float
            Increasing.
        name : str, optional
            The name of the curve; by default that of the noise, and the method.
        axes : array of 2 matplotlib Axes, optional
        **kwargs
            Passed to `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : PredictionSetDisplay

        Raises
        ------
        ValueError
            If the radii do not increase, or one is too large for the noise.
        """
        grid = np.atleast_1d(check_thresholds(radii))
        if grid.ndim != 1 or not (np.diff(grid) > 0).all():
            raise ValueError(f"radii must be a list of increasing numbers of at least 0, got {radii!r}.")
        sizes, coverage = np.empty(len(grid)), np.empty(len(grid))
        for i, radius in enumerate(grid.tolist()):
            sets = copy(estimator).set_params(radius=radius).conformalize(X_calib, y_calib).predict_set(X)
            sizes[i], coverage[i] = mean_set_size_score(sets), set_coverage_score(y, sets, estimator.classes_)
        label = f"{describe(estimator.noise_)}, {estimator.method}".replace(", levels='auto'", "")
        label, norm = label if name is None else name, getattr(estimator.strategy, "norm", 1)
        display = cls(grid, sizes, coverage, confidence_level=estimator.confidence_level, name=label, norm=norm)
        return display.plot(axes, **kwargs)

    def plot(self, axes: Any = None, **kwargs: Any) -> Self:
        """Draw the curves; the axes may already hold others.

        Parameters
        ----------
        axes : array of 2 matplotlib Axes, optional
            For the size and for the coverage; a new figure by default.
        **kwargs
            Passed to `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : PredictionSetDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing: it comes with ``smoothcert[plots]``.
        """
        pyplot = optional("matplotlib.pyplot", "plots")
        if axes is None:
            _, axes = pyplot.subplots(1, 2, figsize=(8.4, 4.0), layout="constrained")
        self.axes_ = np.asarray(axes, dtype=object).ravel()
        self.figure_, self.lines_ = self.axes_[0].figure, []
        panels = (("mean set size", self.sizes), ("coverage of inputs that nobody moved", self.coverage))
        for ax, (label, values) in zip(self.axes_, panels, strict=True):
            number = sum(line.get_gid() == "curve" for line in ax.lines)
            colors = COLORS[background(ax)]
            style = {"color": colors[number % len(colors)], "linestyle": LINE_STYLES[number % len(LINE_STYLES)]}
            style |= {"marker": "o", "markersize": 4, "label": self.name or None, "gid": "curve"}
            self.lines_ += ax.plot(self.radii, values, **style | kwargs)
            ax.set(xlabel=NORMS[float(self.norm)], ylabel=label)
            if not number:
                ax.grid(alpha=0.3)
        size, coverage = self.axes_
        size.set_ylim(0, max(1.05 * np.max(line.get_ydata()) for line in size.lines))
        coverage.set_ylim(top=1.005)
        if not any(line.get_gid() == "promise" for line in coverage.lines):
            style = {"color": NEUTRAL, "linestyle": ":", "zorder": 1, "gid": "promise"}
            coverage.axhline(self.confidence_level, label="promised under attack", **style)
        for ax in self.axes_:
            add_legend(ax, "")
        return self
