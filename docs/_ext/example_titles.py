"""The first line of an example's docstring as the title of its page: examples need no markup for it."""

from __future__ import annotations

import re
from typing import Any

#: What sphinx-gallery writes before the docstring.
LABEL = re.compile(r"^\.\. _sphx_glr_auto_examples_\w+\.py:\n\n", re.MULTILINE)


def add_title(app: Any, docname: str, source: list[str]) -> None:
    """Underline the first line of the docstring, unless it is underlined already."""
    label = LABEL.search(source[0])
    if not docname.startswith("auto_examples/") or label is None:
        return
    before, text = source[0][: label.end()], source[0][label.end() :].lstrip("\n")
    title, _, rest = text.partition("\n")
    if not re.match(r"([=\-~#*])\1{2,}", rest):
        source[0] = f"{before}{title.rstrip('.')}\n{'=' * len(title)}\n{rest}"


def setup(app: Any) -> dict[str, bool]:
    """Register the hook."""
    app.connect("source-read", add_title)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
