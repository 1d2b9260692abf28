"""Settings for all tests."""

import os
import sys

import pytest

# Test workers share the cores: more threads each would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: Tests that take long or wait for processes.
LONG = (
    "tests/guarantees/test_guarantees.py",
    "tests/runs/test_crashes.py",
    "tests/runs/test_workers.py",
    "tests/site/",
)


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers():
    """Take one worker more than there are cores, since some tests wait for processes."""
    return (yield) + 1


def pytest_collection_modifyitems(items):
    """Start the longest tests first, so that no worker is left alone with them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(autouse=True, scope="session")
def quick_workers():
    """Fork loky's workers from a server: as interpreters, each pair of them would import for seconds."""
    from .processes import start_workers_by

    start_workers_by("forkserver")


@pytest.fixture(autouse=True)
def threads_of_torch():
    """Fail a test that leaves torch with another number of threads."""
    before = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    yield
    if before is not None:
        assert sys.modules["torch"].get_num_threads() == before


@pytest.fixture(autouse=True)
def figures_of_pyplot():
    """Close the figures that a test has opened: pyplot keeps them, and warns of many."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
