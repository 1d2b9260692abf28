"""The plot of certified accuracy and of accuracy under attack, with the gap between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .._utils.checks import unmasked
from ..results.certificates import Certificates, FloatArray
from ..results.display import NORMS
from ..results.metrics import certified_accuracy_score
from ..results.plotting import COLORS, LINE_STYLES, background, new_axes
from .results import Adversarials

#: The color of the gap.
GAP = "#BBBBBB"


@dataclass(eq=False, repr=False, kw_only=True)
class AttackDisplay:
    """Certified accuracy as the lower bound on robust accuracy, accuracy under attack as the upper bound, and the gap.

    Parameters
    ----------
    radius : ndarray of shape (n_radii,)
        Radii in the unit box.
    certified, attacked : ndarray of shape (n_radii,)
        The lower and the upper bound on the robust accuracy at each radius.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        After `plot`.
    figure_ : matplotlib.figure.Figure
        After `plot`.
    lines_ : list of matplotlib.lines.Line2D
        After `plot`: the lower and the upper curve.

    See Also
    --------
    smoothcert.CertifiedAccuracyDisplay : The lower bounds of several classifiers.

    Examples
    --------
    >>> import numpy as np
    >>> display = AttackDisplay(
    ...     radius=np.array([0.0, 1.0]), certified=np.array([0.9, 0.4]), attacked=np.array([0.9, 0.6]))
    >>> print((display.attacked - display.certified).round(2))
    [0.  0.2]
    """

    radius: FloatArray
    certified: FloatArray
    attacked: FloatArray

    @classmethod
    def from_results(
        cls,
        y: ArrayLike,
        certificates: Certificates,
        adversarials: Adversarials,
        *,
        ax: Any = None,
        max_radius: float | None = None,
    ) -> Self:
        """Draw certificates and attacks on the same inputs.

        Parameters
        ----------
        y : array-like of shape (n_inputs,)
            True labels; the attack must have been given them.
        certificates : Certificates
            Certificates with l1 radii.
        adversarials : Adversarials
            The result of `Attack.minimal`.
        ax : matplotlib.axes.Axes, optional
            A new figure by default.
        max_radius : float, optional
            The right end of the plot; by default a little beyond the largest finite radius or distance.

        Returns
        -------
        display : AttackDisplay

        Raises
        ------
        ValueError
            If the numbers of inputs differ, the radii are not l1 radii, or ``y`` are not the labels that the attack was
            given.
        """
        truth = np.asarray(unmasked("y", y))
        if not isinstance(adversarials, Adversarials):
            raise ValueError(
                f"adversarials must be Adversarials, the result of an attack, got a {type(adversarials).__name__}."
            )
        if not isinstance(certificates, Certificates) or certificates.norm != 1:
            raise ValueError(f"certificates must be Certificates of l1 radii, got {certificates!r}.")
        if len(certificates) != len(adversarials) or not np.array_equal(truth, adversarials.original):
            raise ValueError(
                "y must be the labels that were attacked, one for each certificate. Attack with "
                "attack.minimal(clf, X, y)."
            )
        ends = np.concatenate([certificates.radii, adversarials.upper_bounds])
        last = np.max(ends, where=np.isfinite(ends), initial=0.0) * 1.05 if max_radius is None else max_radius
        # The lower curve jumps just above a radius, which is still certified. The upper curve jumps at a distance where
        # the label has changed. The neighboring floats make both jumps vertical.
        inner = ends[np.isfinite(ends) & (ends <= last)]
        radius = np.unique(np.concatenate([[0.0, last], np.nextafter(inner, 0.0), inner, np.nextafter(inner, np.inf)]))
        certified = certified_accuracy_score(truth, certificates, radius)
        return cls(radius=radius, certified=certified, attacked=adversarials.robust_accuracy(radius)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the two curves, and shade the gap between them.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional

        Returns
        -------
        display : AttackDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes(ax)
        below, above, *_ = COLORS[background(ax)]
        low, high = self.certified, self.attacked
        ax.fill_between(self.radius, low, high, color=GAP, alpha=0.5, linewidth=0, label="gap: neither")
        style = {"color": above, "linestyle": LINE_STYLES[1], "linewidth": 2}
        (upper,) = ax.plot(self.radius, high, label="not broken by the attack (upper bound)", **style)
        (lower,) = ax.plot(self.radius, low, color=below, linewidth=2, label="certified (lower bound)")
        ax.set(xlabel=NORMS[1.0], ylabel="robust accuracy", xlim=(0, self.radius[-1]), ylim=(0, 1.02))
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[1:] + handles[:1], labels[1:] + labels[:1], frameon=False)
        ax.grid(alpha=0.3)
        self.ax_, self.figure_, self.lines_ = ax, ax.figure, [lower, upper]
        return self
