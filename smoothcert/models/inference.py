"""How torch models are run when they vote."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sklearn.base import BaseEstimator

from .._utils.checks import check_bool, check_choice


class TorchInference(BaseEstimator):
    """Faster ways to run a torch model: reduced precision, another memory layout, compilation.

    Each of them changes the last bits of logits, or more than those. The smoothed classifier that is certified is the
    one that votes this way: run it the same way where it is deployed.

    Parameters
    ----------
    autocast : {None, "bfloat16", "float16"}, default=None
        Precision of ``torch.autocast``. Logits are then rounded so coarsely that rows near a tie can vote one way in
        one batch and another way in the next: results are reproducible for the same ``batch_size`` only.
    channels_last : bool, default=False
        Whether images and convolutions are laid out with channels last.
    compile : bool, default=False
        Whether the model goes through ``torch.compile``. Needs a C++ compiler on CPUs, Triton on GPUs.

    Examples
    --------
    >>> TorchInference(autocast="bfloat16")
    TorchInference(autocast='bfloat16')
    """

    def __init__(self, autocast: str | None = None, channels_last: bool = False, compile: bool = False) -> None:  # noqa: A002
        self.autocast = autocast
        self.channels_last = channels_last
        self.compile = compile

    def check(self) -> None:
        """Raise a ValueError if a parameter is invalid."""
        check_choice("autocast", self.autocast, (None, "bfloat16", "float16"))
        check_bool("channels_last", self.channels_last)
        check_bool("compile", self.compile)

    def context(self, device: Any) -> AbstractContextManager[Any]:
        """Return the context that the model runs in."""
        import torch

        return nullcontext() if self.autocast is None else torch.autocast(device.type, getattr(torch, self.autocast))

    def prepare(self, module: Any) -> Callable[[Any], Any]:
        """Return what is called in place of the module; its parameters may change their layout."""
        import torch

        if not self.channels_last:
            return torch.compile(module) if self.compile else module
        module.to(memory_format=torch.channels_last)
        plain = torch.compile(module) if self.compile else module

        def run(rows: Any) -> Any:
            return plain(rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows)

        return run
