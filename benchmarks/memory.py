"""Peak memory of count_votes: it should depend neither on the number of votes nor on that of inputs.

Each case runs in a fresh process, whose largest resident size is taken. That includes the imports, so the growth since
just before the votes is shown as well.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

FEATURES = 8


def peak() -> float:
    """Return the largest resident size of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, ru_maxrss starts at the size of the process that started this one.
        return next(int(line.split()[1]) / 1024 for line in status.open() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def make_model(kind: str) -> Any:
    """Return a small model for `FEATURES` features and two classes."""
    import numpy as np

    if kind == "network":
        import torch
        from torch import nn

        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 2))
    from sklearn.linear_model import LogisticRegression

    X = np.random.default_rng(0).random((200, FEATURES))
    return LogisticRegression().fit(X, (X.sum(axis=1) > FEATURES / 2).astype(int))


def case(kind: str, n_inputs: int, n: int) -> None:
    """Print the peak before and after the votes."""
    import numpy as np

    from smoothcert import SmoothedClassifier, SplitNoise

    X = np.random.default_rng(1).random((n_inputs, FEATURES)).astype(np.float32)
    clf = SmoothedClassifier.from_pretrained(
        make_model(kind), range(2), SplitNoise(), n_selection=1, n_samples=n, random_state=0
    )
    before = peak()
    clf.count_votes(X)
    print(before, peak())


def measure(kind: str, n_inputs: int, n: int) -> tuple[float, float]:
    """Run a case in a fresh process."""
    command = [sys.executable, __file__, kind, str(n_inputs), str(n)]
    before, after = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(before), float(after)


def run(quick: bool) -> None:
    from common import show

    many = 100_000 if quick else 1_000_000
    results = []
    for kind in ("LogisticRegression", "network"):
        for less, more in (((1, 1000), (1, many)), ((10, 1000), (1000, 1000))):
            (start, few), (_, much) = measure(kind, *less), measure(kind, *more)
            results.append(
                {
                    "model": kind,
                    "inputs x votes": f"{more[0]:,} x {more[1]:,}",
                    "against": f"{less[0]:,} x {less[1]:,}",
                    "MB before": start,
                    "MB": much,
                    "MB against": few,
                    "ratio": much / few,
                    "target": "<= 1.1",
                }
            )
    show("Largest resident size of a process that draws votes", results)


if __name__ == "__main__":
    case(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
