"""Step curves and how all plots draw them: colors, line styles, sizes and legends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._utils.optional import optional

FloatArray = NDArray[np.float64]

#: Colors that color-blind readers can tell apart (Okabe and Ito 2008), for light and for dark backgrounds.
COLORS = {
    "light": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000"],
    "dark": ["#56B4E9", "#E69F00", "#2BC79A", "#F0A6CB", "#F0E442", "#FFFFFF"],
}

#: The color of a reference, visible on light and on dark backgrounds.
NEUTRAL = "#8C8C8C"

#: Line styles that tell curves apart without colors, even where they overlap. Dotted lines are references.
LINE_STYLES = ["-", (0, (6, 2)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (10, 3)), (0, (6, 2, 1.5, 2, 1.5, 2))]

#: Line widths: a later curve is narrower, so that the curve below shows on both sides where the two coincide.
LINE_WIDTHS = [3.2, 2.6, 2.1, 1.7, 1.4, 1.2]

#: Size of a figure with one panel, in inches.
SIZE = (6.4, 4.2)

#: The right end of curves that never fall to 0, beyond all radii.
FAR = 1e6


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

    @classmethod
    def envelope(cls, curves: Iterable[Curve]) -> Curve:
        """Return the largest accuracy of several curves at each radius.

        Parameters
        ----------
        curves : iterable of Curve

        Returns
        -------
        curve : Curve

        Examples
        --------
        >>> steep, flat = Curve(np.array([0.0, 1.0]), np.array([0.9, 0.2])), Curve(np.array([2.0]), np.array([0.5]))
        >>> print(Curve.envelope([steep, flat]))
        Curve(radii=array([0., 1., 2.]), accuracy=array([0.9, 0.5, 0.5]))
        """
        found = list(curves)
        radii = np.unique(np.concatenate([curve.radii for curve in found]))
        at = [np.append(curve.accuracy, 0.0)[np.searchsorted(curve.radii, radii)] for curve in found]
        return cls(radii, np.max(at, axis=0))


def new_axes(ax: Any) -> Any:
    """Return the given axes, or those of a new figure."""
    pyplot = optional("matplotlib.pyplot", "plots")
    if ax is None:
        _, ax = pyplot.subplots(figsize=SIZE, layout="constrained")
    return ax


def background(ax: Any) -> str:
    """Return "dark" or "light", the background that the color of the axis label suggests; axes may be transparent."""
    red, green, blue = optional("matplotlib.colors", "plots").to_rgb(ax.xaxis.label.get_color())
    return "dark" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "light"


def drawn_curves(ax: Any) -> list[Any]:
    """Return the lines that `draw_curves` has drawn on these axes."""
    return [line for line in ax.lines if line.get_gid() == "curve"]


def draw_curves(ax: Any, curves: Mapping[str, Curve], style: dict[str, Any]) -> list[Any]:
    """Draw curves in colors, styles and widths that the axes do not have yet, and return their lines.

    An arrow at the right end marks a curve that never falls to 0.
    """
    colors, lines = COLORS[background(ax)], []
    for number, (label, curve) in enumerate(curves.items(), start=len(drawn_curves(ax))):
        place = number % len(colors)
        own = {"color": colors[place], "linestyle": LINE_STYLES[place], "linewidth": LINE_WIDTHS[place]}
        finite = np.isfinite(curve.radii)
        forever = 0.0 if finite.all() else float(curve.accuracy[-1])
        radii = np.append(curve.radii[finite], max(FAR, 2 * curve.radii[finite][-1]))
        heights = np.append(curve.accuracy[finite], forever)
        (line,) = ax.step(radii, heights, where="pre", gid="curve", **own | {"label": label or None} | style)
        if forever > 0:
            edge = {"transform": ax.get_yaxis_transform(), "clip_on": False, "color": line.get_color()}
            ax.plot([1.0], [forever], marker=">", linestyle="none", label="_forever", **edge)
        lines.append(line)
    return lines


def add_legend(ax: Any, note: str) -> None:
    """Add a legend with the note as its title, below the notes of curves that were drawn before."""
    old = ax.get_legend()
    notes = [*(old.get_title().get_text().split("\n") if old else []), *note.split("\n")]
    handles, labels = ax.get_legend_handles_labels()
    # References come last.
    order = sorted(range(len(handles)), key=lambda i: handles[i].get_gid() != "curve")
    title = "\n".join(dict.fromkeys(line for line in notes if line))
    if handles or title:
        style = {"title": title, "title_fontsize": "small", "fontsize": "small", "alignment": "left"}
        ax.legend([handles[i] for i in order], [labels[i] for i in order], **style)
