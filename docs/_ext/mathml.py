"""Formulas as MathML, converted by docutils when the site is built: browsers need no scripts for them."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import SphinxError


def convert(tex: str, *, block: bool) -> str:
    """Return the MathML of a formula; what docutils does not know stops the build."""
    try:
        return tex2mathml(tex, as_block=block)
    except MathError as error:
        raise SphinxError(f"cannot convert the formula {tex!r}: {error}") from error


def visit_math(translator: Any, node: nodes.math) -> None:
    """Write an inline formula."""
    translator.body.append(f'<span class="math">{convert(node.astext(), block=False)}</span>')
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    """Write a displayed formula; a wide one scrolls on a narrow screen."""
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(convert(node.astext(), block=True) + "</div>\n")
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
