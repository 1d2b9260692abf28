"""Measure smoothcert side by side with what it is compared to.

    python benchmarks/run.py                 all parts
    python benchmarks/run.py --list          their names
    python benchmarks/run.py --only votes    one of them; may be given several times
    python benchmarks/run.py --quick         small sizes, to see that everything works; its numbers mean little

It needs ``pip install ".[benchmarks]"``. Each part prints a table with a column `target` beside the `ratio` that was
measured. A ratio is the median over repeats in which both sides run alternately in one process: absolute times on a
shared machine mean little, and ratios mean something only if nothing else runs. The threads of a network suffer most
from other processes: ``--threads 1`` is steadier there.

``claims.py``, ``stability.py`` and ``training.py`` train many networks, ``gpu.py`` and ``cifar10_gpu.py`` need a GPU.
They are run on their own.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

PARTS = {
    "noise": "the fused noise kernel against torch operations",
    "votes": "count_votes against the bare network",
    "small": "count_votes against the bare model, where the model is small",
    "stages": "where the time of count_votes goes",
    "peers": "certify against the Adversarial Robustness Toolbox and research code",
    "selection": "votes that adaptive selection saves",
    "sequential": "votes that stopping early saves",
    "radii": "greedy radii against a plain Python walk",
    "memory": "peak memory for many votes and many inputs",
    "workers": "two workers against one; what scheduling and recording cost",
    "exact": "exact probabilities against 10,000 votes",
    "imports": "import time",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, metavar="NAME", help="a part, see --list")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--threads", type=int, help="threads of everything that is measured")
    parser.add_argument("--list", action="store_true", help="list the parts and stop")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name:12}{description}" for name, description in PARTS.items()))
        return
    if arguments.threads:
        # Libraries read these when they are imported, which is why the parts are imported below.
        os.environ.update(dict.fromkeys(THREADS, str(arguments.threads)))
    # Networks of the examples are measured, too.
    sys.path.append(str(Path(__file__).parents[1] / "examples"))
    for name in arguments.only or PARTS:
        print(f"== {name}: {PARTS[name]}", flush=True)
        importlib.import_module(name).run(arguments.quick)


if __name__ == "__main__":
    main()
