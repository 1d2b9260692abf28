"""The plot of certified accuracy. As in scikit-learn, ``__init__`` stores, ``from_...`` computes, ``plot`` draws."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .._utils.checks import on_host
from .._utils.pipelines import last_step
from .._utils.text import describe
from .certificates import Certificates
from .metrics import certified_accuracy_curve, check_one_kind, named_alphas
from .plotting import Curve, add_legend, draw_curves, drawn_curves, new_axes
from .votes import VoteCounts

__all__ = ["CertifiedAccuracyDisplay", "Curve"]

#: Certificates by the name of their curve; several for one name give their envelope.
Named = Mapping[str, Certificates | Sequence[Certificates]]

NORMS = {
    1.0: "l1 radius (1 = one feature across its range)",
    2.0: "l2 radius (1 = one feature across its range)",
    np.inf: "l-inf radius (1 = all features across their range)",
}


@dataclass(eq=False, repr=False)
class CertifiedAccuracyDisplay:
    """Certified accuracy against the radius.

    The curve is exact. It jumps at each certified radius and still has its upper value there, because accuracy at r
    counts the radii of at least r. If some inputs are certified at every radius, the curve never falls to 0, and an
    arrow at the right end shows it. Colors, line styles and widths are distinct for color-blind readers, in print, and
    where curves coincide. The title of the legend names the number of inputs, the number of votes n and alpha.

    Parameters
    ----------
    curves : dict of str to Curve
    norm : float
        The norm of the radii.
    threat : str, default="every perturbation"
        The perturbations that the radii cover.
    note : str, optional
        The title of the legend.
    majority : float, optional
        The share of the most frequent label. It is the accuracy of a classifier that always answers this label, at
        every radius, and is drawn as a dotted line in front of the curves.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D

    See Also
    --------
    certified_accuracy_curve : The numbers behind the plot.
    ProbabilityDisplay : The probabilities behind the radii.

    References
    ----------
    .. [1] Cohen, Rosenfeld and Kolter, "Certified Adversarial Robustness via Randomized Smoothing", ICML 2019,
       section 4: certified accuracy.

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
    note: str = ""
    majority: float | None = None

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
        estimator : SmoothedClassifier, or Pipeline that ends in one
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
        estimator, X = last_step(estimator, X)
        certificates = estimator.certify(X) if votes is None else estimator.certify(X, votes=votes)
        noise = getattr(estimator, "noise_", None)
        shown = type(estimator).__name__ if noise is None else describe(noise).replace(", levels='auto'", "")
        return cls.from_certificates({name or shown: certificates}, y, ax=ax, **kwargs)

    @classmethod
    def from_certificates(
        cls, certificates: Certificates | Named, y: ArrayLike, *, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the curves of certificates.

        Parameters
        ----------
        certificates : Certificates, or dict of str to Certificates or to a list of Certificates
            A dict gives one curve for each name. A list gives the envelope of several classifiers: the best of them at
            each radius, as in Figure 1 of the paper. All certificates must have the same inputs, norm and threat.
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

        See Also
        --------
        certified_accuracy_envelope : The envelope at single radii.

        Examples
        --------
        >>> import numpy as np
        >>> narrow, wide = (
        ...     Certificates(labels=np.array([0, 1]), radii=np.array(radii), abstained=np.zeros(2, dtype=bool),
        ...                  p_a=np.array([0.9, 0.9]), p_b=np.array([0.1, 0.1]), alpha=0.001, norm=1)
        ...     for radii in [[0.5, 0.5], [0.1, 2.0]])
        >>> display = CertifiedAccuracyDisplay.from_certificates({"best lam": [narrow, wide]}, [0, 1])
        >>> print(display.curves["best lam"])
        Curve(radii=array([0. , 0.1, 0.5, 2. ]), accuracy=array([1. , 1. , 1. , 0.5]))
        """
        groups = by_name(certificates)
        found = [one for group in groups.values() for one in group]
        curves = {
            name: Curve.envelope(Curve(*certified_accuracy_curve(y, one)) for one in group)
            for name, group in groups.items()
        }
        counts = np.unique(np.asarray(on_host(y, "y")), return_counts=True)[1]
        majority = counts.max() / counts.sum()
        display = cls(curves, norm=found[0].norm, threat=found[0].threat, note=note_of(found), majority=majority)
        return display.plot(ax, **kwargs)

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
        ax = new_axes(ax)
        right = ax.get_xlim()[1] if drawn_curves(ax) else 0.0
        if not right:
            ax.grid(alpha=0.3)
        curves = {name or label: curve for label, curve in self.curves.items()}
        self.lines_ = draw_curves(ax, curves, kwargs)
        ends = [1.05 * curve.radii[np.isfinite(curve.radii)][-1] for curve in self.curves.values()]
        ax.set(xlim=(0, max(right, *ends, 0.0) or 1.0), ylim=(0, 1.02), ylabel="certified accuracy")
        ax.set_xlabel(_radius_label(self.norm, self.threat, ax.figure.get_figwidth() * ax.get_position().width / 0.8))
        drawn = [line.get_ydata()[0] for line in ax.lines if line.get_gid() == "majority"]
        if self.majority is not None and self.majority not in drawn:
            # In front of curves, which may coincide with it, and in the color of the text, which shows on theirs.
            style = {"color": ax.xaxis.label.get_color(), "linestyle": ":", "linewidth": 1.4, "zorder": 3}
            ax.axhline(self.majority, label="always the most frequent class", gid="majority", **style)
        add_legend(ax, self.note)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def by_name(certificates: Certificates | Named) -> dict[str, list[Certificates]]:
    """Return the certificates of each curve, or raise a ValueError unless all radii can be compared."""
    named: Mapping[str, Any] = certificates if isinstance(certificates, Mapping) else {"": certificates}
    groups = {name: list(one) if isinstance(one, (list, tuple)) else [one] for name, one in named.items()}
    for name, group in groups.items():
        if not group:
            raise ValueError(f"certificates must be at least one for each curve, got an empty list for {name!r}.")
    check_one_kind({f"{name}[{i}]": one for name, group in groups.items() for i, one in enumerate(group)})
    return groups


def note_of(certificates: Sequence[Certificates]) -> str:
    """Return what a reader of a plot must know: the number of inputs, the number of votes, alpha and the threat."""
    counts = np.concatenate([[0], *(one.n_samples for one in certificates if one.n_samples is not None)]).astype(int)
    # Inputs that were skipped, and those with exact probabilities, have no votes.
    least, most = np.min(counts, where=counts > 0, initial=counts.max()), counts.max()
    votes = f"n = {least:,}" if least == most else f"n = {least:,} to {most:,}"
    inputs = f"{len(certificates[0]):,} input" + "s" * (len(certificates[0]) != 1)
    threat = certificates[0].threat
    # A limited threat is long, and stands below the axis.
    against = f"\nagainst {threat}" if threat == "every perturbation" else ""
    return ", ".join([inputs, *([votes] if most else []), f"alpha = {named_alphas(certificates)}"]) + against


def _radius_label(norm: float, threat: str, width: float) -> str:
    """Return the label of the radius: its norm, unit and a limited threat. ``width`` is in inches."""
    lines = [NORMS[float(norm)]]
    if threat != "every perturbation":
        lines.append(textwrap.shorten(f"against {threat}", 110, placeholder=" ..."))
    return "\n".join(part for line in lines for part in textwrap.wrap(line, max(16, int(8.5 * width))))
