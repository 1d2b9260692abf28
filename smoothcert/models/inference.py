"""How torch models run when they vote."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sklearn.base import BaseEstimator

from .._utils.checks import check_bool, check_choice


class TorchInference(BaseEstimator):
    """How to run a torch model: reduced precision, another memory layout, compilation, and what its output means.

    Each of the first three changes at least the last bits of logits. Certificates hold for the smoothed classifier that
    votes this way, so run it in the same way after deployment.

    Parameters
    ----------
    autocast : {None, "bfloat16", "float16"}, default=None
        Precision of ``torch.autocast``. It rounds logits so coarsely that the vote on a near tie can depend on the
        batch: results are reproducible only for the same ``batch_size``.
    channels_last : bool, default=False
        Whether images and convolutions have their channels last in memory.
    compile : bool, default=False
        Whether ``torch.compile`` compiles the model. It needs a C++ compiler on CPUs and Triton on GPUs.
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

    def prepare(self, module: Any) -> Callable[[Any], Any]:
        """Return the function to call in place of the module, whose parameters may change their layout."""
        import torch

        if not self.channels_last:
            return torch.compile(module) if self.compile else module
        module.to(memory_format=torch.channels_last)
        plain = torch.compile(module) if self.compile else module

        def run(rows: Any) -> Any:
            return plain(rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows)

        return run
