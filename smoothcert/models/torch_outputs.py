"""Answers of torch models as logits, and their errors as messages that name the remedy."""

from __future__ import annotations

import dis
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import checked_values, name_of, uncompiled

#: What torch's messages say about inputs of the wrong type, and of the wrong shape.
TYPE_ERROR = re.compile(r"dtype|scalar type|data type|input type|same type|type mismatch", re.IGNORECASE)
SHAPE_ERROR = re.compile(
    r"sizes? of (the )?tensors?.* must match|size (mismatch|does not match)|cannot be multiplied|expected input|"
    r"invalid for input of size|got input of s|equal size|must be equal to input_size|should contain \d+ elements|"
    r"input size|number of dimensions|\dD.* (input|tensor)|expected size|tensor size|size is too small|"
    r"not broadcast|broadcast shape|multiply up|channels? in input|divisible by",
    re.IGNORECASE,
)

#: What they say about batches that are too large: for the memory of a CPU, of MPS and of libraries on CUDA devices, for
#: the grid of a kernel (attention takes fewer than 65,536 rows there), or for its indices.
TOO_LARGE = re.compile(
    r"can't allocate memory|out of memory|ALLOC_FAILED|CUDA error: invalid configuration argument|32-bit index",
    re.IGNORECASE,
)

#: Relative change of inputs that float64 resolves and float32 does not, one that float32 shows in rows of few features
#: too, largest error by which logits may leave a straight line, and share of rows that may leave it further.
TINY_CHANGE, SMALL_CHANGE, SMOOTH, FEW_JUMPS = 1e-9, 3e-8, 2.0**-43, 1 / 16


def read_logits(
    answer: Any,
    n_rows: int,
    n_classes: int,
    name: str,
    output: Callable[[Any], Any] | None = None,
    decision: Decision | None = None,
) -> Any:
    """Return the logits in a torch model's answer.

    Parameters
    ----------
    answer : tensor, tuple, list, mapping or object with ``logits``
        A tuple or list holds the logits first, and auxiliary heads after them. A mapping holds them under "logits", or
        holds nothing else.
    n_rows, n_classes : int
    name : str
        Name of the model in messages.
    output : callable, optional
        Returns the logits in an answer of any other kind.
    decision : Decision, optional
        What becomes of the logits before they are compared. None leaves them as they are, even single outputs that look
        like probabilities.

    Returns
    -------
    logits : tensor of shape (n_rows, n_classes)
        One logit per row stands for two classes: the second wins where it is positive, the sigmoid being above 1/2.

    Raises
    ------
    ValueError
        If the answer holds no such logits.
    """
    import torch

    logits = find_logits(answer, name, output)
    is_tensor = isinstance(logits, torch.Tensor)
    logits = decision(logits) if decision is not None and is_tensor else logits
    shape = tuple(logits.shape) if is_tensor else None
    if n_classes == 2 and shape in ((n_rows,), (n_rows, 1), () if n_rows == 1 else None):
        logit = logits.reshape(n_rows)
        if decision is not None and output is None and decision.threshold is None and not decision.told:
            check_one_logit(logit, name)
            decision.told.add(True)
        logits = torch.stack([torch.zeros_like(logit), logit], dim=1)
    elif shape != (n_rows, n_classes):
        returned = f"a {name_of(logits)}" if shape is None else f"shape {shape}"
        remedy = "Change its forward"
        if shape is not None and len(shape) == 2 and shape[0] == n_rows:
            remedy = f"Give its last layer {n_classes} outputs, name the classes of its {shape[1]} outputs"
        raise ValueError(
            f"The base model {name} must return one logit per class, shape {(n_rows, n_classes)}, but returned "
            f"{returned}. Nothing was certified. {remedy}, or set TorchInference(output=...) to a function that finds "
            f"the logits in its answer."
        )
    return logits if logits.is_floating_point() else logits.float()


