"""Noise for torch batches, and the forward hooks through which a module meets it without being wrapped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from ..models.base import uncompiled
from ..noise.gaussian import GaussianNoise, LaplaceNoise
from ..noise.lattice import SplitNoise, UniformNoise
from ..noise.mechanism import NoiseMechanism
from ..noise.mixture import UniformMixtureNoise

#: Key of `InputScaling` and `OutputScaling` among the hooks of a module. It is fixed, so that equal networks have equal
#: hooks.
SCALING = -1


class InputScaling:
    """A forward pre-hook that casts inputs to the precision of a module, centers and scales them.

    It belongs to the trained module: copies and pickles of the module keep it. The names of parameters and the
    ``state_dict`` stay those of the user.

    Parameters
    ----------
    center, scale : array-like
        Inputs become ``(X - center) / scale``.
    """

    #: Threads may share the hook: it changes nothing.
    is_pure = True

    def __init__(self, center: Any, scale: Any) -> None:
        self.center, self.scale = (torch.as_tensor(value, dtype=torch.float32) for value in (center, scale))

    @property
    def __name__(self) -> str:
        # torch.jit.script asks for it, and takes functions alone.
        raise AttributeError(
            "torch.jit.script cannot compile the input scaling of a trained module. Use torch.export or torch.compile."
        )

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """Return the arguments with scaled inputs; quantization registers hooks again, and passes none by name."""
        tensors = chain(module.parameters(), module.buffers())
        dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)

        def scaled(X: torch.Tensor) -> torch.Tensor:
            X = X.to(dtype)
            # A blocking copy waits for all work of a CUDA device.
            center, scale = (part.to(X, non_blocking=X.is_cuda) for part in (self.center, self.scale))
            return (X - center) / scale

        changed, named = with_first(scaled, module, args, kwargs or {})
        return changed if kwargs is None else (changed, named)

    def __getstate__(self) -> dict[str, Any]:
        # Arrays, whose pickles are the same in every process, so that equal scalings have equal hashes.
        return {"center": self.center.numpy(), "scale": self.scale.numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def attach(self, module: nn.Module) -> None:
        """Make this the first pre-hook of a module, in place of one that an earlier training has left."""
        inside = uncompiled(module)
        put_first(inside._forward_pre_hooks, self)
        inside._forward_pre_hooks_with_kwargs[SCALING] = True

    @staticmethod
    def of(module: nn.Module) -> InputScaling | None:
        """Return the scaling of a trained module, if it has one."""
        found: InputScaling | None = uncompiled(module)._forward_pre_hooks.get(SCALING)
        return found


class OutputScaling:
    """A forward hook that scales the outputs of a module to the mean and standard deviation of targets.

    It belongs to the trained module, as `InputScaling` does.
    """

    #: Threads may share the hook: it changes nothing.
    is_pure = True

    def __init__(self, center: float, scale: float) -> None:
        self.center, self.scale = center, scale

    def __call__(self, module: nn.Module, args: tuple[Any, ...], answer: Any) -> Any:
        """Return the scaled answer; one that is no tensor stays as it is."""
        return answer * self.scale + self.center if isinstance(answer, torch.Tensor) else answer

    def attach(self, module: nn.Module) -> None:
        """Make this the first hook of a module, in place of one that an earlier training has left."""
        put_first(uncompiled(module)._forward_hooks, self)


def put_first(hooks: OrderedDict[int, Any], scaling: Any) -> None:
    """Put a scaling before the other hooks of a module, and in place of an earlier scaling."""
    hooks[SCALING] = scaling
    hooks.move_to_end(SCALING, last=False)


class NoiseHooks:
    """Forward hooks that add noise to the inputs of a module while it is trained.

    Copies and pickles, such as checkpoints, add no noise.

    Parameters
    ----------
    mechanism : NoiseMechanism
    n_copies : int
        Noisy copies of each batch in training mode, or 0 for clean inputs in every mode.
    seed : int
    output : callable or None
        Finds the logits in the module's answer.
    """

    def __init__(
        self, mechanism: NoiseMechanism, n_copies: int, seed: int, output: Callable[[Any], Any] | None
    ) -> None:
        self.mechanism, self.n_copies, self.output = mechanism, n_copies, output
        self.rng = np.random.default_rng(seed)

    @contextmanager
    def attached(self, module: nn.Module) -> Iterator[None]:
        """Add noise within a context, before the input scaling."""
        handles = [
            module.register_forward_pre_hook(self.before, prepend=True, with_kwargs=True),
            module.register_forward_hook(self.after),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments of the module with noisy inputs; weights of rows, in a list with them, are left out."""

        def noisy(X: Any) -> torch.Tensor:
            X = X[0] if isinstance(X, list) else X
            n_copies = self.n_copies if module.training else 1
            return noisy_copies(X, self.mechanism, self.rng, n_copies) if self.n_copies else X

        return with_first(noisy, module, args, kwargs)

    def after(self, module: nn.Module, args: tuple[Any, ...], answer: Any) -> Any:
        """Return the answers to several copies as a tuple; float32 logits, which NumPy knows, for bfloat16 ones."""
        if self.output is not None:
            answer = self.output(answer)
            _check_tensor(module, answer)
        if isinstance(answer, torch.Tensor) and answer.dtype in (torch.float16, torch.bfloat16):
            answer = answer.float()
        return split_copies(module, answer, self.n_copies if module.training else 1)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"n_copies": 0, "output": None}


