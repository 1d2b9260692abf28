"""Settings for all tests."""

import os

# Test workers share the cores: more threads each would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
