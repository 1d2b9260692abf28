"""Torch modules as base models that vote, and how their near ties are kept from depending on the batch."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Voter, name_of
from .identity import class_code, code_text, content_hash
from .inference import TorchInference
from .threads import module_lock, n_threads

#: Attributes of a torch module that do not decide its answers, or are hashed one by one.
MODULE_STATE = {"_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training", "rng"}
MODULE_STATE |= {"_flat_weights", "_flat_weight_refs"}

#: Lead of the first logit over the second, relative to its size, below which a vote is taken again on its own.
NEAR_TIE = 2.0**-13


#: Parameters below which a network on a CPU gets larger batches: so fast is it that what surrounds it takes time too.
#: The activations of others are large, and fit into caches in small batches only.
SMALL_NETWORK = 2**20


class TorchVoter(Voter):
    """Votes of a torch module that returns one logit per class: the index of the largest.

    The last bits of logits depend on the size of the batch. Rows whose two largest logits nearly tie are therefore
    voted on again, each alone, so that votes do not depend on the batch they came in, as long as rounding changes a
    logit by less than 2**-14 of its size.
    """

    def __init__(self, module: Any, n_classes: int, device: Any = None, inference: Any = None) -> None:
        import torch

        for part in module.modules():
            kind = getattr(torch.nn, str(getattr(part, "original_name", "")), type(part))
            normalizes = isinstance(kind, type) and issubclass(kind, torch.nn.modules.batchnorm._BatchNorm)
            if normalizes and getattr(part, "running_mean", None) is None:
                raise ValueError(
                    f"The base model {name_of(module)} has a {kind.__name__} without running statistics: its answer to "
                    f"an input depends on the rest of the batch, so nothing can be certified. Use "
                    f"track_running_stats=True."
                )
            if ".quantized.dynamic." in type(part).__module__:
                raise ValueError(
                    f"The base model {name_of(module)} has a dynamically quantized {name_of(part)}: it rounds an input "
                    f"as the rest of the batch has it, so nothing can be certified. Quantize statically."
                )
        tensors = [*module.parameters(), *module.buffers()]
        self.module = module
        self.n_classes = n_classes
        self.device = torch.device(device if device is not None else tensors[0].device if tensors else "cpu")
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"device={str(self.device)!r} is not there: torch finds no CUDA device. Use set_params(device='cpu')."
            )
        self.precision = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
        self.dtype = np.float64 if self.precision == torch.float64 else np.float32
        small = sum(tensor.numel() for tensor in tensors) < SMALL_NETWORK
        self.batch_values = 2**20 if small else 2**17
        if self.device.type != "cpu":
            self.batch_values = self.most_rows = 2**24
        self.inference = inference or TorchInference()
        self.module_lock = module_lock(module)
        self.forward: Any = None
        self.members: list[TorchVoter] = []

    @property
    def n_cores(self) -> int:
        """Number of cores that torch may use."""
        import torch

        return torch.get_num_threads()

    def team(self) -> list[TorchVoter]:
        """Return voters that can vote at the same time, each in a thread: on CPUs this one, and copies of it.

        Copies share parameters, and nothing else: a module may keep notes in its attributes and buffers. Where a copy
        might answer differently, or cannot be made, this voter stays alone.
        """
        import torch

        parts = list(self.module.modules())
        alone = (
            self.device.type != "cpu"
            or self.inference.compile
            or torch.is_autocast_enabled("cpu")
            # A hook may share what it knows with the hooks of other copies, and so may a forward of the instance's own.
            # Hooks with ``is_pure`` change nothing.
            or any(not getattr(hook, "is_pure", False) for part in parts for hook in _hooks(part))
            or any("forward" in vars(part) for part in parts)
        )
        with self.module_lock.lock:
            if not self.members:
                shared = {id(tensor): tensor for tensor in self.module.parameters()}
                try:
                    copies = [
                        copy.deepcopy(self.module, dict(shared))
                        for _ in range(0 if alone else n_threads(self.n_cores) - 1)
                    ]
                except Exception:
                    copies = []
                self.members = [
                    self,
                    *(TorchVoter(module, self.n_classes, self.device, self.inference) for module in copies),
                ]
            return self.members

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.intp]:
        """Return class indices; see `Voter.__call__`."""
        import torch

        rows = torch.from_numpy(batch)
        with torch.inference_mode():
            votes, doubtful = self.vote(rows.clone().to(self.device))
            for row in doubtful.nonzero().flatten().tolist():
                votes[row] = self.vote_alone(rows[row : row + 1].clone().to(self.device))
            return votes.cpu().numpy()

    def vote(self, rows: Any) -> tuple[Any, Any]:
        """Return the class index of each row, and which of them must be asked for again, alone.

        Nothing here waits for an accelerator. The module may change ``rows`` in place.
        """
        import torch

        with torch.inference_mode():
            logits = self.logits(rows)
            if self.n_classes == 1:
                return torch.zeros(len(logits), dtype=torch.int64, device=self.device), logits[:, 0].isnan()
            (first, second), votes = (part.unbind(dim=1) for part in logits.topk(2, dim=1))
            # Written such that NaN is doubtful.
            return votes[0], ~(first - second > NEAR_TIE * (1 + first.abs()))

    def vote_alone(self, row: Any) -> int:
        """Return the class index of one row.

        Raises
        ------
        ValueError
            If a logit is NaN.
        """
        logits = self.logits(row).double().cpu().numpy()
        if np.isnan(logits).any():
            raise ValueError(f"The base model {name_of(self.module)} returned NaN logits. Nothing was certified.")
        return int(logits.argmax())

    def logits(self, rows: Any) -> Any:
        """Return the module's logits, one row per input. The module may change ``rows`` in place."""
        import torch

        try:
            with torch.inference_mode(), self.module_lock.lock, self.inference.context(self.device):
                if self.forward is None:
                    self.forward = self.inference.prepare(self.module)
                logits = self.forward(rows.to(self.precision))
        except RuntimeError as error:
            raise explained(error, self.module, tuple(rows.shape)) from error
        if isinstance(logits, tuple):
            logits = logits[0]
        expected = (rows.shape[0], self.n_classes)
        if getattr(logits, "shape", None) != expected:
            returned = f"shape {tuple(logits.shape)}" if hasattr(logits, "shape") else f"a {name_of(logits)}"
            raise ValueError(
                f"The base model {name_of(self.module)} must return one logit per class, shape {expected}, but "
                f"returned {returned}. Nothing was certified."
            )
        # A module that leaves inference mode, or returns a parameter, returns what could have a gradient.
        return logits.detach()

    def fingerprint(self) -> str:
        """Hash the code, attributes, parameters and buffers of every part of the module."""
        import torch

        content = hashlib.blake2b(digest_size=16)
        for name, part in self.module.named_modules():
            tensors = {**part._parameters, **part._buffers}
            plain = {key: value for key, value in vars(part).items() if key not in MODULE_STATE}
            code = getattr(getattr(type(part), "forward", None), "__code__", None)
            content.update(f"{name} {type(part).__qualname__} {content_hash(plain)}".encode())
            content.update(f"{class_code(type(part))} {code_text(code) if code else ''}".encode())
            for key, value in tensors.items():
                if value is not None:
                    content.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
                    content.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        way = "" if repr(self.inference) == repr(TorchInference()) else f" {self.inference}"
        return f"{name_of(self.module)} {content.hexdigest()}{way}"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"module_lock": None, "forward": None, "members": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, module_lock=module_lock(state["module"]))

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Put the module on its device and in evaluation mode, and leave its mode as found."""
        self.module.to(self.device)
        self.members = []
        try:
            with self.module_lock.evaluating(self.module):
                yield
        finally:
            self.members = []

    def voting(self) -> AbstractContextManager[Any]:
        """Keep the module in evaluation mode."""
        return self.module_lock.evaluating(self.module)


def _hooks(part: Any) -> list[Any]:
    """Return the hooks that run when a module is called."""
    return [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]


def explained(error: RuntimeError, module: Any, shape: tuple[int, ...]) -> Exception:
    """Return what to raise for a torch module's own error: it says what the module was given."""
    import torch

    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return MemoryError(str(error))
    return ValueError(
        f"The base model {name_of(module)} failed on a batch of shape {shape}, the rows being noisy copies of inputs "
        f"of shape {shape[1:]}: {error}. Give X the shape that the network takes, such as (n, channels, height, width) "
        f"for images."
    )
