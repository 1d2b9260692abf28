"""Certificates of a few inputs, and the heights of drawn curves."""

import numpy as np

from smoothcert import Certificates
from smoothcert.results import Intervals


def certificates(radii, labels=None, **changes):
    radii = np.array(radii, dtype=np.float64)
    labels = np.zeros(len(radii), dtype=int) if labels is None else np.array(labels)
    p_a = np.full(len(radii), 0.9)
    arguments = {"alpha": 0.001, "norm": 1} | changes
    return Certificates(labels, radii, np.isnan(radii), p_a, 1 - p_a, **arguments)


def value_at(line, radius):
    """Height at which a drawn step curve passes over a radius; where it jumps, the upper end."""
    vertices = line.get_path().vertices if line.get_drawstyle() == "default" else step_vertices(line)
    x, height = vertices.T
    at = height[x == radius]
    if len(at):
        return at.max()
    after = np.flatnonzero(x > radius)[0]
    assert height[after - 1] == height[after]
    return height[after]


def step_vertices(line):
    assert line.get_drawstyle() == "steps-pre"
    x, y = line.get_data()
    return np.array([(x[0], y[0]), *[(x[i + k - 1], y[i]) for i in range(1, len(x)) for k in (0, 1)]])


X = np.random.default_rng(0).random((5, 4))


def some_intervals(n=2, radius=(0.25, 0.5, 2.0), **changes):
    shape = (n, len(radius))
    lower, upper = np.arange(1.0, 1 + n * len(radius)).reshape(shape), np.arange(11.0, 11 + n * len(radius))
    given = {"predictions": np.arange(5.0, 5 + n), "lower": lower, "upper": upper.reshape(shape)}
    given |= {"radius": np.tile(radius, (n, 1)), "quantile": 0.5, "alpha": 0.001, "norm": 1}
    return Intervals(**given | changes)
