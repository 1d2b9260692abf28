"""How torch models run when they vote."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sklearn.base import BaseEstimator

from .._utils.checks import check_bool, check_choice
from .base import name_of

#: Batches of one size that run before the model is compiled for it, which takes as long as thousands of batches.
COMPILED_AFTER = 8


def torch_device(device: Any) -> Any:
    """Return a device of torch, or raise a ValueError if it has no such device."""
    import torch

    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be a device of torch, such as 'cpu' or 'cuda:0', got {device!r}.") from error


class TorchInference(BaseEstimator):
    """How to run a torch model: reduced precision, another memory layout, compilation, and what its output means.

    Each of the first three changes at least the last bits of logits. Certificates hold for the smoothed classifier that
    votes this way, so run it in the same way after deployment.

    Parameters
    ----------
    autocast : {None, "bfloat16", "float16"}, default=None
        Precision of ``torch.autocast``. Votes are those of the model without it: rows whose two largest logits differ
        by less than twice the largest error of this lead, measured on some rows, are asked again without autocast.
        A vote can differ only if the error of its row exceeds this.
    channels_last : bool, default=False
        Whether images and convolutions have their channels last in memory.
    compile : bool, default=False
        Whether ``torch.compile`` compiles the model, once there have been 8 batches of full size. Other batches run
        without. It needs a C++ compiler on CPUs and Triton on GPUs.
    output : callable or None, default=None
        Turns what the model returns into logits of shape (n, n_classes). None takes logits as they are, the first entry
        of a tuple, and ``logits`` of a dict or an object. Losses of logits from torch get them in training too; losses
        of probabilities, and a loss of the user's own, do not.

    See Also
    --------
    SmoothedClassifier.from_pretrained : Certify a trained network.

    Examples
    --------
    >>> TorchInference(autocast="bfloat16")
    TorchInference(autocast='bfloat16')
    """

    def __init__(
        self,
        autocast: str | None = None,
        channels_last: bool = False,
        compile: bool = False,  # noqa: A002
        output: Callable[[Any], Any] | None = None,
    ) -> None:
        self.autocast = autocast
        self.channels_last = channels_last
        self.compile = compile
        self.output = output

    def check(self) -> None:
        """Raise a ValueError if a parameter is invalid."""
        check_choice("autocast", self.autocast, (None, "bfloat16", "float16"))
        check_bool("channels_last", self.channels_last)
        check_bool("compile", self.compile)
        if self.output is not None and not callable(self.output):
            raise ValueError(f"output must be a callable that returns logits, or None, got {self.output!r}.")

    def context(self, device: Any) -> AbstractContextManager[Any]:
        """Return the context that the model runs in."""
        import torch

        return nullcontext() if self.autocast is None else torch.autocast(device.type, getattr(torch, self.autocast))

    def step(self, device_type: str) -> float:
        """Return the relative distance of neighboring numbers in the precision of autocast; 0 without it."""
        import torch

        if self.autocast is not None:
            return float(torch.finfo(getattr(torch, self.autocast)).eps)
        return float(torch.finfo(torch.get_autocast_dtype(device_type)).eps) if is_autocast(device_type) else 0.0

    def way(self) -> str:
        """Return the settings that are not the defaults, as text."""
        plain, output = TorchInference(self.autocast, self.channels_last, self.compile), self.output
        way = "" if repr(plain) == repr(TorchInference()) else f" {plain}"
        return way + ("" if output is None else f" output={getattr(output, '__qualname__', name_of(output))}")

    def in_full_precision(self) -> TorchInference:
        """Return the same settings without compilation and without autocast, including that of the caller."""
        return FullPrecision(None, self.channels_last, False, self.output)

    def allows_copies(self, module: Any, device_type: str) -> bool:
        """Tell whether copies of a module answer as it does, at the same time."""
        parts = list(module.modules())
        hooks = [hook for part in parts for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())]
        return not (
            self.compile
            or is_autocast(device_type)
            # Hooks of copies may share state, unless they are pure, and so may a forward method of the instance.
            or any(not getattr(hook, "is_pure", False) for hook in hooks)
            or any("forward" in vars(part) for part in parts)
        )

    def prepare(self, module: Any) -> Callable[[Any], Any]:
        """Return the function to call in place of the module, whose parameters may change their layout."""
        import torch

        plain = compiled_for_full_batches(module) if self.compile else module
        if not self.channels_last:
            return plain
        # Parameters that are made in inference mode cannot be trained. Those of convolutions in 3D have other layouts.
        for tensor in (*module.parameters(), *module.buffers()):
            with torch.inference_mode(tensor.is_inference()):
                if tensor.ndim == 4:
                    tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)

        def run(rows: Any) -> Any:
            return plain(rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows)

        return run


def compiled_for_full_batches(module: Any) -> Callable[[Any], Any]:
    """Return a function that runs a module, and compiles it for the largest batches after `COMPILED_AFTER` of them.

    Each size takes another compilation, or all of them get slower code. Smaller batches are rare in long runs.
    """
    import torch

    compiled, largest, n_largest = torch.compile(module, dynamic=False), 0, 0

    def run(rows: Any) -> Any:
        nonlocal largest, n_largest
        n = len(rows)
        answer = (compiled if n == largest and n_largest >= COMPILED_AFTER else module)(rows)
        # A batch for which memory does not suffice does not count.
        if n > largest:
            largest, n_largest = n, 0
        n_largest += n == largest
        return answer

    return run


class FullPrecision(TorchInference):
    """Runs a model without the autocast that its caller may have turned on."""

    def context(self, device: Any) -> AbstractContextManager[Any]:
        """Return the context that the model runs in."""
        import torch

        available = torch.amp.is_autocast_available(device.type)
        return torch.autocast(device.type, enabled=False) if available else nullcontext()

    def step(self, device_type: str) -> float:
        """Return 0: there is no autocast."""
        return 0.0


def is_autocast(device_type: str) -> bool:
    """Tell whether the caller has turned autocast on."""
    import torch

    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def check_rows_are_independent(module: Any) -> None:
    """Raise a ValueError if a part of the module makes the answer to a row depend on the rest of the batch."""
    import torch

    for part in module.modules():
        kind = getattr(torch.nn, str(getattr(part, "original_name", "")), type(part))
        normalizes = isinstance(kind, type) and issubclass(kind, torch.nn.modules.batchnorm._BatchNorm)
        if normalizes and getattr(part, "running_mean", None) is None:
            raise ValueError(
                f"The base model {name_of(module)} has a {kind.__name__} without running statistics: its answer to an "
                f"input depends on the rest of the batch, so nothing can be certified. Use track_running_stats=True."
            )
        if ".quantized.dynamic." in type(part).__module__:
            raise ValueError(
                f"The base model {name_of(module)} has a dynamically quantized {name_of(part)}, which rounds an input "
                f"depending on the rest of the batch, so nothing can be certified. Quantize statically."
            )
