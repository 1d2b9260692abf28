"""Progress of a run: a bar, and records in the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any, Self

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..certify.algorithm import Algorithm
from ..certify.stopping import expected_votes
from ..results.tables import rounded_down
from .run import Part, Parts, Result, in_order, some_votes

logger = logging.getLogger("smoothcert")

#: The number of seconds between log records.
LOG_SECONDS = 30.0

#: Radii at which the certified accuracy so far is shown, in units of the unit box.
RADII = (0.0, 1.0)

#: A run that takes more seconds than this is long: the log then says what would take less.
LONG_RUN = 600.0

#: Maximum number of inputs that alternatives to a long run are estimated from.
FEW_INPUTS = 16

#: Precision of the radii that the log suggests.
RTOL = 0.05

#: Alternatives are suggested if they take less than this share of the votes.
WORTHWHILE = 0.8


def followed(parts: Parts, progress: Progress, result_of: Callable[[Part], Result], y: Any = None) -> Result:
    """Return the results of all parts of a run in the order of the inputs, and show how the run comes along.

    Parameters
    ----------
    parts : generator of Part
    progress : Progress
    result_of : callable
        Returns the certificates, decisions, votes or predictions of a part.
    y : ndarray, optional
        The true labels of all inputs, if the results are certificates.
    """
    found = []
    with closing(parts), progress:
        for part in parts:
            result: Any = result_of(part)
            found.append((part.index, result))
            progress.update(part, None if y is None else result.radii_if_right(y[part.index]))
    return in_order(found)


class Progress:
    """Progress of drawing votes: inputs per second, votes, time left and certified accuracy so far.

    Log records at level INFO go to the logger "smoothcert": the first when the run starts, the last when it ends, and
    one every 30 seconds between them, even if nothing is finished meanwhile. After the first task of a run for
    certificates that will take more than ten minutes, one record estimates its time, and that of drawing fewer votes.

    Parameters
    ----------
    n_inputs : int
    task : str
        Name of what is done.
    verbose : int
        Above 0, show a bar.
    algorithm : Algorithm, optional
        Makes the certificates of a run for certificates.
    n_jobs : int or None
        Number of workers.
    """

    def __init__(
        self,
        n_inputs: int,
        task: str,
        verbose: int = 0,
        *,
        algorithm: Algorithm | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_inputs = n_inputs
        self.task = task
        self.algorithm = algorithm
        self.n_jobs = n_jobs
        self.bar = tqdm(total=n_inputs, disable=not verbose, desc=task, unit="input", smoothing=0.05)
        self.started = time.monotonic()
        self.ended = threading.Event()
        self.timer = threading.Thread(target=self._tell, daemon=True)
        self.done = self.known = self.votes = self.judged = 0
        self.certified = np.zeros(len(RADII), dtype=np.int64)

    def __enter__(self) -> Self:
        logger.info("%s: %d inputs", self.task, self.n_inputs)
        self.timer.start()
        return self

    def _tell(self) -> None:
        """Log and draw the bar anew from time to time, even while nothing is finished."""
        while not self.ended.wait(LOG_SECONDS):
            self.bar.refresh()
            logger.info("%s: %s", self.task, self.summary())

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.timer.join()
        self.bar.close()
        logger.info("%s: %s, %s", self.task, "ended" if error[0] is None else "stopped", self.summary())

    def update(self, part: Part, radii_if_right: NDArray[np.float64] | None = None) -> None:
        """Count finished inputs.

        Parameters
        ----------
        part : Part
            Inputs that come from a store do not count for the speed.
        radii_if_right : ndarray of shape (n,), optional
            Radius of each input whose label is right, NaN for the others.
        """
        n = len(part.index)
        self.done += n
        if self.algorithm is not None and self.done == n + self.known and not part.stored:
            self._log_long_run(part, self.algorithm)
        self.votes += part.votes.n_votes
        if radii_if_right is not None:
            self.judged += n
            self.certified += [(radii_if_right >= radius).sum() for radius in RADII]
        self.bar.set_postfix(self.figures(), refresh=False)
        if part.stored:
            self.known += n
            self.bar.initial, self.bar.n = self.known, self.done
        else:
            self.bar.update(n)

    def _log_long_run(self, part: Part, algorithm: Algorithm) -> None:
        """Estimate from the first task how long the run will take and, if that is long, what would take less."""
        n_left, n_votes = self.n_inputs - self.done, part.votes.n_votes / len(part.index)
        seconds = part.votes.seconds / len(part.index) * n_left / effective_n_jobs(self.n_jobs)
        if seconds < LONG_RUN:
            return
        message = f"{self.task}: {n_left} inputs are left, about {seconds:.0f} s"
        for name, fewer in votes_with_stopping(algorithm, part).items():
            if fewer < WORTHWHILE * n_votes:
                message += f"; {name} would take about {seconds * fewer / n_votes:.0f} s"
        logger.info("%s", message)

    def figures(self) -> dict[str, str]:
        """Return the figures beside the bar."""
        shares = zip(RADII, self.certified / self.judged, strict=True) if self.judged else ()
        return {"votes": tqdm.format_sizeof(self.votes)} | {
            f"certified at {radius:g}": f"{one:.3f}" for radius, one in shares
        }

    def summary(self) -> str:
        """Return the figures in one line."""
        drawn, seconds = self.done - self.known, time.monotonic() - self.started
        parts = [f"{self.done} of {self.n_inputs} inputs"]
        if self.known:
            parts.append(f"{self.known} of them stored")
        if drawn and seconds > 0:
            parts.append(f"{drawn / seconds:.3g} inputs/s")
            if self.done < self.n_inputs:
                parts.append(f"{(self.n_inputs - self.done) * seconds / drawn:.0f} s left")
        return ", ".join(parts + [f"{name} {value}" for name, value in self.figures().items()])


def votes_with_stopping(algorithm: Algorithm, part: Part) -> dict[str, float]:
    """Estimate the mean number of votes per input for each way of stopping early, from inputs with all their votes."""
    if not algorithm.may_stop or algorithm.stops or algorithm.joins_rivals or not part.votes.n_votes:
        return {}
    votes, X = some_votes(part.votes, slice(FEW_INPUTS)), part.X[:FEW_INPUTS]
    rules: dict[str, Any] = {f"rtol={RTOL:g}": (replace(algorithm, rtol=RTOL).precision_rule(), None)}
    radii = algorithm.certify(votes, X).radii
    if np.isfinite(radii).any():
        typical = rounded_down(float(np.median(radii[np.isfinite(radii)])), digits=2)
        rules[f"certify_at(X, {typical})"] = (algorithm.radius_rule(), np.full(len(X), float(typical)))
    return {
        name: float(np.mean(votes.selection.sum(axis=1) + expected_votes(rule, votes, X, target)))
        for name, (rule, target) in rules.items()
    }
