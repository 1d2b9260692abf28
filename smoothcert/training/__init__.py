"""How base models meet the noise when they are fitted: training strategies, and their pieces for torch.

`strategies` adds noise to the data of estimators (`NoiseAugmentation`), and `torch_noise` to each batch of a torch
model, by forward hooks. `torch_training` runs the epochs, and `torch_layers` holds the pieces for a loop of one's own.
"""

from typing import Any

from .._utils.optional import attribute
from .strategies import CleanTraining, NoiseAugmentation, StabilityTraining, Training

#: The pieces for torch. They import torch when they are first asked for.
_TORCH = ["CosineSchedule", "NoisyModule", "StabilityLoss", "make_net", "noisy_statistics"]

__all__ = [
    "CleanTraining",
    "NoiseAugmentation",
    "StabilityTraining",
    "Training",
    *_TORCH,
]


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, dict.fromkeys(_TORCH, ".torch_layers"))
