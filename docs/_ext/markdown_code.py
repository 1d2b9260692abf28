"""The Python blocks of a Markdown page, with what they are said to print.

A block that cannot run here (it needs data or hardware of the reader) follows a comment that says why:
``<!-- not run: why -->``. A ``text`` block that follows the comment ``<!-- prints -->`` is what the Python block before
it prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^(?P<mark>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=mark)\s*$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    """One Python block: its source, the line that it starts in, what it prints (None for whatever) and if it runs."""

    source: str
    line: int
    prints: str | None = None
    runs: bool = True


def python_blocks(path: Path) -> list[Block]:
    """Return the Python blocks of a page in order."""
    text, blocks, end = path.read_text(encoding="utf-8"), [], 0
    for fence in FENCE.finditer(text):
        before, end = text[end : fence.start()], fence.end()
        language = fence["info"].strip().removeprefix("{code-block}").strip()
        if language in ("python", "py"):
            line = text.count("\n", 0, fence.start("body")) + 1
            blocks.append(Block(fence["body"], line, runs="<!-- not run:" not in before))
        elif before.rstrip().endswith("<!-- prints -->") and blocks:
            blocks[-1].prints = fence["body"]
    return blocks
