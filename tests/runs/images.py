"""A few images, and a network that votes on them."""

import numpy as np

from smoothcert import SmoothedClassifier

from ..base_models import MeanOfFirst

IMAGES = np.random.default_rng(0).random((30, 1, 4, 4)).astype(np.float32)


def network(**params):
    params = {"n_samples": 200, "n_selection": 20, "alpha": 0.01, "random_state": 0, "batch_size": 64} | params
    return SmoothedClassifier.from_pretrained(MeanOfFirst(), [0, 1], **params)
