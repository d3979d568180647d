"""KID: the squared maximum mean discrepancy of Inception features under a cubic kernel.

Binkowski et al. 2018 (Demystifying MMD GANs), section 4: k(x, y) = (x . y / D + 1)^3, unbiased, averaged over 100
random subsets of at most 1000 images. Unlike FID it has no bias in the number of images.

clean-fid computes each subset. The subsets are those that it draws when NumPy's global generator has been seeded with
the same number. Rows become fp64 subset by subset: all of them at once are 16 kB an image.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import require_finite, require_two

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its other imports
    from cleanfid.fid import kernel_distance

NUM_SUBSETS = 100
SUBSET_SIZE = 1000


def kid(fake: Features, real: Features, seed: int = 0) -> dict[str, float | None]:
    """Return `kid`, the mean over subsets, and `kid.deviation` between them; None when every subset is everything.

    seed: of the subsets. DataError below two rows or for rows that are not finite.
    """
    rows = [features.all_rows for features in (real, fake)]
    for one in rows:
        require_two(len(one))
        require_finite(one)
    size = min(*map(len, rows), SUBSET_SIZE)
    num_subsets = 1 if len(rows[0]) == len(rows[1]) == size else NUM_SUBSETS
    random = np.random.RandomState(seed % 2**32)
    values = []
    with _seeded_numpy(seed):
        for _ in range(num_subsets):
            subsets = [one[random.choice(len(one), size, replace=False)].double().numpy() for one in rows]
            values.append(kernel_distance(subsets[1], subsets[0], num_subsets=1, max_subset_size=size))
    deviation = None if num_subsets == 1 else float(np.std(values))
    return {"kid": float(np.mean(values)), "kid.deviation": deviation}


@contextmanager
def _seeded_numpy(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator for a block: clean-fid shuffles each subset by it, which moves the last digits."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)
