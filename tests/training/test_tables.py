"""Training on tables, with a mask and without."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from smoothcert import CleanTraining, NoiseAugmentation, UniformNoise
from smoothcert.models.columns import Columns
from smoothcert.noise.mechanism import NoiseMechanism
from smoothcert.noise.threat import Features
from smoothcert.training.tables import train_on_columns

from .problems import BOX, MECHANISM, Seen, X, Y


def test_the_mask_is_given_up_where_the_model_refuses_it():
    table = pd.DataFrame({"a": X[:, 0], "b": ["x", "y"] * 6})
    columns = Columns.learn(table, fixed=np.zeros(2, dtype=bool), categorical=np.array([False, True]), missing="error")
    features = Features(n_categories=columns.n_categories, hidden="mask")
    mechanism = NoiseMechanism(BOX, UniformNoise(1.5), (2,), features)
    given = {"mechanism": mechanism, "columns": columns, "seed": 0}
    matrix = columns.encode(table)

    class Refusing(Seen):
        def fit(self, X, y):
            if "hidden" in set(X["b"]):
                raise ValueError("could not convert 'hidden'")
            return super().fit(X, y)

    fitted, hidden, shown = train_on_columns(NoiseAugmentation(3), Seen(), matrix, Y, any_way=True, **given)
    assert (type(fitted), hidden, set(fitted.X_["b"])) == (Seen, "mask", {"x", "y", "hidden"})
    assert shown.unmasked is columns.codecs
    fitted, hidden, shown = train_on_columns(NoiseAugmentation(3), Refusing(), matrix, Y, any_way=True, **given)
    assert (type(fitted), hidden, set(fitted.X_["b"])) == (Refusing, "uniform", {"x", "y"})
    assert shown is columns
    with pytest.raises(ValueError, match=r"^could not convert 'hidden'") as caught:
        train_on_columns(NoiseAugmentation(3), Refusing(), matrix, Y, any_way=False, **given)
    assert "Encode it inside the base model" in caught.value.__notes__[0]
    with pytest.raises(KeyError):
        train_on_columns(NoiseAugmentation(3), Seen(KeyError(1)), matrix, Y, any_way=True, **given)
    # Torch models and arrays see the matrix.
    plain = {"mechanism": MECHANISM, "columns": None, "seed": 3, "any_way": True}
    fitted, hidden, shown = train_on_columns(CleanTraining(), Seen(), X, Y, **plain)
    assert (fitted.X_ is X, hidden, shown) == (True, "mask", None)

    class Stubborn(Seen):
        def fit(self, X, y):
            raise ValueError("could not convert it")

    with pytest.raises(ValueError, match=r"^could not convert it$") as caught:
        train_on_columns(CleanTraining(), Stubborn(), X, Y, **plain)
    assert not hasattr(caught.value, "__notes__")
    # Columns of numbers alone need no advice, and what hides categories already is tried once.
    numbers = plain | {"columns": Columns(("a", "b"), "pandas")}
    with pytest.raises(ValueError, match=r"^could not convert it$") as caught:
        train_on_columns(CleanTraining(), Stubborn(), X, Y, **numbers)
    assert not hasattr(caught.value, "__notes__")
    tries = []

    class Counting(Seen):
        def fit(self, X, y):
            tries.append(y)
            raise ValueError("never")

    uniform = given | {"mechanism": replace(mechanism, features=replace(features, hidden="uniform"))}
    with pytest.raises(ValueError, match="never"):
        train_on_columns(CleanTraining(), Counting(), matrix, np.arange(12) % 2, any_way=True, **uniform)
    assert len(tries) == 1
