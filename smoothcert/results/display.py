"""Plots, in scikit-learn's style: ``__init__`` stores, ``from_...`` computes, ``plot`` draws."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._utils.optional import optional
from .._utils.text import describe
from .certificates import Certificates
from .metrics import certified_accuracy_curve, check_one_kind
from .tables import rounded_down
from .votes import VoteCounts

FloatArray = NDArray[np.float64]

__all__ = ["CertifiedAccuracyDisplay", "Curve", "GreedyBudgetDisplay", "VotesDisplay"]

#: Colours that the colour-blind tell apart (Okabe and Ito 2008), for light backgrounds and for dark ones.
COLORS = {
    "light": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000"],
    "dark": ["#56B4E9", "#E69F00", "#2BC79A", "#F0A6CB", "#F0E442", "#FFFFFF"],
}

#: Line styles tell curves apart without colours, also where they lie on each other.
LINE_STYLES = ["-", (0, (6, 2)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (10, 3)), (0, (1, 2))]

#: Where curves end that go on for ever: beyond all radii.
FAR = 1e6

#: Panels and classes that fit on one figure.
MAX_INPUTS, MAX_CLASSES = 12, 10

NORMS = {
    1.0: "l1 radius (1 = one feature across its range)",
    2.0: "l2 radius (1 = one feature across its range)",
    np.inf: "l-inf radius (1 = all features across their range)",
}


class Curve(NamedTuple):
    """A step function of the radius, continuous from the left: what `certified_accuracy_curve` returns.

    Parameters
    ----------
    radii : ndarray of shape (n_steps,)
        Where it jumps, increasing, from 0; the last may be +inf.
    accuracy : ndarray of shape (n_steps,)
        Certified accuracy at each of ``radii``, and between the one before and this one. It is 0 beyond the last.

    Examples
    --------
    >>> import numpy as np
    >>> radii, accuracy = Curve(np.array([0.0, 0.5, 2.0]), np.array([0.9, 0.6, 0.3]))
    >>> float(accuracy[np.searchsorted(radii, 1.0)])
    0.3
    """

    radii: FloatArray
    accuracy: FloatArray


class CertifiedAccuracyDisplay:
    """Certified accuracy against the radius.

    The curve is drawn exactly: it jumps at each certified radius, where it still has its upper value, since accuracy
    at r counts radii of r and above. Inputs that are certified at every radius keep it up, which an arrow shows at the
    right end. Colours and line styles can be told apart by the colour-blind and in print, on light and dark styles.

    Parameters
    ----------
    curves : dict of str to Curve
    norm : float
        Norm of the radii.
    threat : str, default="every perturbation"
        The perturbations that the radii speak of.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D

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

    def __init__(self, curves: Mapping[str, Curve], *, norm: float, threat: str = "every perturbation") -> None:
        self.curves = curves
        self.norm = norm
        self.threat = threat

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
            Fitted.
        X : array-like of shape (n_inputs, ...)
        y : array-like of shape (n_inputs,)
            True labels.
        votes : VoteCounts, optional
            Votes that were drawn for X.
        name : str, optional
            Name of the curve; that of the noise by default.
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
        named = {name or shown: certificates}
        return cls.from_certificates(named, y, ax=ax, **kwargs)

    @classmethod
    def from_certificates(
        cls, certificates: Certificates | Mapping[str, Certificates], y: ArrayLike, *, ax: Any = None, **kwargs: Any
    ) -> Self:
        """Draw the curves of certificates.

        Parameters
        ----------
        certificates : Certificates or dict of str to Certificates
            A dict draws one curve for each name; the inputs, the norm and the threat are the same.
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
            If the radii cannot be compared, or ``y`` does not fit.
        """
        named = {"": certificates} if isinstance(certificates, Certificates) else dict(certificates)
        first = check_one_kind(named)
        curves = {name: Curve(*certified_accuracy_curve(y, one)) for name, one in named.items()}
        return cls(curves, norm=first.norm, threat=first.threat).plot(ax, **kwargs)

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the curves, on an axis that may hold others already.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.
        name : str, optional
            Name of the curve, if there is one.
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
        colors = COLORS[_background(ax)]
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


