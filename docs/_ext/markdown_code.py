"""The Python blocks of a Markdown page, with their expected output.

If a block cannot run here (it needs data or hardware of the reader), the comment ``<!-- not run: why -->`` precedes it.
A ``text`` block after the comment ``<!-- prints -->`` is the output of the Python block before it. Numbers that depend
on the machine, such as those of a network that the page trains, have a tolerance: ``<!-- prints, within 0.1 -->``.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^ *(?P<mark>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^ *(?P=mark) *$", re.MULTILINE | re.DOTALL)


PRINTS = re.compile(r"<!-- prints(?:, within (?P<tolerance>[\d.]+))? -->\s*\Z")

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass
class Block:
    """One Python block: its source, its first line, its output (None if any will do), and whether it runs."""

    source: str
    line: int
    prints: str | None = None
    tolerance: float = 0.0
    runs: bool = True

    def agrees(self, printed: str) -> bool:
        """Tell whether an output is the one on the page; spaces at line ends do not count."""
        lines = [[line.rstrip() for line in text.strip().splitlines()] for text in (self.prints or "", printed)]
        if not self.tolerance:
            return lines[0] == lines[1]
        numbers = [[float(one.replace(",", "")) for one in NUMBER.findall("\n".join(part))] for part in lines]
        words = [" ".join(NUMBER.sub("#", "\n".join(part)).split()) for part in lines]
        pairs = zip(*numbers, strict=False)
        return words[0] == words[1] and all(abs(one - other) <= self.tolerance for one, other in pairs)


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
        elif (comment := PRINTS.search(before)) and blocks:
            blocks[-1].prints, blocks[-1].tolerance = body, float(comment["tolerance"] or 0)
    return blocks