def read_numbers(
    answer: Any, n_rows: int, name: str, output: Callable[[Any], Any] | None = None
) -> NDArray[np.float64]:
    """Return the numbers in a regression model's answer, shape (n_rows,); see `read_logits`.

    Raises
    ------
    ValueError
        If the answer holds no such numbers.
    """
    import torch

    found = find_logits(answer, name, output)
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else None
    if shape not in ((n_rows,), (n_rows, 1)):
        raise ValueError(
            f"The base model {name} must return one number per row, shape ({n_rows},), but returned "
            f"{f'a {name_of(found)}' if shape is None else f'shape {shape}'}. Nothing was certified. Change its "
            f"forward, or set TorchInference(output=...) to a function that finds the numbers in its answer."
        )
    return checked_values(found.detach().cpu().double().numpy(), n_rows, name)


def find_logits(answer: Any, name: str, output: Callable[[Any], Any] | None = None) -> Any:
    """Return the logits in an answer, which ``output`` finds if it is given, or raise a ValueError if it is unclear."""
    if output is not None:
        return output(answer)
    if isinstance(answer, Mapping):
        if "logits" not in answer and len(answer) != 1:
            raise ValueError(
                f"The base model {name} returned a {name_of(answer)} with the keys {list(answer)}, and no 'logits' "
                f"among them. Nothing was certified. Set TorchInference(output=...) to a function that finds the "
                f"logits, such as output=lambda answer: answer[{next(iter(answer), 'logits')!r}]. In training, a loss "
                f"of logits uses it too, and a loss of probabilities (NLLLoss, BCELoss) does not."
            )
        return find_logits(answer["logits"] if "logits" in answer else next(iter(answer.values())), name)
    if hasattr(answer, "logits"):
        return find_logits(answer.logits, name)
    if isinstance(answer, (tuple, list)) and answer:
        return find_logits(answer[0], name)
    return answer


def check_one_logit(logit: Any, name: str) -> None:
    """Raise a ValueError if the single outputs of a batch look like probabilities."""
    if bool(((logit >= 0) & (logit <= 1)).all()):
        raise ValueError(
            f"The base model {name} returned one number per row, all of them between 0 and 1. They look like "
            f"probabilities, but must be logits, whose sign is the vote. Nothing was certified. Leave out the final "
            f"sigmoid or set TorchInference(output=torch.logit). If they are logits, use output=lambda logit: logit."
        )


def votes_by_lead(logits: Any, scale: float, near_tie: float, least: float = 0.0, *, overflows: bool = False) -> Any:
    """Return the index of the largest logit of each row, or -1 for near ties, as a tensor.

    Parameters
    ----------
    logits : tensor of shape (n_rows, n_classes)
    scale : float
        Size of logits below which their rounding errors do not shrink.
    near_tie : float
        A row nearly ties unless the lead of its largest logit exceeds this part of ``scale`` plus the logit's size.
        Rows that hold a NaN always do.
    least : float
        Leads of up to this size are near ties too.
    overflows : bool
        Whether logits may have overflowed. Rows that hold an infinite one are then near ties too.
    """
    import torch

    logits = logits if logits.dtype.itemsize >= 4 else logits.float()
    if logits.shape[1] == 1:
        return -logits[:, 0].isnan().long()
    # topk takes several times as long.
    first, votes = logits.max(dim=1)
    second = logits.scatter(1, votes[:, None], -torch.inf).amax(dim=1)
    tie = (near_tie * (scale + first.abs())).clamp(min=least)
    # A comparison with NaN is false.
    is_clear = first - second > tie
    return votes.where(is_clear & logits.amin(dim=1).isfinite() if overflows else is_clear, -1)


def lead_error(logits: Any, precise: Any) -> float:
    """Return the largest error of the lead of the first logit over the second; infinite where one is not a number.

    Rows whose first logit has overflowed are left out, unless they are most: they are near ties whatever the error is.
    """
    import torch

    # The device may have no float64.
    logits = logits.cpu()
    leaders = logits.topk(2, dim=1)
    has_lead = leaders.values[:, 0].isfinite()
    if 2 * int(has_lead.sum()) < len(logits):
        return float("inf")
    errors = (logits.double() - precise.cpu()).gather(1, leaders.indices)[has_lead]
    first, second = errors.unbind(dim=1)
    return float((first - second).abs().nan_to_num(torch.inf).max())


