"""Pictures of the site: those of the front page, light and dark, from the page's own code; the order of the gallery."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from markdown_code import python_blocks
from matplotlib.colors import LinearSegmentedColormap
from sphinx_gallery.sorting import FileNameSortKey

from smoothcert import CertifiedAccuracyDisplay, GreedyBudgetDisplay
from smoothcert.results.budget_display import MOVES

#: Colors of text.
THEMES = {"light": "#222832", "dark": "#ced6dd"}


class PlotsFirst(FileNameSortKey):
    """The order of the gallery: first the examples whose pictures are shown, then the longer scripts."""

    def __call__(self, filename: str) -> tuple[bool, str]:
        """Return the key that a file is sorted by."""
        return not filename.startswith("plot_"), filename


def draw_pictures(app: Any) -> None:
    """Run the code of the front page, and draw a perturbed image and curves of certified accuracy."""
    source = Path(app.srcdir)
    page: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in python_blocks(source / "index.md"):
            exec(compile(block.source, "index.md", "exec"), page)
    image = page["images"][65]
    clf, X, y = page["clf"], page["X"][1::2], page["y"][1::2]
    curves = {
        "through the box (Theorem 2.8)": page["certificates"],
        "without it (Corollary 2.13)": clf.set_params(radius="lipschitz").certify(X),
    }
    for theme, text in THEMES.items():
        settings = {"text.color": text, "axes.labelcolor": text, "xtick.color": text, "ytick.color": text}
        with plt.rc_context({**settings, "axes.edgecolor": text, "legend.framealpha": 0, "svg.hashsalt": "smoothcert"}):
            digit = GreedyBudgetDisplay.from_estimator(page["digits"], image, image_shape=(8, 8))
            _save(_in_a_row(digit, page["labels"][65]), source / "_static" / f"start_images_{theme}.svg")
            figure, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
            CertifiedAccuracyDisplay.from_certificates(curves, y, ax=ax)
            ax.spines[["top", "right"]].set_visible(False)
            _save(figure, source / "_static" / f"start_tables_{theme}.svg")


def _in_a_row(digit: GreedyBudgetDisplay, label: Any) -> Any:
    """Draw the image, its worst perturbation and the perturbed image side by side."""
    figure, axes = plt.subplots(1, 3, figsize=(6.4, 2.5), layout="constrained")
    titles = (
        f"input: a {label}",
        "worst change within\nthe certified radius",
        f"perturbed input:\nprovably still a {label}",
    )
    colors = LinearSegmentedColormap.from_list("moves", MOVES)
    for ax, title, image in zip(axes, titles, (digit.image, digit.image, digit.perturbed), strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=16)
        ax.set_title(title, fontsize="medium")
        ax.set(xticks=[], yticks=[])
    axes[1].imshow(np.ma.masked_equal(digit.moves, 0), cmap=colors, vmin=-1, vmax=1)
    return figure


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, transparent=True, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    plt.close("all")


def setup(app: Any) -> dict[str, bool]:
    """Register the hook."""
    app.connect("builder-inited", draw_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
