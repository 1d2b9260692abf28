"""Freed memory is kept for reuse."""

from functools import cache

import numpy as np

#: The size of a block in bytes, just below the largest size that changes the settings of glibc.
LARGEST = 2**25 - 2**16


@cache
def keep_freed() -> None:
    """Make glibc keep freed blocks of up to 32 MB, by freeing one large block.

    Otherwise glibc returns the memory of the activations of each batch to the system and requests it again for the next
    batch. New pages then take longer than much of the computation in them.
    """
    np.empty(LARGEST, dtype=np.uint8)
