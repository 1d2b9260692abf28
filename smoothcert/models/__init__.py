"""Base models: one adapter for each kind, from noisy batches to class indices."""

from .inference import TorchInference

__all__ = ["TorchInference"]