class VotesDisplay:
    """Votes and margins of single decisions, one panel for each input.

    Bars are the shares of the estimation votes. The lines are what they prove: the probability of the predicted class
    is at least p_a, that of every other class at most p_b, and the margin lies between.

    Parameters
    ----------
    votes : VoteCounts
    certificates : Certificates
        Made from these votes.
    classes : array-like of shape (n_classes,)
    y : array-like of shape (n_inputs,), optional
        True labels.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_inputs,)
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from smoothcert import SmoothedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = SmoothedClassifier(LogisticRegression(), bounds=(0, 8), n_samples=1000, random_state=0).fit(X, y)
    >>> votes = clf.count_votes(X[:3])
    >>> display = VotesDisplay(votes, clf.certify(X[:3], votes=votes), classes=clf.classes_, y=y[:3])
    >>> display.votes
    VoteCounts(3 inputs, 3 classes, 256 selection and 1000 estimation votes each, SplitNoise(lam=1.0, levels='auto'))
    """

    def __init__(self, votes: VoteCounts, certificates: Certificates, *, classes: ArrayLike, y: Any = None) -> None:
        self.votes = votes
        self.certificates = certificates
        self.classes = classes
        self.y = y

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, *, votes: VoteCounts | None = None, axes: Any = None, **kwargs: Any
    ) -> Self:
        """Draw votes for a few inputs, certify them and show both.

        Parameters
        ----------
        estimator : SmoothedClassifier
            Fitted.
        X : array-like of shape (n_inputs, ...)
            12 inputs at most.
        y : array-like of shape (n_inputs,), optional
            True labels.
        votes : VoteCounts, optional
            Votes that were drawn for X.
        axes : array of matplotlib Axes, optional
        **kwargs
            Passed to `matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : VotesDisplay
        """
        drawn = estimator.count_votes(X) if votes is None else votes
        certificates = estimator.certify(X, votes=drawn)
        return cls(drawn, certificates, classes=estimator.classes_, y=y).plot(axes, **kwargs)

    def plot(self, axes: Any = None, **kwargs: Any) -> Self:
        """Draw one panel for each input.

        Parameters
        ----------
        axes : array of matplotlib Axes, optional
            One for each input; a new figure by default.
        **kwargs
            Passed to `matplotlib.axes.Axes.barh`.

        Returns
        -------
        display : VotesDisplay

        Raises
        ------
        ValueError
            If there are more inputs than fit, or the arguments differ in length.
        """
        pyplot = optional("matplotlib.pyplot", "plots")
        n = len(self.votes)
        if not 1 <= n <= MAX_INPUTS or len(self.certificates) != n or (self.y is not None and len(self.y) != n):
            raise ValueError(
                f"votes, certificates and y must be of the same 1 to {MAX_INPUTS} inputs, got {n}, "
                f"{len(self.certificates)} and {'no' if self.y is None else len(self.y)}. Slice them: votes[:6]."
            )
        if axes is None:
            n_columns = min(n, 3)
            n_rows = -(-n // n_columns)
            height = 1.1 + 0.24 * min(len(np.asarray(self.classes)), MAX_CLASSES)
            size = (0.6 + 2.9 * n_columns, 0.6 + height * n_rows)
            _, grid = pyplot.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
            for spare in grid.ravel()[n:]:
                spare.remove()
            axes = grid.ravel()[:n]
        self.axes_ = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        self.figure_ = self.axes_[0].figure
        for i, ax in enumerate(self.axes_):
            self._plot_one(ax, i, kwargs)
        for ax in self.axes_[-min(n, 3) :]:
            ax.set_xlabel("share of votes")
        entries = {
            label: handle for ax in self.axes_ for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        self.figure_.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, frameon=False)
        return self

    def _plot_one(self, ax: Any, i: int, style: dict[str, Any]) -> None:
        counts, classes = self.votes.estimation[i], np.asarray(self.classes)
        shares = counts / max(counts.sum(), 1)
        label = self.certificates.labels[i]
        # The predicted class is always shown; the others are as many as fit, those with most votes.
        ranked = np.argsort(-np.where(classes == label, 2.0, shares), kind="stable")[:MAX_CLASSES]
        shown = np.sort(ranked)
        strong, other, *_ = COLORS[_background(ax)]
        bars = {"color": [strong if one == label else "#999999" for one in classes[shown]], "zorder": 2} | style
        ax.barh(np.arange(len(shown)), shares[shown], **bars)
        p_a, p_b = self.certificates.p_a[i], self.certificates.p_b[i]
        ax.axvline(p_a, color=strong, label="p_a, at least")
        ax.axvline(p_b, color=other, linestyle=(0, (4, 2)), label="p_b, at most")
        if p_a > p_b:
            ax.axvspan(p_b, p_a, color=other, alpha=0.2, label="margin", linewidth=0, zorder=0)
        ax.set(xlim=(0, 1.02), ylim=(len(shown) - 0.4, -0.6), yticks=range(len(shown)))
        ax.set_yticklabels([textwrap.shorten(str(one), 16, placeholder="...") for one in classes[shown]])
        truth = "" if self.y is None else " (right)" if self.y[i] == label else f" (it is {self.y[i]})"
        if self.certificates.abstained[i]:
            verdict = "abstained"
        else:
            radius = rounded_down(self.certificates.radii[i], 3)
            verdict = f"l{self.certificates.norm:g} radius {radius}, margin {rounded_down(p_a - p_b, 3)}"
        ax.set_title(f"predicted {label}{truth}\n{verdict}", fontsize="medium")


class GreedyBudgetDisplay:
    """Where the greedy adversary's budget goes on an image (Theorem 2.8).

    Shows the image, how far each pixel can move, the worst perturbation within the certified radius, and the image
    with it. The largest reaches are filled first; of equal ones, the first in the image are drawn, though others serve
    the adversary as well. The classifier's label provably stands for all of these images.

    Parameters
    ----------
    image, perturbed : ndarray of shape (height, width) or (height, width, 3)
        In raw units.
    reach : ndarray of shape (height, width) or (height, width, 3)
        How far each pixel can move, in the unit box.
    moves : ndarray of the same shape
        How far each is moved, signed; the absolute values add up to the radius.
    radius : float
        The certified radius, in the unit box.
    limits : tuple of float
        Ends of the box, in raw units.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (4,)
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> image, moves = np.zeros((2, 2)), np.array([[1.0, 0.5], [0.0, 0.0]])
    >>> display = GreedyBudgetDisplay(image, image + moves, reach=np.ones((2, 2)), moves=moves, radius=1.5)
    >>> float(np.abs(display.moves).sum())
    1.5
    """

    def __init__(
        self,
        image: FloatArray,
        perturbed: FloatArray,
        *,
        reach: FloatArray,
        moves: FloatArray,
        radius: float,
        limits: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.image = image
        self.perturbed = perturbed
        self.reach = reach
        self.moves = moves
        self.radius = radius
        self.limits = limits

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        x: ArrayLike,
        *,
        certificate: Certificates | None = None,
        image_shape: Sequence[int] | None = None,
        axes: Any = None,
    ) -> Self:
        """Compute the worst perturbation of one image, and draw it.

        Parameters
        ----------
        estimator : SmoothedClassifier
            Fitted, with the greedy radius.
        x : array-like
            One input.
        certificate : Certificates, optional
            The input's certificate, of length 1; it is made by default.
        image_shape : sequence of int, optional
            (height, width), (height, width, 3), (1, height, width) or (3, height, width); the shape of x by default.
        axes : array of 4 matplotlib Axes, optional

        Returns
        -------
        display : GreedyBudgetDisplay

        Raises
        ------
        ValueError
            If the radius strategy is not greedy, the classifier abstains, or x is no image.
        """
        X = np.asarray(x)[None]
        shape = tuple(X.shape[1:] if image_shape is None else image_shape)
        if np.prod(shape) != X.size or not (len(shape) == 2 or (len(shape) == 3 and {shape[0], shape[-1]} & {1, 3})):
            raise ValueError(
                f"image_shape must be (height, width), with 1 or 3 channels before or after, and hold {X.size} values, "
                f"got {shape}."
            )
        certificate = estimator.certify(X) if certificate is None else certificate
        if len(certificate) != 1 or certificate.abstained[0]:
            raise ValueError(
                f"certificate must be one of a single input that is not abstained on, got {certificate!r}."
            )
        radius = float(certificate.radii[0])
        reach, signed, perturbed = (_as_image(part, shape) for part in estimator.worst_perturbations(X, radius))
        box = estimator.box_
        limits = (float(box.lo.min()), float(box.hi.max()))
        image = _as_image(X, shape)
        return cls(image, perturbed, reach=reach, moves=signed, radius=radius, limits=limits).plot(axes)

    def plot(self, axes: Any = None) -> Self:
        """Draw the four pictures.

        Parameters
        ----------
        axes : array of 4 matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        display : GreedyBudgetDisplay
        """
        pyplot = optional("matplotlib.pyplot", "plots")
        if axes is None:
            _, axes = pyplot.subplots(2, 2, figsize=(6.4, 5.8), layout="constrained")
        self.axes_ = np.asarray(axes, dtype=object).ravel()
        self.figure_ = self.axes_[0].figure
        low, high = self.limits
        image, perturbed = ((part - low) / (high - low) for part in (self.image, self.perturbed))
        colored = self.moves.ndim == 3
        reach, spent = (part.sum(axis=2) if colored else part for part in (self.reach, abs(self.moves)))
        spent = spent if colored else self.moves
        most = max(float(abs(spent).max()), 1e-12)
        moved = np.count_nonzero(spent)
        panels: list[tuple[str, FloatArray, dict[str, Any], str | None]] = [
            ("input", image, {"cmap": "gray", "vmin": 0, "vmax": 1}, None),
            ("reach of each pixel", reach, {"cmap": "cividis", "vmin": 0, "vmax": 3 if colored else 1}, "reach"),
            (
                f"worst perturbation\nl1 radius {rounded_down(self.radius, 3)}, {moved} pixels",
                spent,
                {"cmap": "cividis", "vmin": 0} if colored else {"cmap": "PuOr", "vmin": -most, "vmax": most},
                "move",
            ),
            ("input with it", perturbed, {"cmap": "gray", "vmin": 0, "vmax": 1}, None),
        ]
        for ax, (title, values, style, bar) in zip(self.axes_, panels, strict=True):
            drawn = ax.imshow(np.clip(values, 0, 1) if bar is None else values, interpolation="nearest", **style)
            ax.set(xticks=[], yticks=[])
            ax.set_title(title, fontsize="medium")
            if bar is not None:
                self.figure_.colorbar(drawn, ax=ax, shrink=0.85).set_label(f"{bar} (1 = whole range)")
        return self


def _as_image(values: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Return one flat input as an image, channels last, without a single one."""
    image = np.asarray(values, dtype=np.float64).reshape(shape)
    if len(shape) == 3 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        image = np.moveaxis(image, 0, -1)
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def _radius_label(norm: float, threat: str, width: float) -> str:
    """Name the radius with its norm and units, and what it speaks of where that is limited; ``width`` is in inches."""
    lines = [NORMS[float(norm)]]
    if threat != "every perturbation":
        lines.append(textwrap.shorten(f"against {threat}", 110, placeholder=" ..."))
    return "\n".join(part for line in lines for part in textwrap.wrap(line, max(16, int(8.5 * width))))


def _background(ax: Any) -> str:
    """Tell whether an axis is meant for a light or a dark background: by its text, since it may be transparent."""
    red, green, blue = optional("matplotlib.colors", "plots").to_rgb(ax.xaxis.label.get_color())
    return "dark" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "light"
