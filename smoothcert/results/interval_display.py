"""The plot of certified intervals against the radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .._utils.checks import check_numbers
from .intervals import Intervals
from .plotting import COLORS, LINE_STYLES, NEUTRAL, FloatArray, add_legend, background, new_axes

#: Number of radii at which intervals are drawn.
N_RADII = 60


@dataclass(eq=False, repr=False)
class IntervalDisplay:
    """How far the smoothed prediction of an input can move, against the radius of the adversary.

    For each input, a line shows the prediction and a band the interval that provably holds the smoothed quantile of
    every input within the radius. The band ends where it is no longer bounded. Dots at radius 0 are true values.

    Parameters
    ----------
    intervals : Intervals
        Of the inputs to draw, all at the same increasing radii, in two dimensions.
    names : sequence of str
        The inputs' names in the legend.
    truth : ndarray of shape (n_inputs,), optional
        True values.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bands_ : list of matplotlib PolyCollection

    See Also
    --------
    SmoothedRegressor.certify : Make the intervals.

    References
    ----------
    .. [1] Chiang, Curry, Abdelkader, Kumar, Dickerson and Goldstein, "Detection as Regression: Certified Object
       Detection with Median Smoothing", NeurIPS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> intervals = Intervals(
    ...     predictions=np.array([3.0]), lower=np.array([[2.8, 2.5]]), upper=np.array([[3.2, 3.6]]),
    ...     radius=np.array([[0.0, 0.5]]), quantile=0.5, alpha=0.001, norm=1)
    >>> print(IntervalDisplay(intervals, ["a house"]).intervals.upper)
    [[3.2 3.6]]
    """

    intervals: Intervals
    names: Sequence[str]
    _: KW_ONLY
    truth: FloatArray | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        radius: float | ArrayLike = 1.0,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Certify a few inputs at increasing radii, and draw the intervals.

        Parameters
        ----------
        estimator : SmoothedRegressor
            The fitted regressor.
        X : array-like of shape (n_inputs, ...)
            Up to 6 inputs; those of a DataFrame go by its index in the legend.
        y : array-like of shape (n_inputs,), optional
            True values.
        radius : float or array-like of shape (n_radii,), default=1.0
            The largest radius, or all radii, increasing.
        ax : matplotlib Axes, optional
        **kwargs
            Passed to `matplotlib.axes.Axes.fill_between`.

        Returns
        -------
        display : IntervalDisplay

        Raises
        ------
        ValueError
            If there are more inputs than can be told apart.
        """
        radii = np.linspace(0, radius, N_RADII) if np.ndim(radius) == 0 else np.asarray(radius)  # type: ignore[arg-type]
        intervals = estimator.certify(X, radii[None])
        names = [str(name) for name in X.index] if hasattr(X, "iloc") else [f"X[{i}]" for i in range(len(intervals))]
        truth = None if y is None else check_numbers("y", y, len(intervals))
        return cls(intervals, names, truth=truth).plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the intervals.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.
        **kwargs
            Passed to `matplotlib.axes.Axes.fill_between`.

        Returns
        -------
        display : IntervalDisplay
        """
        one = self.intervals
        if one.lower.ndim != 2 or not 1 <= len(one) <= len(LINE_STYLES):
            raise ValueError(
                f"intervals must be those of 1 to {len(LINE_STYLES)} inputs at several radii, got shape "
                f"{one.lower.shape}. Use certify(X[:3], [[0.0, 0.5, 1.0]])."
            )
        ax = new_axes(ax)
        ax.grid(alpha=0.3)
        self.bands_ = []
        for i, (name, color) in enumerate(zip(self.names, COLORS[background(ax)], strict=False)):
            radius, bounded = one.radius[i], np.isfinite(one.lower[i]) & np.isfinite(one.upper[i])
            band = {"color": color, "alpha": 0.18, "linewidth": 0} | kwargs
            self.bands_.append(ax.fill_between(radius, one.lower[i], one.upper[i], where=bounded, **band))
            line = {"color": color, "linestyle": LINE_STYLES[i]}
            for bound in (one.lower[i], one.upper[i]):
                ax.plot(radius, np.where(np.isfinite(bound), bound, np.nan), linewidth=1.2, **line)
            ends = [one.predictions[i]] * 2
            ax.plot([radius[0], radius[-1]], ends, linewidth=2.4, label=name, gid="curve", **line)
            if self.truth is not None:
                ax.plot(radius[0], self.truth[i], marker="o", color=color, clip_on=False, zorder=5)
        if self.truth is not None:
            ax.scatter([], [], color=NEUTRAL, label="true value")
        ax.set(xlabel=f"l{one.norm:g} radius of the adversary", ylabel="smoothed prediction")
        ax.set_xlim(one.radius.min(), one.radius.max())
        name = "median" if one.quantile == 0.5 else f"{one.quantile:g}-quantile"
        add_legend(ax, f"{name} under noise\nat each radius, a band holds with probability {1 - one.alpha:g}")
        self.ax_, self.figure_ = ax, ax.figure
        return self
