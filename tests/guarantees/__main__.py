"""Run the whole suite, print its tables, and fail if a claim of the library does."""

from __future__ import annotations

import argparse
import sys
import time

from joblib import Parallel, delayed

from .sets import CONFIDENCE, KINDS, run_sets, table
from .suite import ALPHA, failures, run, summary


def main() -> int:
    """Run the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", type=int, default=4, help="base models for each kind of certificate")
    parser.add_argument("--inputs", type=int, default=100, help="certificates for each base model")
    parser.add_argument("--splits", type=int, default=1000, help="calibration splits for each kind of prediction sets")
    arguments = parser.parse_args()
    start = time.perf_counter()
    rows = run(arguments.seed, n_problems=arguments.problems, n_inputs=arguments.inputs)
    print(f"Certificates of known base models at alpha = {ALPHA:g}, seed {arguments.seed}.\n")
    for axes in (("noise",), ("strategy",), ("scheme", "bound", "mode")):
        print(summary(rows, *axes), end="\n\n")
    jobs = [delayed(run_sets)(arguments.seed, n_splits=arguments.splits, only=kind) for kind in KINDS]
    sets = [row for rows_of_kind in Parallel(n_jobs=-1)(jobs) for row in rows_of_kind]
    print(f"Prediction sets at confidence {CONFIDENCE:g}, {arguments.splits:,} splits.\n\n{table(sets)}\n")
    wrong = [*failures(rows), *(row for row in sets if row.fails)]
    for row in wrong:
        print(f"FAILS: {row}")
    print(f"{time.perf_counter() - start:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
