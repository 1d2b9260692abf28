"""Models on accelerators, in files for machines without one."""

import pickle

import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from smoothcert.models import portable


def test_models_on_accelerators_are_portable():
    meta, cpu = nn.Linear(2, 2, device="meta"), nn.Linear(2, 2)
    norm = nn.BatchNorm1d(2, affine=False).to("meta")
    assert [portable.on_accelerator(one) for one in (meta, cpu, norm, nn.Sequential(cpu, meta))] == [
        True,
        False,
        True,
        True,
    ]
    net = NeuralNetClassifier(cpu).initialize()
    assert not portable.on_accelerator(net)
    net.module_ = meta
    assert portable.on_accelerator(net)
    assert portable.on_accelerator(NeuralNetClassifier(meta))
    frozen = FrozenEstimator(meta)
    state = {"estimator": frozen, "estimator_": frozen, "other": meta}
    found = portable.portable(state)
    assert type(found["estimator"].estimator) is portable.Portable
    assert found["estimator"] is found["estimator_"]
    assert (found["other"], state["estimator"].estimator) == (meta, meta)
    back = portable.restored(found)
    assert back["estimator_"].estimator is meta
    assert portable.portable({"estimator": cpu, "alpha": 1}) == {"estimator": cpu, "alpha": 1}
    loaded = pickle.loads(pickle.dumps(portable.Portable(cpu)))
    assert torch.equal(loaded.weight, cpu.weight)
