"""The plot of certified accuracy. As in scikit-learn, ``__init__`` stores, ``from_...`` computes, ``plot`` draws."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._utils.optional import optional
from .._utils.text import describe
from .certificates import Certificates
from .metrics import certified_accuracy_curve, check_one_kind
from .votes import VoteCounts

__all__ = ["CertifiedAccuracyDisplay", "Curve"]

FloatArray = NDArray[np.float64]

#: Colors that color-blind readers can tell apart (Okabe and Ito 2008), for light and for dark backgrounds.
COLORS = {
    "light": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000"],
    "dark": ["#56B4E9", "#E69F00", "#2BC79A", "#F0A6CB", "#F0E442", "#FFFFFF"],
}

#: Line styles that tell curves apart without colors, also where they overlap.
LINE_STYLES = ["-", (0, (6, 2)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (10, 3)), (0, (1, 2))]

#: The right end of curves that never fall to 0, beyond all radii.
FAR = 1e6

NORMS = {
    1.0: "l1 radius (1 = one feature across its range)",
    2.0: "l2 radius (1 = one feature across its range)",
    np.inf: "l-inf radius (1 = all features across their range)",
}


class Curve(NamedTuple):
    """The certified accuracy at every radius, a step function that is continuous from the left.

    Parameters
    ----------
    radii : ndarray of shape (n_steps,)
        The radii of the jumps, increasing from 0; the last may be +inf.
    accuracy : ndarray of shape (n_steps,)
        The certified accuracy at each radius, and between the radius before and this one. It is 0 beyond the last.

    See Also
    --------
    smoothcert.certified_accuracy_curve : Compute these arrays.

    Examples
    --------
    >>> import numpy as np
    >>> radii, accuracy = Curve(np.array([0.0, 0.5, 2.0]), np.array([0.9, 0.6, 0.3]))
    >>> float(accuracy[np.searchsorted(radii, 1.0)])
    0.3
    """

    radii: FloatArray
    accuracy: FloatArray


@dataclass(eq=False, repr=False)
class CertifiedAccuracyDisplay:
    """Certified accuracy against the radius.

    The curve is exact. It jumps at each certified radius and still has its upper value there, because accuracy at r
    counts the radii of at least r. If some inputs are certified at every radius, the curve never falls to 0, and an
    arrow at the right end shows it. Colors and line styles are distinct for color-blind readers and in print.

    Parameters
    ----------
    curves : dict of str to Curve
    norm : float
        The norm of the radii.
    threat : str, default="every perturbation"
        The perturbations that the radii cover.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D

    See Also
    --------
    certified_accuracy_curve : The numbers behind the plot.

    Examples
    --------
    >>> import numpy as np
    >>> certificates = Certificates(
    ...     labels=np.array([0, 1, 1]), radii=np.array([2.0, 0.5, np.nan]), abstained=np.array([False, False, True]),
    ...     p_a=np.array([0.9, 0.6, 0.5]), p_b=np.array([0.1, 0.4, 0.5]), alpha=0.001, norm=1)
    >>> display = CertifiedAccuracyDisplay.from_certificates({"split": certificates}, [0, 1, 1])
    >>> print(display.curves["split"].radii, display.curves["split"].accuracy.round(2))
    [0.  0.5 2. ] [0.67 0.67 0.33]
    """

    curves: Mapping[str, Curve]
    _: KW_ONLY
    norm: float
    threat: str = "every perturbation"

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        votes: VoteCounts | None = None,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Certify inputs and draw the curve.

        Parameters
        ----------
        estimator : SmoothedClassifier
            The fitted classifier.
        X : array-like of shape (n_inputs, ...)
        y : array-like of shape (n_inputs,)
            True labels.
        votes : VoteCounts, optional
            Votes for X; the classifier draws them by default.
        name : str, optional
            The name of the curve; that of the noise by default.
        ax : matplotlib Axes, optional
        **kwargs
            Passed to `matplotlib.axes.Axes.step`.

        Returns
        -------
        display : CertifiedAccuracyDisplay
        """
        certificates = estimator.certify(X) if votes is None else estimator.certify(X, votes=votes)
        noise = getattr(estimator, "noise_", None)
        shown = type(estimator).__name__ if noise is None else describe(noise).replace(", levels='auto'", "")
        return cls.from_certificates({name or shown: certificates}, y, ax=ax, **kwargs)

    @classmethod
    def from_certificates(
        cls, certificates: Certificates | Mapping[str, Certificates], y: ArrayLike, *, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the curves of certificates.

        Parameters
        ----------
        certificates : Certificates or dict of str to Certificates
            A dict gives one curve for each name. All must have the same inputs, norm and threat.
        y : array-like of shape (n_inputs,)
            True labels.
        ax : matplotlib Axes, optional
        **kwargs
            Passed to `matplotlib.axes.Axes.step`.

        Returns
        -------
        display : CertifiedAccuracyDisplay

        Raises
        ------
        ValueError
            If the certificates have different norms or threats, or ``y`` does not fit.
        """
        named = {"": certificates} if isinstance(certificates, Certificates) else dict(certificates)
        first = check_one_kind(named)
        curves = {name: Curve(*certified_accuracy_curve(y, one)) for name, one in named.items()}
        return cls(curves, norm=first.norm, threat=first.threat).plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the curves; the axes may already hold others.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.
        name : str, optional
            The name of the curve, if there is only one.
        **kwargs
            Passed to `matplotlib.axes.Axes.step`.

        Returns
        -------
        display : CertifiedAccuracyDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing: it comes with ``smoothcert[plots]``.
        """
        pyplot = optional("matplotlib.pyplot", "plots")
        if ax is None:
            _, ax = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
        first, right = len(ax.lines), ax.get_xlim()[1] if ax.lines else 0.0
        colors = COLORS[background(ax)]
        number, self.lines_ = sum(line.get_gid() == "certified" for line in ax.lines), []
        for label, curve in self.curves.items():
            style = {"color": colors[number % len(colors)], "linestyle": LINE_STYLES[number % len(LINE_STYLES)]}
            style |= {"label": name or label or None, "linewidth": 1.8} | kwargs
            finite = np.isfinite(curve.radii)
            last = curve.radii[finite][-1]
            forever = 0.0 if finite.all() else float(curve.accuracy[-1])
            radii = np.append(curve.radii[finite], max(FAR, 2 * last))
            (line,) = ax.step(radii, np.append(curve.accuracy[finite], forever), where="pre", gid="certified", **style)
            if forever > 0:
                edge = {"transform": ax.get_yaxis_transform(), "clip_on": False, "color": line.get_color()}
                ax.plot([1.0], [forever], marker=">", linestyle="none", label="_forever", **edge)
            self.lines_.append(line)
            right, number = max(right, 1.05 * last), number + 1
        ax.set(xlim=(0, right or 1.0), ylim=(0, 1.02), ylabel="certified accuracy")
        ax.set_xlabel(_radius_label(self.norm, self.threat, ax.figure.get_figwidth() * ax.get_position().width / 0.8))
        if first == 0:
            ax.grid(alpha=0.3)
        if any(line.get_gid() == "certified" and not line.get_label().startswith("_") for line in ax.lines):
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _radius_label(norm: float, threat: str, width: float) -> str:
    """Return the label of the radius: its norm, unit and a limited threat. ``width`` is in inches."""
    lines = [NORMS[float(norm)]]
    if threat != "every perturbation":
        lines.append(textwrap.shorten(f"against {threat}", 110, placeholder=" ..."))
    return "\n".join(part for line in lines for part in textwrap.wrap(line, max(16, int(8.5 * width))))


def background(ax: Any) -> str:
    """Return "dark" or "light", the background that the color of the axis label suggests; axes may be transparent."""
    red, green, blue = optional("matplotlib.colors", "plots").to_rgb(ax.xaxis.label.get_color())
    return "dark" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "light"
