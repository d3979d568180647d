"""Inception score: how confident Inception is of the class of each image, and how many classes the images have.

Salimans et al. 2016 (Improved Techniques for Training GANs), section 4: the exponential of the mean KL divergence
between the classes of an image and those of all, over 10 splits of the set; mean and deviation between the splits.
Logits are without the bias of the last layer, softmax over all 1008 classes, and the splits are those that
torch-fidelity 0.4 draws (metric_isc.py, shuffled by NumPy's seed 2020), so its numbers are these.
"""

from itertools import pairwise

import torch

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import require_finite
from gtool.metrics.intervals import Values, with_interval
from gtool.metrics.registry import METRICS
from gtool.runtime.random import permutation

SPLITS = 10
SHUFFLE_SEED = 2020


def inception_score(fake: Features, real: None = None, seed: int = 0) -> Values:
    """Return `is`, the mean over the splits, with its interval, and `is.deviation` between them.

    fake: the logits of all images (N, K) as rows. The shuffle is always the same. DataError for few images.
    """
    METRICS["is"].require_images(fake.count)
    logits = fake.all_rows
    require_finite(logits)
    order = torch.from_numpy(permutation(fake.count, SHUFFLE_SEED))
    ends = [split * fake.count // SPLITS for split in range(SPLITS + 1)]
    values, influence = [], []
    for start, end in pairwise(ends):
        p = logits[order[start:end]].double().softmax(1)  # (n, K)
        mean = p.mean(0)
        # Of each image, sum p log p - sum p log q, with q the mean of p; classes that nobody is in add nothing.
        divergence = torch.special.xlogy(p, p).sum(1) - torch.special.xlogy(p, mean).sum(1)
        values.append(divergence.mean().exp())
        influence.append(values[-1] * (divergence - divergence.mean()))
    found = torch.stack(values)
    deviation = float(found.std(correction=0))
    return with_interval("is", float(found.mean()), torch.cat(influence)) | {"is.deviation": deviation}
