"""The time of ``import smoothcert`` against that of ``import sklearn.linear_model``, and what it brings along.

Both are imported in fresh processes, alternately.
"""

from __future__ import annotations

import subprocess
import sys

from common import show

HEAVY = ("torch", "numba", "matplotlib", "triton")
PROGRAM = """
import sys, time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start, *(name for name in {heavy} if name in sys.modules))
"""


def measure(module: str) -> tuple[float, list[str]]:
    """Return the seconds that an import takes in a fresh process, and the heavy modules that it brings."""
    command = [sys.executable, "-c", PROGRAM.format(module=module, heavy=HEAVY)]
    took, *heavy = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(took), heavy


def run(quick: bool) -> None:
    import pandas as pd

    heavy, rows = measure("smoothcert")[1], []
    measure("sklearn.linear_model")
    for _ in range(3 if quick else 11):
        rows.append({module: measure(module)[0] for module in ("smoothcert", "sklearn.linear_model")})
    times = pd.DataFrame(rows)
    ratio = (times["smoothcert"] / times["sklearn.linear_model"]).median()
    row = dict(times.median()) | {"ratio": ratio, "target": "<= 1.3", "heavy imports": ", ".join(heavy) or "none"}
    show("Seconds of an import in a fresh process", [row])