def with_first(
    change: Callable[[Any], Any], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a module with another first one, which holds the inputs, by place or by name."""
    if args:
        return (change(args[0]), *args[1:]), kwargs
    names = [name for name in signature(module.forward).parameters if name in kwargs] or list(kwargs)
    return args, kwargs | {names[0]: change(kwargs[names[0]])}


def noisy_copies(X: torch.Tensor, mechanism: NoiseMechanism, rng: np.random.Generator, n_copies: int) -> torch.Tensor:
    """Return noisy copies of a batch below each other; gradients pass to ``X`` as if the noise were added."""
    drawn = [_noisy(X.detach(), mechanism, rng) for _ in range(n_copies)]
    noisy = drawn[0] if n_copies == 1 else torch.cat(drawn)
    # The noisy values stay as they are to the last bit: what is added is 0, with the gradient of X.
    return noisy + (X - X.detach()).repeat(n_copies, *[1] * (X.ndim - 1)) if X.requires_grad else noisy


def split_copies(module: nn.Module, answer: Any, n_copies: int) -> Any:
    """Return a tuple of the logits for each copy, or the answer itself if there is one copy.

    Raises
    ------
    ValueError
        If there are several copies, and the answer is no tensor.
    """
    if n_copies < 2:
        return answer
    _check_tensor(module, answer)
    chunks: tuple[torch.Tensor, ...] = answer.chunk(n_copies)
    return chunks


def _check_tensor(module: nn.Module, answer: Any) -> None:
    """Raise a ValueError if an answer is not a single tensor of logits."""
    if not isinstance(answer, torch.Tensor):
        raise ValueError(
            f"The module {type(module).__name__} must return a tensor of logits to be trained, but returned a "
            f"{type(answer).__name__}. Return the logits alone, or set TorchInference(output=...) to a function that "
            f"finds them."
        )


@torch.compiler.disable
def _noisy(X: torch.Tensor, mechanism: NoiseMechanism, rng: np.random.Generator) -> torch.Tensor:
    """Draw one noisy copy of a batch: on its device where the noise is known to torch, else by NumPy."""
    if X.device.type != "cpu":
        drawn = noisy_on_device(X, mechanism, rng)
        if drawn is not None:
            return drawn.to(X.dtype)
    wide = X.dtype == torch.float64
    values = mechanism.noisy((X if wide else X.float()).cpu().numpy(), rng, np.float64 if wide else np.float32)
    return torch.from_numpy(values).to(X.device, X.dtype)


def noisy_on_device(X: torch.Tensor, mechanism: NoiseMechanism, rng: np.random.Generator) -> torch.Tensor | None:
    """Draw one noisy copy of a batch by torch, for training; None for noise that torch does not know.

    Votes are never drawn here: certificates rest on the integer arithmetic of the noise itself.
    """
    noise, box = mechanism.noise, mechanism.box
    generator = torch.Generator(X.device).manual_seed(int(rng.integers(2**63)))
    lo, width = (torch.as_tensor(end, dtype=torch.float32, device=X.device) for end in (box.lo, box.width))
    unit = ((X.float() - lo) / torch.where(width > 0, width, 1.0)).clamp(0, 1)
    given: Any = {"generator": generator, "device": X.device}
    noisy: torch.Tensor
    if mechanism.categories is not None:
        return None
    if type(noise) is GaussianNoise:
        noisy = unit + _each(mechanism, lambda part: part.sigma, X.device) * torch.randn(unit.shape, **given)
    elif type(noise) is LaplaceNoise:
        first, second = (torch.empty_like(unit).exponential_(generator=generator) for _ in range(2))
        noisy = unit + noise.b * (first - second)
    elif type(noise) in (UniformNoise, SplitNoise, UniformMixtureNoise):
        noisy = _on_lattice(unit, mechanism, given)
    else:
        return None
    steps = torch.as_tensor(mechanism.steps.reshape(mechanism.shape), dtype=torch.float32, device=X.device)
    raw = noisy * width + lo
    if mechanism.noise.column_steps is not None:
        # Quarter steps are rounded as `mixed_features.whole_steps` does it.
        raw = torch.where(steps > 0, (noisy * steps + 0.625).floor() * width / steps.clamp(min=1) + lo, raw)
    fixed = mechanism.per_feature(mechanism.features.fixed).reshape(mechanism.shape)
    return torch.where(torch.tensor(fixed, device=X.device), X.float(), raw) if fixed.any() else raw


def _each(mechanism: NoiseMechanism, number: Callable[[Any], float], device: Any) -> Any:
    """Return a number that belongs to the noise of each feature: one for all, or a tensor where costs differ."""
    if mechanism.mixed is None:
        return number(mechanism.noise)
    numbers = np.ones(mechanism.n_features)
    for group in mechanism.mixed.groups:
        numbers[group.columns] = number(group.noise)
    return torch.as_tensor(numbers.reshape(mechanism.shape), dtype=torch.float32, device=device)


def _on_lattice(unit: torch.Tensor, mechanism: NoiseMechanism, given: dict[str, Any]) -> torch.Tensor:
    """Draw uniform, splitting or mixture noise: the offsets j in {0 .. L-1} of the noise, in floats."""
    noise: Any = mechanism.noise
    q = noise.q if noise.column_steps is None else _each(mechanism, lambda one: one.q, unit.device)
    if isinstance(noise, UniformMixtureNoise):
        weights = torch.tensor(noise.weights, dtype=torch.float32, device=unit.device)
        chosen = torch.multinomial(weights, len(unit), replacement=True, generator=given["generator"])
        parts = []
        for k in range(len(noise.parts)):
            each = _each(mechanism, lambda one, k=k: one.parts[k].n_offsets, unit.device)  # type: ignore[misc]
            parts.append(torch.as_tensor(each, device=unit.device))
        n_offsets = torch.stack(parts)[chosen]
        n_offsets = n_offsets.reshape(-1, *[1] * (unit.ndim - 1)) if mechanism.mixed is None else n_offsets
    else:
        n_offsets = _each(mechanism, lambda one: one.n_offsets, unit.device)
    split, twice = ((torch.rand(unit.shape, **given) * n_offsets).floor() + 0.5) / q, n_offsets / q
    unit = (unit * q).round() / q
    if not isinstance(noise, SplitNoise):
        return unit + split - twice / 2
    low = split + twice * ((unit - split) / twice).floor()
    return (low.clamp(min=0) + (low + twice).clamp(max=1)) / 2
