"""The noise, box and costs that trained modules carry."""

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB
from skorch import NeuralNetClassifier
from torch import nn

from smoothcert import UniformNoise
from smoothcert.training.carried_noise import box_of, carried
from smoothcert.training.torch_layers import NoisyModule

from .problems import BOX


def test_what_modules_carry():
    noise, costs = UniformNoise(0.5), [1.0, 2.0]
    module = NoisyModule(nn.Linear(2, 2), noise, (-3, 5), costs=costs)
    net = NeuralNetClassifier(nn.Sequential(module)).initialize()
    for model in (module, nn.Sequential(nn.ReLU(), module), net):
        found = carried(model, None, None)
        assert found[0] is noise
        assert [float(end) for end in found[1]] == [-3, 5]
        assert found[2] is costs
    assert carried(module, UniformNoise(0.5), ([-3, -3], [5, 5]), np.array(costs))[0] is noise
    assert carried(module, None, BOX)[0] is noise
    for bounds in ((-3, 6), (-4, 5), ([-3, -3], [5, 6])):
        with pytest.raises(ValueError, match=r"^bounds must be those of the NoisyModule"):
            carried(module, None, bounds)
    with pytest.raises(
        ValueError, match=r"^costs must be those of the NoisyModule, \[1\.0, 2\.0\], got \[2\.0, 1\.0\]"
    ):
        carried(module, None, None, [2.0, 1.0])
    given = UniformNoise(2.0), (0, 1), 3.0
    for model in (nn.Linear(2, 2), GaussianNB()):
        assert carried(model, *given) == given
    assert box_of(BOX) is BOX
    assert box_of((0, 7)).hi == 7
    # A cost for each pixel is one for each feature of the shape.
    image = NoisyModule(nn.Flatten(), noise, (-3, 5), costs=[[[2.0]], [[3.0]]])
    assert carried(image, None, None, np.repeat([2.0, 3.0], 4), shape=(2, 2, 2))[2] == [[[2.0]], [[3.0]]]
