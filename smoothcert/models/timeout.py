"""Base models that may hang: an answer that is late is an error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Voter
from .torch import TorchVoter


class TimedVoter(Voter):
    """A voter that must answer within some seconds.

    Parameters
    ----------
    voter : Voter
        Not one of torch, because a call of its module cannot be abandoned.
    seconds : float
    """

    def __init__(self, voter: Voter, seconds: float) -> None:
        if isinstance(voter, TorchVoter):
            raise ValueError(
                "timeout is for base models outside of torch, such as a function that asks a service. Use timeout=None."
            )
        self.voter = voter
        self.seconds = seconds
        self.dtype, self.n_classes = voter.dtype, voter.n_classes
        self.batch_values, self.most_rows, self.free_rows = voter.batch_values, voter.most_rows, voter.free_rows
        self.most_changed, self.content_decides = voter.most_changed, voter.content_decides
        self.columns = getattr(voter, "columns", None)

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        return self._answer(self.voter, batch)

    def probabilities(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        """Return probabilities; see `Voter.probabilities`."""
        return self._answer(self.voter.probabilities, batch)

    def values(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        """Return predicted numbers; see `Voter.values`."""
        return self._answer(self.voter.values, batch)

    def _answer(self, ask: Callable[[NDArray[Any]], Any], batch: NDArray[Any]) -> Any:
        """Return the answer to a batch, or raise a TimeoutError if it is late.

        The call is then abandoned, in a thread that ends with the process.
        """
        answer: Future[Any] = Future()
        # An abandoned call must not see the next batch.
        Thread(target=_keep, args=(answer, ask, batch.copy()), daemon=True).start()
        if not wait([answer], self.seconds).done:
            raise TimeoutError(
                f"The base model {self.voter.name} did not answer {len(batch)} rows within "
                f"timeout={self.seconds:g} seconds. Nothing was certified. Allow more time, or set a smaller "
                f"batch_size."
            )
        return answer.result()

    def content(self) -> str:
        """Return the content of the voter's model; see `Voter.content`."""
        return self.voter.content()

    def ready(self) -> AbstractContextManager[Any]:
        """Hold the voter ready."""
        return self.voter.ready()


def _keep(answer: Future[Any], ask: Callable[[NDArray[Any]], Any], batch: NDArray[Any]) -> None:
    """Set an answer, or the error in its place."""
    try:
        answer.set_result(ask(batch))
    except BaseException as error:
        answer.set_exception(error)
