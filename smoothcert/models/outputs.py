"""Answers of torch models as logits, and their errors as messages that name the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import checked_values, name_of

#: What torch's messages say about inputs of the wrong type, and of the wrong shape.
TYPE_ERROR = re.compile(r"dtype|scalar type|data type|input type|same type|type mismatch", re.IGNORECASE)
SHAPE_ERROR = re.compile(
    r"shape|mat1 and mat2|size of tensor|sizes of tensors|size mismatch|invalid for input of size|expected input|"
    r"dimension|channels|\dD",
    re.IGNORECASE,
)

#: Rows of a batch that tell whether single outputs are probabilities.
TELLING_ROWS = 32


def read_logits(
    answer: Any,
    n_rows: int,
    n_classes: int,
    name: str,
    output: Callable[[Any], Any] | None = None,
    *,
    telling: bool = False,
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
    telling : bool, default=False
        Whether single outputs must not look like probabilities.

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

    logits = find_logits(answer, name) if output is None else output(answer)
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else None
    if n_classes == 2 and shape in ((n_rows,), (n_rows, 1), () if n_rows == 1 else None):
        logit = logits.reshape(n_rows)
        if output is None and telling:
            check_one_logit(logit, name)
        logits = torch.stack([torch.zeros_like(logit), logit], dim=1)
    elif shape != (n_rows, n_classes):
        returned = f"a {name_of(logits)}" if shape is None else f"shape {shape}"
        raise ValueError(
            f"The base model {name} must return one logit per class, shape {(n_rows, n_classes)}, but returned "
            f"{returned}. Nothing was certified. Change its forward, or set TorchInference(output=...) to a function "
            f"that finds the logits in its answer."
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

    found = find_logits(answer, name) if output is None else output(answer)
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else None
    if shape not in ((n_rows,), (n_rows, 1)):
        raise ValueError(
            f"The base model {name} must return one number per row, shape ({n_rows},), but returned "
            f"{f'a {name_of(found)}' if shape is None else f'shape {shape}'}. Nothing was certified. Change its "
            f"forward, or set TorchInference(output=...) to a function that finds the numbers in its answer."
        )
    return checked_values(found.detach().cpu().double().numpy(), n_rows, name)


def find_logits(answer: Any, name: str) -> Any:
    """Return what holds the logits in an answer, if that is clear."""
    if isinstance(answer, Mapping):
        if "logits" not in answer and len(answer) != 1:
            raise ValueError(
                f"The base model {name} returned a {name_of(answer)} with the keys {list(answer)}, and no 'logits' "
                f"among them. Nothing was certified. Set TorchInference(output=...) to a function that finds "
                f"the logits, such as "
                f"output=lambda answer: answer[{next(iter(answer), 'logits')!r}]."
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


def explained(error: RuntimeError, module: Any, shape: tuple[int, ...]) -> Exception:
    """Return what to raise for a torch module's own error; it names the remedy where that is known.

    Parameters
    ----------
    error : RuntimeError
    module : Module
    shape : tuple of int
        Shape of the batch that the module was given.
    """
    import torch

    message = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in message:
        return MemoryError(message)
    failed = f"The base model {name_of(module)} failed on a batch of shape {shape}"
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
