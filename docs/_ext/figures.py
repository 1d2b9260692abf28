"""Pictures of the site: the front page's curve, light and dark, from the page's own code; the order of the gallery."""

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
from sphinx_gallery.sorting import FileNameSortKey

from smoothcert import certified_accuracy_score

#: Colors of text and of the two curves.
THEMES = {"light": ("#222832", "#0072B2", "#D55E00"), "dark": ("#ced6dd", "#56B4E9", "#E69F00")}


class PlotsFirst(FileNameSortKey):
    """The order of the gallery: first the examples whose pictures are shown, then the longer scripts."""

    def __call__(self, filename: str) -> tuple[bool, str]:
        """Return the key that a file is sorted by."""
        return not filename.startswith("plot_"), filename


def draw_curve(app: Any) -> None:
    """Run the code of the front page, and draw its certified accuracy beside that of the Lipschitz radius."""
    source = Path(app.srcdir)
    code = next(block for block in python_blocks(source / "index.md") if block.runs).source
    page: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "index.md", "exec"), page)
    clf, X, y = page["clf"], page["X_test"], page["y_test"]
    grid = np.linspace(0, 1.02 * np.nanmax(page["radii"]), 1000)
    curves = {
        "through the box (Theorem 2.8)": certified_accuracy_score(y, page["certificates"], grid),
        "without it (Corollary 2.13)": certified_accuracy_score(y, clf.set_params(radius="lipschitz").certify(X), grid),
    }
    for theme, (text, *colors) in THEMES.items():
        settings = {"text.color": text, "axes.labelcolor": text, "xtick.color": text, "ytick.color": text}
        with plt.rc_context({**settings, "axes.edgecolor": text, "font.size": 11, "svg.hashsalt": "smoothcert"}):
            fig, ax = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
            for (label, curve), color, style in zip(curves.items(), colors, ("-", "--"), strict=True):
                ax.plot(grid, curve, label=label, color=color, linestyle=style, linewidth=2.2)
            ax.set(xlabel="l1 radius (1 = one feature across its whole range)", ylabel="certified accuracy")
            ax.set(xlim=(0, grid[-1]), ylim=(0, 1))
            ax.grid(alpha=0.25)
            ax.legend(frameon=False, loc="lower left")
            ax.spines[["top", "right"]].set_visible(False)
            fig.savefig(source / "_static" / f"start_{theme}.svg", transparent=True, metadata={"Date": None})
            plt.close(fig)


def setup(app: Any) -> dict[str, bool]:
    """Register the hook."""
    app.connect("builder-inited", draw_curve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
