"""Memory that is freed is kept for reuse."""

from functools import cache

import numpy as np

#: Bytes: just below the size from which on glibc learns nothing.
LARGEST = 2**25 - 2**16


@cache
def keep_freed() -> None:
    """Make glibc keep freed blocks of up to 32 MB, where it may: it learns that from a large block that is freed.

    It would give the memory of each batch's activations back to the system, only to ask for it again: getting pages
    anew takes longer than much of what is computed in them.
    """
    np.empty(LARGEST, dtype=np.uint8)
