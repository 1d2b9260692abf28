"""Base models as the sampler sees them: one adapter for each kind, noisy batches in, class indices out."""

from .inference import TorchInference

__all__ = ["TorchInference"]
