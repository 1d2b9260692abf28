"""Plant small faults between an input and its certificate, and name those that no test notices.

mutmut changes one operator, number or argument at a time and runs the tests that reach the change. Each module meets
only the tests listed for it, in a copy of the project of its own: the whole suite would take days.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from shutil import copytree, ignore_patterns

ROOT = Path(__file__).parents[1]

EXACT = ("sampling/test_exact", "sampling/test_exact_models", "sampling/test_exact_costs", "test_exact_probabilities")

#: The tests of each module. Together they take seconds, since a mutant that survives meets all that reach it. An end of
#: line in the name of a test is an error of the worker, exit status 255, which mutmut counts as running out of time.
TESTS = {
    "certify/algorithm": ("certify/test_algorithm", "certify/test_several_radii", "certify/test_properties"),
    "certify/betting": ("certify/test_betting", "certify/test_evidence"),
    "certify/binomial": ("certify/test_binomial", "certify/test_algorithm"),
    "certify/changes": ("certify/test_changes", "certify/test_costs", "certify/test_reach"),
    "certify/conformal_sets": ("certify/test_conformal_sets",),
    "certify/duel": ("certify/test_duel", "certify/test_futility"),
    "certify/evidence": ("certify/test_evidence", "certify/test_betting"),
    "certify/futility": ("certify/test_futility",),
    "certify/names": ("certify/test_names",),
    "certify/quantiles": ("certify/test_quantiles",),
    "certify/radius": ("certify/test_radius", "certify/test_strategy", "certify/test_costs"),
    "certify/reach": ("certify/test_reach", "certify/test_radius", "certify/test_changes", "certify/test_costs"),
    "certify/stopping": ("certify/test_stopping", "certify/test_several_radii"),
    "certify/strategy": ("certify/test_strategy", "certify/test_reach", "certify/test_radius"),
    "noise/base": ("noise/test_families", "noise/test_checks", "noise/test_cpu"),
    "noise/box": ("noise/test_box",),
    "noise/categories": ("noise/test_categories", "certify/test_costs"),
    "noise/checks": ("noise/test_checks",),
    "noise/deterministic": ("noise/test_deterministic", "noise/test_families"),
    "noise/gaussian": ("noise/test_families", "certify/test_radius"),
    "noise/greedy": ("noise/test_greedy", "certify/test_rounding"),
    "noise/lattice": ("noise/test_lattice", "noise/test_digital_rounding", "noise/test_families", "test_levels"),
    "noise/mechanism": ("noise/test_mechanism", "noise/test_digital_rounding", "certify/test_reach", "test_levels"),
    "noise/mixed_features": ("noise/test_mechanism", "certify/test_costs", "test_levels"),
    "noise/mixture": ("noise/test_families", "noise/test_greedy"),
    "noise/seeding": ("noise/test_seeding",),
    "noise/threat": ("noise/test_threat", "certify/test_costs"),
    "sampling/_axis_cells": EXACT,
    "sampling/_outcome_sums": ("sampling/test_outcome_sums", "sampling/test_exact"),
    "sampling/_trees": EXACT,
    "sampling/batch_dependence": ("sampling/test_batch_dependence",),
    "sampling/counters": ("sampling/test_counters",),
    "sampling/exact": EXACT,
    "sampling/exact_sampler": ("sampling/test_exact_sampler", "sampling/test_exact_models"),
    "sampling/sampler": ("sampling/test_sampler", "sampling/test_counters"),
    "sampling/scores": ("sampling/test_scores",),
    "sampling/selection": ("sampling/test_selection", "sampling/test_sampler"),
    "sampling/values": ("sampling/test_values",),
}

SETTINGS = """
[tool.mutmut]
source_paths = ["smoothcert"]
only_mutate = ["smoothcert/{module}.py"]
also_copy = ["docs", "examples", "README.md", "CITATION.cff"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-m", "not slow", "-p", "no:cacheprovider"]
process_isolation = "forkserver"
# Seconds to collect the tests. A mutant that runs out of time counts as noticed, although nothing noticed it.
timeout_constant = 60.0
"""


def survivors(module: str, names: str, n_jobs: int) -> str:
    """Return how the mutants of one module ended, and the changes that no test notices."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "project")
        copytree(ROOT, copy, ignore=ignore_patterns(".*", "output", "_build", "api", "auto_examples"))
        tests = [f"tests/{name}.py" for name in TESTS[module]]
        with (copy / "pyproject.toml").open("a") as settings:
            settings.write(SETTINGS.format(module=module, tests=tests))

        def mutmut(*arguments: str) -> str:
            command = [sys.executable, "-m", "mutmut", *arguments]
            return subprocess.run(command, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout

        said = mutmut("run", "--max-children", str(n_jobs), names)
        results = mutmut("results", "--all", "true").splitlines()
        ends = dict(line.strip().split(": ") for line in results if ": " in line)
        counts = Counter(end for end in ends.values() if end != "not checked")
        if not counts:
            return f"{module}: mutmut ran no mutant and said {said[-500:]!r}"
        shown = [mutmut("show", name) for name, end in ends.items() if end in ("survived", "no tests")]
        return "\n".join([f"{module}: {dict(counts)}", *shown])


def main() -> None:
    """Print the survivors of the modules named on the command line, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(TESTS), help="such as certify/reach; default: all")
    parser.add_argument("--names", default="*", help="mutants by name: '*7' takes every tenth")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    arguments = parser.parse_args()
    for module in arguments.modules:
        print(survivors(module, arguments.names, arguments.jobs), flush=True)


if __name__ == "__main__":
    main()
