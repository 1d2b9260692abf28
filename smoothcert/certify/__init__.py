"""From counts to certificates: confidence bounds, stopping rules, radius strategies, and Algorithm 1 itself."""

from .radius import BoxRadius, GreedyRadius, LipschitzRadius, RadiusStrategy

__all__ = ["BoxRadius", "GreedyRadius", "LipschitzRadius", "RadiusStrategy"]
