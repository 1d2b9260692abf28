"""The Python blocks of a Markdown page, with their expected output.

If a block cannot run here (it needs data or hardware of the reader), the comment ``<!-- not run: why -->`` precedes it.
A ``text`` block after the comment ``<!-- prints -->`` is the output of the Python block before it.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^ *(?P<mark>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^ *(?P=mark) *$", re.MULTILINE | re.DOTALL)


@dataclass
class Block:
    """One Python block: its source, its first line, its output (None if any will do), and whether it runs."""

    source: str
    line: int
    prints: str | None = None
    runs: bool = True


def python_blocks(path: Path) -> list[Block]:
    """Return the Python blocks of a page in order."""
    text, blocks, end = path.read_text(encoding="utf-8"), [], 0
    for fence in FENCE.finditer(text):
        before, end = text[end : fence.start()], fence.end()
        body = textwrap.dedent(fence["body"])
        language = fence["info"].strip().removeprefix("{code-block}").strip()
        if language in ("python", "py"):
            line = text.count("\n", 0, fence.start("body")) + 1
            blocks.append(Block(body, line, runs="<!-- not run:" not in before))
        elif before.rstrip().endswith("<!-- prints -->") and blocks:
            blocks[-1].prints = body
    return blocks
