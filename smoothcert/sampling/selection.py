"""Selection votes: how many an input needs before its class is decided. Pure functions of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Number of selection votes after which the rule looks for the first time.
FIRST_STEP = 16

#: Standard deviations by which the votes to come may differ from those so far, when drawing stops before the cap. There
#: are more above a cap of `USUAL` votes, so that the probability of another class falls as the cap grows.
DECISIVE, USUAL = 3.5, 256

#: Tied votes that are added before the lead per vote is estimated: few votes say little about it.
TIED_BEFORE = 16


class SelectionRule:
    """Stops drawing selection votes once the leading class is almost certain to be selected.

    Parameters
    ----------
    n_selection : int
        Largest number of selection votes.
    """

    def __init__(self, n_selection: int) -> None:
        self.n_selection = n_selection
        self.checkpoints = selection_steps(n_selection)

    def enough(self, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell for each input whether it needs no more selection votes."""
        return is_decisive(counts, self.n_selection)


def selection_steps(n_selection: int) -> NDArray[np.int64]:
    """Return the numbers of selection votes at which the rule looks: 16, 32, 64, ..., and ``n_selection`` last.

    Parameters
    ----------
    n_selection : int
        Largest number of selection votes.

    Examples
    --------
    >>> selection_steps(256)
    array([ 16,  32,  64, 128, 256])
    """
    steps = FIRST_STEP * 2 ** np.arange(40, dtype=np.int64)  # Far more votes than anyone draws.
    return np.append(steps[steps < n_selection], n_selection)


def is_decisive(counts: NDArray[np.int64], n_selection: int) -> NDArray[np.bool_]:
    """Tell for each input whether the leading class is almost certain to lead after ``n_selection`` votes.

    The rule looks at the selection votes of this input alone. Stopping early changes which class is selected, but not
    the validity of a certificate: estimation votes are independent of the selection votes and of their number.

    Parameters
    ----------
    counts : ndarray of shape (n_inputs, n_classes)
        Selection votes so far.
    n_selection : int
        Largest number of selection votes. Inputs with this many votes are decided.

    Returns
    -------
    decisive : ndarray of bool, shape (n_inputs,)

    Examples
    --------
    >>> is_decisive(np.array([[16, 0, 0], [10, 5, 1]]), 256)
    array([ True, False])
    """
    n = counts.sum(axis=1)
    if counts.shape[1] == 1:
        return np.ones(len(counts), dtype=bool)
    second, first = np.partition(counts, -2, axis=1)[:, -2:].T
    lead = first - second
    # A vote changes the lead by 1, -1 or 0. Added votes keep its variance from looking too small.
    variance = (first + second + 1) / (n + 1) - (lead / (n + TIED_BEFORE)) ** 2
    # If the leader gains lead / n on average in each vote to come, the final lead is N lead / n. Its standard
    # deviation, with the uncertainty of lead / n, is sqrt(variance (N - n) N / n). The inequality compares the two.
    decisive = np.sqrt(DECISIVE**2 + 2 * np.log(max(1, n_selection / USUAL)))
    return np.asarray(lead >= decisive * np.sqrt(variance * n * (1 - n / n_selection)))
