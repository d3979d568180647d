"""Quantizers: vectors -> codes, with the gradient carried straight through.

Codebook  nearest entry. van den Oord et al. 2017 (VQ-VAE), as CompVis/taming-transformers trains it
          (taming/modules/vqvae/quantize.py, VectorQuantizer2).
Cosine    nearest entry in direction, entries and vectors of length 1 and of few dimensions. Yu et al. 2022 (ViT-VQGAN).
Gumbel    a convolution gives each vector a logit for every entry; the code is the largest. Jang et al. 2016, as in the
          released tokenizer with 8 px a code; it can be read and used, not trained.

Everything here is float32, under autocast too: codes must not depend on the precision of a run.

Codebooks die: entries that no vector is nearest to get no gradient and stay so. `restart` puts vectors of the current
batch in their place. Use is counted by the caller and not in `forward`, so that it can count the codes of all
processes: then what is replaced, and by what, is the same for one process and for two.

Axis letters: N images, h w grid of codes, d width of a vector, K codebook size, B = N h w vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.nn.precision import without_autocast
from gtool.runtime.precision import without_tf32

MOST_DISTANCES = 2**26  # in memory at a time: 256 MiB


class Quantized(NamedTuple):
    """What is kept of vectors.

    vectors: (N, d, h, w) entries, with the gradient of the vectors that they stand for.
    codes: (N, h, w) int64.
    loss: scalar, of vectors and entries that are apart; 0 where there are no entries to learn.
    """

    vectors: Tensor
    codes: Tensor
    loss: Tensor


class Codebook(nn.Module):
    """K entries of width d; the code of a vector is the number of the nearest.

    The loss is |sg(z) - e|^2 + beta |z - sg(e)|^2, each the mean over all numbers. The released code has beta at the
    first term in the place of the second, and so trained every released model; `legacy` does the same.
    """

    def __init__(self, size: int, dim: int, *, beta: float = 0.25, legacy: bool = False) -> None:
        super().__init__()
        self.beta, self.legacy = beta, legacy
        self.weight = nn.Parameter(torch.empty(size, dim).uniform_(-1 / size, 1 / size))

    def embedding(self) -> Tensor:
        """Return the entries (K, d) that codes stand for."""
        return self.weight

    def prepare(self, z: Tensor) -> Tensor:
        """Return vectors (B, d) as they are compared with entries."""
        return z

    def forward(self, z: Tensor) -> Quantized:
        """Quantize vectors (N, d, h, w)."""
        with without_autocast(z):
            flat = self.prepare(_rows(z.float()))
            table = self.embedding()
            codes = nearest(flat, table)
            chosen = F.embedding(codes, table)  # (B, d)
            to_entries = (chosen - flat.detach()).square().mean()
            to_vectors = (chosen.detach() - flat).square().mean()
            if self.legacy:
                loss = to_vectors + self.beta * to_entries
            else:
                loss = to_entries + self.beta * to_vectors
            vectors = _grid(flat + (chosen - flat).detach(), z)
        return Quantized(vectors, codes.view(z.shape[0], *z.shape[2:]), loss)

    @torch.no_grad()
    def restart(self, vectors: Tensor, counts: Tensor, generator: torch.Generator) -> int:
        """Put vectors in the place of the entries that were not used.

        With nothing counted, all entries are replaced: that is how a codebook begins at its data.

        Args:
            vectors: (N, d, h, w), as they come to `forward`; of all processes, where there are several.
            counts: (K,), how often each entry was used since the last restart; by all processes, too.
            generator: on the CPU; chooses the vectors. The same one in every process.

        Returns:
            How many entries were replaced.
        """
        dead = (counts == 0).nonzero().squeeze(1)
        flat = self.prepare(_rows(vectors.float()))
        order = torch.randperm(len(flat), generator=generator)
        # Where there are more dead entries than vectors, some get the same one; all but the first of these are dead
        # again and have another chance at the next restart.
        rows = order[torch.arange(len(dead)) % len(flat)].to(flat.device)
        self.weight[dead] = flat[rows].to(self.weight.dtype)
        return len(dead)


class CosineCodebook(Codebook):
    """As `Codebook`, on the unit sphere: the nearest entry is the one with the least angle."""

    def __init__(self, size: int, dim: int, *, beta: float = 0.25, legacy: bool = False) -> None:
        super().__init__(size, dim, beta=beta, legacy=legacy)
        # Entries near 0 would turn by large angles at the first steps.
        self.weight.data = F.normalize(torch.randn(size, dim), dim=1)

    def embedding(self) -> Tensor:
        """Return the entries (K, d), of length 1."""
        return F.normalize(self.weight.float(), dim=1)

    def prepare(self, z: Tensor) -> Tensor:
        """Return vectors (B, d), of length 1."""
        return F.normalize(z, dim=1)


class GumbelCodebook(nn.Module):
    """K entries of width d, and a logit for each: GumbelQuantize (taming/modules/vqvae/quantize.py), in use.

    The release adds Gumbel noise when it encodes, too, so that an image has other codes each time; here the code is the
    most likely one. What it was trained with, temperatures and a divergence from equal use, is not built.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, size, 1)
        self.weight = nn.Parameter(torch.randn(size, dim))

    def embedding(self) -> Tensor:
        """Return the entries (K, d) that codes stand for."""
        return self.weight

    def forward(self, z: Tensor) -> Quantized:
        """Quantize vectors (N, d, h, w); the loss is 0."""
        with without_autocast(z):
            codes = self.proj(z.float()).argmax(dim=1)
            vectors = F.embedding(codes, self.weight).movedim(-1, 1)
        return Quantized(vectors, codes, z.new_zeros((), dtype=torch.float32))


