"""IS: how sure Inception is of each image, and of how many kinds the images are.

Salimans et al. 2016 (Improved Techniques for Training GANs), section 4: the exponential of the mean divergence
between an image's classes and those of all, over 10 parts of the set; mean and deviation between the parts. Logits
are without the bias of the last layer, softmax over all 1008 classes, and the parts are those that torch-fidelity
0.4 draws (metric_isc.py, shuffled by NumPy's seed 2020), so its numbers are these.

Of each part only sums are kept: the memory does not grow with the images. K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.images import permutation
from gtool.metrics.moments import require_finite

SPLITS = 10
SHUFFLE_SEED = 2020


@dataclass(frozen=True)
class Score:
    """The mean over the parts and the standard deviation between them."""

    value: float
    deviation: float


class InceptionScore:
    """Takes logits as they come; parts collected apart add up to the whole.

    total: images there will be, which decides who belongs to which part.

    Raises:
        DataError: fewer images than parts.
    """

    def __init__(self, total: int) -> None:
        if total < SPLITS:
            raise DataError(f"is needs {SPLITS} images or more, for its {SPLITS} parts; got {total}")
        self.total = total
        self.count = 0
        starts = torch.tensor([part * total // SPLITS for part in range(1, SPLITS)])
        order = torch.from_numpy(permutation(total, SHUFFLE_SEED))
        self._part = torch.empty(total, dtype=torch.int64)  # of each position
        self._part[order] = torch.bucketize(torch.arange(total), starts, right=True)
        self._counts = torch.zeros(SPLITS, dtype=torch.float64)
        self._negentropy = torch.zeros(SPLITS, dtype=torch.float64)  # sums of p log p
        self._shares: Tensor | None = None  # (10, K) sums of p

    def add(self, logits: Tensor, positions: Tensor | None = None) -> None:
        """Take (n, K) logits of the images at these positions (n,) of the whole set; in order when left out."""
        require_finite(logits)
        positions = torch.arange(self.count, self.count + len(logits)) if positions is None else positions
        self.count += len(logits)
        parts = self._part[positions]
        log_p = logits.detach().cpu().double().log_softmax(1)
        p = log_p.exp()
        if self._shares is None:
            self._shares = torch.zeros(SPLITS, logits.shape[1], dtype=torch.float64)
        self._shares.index_add_(0, parts, p)
        self._negentropy.index_add_(0, parts, (p * log_p).sum(1))
        self._counts.index_add_(0, parts, torch.ones(len(parts), dtype=torch.float64))

    def tensors(self) -> dict[str, Tensor]:
        """Return everything taken so far, for `absorb` of another."""
        if self._shares is None:
            return {}
        return {"counts": self._counts, "negentropy": self._negentropy, "shares": self._shares}

    def absorb(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what another of the same total has taken."""
        if not tensors:
            return
        self._counts += tensors["counts"]
        self._negentropy += tensors["negentropy"]
        self._shares = tensors["shares"] + (0 if self._shares is None else self._shares)
        self.count = int(self._counts.sum())

    def score(self) -> Score:
        """Return the score of all images.

        Raises:
            DataError: not all of them have been taken.
        """
        if self._shares is None or self.count != self.total:
            raise DataError(f"is was to be of {self.total:,} images and has got {self.count:,}")
        shares = self._shares / self._counts[:, None]
        # sum p log q, with q a mean of p: classes that nobody is in add nothing
        crossed = torch.special.xlogy(shares, shares).sum(1)
        values = (self._negentropy / self._counts - crossed).exp()
        return Score(float(values.mean()), float(values.std(correction=0)))
