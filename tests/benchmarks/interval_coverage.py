"""How often the 95 % intervals of scores hold the true value: many draws of toy features with a known truth.

    python tests/benchmarks/interval_coverage.py [--draws 400] [--metrics kid fid ...]

One reference, and generated sets drawn anew from one population of 20,000 rows. The truth: of kid the distance of that
population, computed in full; of the others the mean over all draws, which for scores with a bias is the value of this
number of images. Printed: the share of draws whose interval holds the truth (the bar: 93 to 97 of 100), the deviation
of the values, and the mean deviation that the intervals claim.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gtool.metrics.features.collector import Features
from gtool.metrics.registry import METRICS
from gtool.metrics.rfd import rfd
from gtool.metrics.swd import swd

SIZE, NUM = 16, 400  # numbers of a row, and rows of either set


def population(size: int, seed: int) -> Tensor:
    """Return 20,000 rows of uneven spread, not Gaussian, moved and widened from those of seed 0."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(20_000, size, generator=random) * torch.linspace(1.5, 0.3, size)
    return rows if seed == 0 else 1.2 * rows + 0.2 * rows.abs() + 0.2


def case(name: str, num_real: int) -> tuple[Callable[..., dict], Tensor, Features | None, int]:
    """Return the function, what is drawn from, the reference, and how many are drawn."""
    if name == "swd":
        fake, real = (
            (one[:, None, None] + torch.randn(20_000, 1, 16, 16)) / 2
            for one in (population(16, 1), population(16, 0))
        )
        return partial(swd, interval=True), fake, Features.of(real[:200]), 200
    if name == "fid_infinity":
        return METRICS[name].load(), population(6, 1), Features.of(population(6, 0)), 10_000
    if name == "is":
        return METRICS[name].load(), 2 * population(10, 1), None, 1000
    function = partial(rfd, interval=True) if name == "rfd" else METRICS[name].load()
    return function, population(SIZE, 1), Features.of(population(SIZE, 0)[:num_real]), NUM


def exact_kid(fake: Tensor, real: Tensor) -> float:
    """Return the squared discrepancy of a population (each row as often as any other) and a sample."""
    x, y = fake.double(), real.double()

    def mean(a: Tensor, b: Tensor) -> float:
        return sum(float(((part @ b.T / a.shape[1] + 1) ** 3).sum()) for part in a.split(1000)) / (
            len(a) * len(b)
        )

    own = float(((y.square().sum(1) / y.shape[1] + 1) ** 3).sum())
    among = (mean(y, y) * len(y) ** 2 - own) / (len(y) * (len(y) - 1))
    return mean(x, x) - 2 * mean(x, y) + among


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=400)
    names = [name for name, metric in METRICS.items() if not metric.is_paired]
    parser.add_argument("--metrics", nargs="+", default=names)
    parser.add_argument("--num-real", type=int, default=NUM)
    options = parser.parse_args()
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    for metric in options.metrics:
        function, fake, real, count = case(metric, options.num_real)
        draws = []
        for seed in range(options.draws):
            chosen = torch.from_numpy(random.integers(len(fake), size=count))
            draws.append(function(Features.of(fake[chosen]), real, seed))
        for score in [name for name in draws[0] if "." not in name]:
            value, low, high = (
                np.array([one[f"{score}{end}"] for one in draws]) for end in ("", ".low", ".high")
            )
            truth = exact_kid(fake, real.all_rows) if score == "kid" else value.mean()
            share = ((low <= truth) & (truth <= high)).mean()
            claimed = ((high - low) / 2 / 1.96).mean()
            spread = f"deviation {value.std():.3g}, claimed {claimed:.3g}"
            print(f"{score}: {100 * share:.1f} of 100 hold {truth:.5g}; {spread}", flush=True)


if __name__ == "__main__":
    main()
