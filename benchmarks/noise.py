"""The fused noise kernel against the same noise from torch operations, both into float32.

Ours is ``SplitNoise.sample`` into a reused batch. Torch draws ``rand``, scales, clamps, compares, adds and halves, as
research code does. Both draw one batch after the other for some time: a batch alone takes less than it takes to wake a
thread. `ns` are nanoseconds per value; `ratio` is torch's time over ours.
"""

from __future__ import annotations

import numpy as np
import torch
from common import alternate, show

from smoothcert import SplitNoise

LAM = 3.5

#: Values that are drawn before the time is taken.
VALUES = 2**25


def run(quick: bool) -> None:
    rng, results = np.random.default_rng(0), []
    for d in (784, 3072):
        for size in (2**19,) if quick else (2**19, 2**20, 2**21):
            n = size // d
            pixels = rng.integers(256, size=d)
            x, batch = torch.from_numpy(pixels / 255).float(), np.empty((n, d), dtype=np.float32)
            keys = rng.integers(2**32, size=(1, 4), dtype=np.uint32)
            batches = range(2 if quick else VALUES // size)
            for levels in ("auto", 255):
                noise = SplitNoise(LAM, levels)
                points = noise.to_points(pixels[None] / 255)

                def ours(noise=noise, points=points, keys=keys, batch=batch, n=n, batches=batches) -> None:
                    for i in batches:
                        noise.sample(points, keys, np.array([[0, i * n, n]]), batch)

                def peer(x=x, n=n, d=d, batches=batches) -> None:
                    for _ in batches:
                        split = torch.rand(n, d) * (2 * LAM)
                        (split.clamp(max=1) + (x > split)) / 2

                times = alternate({"ours": ours, "torch": peer}, repeats=3 if quick else 11)
                drawn = n * d * len(batches)
                results.append(
                    {
                        "d": d,
                        "n": n,
                        "levels": levels,
                        "ns": times["ours"].median() / drawn * 1e9,
                        "ns torch": times["torch"].median() / drawn * 1e9,
                        "ratio": (times["torch"] / times["ours"]).median(),
                        "target": ">= 8",
                    }
                )
    show("Time of torch's splitting noise / time of the fused kernel", results)
