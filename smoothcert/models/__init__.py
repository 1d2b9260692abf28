"""Base models: one adapter for each kind, from noisy batches to class indices.

`adapt` chooses the adapter: `sklearn`, `torch` or `function`. `identity` describes the content of a model, and
`threads` lets it vote in several threads.
"""

from .torch_inference import TorchInference

__all__ = ["TorchInference"]