def nearest(vectors: Tensor, table: Tensor) -> Tensor:
    """Return the number (B,) of the entry of a table (K, d) that is nearest to each of the vectors (B, d)."""
    # No `no_grad`, which torch.export cannot write inside of autocast.
    vectors, table = vectors.detach(), table.detach()
    lengths = table.square().sum(dim=1)  # |z|^2 is the same for all entries
    rows = max(1, MOST_DISTANCES // len(table))
    # An exported network takes any number of vectors, and cannot count parts.
    parts = [vectors] if torch.compiler.is_exporting() else torch.split(vectors, rows)
    with without_tf32():
        return torch.cat([torch.addmm(lengths, part, table.t(), alpha=-2).argmin(dim=1) for part in parts])


def _rows(z: Tensor) -> Tensor:
    """(N, d, h, w) -> (B, d)."""
    return z.movedim(1, -1).flatten(0, -2)


def _grid(rows: Tensor, like: Tensor) -> Tensor:
    """(B, d) -> (N, d, h, w)."""
    n, _, *grid = like.shape
    return rows.view(n, *grid, -1).movedim(-1, 1)


# How a codebook is used, over a window of batches. Counts are whole numbers that add up: those of two processes are
# those of one. One batch says little: 32 images of 64 codes cannot use more than 2048.


def count_codes(codes: Tensor, size: int) -> Tensor:
    """Return how often each of `size` codes is in `codes` (of any shape): (size,) int64."""
    counts = torch.zeros(size, dtype=torch.int64, device=codes.device)
    flat = codes.detach().flatten()
    return counts.scatter_add_(0, flat, torch.ones_like(flat))  # torch.bincount waits for a GPU


def codebook_usage(counts: Tensor) -> dict[str, float]:
    """Return `codes_used`, the share of codes that occur, and `perplexity`, e to their entropy; 0 with no counts.

    counts: (K,) how often each code occurs. The perplexity says how many codes, equally frequent, would be as hard to
    guess.
    """
    share = counts[counts > 0].double() / counts.sum()
    perplexity = float(torch.exp(-(share * share.log()).sum())) if len(share) else 0.0
    return {"codes_used": float((counts > 0).double().mean()), "perplexity": perplexity}
