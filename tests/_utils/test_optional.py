"""Late imports of optional packages and of public names."""

import numpy as np
import pytest

from smoothcert import SplitNoise
from smoothcert._utils.optional import attribute, optional


def test_late_imports():
    assert optional("numpy.linalg", "extra") is np.linalg
    with pytest.raises(ImportError, match=r'^This needs nothere\. Install it with: pip install "smoothcert\[plots\]"'):
        optional("nothere.inside", "plots")
    modules = {"SplitNoise": ".noise.lattice"}
    assert attribute("smoothcert", "SplitNoise", modules) is SplitNoise
    with pytest.raises(AttributeError, match=r"^module 'smoothcert' has no attribute 'Other'$"):
        attribute("smoothcert", "Other", modules)
