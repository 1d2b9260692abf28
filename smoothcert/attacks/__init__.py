"""Attacks on smoothed classifiers: upper bounds on robust radii, beside the certified lower bounds; their plot."""

from .blackbox import CoordinateAttack, GreedyFaceAttack
from .display import AttackDisplay
from .gradient import GradientAttack
from .projection import project_l1_box
from .results import Adversarials
from .search import Attack

__all__ = [
    "Adversarials",
    "Attack",
    "AttackDisplay",
    "CoordinateAttack",
    "GradientAttack",
    "GreedyFaceAttack",
    "project_l1_box",
]
