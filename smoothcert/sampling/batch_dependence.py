"""Rows that are asked alone: a model whose answer to a row depends on the rest of the batch is caught as it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.base import Voter

#: Rows of a batch that are asked alone, and rows in all once the vote on one of them has changed.
FEW, MANY = 8, 40

#: The largest change of a number that counts as rounding, as a share of its scale and in steps of reduced precision.
SAME, SAME_STEPS = 1e-4, 8

REMEDY = (
    "Nothing was certified. The vote on a row must be the same at each call, whatever the other rows are: leave out "
    "what is random (dropout in training mode, sampling) and statistics of the batch (normalization in training mode, "
    "softmax over axis 0, ranks). For a model that only depends on the batch, batch_size=1 helps."
)


def is_due(voter: Voter) -> bool:
    """Count a batch of the voter, and tell whether some of its rows are asked alone: in batches 1, 2, 4, 8, ..."""
    voter.n_batches += 1
    return voter.most_changed is not None and voter.n_batches & (voter.n_batches - 1) == 0


def check_alone(
    voter: Voter,
    votes: NDArray[Any],
    draw: Callable[[NDArray[np.intp]], Any],
    is_changed: Callable[[Any, int], bool] | None = None,
) -> None:
    """Ask about a few rows of a batch alone.

    Parameters
    ----------
    voter : Voter
    votes : ndarray of shape (n_rows,)
        The votes on the batch; -1 for near ties, which are asked again anyway.
    draw : callable
        Returns some rows of the batch, by their numbers.
    is_changed : callable, optional
        Tells whether the answer to a batch of one row differs from that to a row of the batch, by its number; by
        default it compares votes.

    Raises
    ------
    ValueError
        If more votes change than rounding explains, or the model fails on a row alone.
    """
    if len(votes) == 1 or voter.most_changed is None:
        return

    def changes(rows: NDArray[np.intp]) -> list[bool]:
        compare = is_changed or (lambda alone, row: bool(voter(alone)[0] != votes[row]))
        try:
            return [compare(alone[None], row) for alone, row in zip(draw(rows), rows.tolist(), strict=True)]
        except ValueError as error:
            reason = str(error).removesuffix(" Nothing was certified.").rstrip(".")
            raise ValueError(f"The base model {voter.name} fails on a row alone: {reason}. {REMEDY}") from error

    tied = np.flatnonzero(votes < 0)[:MANY]
    if len(tied) and (votes >= 0).sum() < FEW:
        # Near ties are settled together, and their votes may depend on the others too.
        votes = votes.copy()
        votes[tied] = voter.settle(draw(tied))
    rows = telling_rows(votes)
    changed = changes(rows[:FEW])
    if any(changed) and len(rows) > FEW:
        changed += changes(rows[FEW:])
    if sum(changed) > voter.most_changed:
        raise ValueError(
            f"The base model {voter.name} depends on the batch or is random: {sum(changed)} of {len(changed)} noisy "
            f"rows got another answer when they were asked alone. {REMEDY}"
        )


def check_numbers_alone(
    voter: Voter,
    ask: Callable[[Any], NDArray[np.float64]],
    answers: NDArray[np.float64],
    draw: Callable[[NDArray[np.intp]], Any],
    scale: Any = 1.0,
) -> None:
    """Ask about a few rows of a batch alone where answers are numbers, which rounding may change; see `check_alone`.

    Parameters
    ----------
    voter : Voter
    ask : callable
        Returns the numbers for a batch.
    answers : ndarray of shape (n_rows, ...)
        What it has returned.
    draw : callable
        Returns some rows of the batch, by their numbers.
    scale : float or ndarray that broadcasts to ``answers``
        Rounding changes a number by a small share of this.
    """
    same = np.broadcast_to(max(SAME, SAME_STEPS * voter.coarse_step) * scale, answers.shape)

    def is_changed(alone: Any, row: int) -> bool:
        return not np.isclose(ask(alone)[0], answers[row], rtol=0, atol=same[row]).all()

    check_alone(voter, np.zeros(len(answers), dtype=np.intp), draw, is_changed)


def telling_rows(votes: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return up to `MANY` rows that are no near ties: the first with each vote, and others evenly spread."""
    clear = np.flatnonzero(votes >= 0)
    _, first = np.unique(votes[clear], return_index=True)
    spread: NDArray[np.intp] = np.linspace(0, len(clear), min(MANY, len(clear)), endpoint=False, dtype=np.intp)
    # A spread of the spread: the first few rows are not neighbors either.
    order = dict.fromkeys([*first[: FEW // 2], *spread[:: MANY // FEW], *spread])
    return clear[list(order)][:MANY]
