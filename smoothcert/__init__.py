"""Certified l1 robustness by randomized smoothing, as a scikit-learn estimator."""

from typing import Any

from ._utils.optional import attribute
from .certify import BoxRadius, GreedyRadius, LipschitzRadius, RadiusStrategy
from .classifier import SmoothedClassifier
from .conformal import SmoothedConformalClassifier
from .models import TorchInference
from .noise import (
    Box,
    DeterministicSplitNoise,
    GaussianNoise,
    LaplaceNoise,
    LatticeNoise,
    Noise,
    SplitNoise,
    UniformMixtureNoise,
    UniformNoise,
)
from .regressor import SmoothedRegressor
from .results import (
    Certificates,
    CertifiedAccuracyDisplay,
    Decisions,
    GreedyBudgetDisplay,
    IntervalDisplay,
    Intervals,
    PredictionSetDisplay,
    ProbabilityDisplay,
    RowChanges,
    ToleranceRadii,
    VoteCounts,
    VotesDisplay,
    average_certified_radius,
    certified_accuracy_curve,
    certified_accuracy_envelope,
    certified_accuracy_score,
    make_certified_scorer,
    make_interval_scorer,
    mean_set_size_score,
    set_coverage_score,
)
from .sampling.scores import APSScore, ConformityScore, LACScore
from .training import CleanTraining, NoiseAugmentation, StabilityTraining, Training

__version__ = "0.2.0"

#: Names whose modules are imported when they are first asked for.
_LATE = {
    "Audit": ".audit",
    "StoreAudit": ".runs.verify_store",
    "StoreError": ".runs.database",
    "baselines": ".baseline",
    "merge_stores": ".runs.merge",
    "recertify": ".runs.recertify",
    "stored_classifier": ".stored",
    "verify": ".audit",
    "verify_store": ".runs.verify_store",
}

__all__ = [
    "APSScore",
    "Audit",
    "Box",
    "BoxRadius",
    "Certificates",
    "CertifiedAccuracyDisplay",
    "CleanTraining",
    "ConformityScore",
    "Decisions",
    "DeterministicSplitNoise",
    "GaussianNoise",
    "GreedyBudgetDisplay",
    "GreedyRadius",
    "IntervalDisplay",
    "Intervals",
    "LACScore",
    "LaplaceNoise",
    "LatticeNoise",
    "LipschitzRadius",
    "Noise",
    "NoiseAugmentation",
    "PredictionSetDisplay",
    "ProbabilityDisplay",
    "RadiusStrategy",
    "RowChanges",
    "SmoothedClassifier",
    "SmoothedConformalClassifier",
    "SmoothedRegressor",
    "SplitNoise",
    "StabilityTraining",
    "StoreAudit",
    "StoreError",
    "ToleranceRadii",
    "TorchInference",
    "Training",
    "UniformMixtureNoise",
    "UniformNoise",
    "VoteCounts",
    "VotesDisplay",
    "average_certified_radius",
    "baselines",
    "certified_accuracy_curve",
    "certified_accuracy_envelope",
    "certified_accuracy_score",
    "make_certified_scorer",
    "make_interval_scorer",
    "mean_set_size_score",
    "merge_stores",
    "recertify",
    "set_coverage_score",
    "stored_classifier",
    "verify",
    "verify_store",
]


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, _LATE)
