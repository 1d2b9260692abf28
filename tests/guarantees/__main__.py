"""Run the whole suite, print its tables, and fail if a claim of the library does."""

from __future__ import annotations

import argparse
import sys
import time

from .suite import ALPHA, failures, run, summary


def main() -> int:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", type=int, default=4, help="base models for each kind of certificate")
    parser.add_argument("--inputs", type=int, default=100, help="certificates for each base model")
    arguments = parser.parse_args()
    start = time.perf_counter()
    rows = run(arguments.seed, n_problems=arguments.problems, n_inputs=arguments.inputs)
    print(f"Certificates of known base models at alpha = {ALPHA:g}, seed {arguments.seed}.\n")
    for axes in (("noise",), ("strategy",), ("scheme", "bound", "mode")):
        print(summary(rows, *axes), end="\n\n")
    for row in failures(rows):
        print(f"FAILS: {row}")
    print(f"{time.perf_counter() - start:.0f} s")
    return bool(failures(rows))


if __name__ == "__main__":
    sys.exit(main())
