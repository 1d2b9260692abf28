"""What noise does to an input, and what a move of the input costs the adversary.

The box maps inputs to the unit box. A noise family samples noisy copies there and names the cost of a move; the greedy
walk (Theorem 2.8) turns costs into distances.
"""

from .base import Noise
from .box import Box
from .deterministic import DeterministicSplitNoise
from .gaussian import GaussianNoise, LaplaceNoise
from .lattice import LatticeNoise, SplitNoise, UniformNoise
from .mixture import UniformMixtureNoise

__all__ = [
    "Box",
    "DeterministicSplitNoise",
    "GaussianNoise",
    "LaplaceNoise",
    "LatticeNoise",
    "Noise",
    "SplitNoise",
    "UniformMixtureNoise",
    "UniformNoise",
]
