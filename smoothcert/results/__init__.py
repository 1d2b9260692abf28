"""Plain data: certificates and votes, their files, scores and plots.

`certificates` and `votes` hold the data, `metrics` and `scorer` compare them with true labels, and the displays plot
them. `sets` does both for prediction sets. `files`, `tsv` and `tables` write them.
"""

from .budget_display import GreedyBudgetDisplay
from .certificates import Certificates
from .decisions import Decisions
from .display import CertifiedAccuracyDisplay
from .interval_display import IntervalDisplay
from .intervals import Intervals, ToleranceRadii
from .metrics import (
    average_certified_radius,
    certified_accuracy_curve,
    certified_accuracy_envelope,
    certified_accuracy_score,
)
from .probability_display import ProbabilityDisplay
from .row_changes import RowChanges
from .scorer import make_certified_scorer, make_interval_scorer
from .sets import PredictionSetDisplay, mean_set_size_score, set_coverage_score
from .summaries import summarize
from .votes import VoteCounts
from .votes_display import VotesDisplay

__all__ = [
    "Certificates",
    "CertifiedAccuracyDisplay",
    "Decisions",
    "GreedyBudgetDisplay",
    "IntervalDisplay",
    "Intervals",
    "PredictionSetDisplay",
    "ProbabilityDisplay",
    "RowChanges",
    "ToleranceRadii",
    "VoteCounts",
    "VotesDisplay",
    "average_certified_radius",
    "certified_accuracy_curve",
    "certified_accuracy_envelope",
    "certified_accuracy_score",
    "make_certified_scorer",
    "make_interval_scorer",
    "mean_set_size_score",
    "set_coverage_score",
    "summarize",
]