def is_smooth(function: Callable[[Any], Any], rows: Any, *, strict: bool = False) -> bool:
    """Tell whether logits of float64 rows follow tiny changes of the rows as smoothly as rounding in float64 allows.

    In float32, anywhere on the way, they jump. The derivative of a few rows may jump, as that of ReLU does. A strict
    test also finds a small part in float32 where there are few features, and more functions fail it.
    """
    import torch

    places = torch.arange(rows.numel(), device=rows.device).reshape(rows.shape)
    change = (SMALL_CHANGE if strict else TINY_CHANGE) * rows.abs().mean() * places.cos()
    first, second, third = (function(rows + step * change) for step in range(3))
    jumps = (first - 2 * second + third).abs() > SMOOTH * (1 + first.abs().amax(dim=1, keepdim=True))
    moves = first.dtype == torch.float64 and bool((first != second).any(dim=1).all())
    return moves and int(jumps.any(dim=1).sum()) <= FEW_JUMPS * len(rows)


@dataclass(frozen=True)
class Decision:
    """How a skorch net decides by its logits, so that its votes are the labels that its ``predict`` returns.

    Parameters
    ----------
    function : callable, optional
        The net's own ``predict_nonlinearity``.
    threshold : float, optional
        What the output of a binary net must exceed for the second class.
    told : set
        Not empty after a batch of single outputs that cannot be probabilities. All voters of a model share it.
    """

    function: Callable[[Any], Any] | None = None
    threshold: float | None = None
    told: set[bool] = field(default_factory=set)

    @classmethod
    def of(cls, net: Any, output: Callable[[Any], Any] | None) -> Decision:
        """Read the decision of an initialized net. The values that ``output`` returns are logits for every loss."""
        from skorch import NeuralNetBinaryClassifier
        from torch.nn import BCELoss

        function = net.predict_nonlinearity if callable(net.predict_nonlinearity) else None
        threshold = net.threshold if isinstance(net, NeuralNetBinaryClassifier) else None
        criterion = uncompiled(getattr(net, "criterion_", None))
        is_probability = function is not None or (output is None and isinstance(criterion, BCELoss))
        if threshold is not None and not is_probability:
            with np.errstate(divide="ignore"):
                threshold = float(np.log(threshold) - np.log1p(-threshold))
        return cls(function, threshold)

    def __call__(self, logits: Any) -> Any:
        """Return numbers that are compared, or a number whose sign is the vote."""
        if self.function is None:
            return logits if self.threshold is None else logits - self.threshold
        answer = self.function(logits)
        return answer if self.threshold is None else answer[:, 1] - self.threshold

    def __str__(self) -> str:
        name = "" if self.function is None else f" by {getattr(self.function, '__qualname__', name_of(self.function))}"
        return name + (f" above {self.threshold:g}" if self.threshold else "")


def explained(error: RuntimeError, module: Any, shape: tuple[int, ...]) -> Exception:
    """Return the exception to raise for an error of a torch module, which names the remedy if that is known.

    Parameters
    ----------
    error : RuntimeError
    module : Module
    shape : tuple of int
        Shape of the batch that the module was given.
    """
    message = str(error)
    if is_too_large(error):
        return MemoryError(message)
    failed = f"The base model {name_of(module)} failed on a batch of shape {shape}"
    if is_raised_by_user(error):
        # The words of the user's own error say nothing about inputs.
        return RuntimeError(f"{failed}: {error}")
    if TYPE_ERROR.search(message):
        return ValueError(
            f"{failed}: {error}. Noisy inputs are real numbers, of the type of the network's parameters. Convert them "
            f"in its forward method if it computes with another type."
        )
    if SHAPE_ERROR.search(message):
        return ValueError(
            f"{failed}, the rows being noisy copies of inputs of shape {shape[1:]}: {error}. Give X the shape that the "
            f"network takes, such as (n, channels, height, width) for images."
        )
    return RuntimeError(f"{failed}: {error}")


def is_too_large(error: RuntimeError) -> bool:
    """Tell whether an error of torch means that a smaller batch may do."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return TOO_LARGE.search(str(error)) is not None and not is_raised_by_user(error)


def is_raised_by_user(error: BaseException) -> bool:
    """Tell whether a ``raise`` statement outside of torch has raised an error."""
    frame = raising_frame(error)
    return frame is not None and not frame.f_globals.get("__name__", "").startswith("torch.")


def raising_frame(error: BaseException) -> Any:
    """Return the frame whose ``raise`` statement has raised an error, or None if something that it called has."""
    trace: Any = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    raised = trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return trace.tb_frame if raised else None
