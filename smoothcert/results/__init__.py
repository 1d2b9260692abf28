"""Plain data: certificates and votes, their files, scores and plots."""

from .budget_display import GreedyBudgetDisplay
from .certificates import Certificates
from .decisions import Decisions
from .display import CertifiedAccuracyDisplay
from .metrics import (
    average_certified_radius,
    certified_accuracy_curve,
    certified_accuracy_envelope,
    certified_accuracy_score,
    summarize,
)
from .scorer import make_certified_scorer
from .votes import VoteCounts
from .votes_display import VotesDisplay

__all__ = [
    "Certificates",
    "CertifiedAccuracyDisplay",
    "Decisions",
    "GreedyBudgetDisplay",
    "VoteCounts",
    "VotesDisplay",
    "average_certified_radius",
    "certified_accuracy_curve",
    "certified_accuracy_envelope",
    "certified_accuracy_score",
    "make_certified_scorer",
    "summarize",
]
