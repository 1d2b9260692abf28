"""The plot of the probabilities behind certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .._utils.pipelines import last_step
from .certificates import Certificates
from .display import by_name, note_of
from .metrics import certified_accuracy_curve
from .plotting import NEUTRAL, Curve, add_legend, draw_curves, drawn_curves, new_axes
from .votes import VoteCounts


@dataclass(eq=False, repr=False)
class ProbabilityDisplay:
    """The distribution of p_a, the lower bound on the probability of the predicted class.

    For each value p, the curve shows the share of inputs whose label is right and whose p_a is at least p. At p = 0,
    this is the accuracy of the smoothed classifier. The average certified radius mostly depends on easy inputs, and a
    classifier that always answers one class can make it large. This curve shows easy and hard inputs alike [1]_.
    Compare classifiers under the same noise: wider noise lowers p_a, but can still certify larger radii.

    Parameters
    ----------
    curves : dict of str to Curve
        Their ``radii`` are values of p_a.
    note : str, optional
        The title of the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D

    See Also
    --------
    CertifiedAccuracyDisplay : The radii that follow from these probabilities.
    VotesDisplay : The votes of single inputs.

    References
    ----------
    .. [1] Sun, Mao, Mueller and Vechev, "Average Certified Radius is a Poor Metric for Randomized Smoothing", 2024,
       arXiv:2410.06895.

    Examples
    --------
    >>> import numpy as np
    >>> certificates = Certificates(
    ...     labels=np.array([0, 1, 1]), radii=np.array([2.0, 0.5, np.nan]), abstained=np.array([False, False, True]),
    ...     p_a=np.array([0.9, 0.6, 0.5]), p_b=np.array([0.1, 0.4, 0.5]), alpha=0.001, norm=1)
    >>> display = ProbabilityDisplay.from_certificates({"split": certificates}, [0, 1, 0])
    >>> print(display.curves["split"].radii, display.curves["split"].accuracy.round(2))
    [0.  0.6 0.9] [0.67 0.67 0.33]
    """

    curves: Mapping[str, Curve]
    _: KW_ONLY
    note: str = ""

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: ArrayLike, *, votes: VoteCounts | None = None, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Certify inputs and draw the curve.

        Parameters
        ----------
        estimator : SmoothedClassifier, or Pipeline that ends in one
            The fitted classifier.
        X : array-like of shape (n_inputs, ...)
        y : array-like of shape (n_inputs,)
            True labels.
        votes : VoteCounts, optional
            Votes for X; the classifier draws them by default.
        ax : matplotlib Axes, optional
        **kwargs
            Passed to `matplotlib.axes.Axes.step`.

        Returns
        -------
        display : ProbabilityDisplay
        """
        estimator, X = last_step(estimator, X)
        certificates = estimator.certify(X) if votes is None else estimator.certify(X, votes=votes)
        return cls.from_certificates(certificates, y, ax=ax, **kwargs)

    @classmethod
    def from_certificates(
        cls, certificates: Certificates | Mapping[str, Certificates], y: ArrayLike, *, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the curves of certificates.

        Parameters
        ----------
        certificates : Certificates or dict of str to Certificates
            A dict gives one curve for each name.
        y : array-like of shape (n_inputs,)
            True labels.
        ax : matplotlib Axes, optional
        **kwargs
            Passed to `matplotlib.axes.Axes.step`.

        Returns
        -------
        display : ProbabilityDisplay

        Raises
        ------
        ValueError
            If the certificates hold no probabilities, as those from a table of radii, or ``y`` does not fit.
        """
        found = {name: group[0] for name, group in by_name(certificates).items()}
        for name, one in found.items():
            if np.isnan(one.p_a).any():
                raise ValueError(
                    f"certificates must hold probabilities, but p_a of {name!r} is NaN, as in certificates from a "
                    "table of radii. Make them from votes: clf.certify(X, votes=votes)."
                )
        # A probability takes the place of the radius, so that abstentions have their share as well.
        curves = {
            name: Curve(*certified_accuracy_curve(y, replace(one, radii=one.p_a, abstained=np.zeros(len(one), bool))))
            for name, one in found.items()
        }
        return cls(curves, note=note_of(list(found.values()))).plot(ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw the curves; the axes may already hold others.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.
        **kwargs
            Passed to `matplotlib.axes.Axes.step`.

        Returns
        -------
        display : ProbabilityDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing: it comes with ``smoothcert[plots]``.
        """
        ax = new_axes(ax)
        if not drawn_curves(ax):
            ax.grid(alpha=0.3)
            ax.axvline(0.5, color=NEUTRAL, linestyle=":", linewidth=1.4, zorder=1, label="p_a = 1/2")
        self.lines_ = draw_curves(ax, self.curves, kwargs)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="p_a, the certified probability of the predicted class")
        ax.set_ylabel("share of inputs: right label,\np_a at least this large")
        add_legend(ax, self.note)
        self.ax_, self.figure_ = ax, ax.figure
        return self
