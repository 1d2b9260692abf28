"""Torch modules as base models, and votes on near ties that do not depend on the rest of the batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Voter, checked_probabilities, name_of, uncompiled
from .identity import content_of_tensors
from .threads import check_evaluation_mode, module_lock, n_threads
from .torch_inference import TorchInference, check_rows_are_independent, torch_device
from .torch_outputs import Decision, explained, is_smooth, lead_error, read_logits, read_numbers, votes_by_lead

#: A row is a near tie if the first logit leads the second by no more than this part of their size.
NEAR_TIE = 2.0**-13

#: The same for a float64 copy of the module, which tells how logits are ordered in float32, and for a module in float64
#: whose logits are smooth to its rounding; see `is_smooth`.
NEAR_TIE_64, SMOOTH_NEAR_TIE = NEAR_TIE / 16, NEAR_TIE * 2.0**-29

#: Share of near ties in a batch above which rounding errors are measured, and rows that this takes.
MANY_NEAR_TIES, MEASURED_ROWS = 1 / 8, 32

#: Leads of float32 and float64 logits that are clear, in units of the largest rounding error that was measured.
CLEAR, CLEAR_64 = 64, 4

#: Parameters below which a network on a CPU gets larger batches, since the work around each call takes time too, and
#: above which no float64 copy is made, which takes eight bytes for each.
SMALL_NETWORK, LARGEST_COPY = 2**20, 2**28

#: On accelerators: the largest number of near ties that are settled together, while CUDA devices wait for the host, and
#: how many times as many batches a task has.
TOGETHER_ON_ACCELERATORS, TOGETHER_ON_CUDA, TASK_FACTOR = 2**10, 2**14, 8

#: Relative distance of neighboring numbers in TF32, in which CUDA devices may multiply float32 matrices.
TF32 = 2.0**-10

#: Rows of some batches whose leads are compared with those in higher precision.
COMPARED_ROWS = 128

#: Votes that may change when 40 rows are asked alone, where numbers have fewer digits than float32.
COARSE_CHANGES = 5


class TorchVoter(Voter):
    """Votes of a torch module that returns one logit per class: the index of the largest.

    The vote on a row is the module's answer to this row alone. The last bits of logits depend on the size of the batch,
    so the module is asked again about near ties, rows whose two largest logits differ by no more than rounding could
    change. A float64 copy of the module settles them together where its lead is clear, on the CPU if the device has no
    float64. The others are asked alone.

    In reduced precision, which CUDA devices have for float32 too (TF32), votes are those of the module in higher
    precision: without autocast and compilation, and a float64 copy on CUDA devices. It is asked about rows whose two
    largest logits differ by less than twice the largest error that the lead had on some rows of earlier batches. If
    logits of float64 are as smooth as float64 allows, only leads at its rounding errors are near ties.

    Otherwise, votes do not depend on the batch as long as rounding changes a logit by less than ``NEAR_TIE / 2`` times
    the sum of ``scale`` and its size. The scale is 1 unless many rows are near ties; then it follows from the rounding
    errors that the float64 copy reveals. It decides which rows are asked again, not how they vote.

    Parameters
    ----------
    module : torch.nn.Module
    n_classes : int
    device : torch.device or str, optional
        By default that of the module.
    inference : TorchInference, optional
    decision : Decision, optional
        By default logits are compared as they are.
    """

    def __init__(
        self,
        module: Any,
        n_classes: int,
        device: Any = None,
        inference: TorchInference | None = None,
        decision: Decision | None = None,
    ) -> None:
        import torch

        check_rows_are_independent(module)
        tensors = [*module.parameters(), *module.buffers()]
        self.module = module
        self.n_classes = n_classes
        self.device = torch_device(device if device is not None else tensors[0].device if tensors else "cpu")
        self.device_type = self.device.type
        if self.device_type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"device={str(self.device)!r} is not there: torch finds no CUDA device. Use set_params(device='cpu')."
            )
        self.precision = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
        self.dtype = np.float64 if self.precision == torch.float64 else np.float32
        self.n_parameters = sum(tensor.numel() for tensor in tensors)
        self.batch_values = 2**20 if self.n_parameters < SMALL_NETWORK else 2**17
        if self.device_type != "cpu":
            self.batch_values = self.most_rows = 2**24
            self.most_together = TOGETHER_ON_CUDA if self.device_type == "cuda" else TOGETHER_ON_ACCELERATORS
            self.task_factor = TASK_FACTOR
        self.inference, self.decision = inference or TorchInference(), decision or Decision()
        self.module_lock = module_lock(module)
        step = max(torch.finfo(self.precision).eps, self.inference.step(self.device_type))
        if self.device_type == "cuda" and self.precision == torch.float32:
            step = max(step, TF32)
        self.is_reduced = step > torch.finfo(torch.float32).eps
        self.coarse_step = step if self.is_reduced else 0.0
        self.near_tie, self.scale = (step, 0.0) if self.is_reduced else (NEAR_TIE, 1.0)
        self.many_near_ties = self.is_rough = False
        self.most_changed = COARSE_CHANGES if self.device_type != "cpu" or self.is_reduced else 0
        self.original = self
        self._forget()

    def _forget(self) -> None:
        """Forget what was made of the module, which may change between runs."""
        self.forward: Any = None
        self.thread_voters: list[TorchVoter] = []
        # The voter of higher precision, which is compared anew; None before it is needed, False if there is none.
        self.precise: Any = None
        self.is_measured, self.n_large_batches = not self.is_reduced, 0

    @property
    def n_cores(self) -> int:
        """Number of cores that torch may use."""
        import torch

        return torch.get_num_threads()

    def for_threads(self) -> list[TorchVoter]:
        """Return voters that can vote at the same time, each in a thread: on CPUs this one and copies of it.

        Copies share parameters, and nothing else: a module may keep notes in its attributes and buffers.
        """
        with self.module_lock.lock:
            if not self.thread_voters:
                alike = self.device_type == "cpu" and self.inference.allows_copies(self.module, "cpu")
                copies = [self._copy(self.inference) for _ in range(n_threads(self.n_cores) - 1) if alike]
                self.thread_voters = [self, *(voter for voter in copies if voter is not None)]
                for voter in self.thread_voters:
                    voter.original = self
            return self.thread_voters

    def _copy(self, inference: TorchInference, to: Any = None) -> TorchVoter | None:
        """Return a voter for a copy that shares the parameters, or moves to a device and dtype; None if it fails."""
        import torch

        shared = {} if to else {id(tensor): tensor for tensor in self.module.parameters()}
        try:
            with torch.inference_mode(False):
                # The module itself, where torch.compile has wrapped it.
                module = copy.deepcopy(uncompiled(self.module) if to else self.module, shared)
                module = module.to(to[0]).to(to[1]) if to else module
        except Exception:
            return None
        return TorchVoter(module, self.n_classes, to[0] if to else self.device, inference, self.decision)

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        import torch

        rows = torch.as_tensor(batch)
        votes = self.vote(rows.clone())()
        near_ties = np.flatnonzero(votes < 0)
        if len(near_ties):
            votes[near_ties] = self.settle(rows[near_ties])
        return votes

    def vote(self, batch: Any) -> Callable[[], NDArray[np.intp]]:
        """Ask about a batch; see `Voter.vote`. The module may change it in place."""
        import torch

        with torch.inference_mode():
            rows = torch.as_tensor(batch).to(self.device)
            compared = self._compared(len(rows))
            kept = None if compared is None else rows[compared].clone()
            logits = self.logits(rows)
            # A module may answer in a buffer of its own, which its answer to the rows that are kept overwrites.
            logits = logits if kept is None else logits.clone()
            if kept is not None and not self._measure(kept, logits[compared]):
                return lambda: np.full(len(logits), -1)
            narrow = self.inference.autocast == "float16"
            return self._download(votes_by_lead(logits, self.scale, self.near_tie, overflows=narrow))

    def _compared(self, n_rows: int) -> slice | None:
        """Count a batch, and return which of its rows are compared with higher precision, if any are.

        They are spread over batches 1, 2, 4, 8, ... since a batch may hold noisy copies of few inputs only.
        """
        if n_rows < MEASURED_ROWS:
            return None if self.is_measured else slice(None)
        self.n_large_batches += 1
        due = self.is_reduced and self.n_large_batches & (self.n_large_batches - 1) == 0
        return slice(None, None, -(-n_rows // COMPARED_ROWS)) if due else None

    def _measure(self, rows: Any, logits: Any) -> bool:
        """Compare leads in reduced precision with those in higher precision, and tell whether the rows suffice for it.

        Near ties are then rows whose lead is at most twice the largest error so far, plus one step of the precision.
        """
        precise = self._find_precise()
        if precise and len(rows) < MEASURED_ROWS:
            return False
        is_later, self.is_measured = self.is_measured, True
        if precise:
            try:
                error = lead_error(logits, precise.logits(rows.clone()))
                if not is_later and precise.dtype == np.float64 and is_smooth(precise.logits, rows.double()):
                    precise.near_tie = SMOOTH_NEAR_TIE
            except (MemoryError, RuntimeError, ValueError):
                self.original.precise = precise if is_later else False
                return True
            self.scale = max(self.scale, 2 * error / self.near_tie)
        return True

    def _download(self, votes: Any) -> Callable[[], NDArray[np.intp]]:
        """Send votes to the host, where the device allows it without waiting for them."""
        import torch

        landed, arrived = votes, None
        if self.device_type == "cuda":
            landed, arrived = votes.to("cpu", non_blocking=True), torch.cuda.Event()
            # It belongs to the current device, which need not be the voter's.
            with torch.cuda.device(self.device):
                arrived.record()

        def wait() -> NDArray[np.intp]:
            if arrived is not None:
                arrived.synchronize()
            array: NDArray[np.intp] = landed.cpu().numpy()
            self.many_near_ties = (array < 0).sum() > MANY_NEAR_TIES * len(array)
            return array

        return wait

    def settle(self, batch: Any) -> NDArray[np.intp]:
        """Return the class index of each row of a batch of near ties: together if possible, else each alone.

        Raises
        ------
        ValueError
            If a logit is NaN.
        """
        import torch

        rows = torch.as_tensor(batch).to(self.device)
        if self.is_reduced and (precise := self._find_precise()):
            with precise.module_lock.lock, precise.inference.context(precise.device):
                return precise(rows)
        if self._finds_smooth(rows):
            return self(batch)
        votes = self._settle_together(rows)
        for row in np.flatnonzero(votes < 0):
            logits = self.logits(rows[row : row + 1].clone()).cpu()
            if logits.isnan().any():
                raise ValueError(f"The base model {name_of(self.module)} returned NaN logits. Nothing was certified.")
            votes[row] = int(logits.argmax())
        return votes

    def _finds_smooth(self, rows: Any) -> bool:
        """Tell whether logits turn out to be smooth in float64. Fewer rows are near ties from then on."""
        if self.dtype != np.float64 or self.near_tie != NEAR_TIE or self.is_rough or len(rows) < MEASURED_ROWS:
            return False
        self.is_rough = not is_smooth(self.logits, rows.double(), strict=True)
        self.near_tie = NEAR_TIE if self.is_rough else SMOOTH_NEAR_TIE
        return not self.is_rough

    def _settle_together(self, rows: Any) -> NDArray[np.intp]:
        """Return the class index of each row for which a float64 copy of the module has a clear winner, else -1.

        A lead is clear if it exceeds 4 times the largest rounding error that any of the rows shows in float32. The
        same class then wins in float32, alone and in any batch.
        """
        exact = self._exact_logits(rows) if len(rows) > 1 else None
        if exact is None:
            return np.full(len(rows), -1)
        rounded = self.logits(rows.clone()).to(exact.device)
        error, size = float((exact - rounded).abs().max()), float(exact.abs().max())
        measured = min(1.0, max(size, CLEAR * error / NEAR_TIE)) if np.isfinite(error) else 1.0
        if self.scale < 1 or (self.many_near_ties and len(rows) >= MEASURED_ROWS):
            self.scale = measured if self.scale == 1 else max(self.scale, measured)
        votes: NDArray[np.intp] = votes_by_lead(exact, self.scale, NEAR_TIE_64, CLEAR_64 * error).cpu().numpy()
        if len(rows) >= MEASURED_ROWS and (votes < 0).all():
            self.original.precise = False
        return votes

    def _exact_logits(self, rows: Any) -> Any:
        """Return the logits that a float64 copy of the module computes, or None if there is no such copy."""
        import torch

        if self.is_reduced or not (exact := self._find_precise()):
            return None
        try:
            with exact.module_lock.lock:
                logits = exact.logits(rows.to(exact.device).double())
        except (MemoryError, RuntimeError, ValueError):
            self.original.precise = False
            return None
        # Logits that all fit into float32 may have been computed in float32.
        return None if logits.dtype != torch.float64 or (logits == logits.float()).all() else logits

    def _find_precise(self) -> Any:
        """Return the voter of higher precision that settles near ties together, or False if there is none.

        Voters in threads share it.
        """
        voter = self.original
        with voter.module_lock.lock:
            if voter.precise is None:
                voter.precise = voter._make_precise() or False
            return voter.precise

    def _make_precise(self) -> TorchVoter | None:
        """Return a voter without autocast, or else one of the next higher precision, if that is possible."""
        import torch

        inference = self.inference.in_full_precision()
        tensors = [*self.module.parameters(), *self.module.buffers()]
        # Module.to takes the imaginary parts off.
        if self.n_classes == 1 or any(tensor.is_complex() for tensor in tensors):
            return None
        if self.inference.step(self.device_type) and self.precision.itemsize >= 4:
            # A copy: in another thread, the module may answer in a buffer that is being read.
            voter = self._copy(inference) if inference.allows_copies(self.module, self.device_type) else None
            return voter or TorchVoter(uncompiled(self.module), self.n_classes, self.device, inference, self.decision)
        if self.precision == torch.float64 or self.n_parameters > LARGEST_COPY:
            return None
        dtype = torch.float64 if self.precision == torch.float32 else torch.float32
        has_it = dtype == torch.float32 or self.device_type in ("cpu", "cuda")
        return self._copy(inference, (self.device if has_it else torch.device("cpu"), dtype))

    def logits(self, rows: Any) -> Any:
        """Return the module's logits, one row per input. The module may change ``rows`` in place."""
        how = name_of(self.module), self.inference.output, self.decision
        logits = read_logits(self._answer(rows), len(rows), self.n_classes, *how)
        # An answer from outside of inference mode could have a gradient; a split module may answer on another device.
        return logits.detach().to(self.device)

    def _answer(self, rows: Any) -> Any:
        """Return what the module answers to a batch, which it may change in place."""
        import torch

        first, evaluating = self.forward is None, not self.module.training
        try:
            with torch.inference_mode(), self.module_lock.lock, self.inference.context(self.device):
                if first:
                    self.forward = self.inference.prepare(self.module)
                answer = self.forward(torch.as_tensor(rows).to(self.device, self.precision))
        except RuntimeError as error:
            raise explained(error, self.module, tuple(rows.shape)) from error
        if first and evaluating:
            # A forward method may change the mode of its parts.
            check_evaluation_mode(self.module)
        return answer

    def probabilities(self, batch: Any) -> NDArray[np.float64]:
        """Return the softmax of the module's logits; see `Voter.probabilities`."""
        found = self.logits(batch).cpu().double().softmax(dim=1).numpy()
        return checked_probabilities(found, len(batch), self.n_classes, name_of(self.module))

    def values(self, batch: Any) -> NDArray[np.float64]:
        """Return the module's numbers; see `Voter.values`."""
        return read_numbers(self._answer(batch), len(batch), name_of(self.module), self.inference.output)

    def content(self) -> str:
        """Return a digest of the module's parameters and buffers, and how it is run; see `Voter.content`."""
        content = content_of_tensors([*self.module.parameters(), *self.module.buffers()])
        return f"{name_of(self.module)} {content}{self.inference.way()}{self.decision}"

    def __getstate__(self) -> dict[str, Any]:
        made_anew = ("module_lock", "forward", "thread_voters", "precise", "original")
        return {name: value for name, value in vars(self).items() if name not in made_anew}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, module_lock=module_lock(state["module"]), original=self)
        self._forget()

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Put the module on its device and in evaluation mode, and restore its mode at the end."""
        self.module.to(self.device)
        self._forget()
        try:
            with self.module_lock.evaluating(self.module):
                yield
        finally:
            self._forget()

    @contextmanager
    def voting(self) -> Iterator[None]:
        """Keep the module in evaluation mode, and its CUDA device the current one: kernels start there."""
        import torch

        device = torch.cuda.device(self.device) if self.device_type == "cuda" else nullcontext()
        with device, self.module_lock.evaluating(self.module):
            yield
