"""Certified l1 robustness by randomized smoothing, as a scikit-learn estimator."""

from .box import Box
from .certificates import Certificates, Decisions, VoteCounts
from .classifier import SmoothedClassifier
from .deterministic import DeterministicSplitNoise
from .gaussian import GaussianNoise, LaplaceNoise
from .inference import TorchInference
from .metrics import (
    average_certified_radius,
    certified_accuracy_curve,
    certified_accuracy_envelope,
    certified_accuracy_score,
)
from .mixture import UniformMixtureNoise
from .noise import LatticeNoise, Noise, SplitNoise, UniformNoise
from .radius import BoxRadius, GreedyRadius, LipschitzRadius, RadiusStrategy
from .scorer import make_certified_scorer
from .training import CleanTraining, NoiseAugmentation, StabilityTraining, Training

__version__ = "0.1.0"

__all__ = [
    "Box",
    "BoxRadius",
    "Certificates",
    "CleanTraining",
    "Decisions",
    "DeterministicSplitNoise",
    "GaussianNoise",
    "GreedyRadius",
    "LaplaceNoise",
    "LatticeNoise",
    "LipschitzRadius",
    "Noise",
    "NoiseAugmentation",
    "RadiusStrategy",
    "SmoothedClassifier",
    "SplitNoise",
    "StabilityTraining",
    "TorchInference",
    "Training",
    "UniformMixtureNoise",
    "UniformNoise",
    "VoteCounts",
    "average_certified_radius",
    "certified_accuracy_curve",
    "certified_accuracy_envelope",
    "certified_accuracy_score",
    "make_certified_scorer",
]
