"""How near each picture is to its partner: PSNR, SSIM, mean difference, and LPIPS where its weights are given.

`paired-v1`: means over pairs of what metrics/reconstruction.py measures of one; LPIPS of version 0.1 with VGG16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.reconstruction import WINDOW, psnr, ssim

PROTOCOL = "paired-v1"


@dataclass
class Paired:
    """Takes pairs one by one and keeps a few numbers of each.

    lpips: from two images (1, 3, H, W) in [-1, 1] to their distance (1,).
    """

    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    values: dict[str, list[float]] = field(default_factory=dict)  # by metric, one for each pair

    def add(self, made: Tensor, real: Tensor, name: str) -> None:
        """Take two images uint8 (3, H, W); DataError when they differ in size or are smaller than SSIM's window."""
        if made.shape != real.shape:
            sizes = " and ".join(f"{image.shape[2]}x{image.shape[1]}" for image in (made, real))
            raise DataError(
                f"{name}: partners of different size ({sizes}); crop and resize both with --resolution R"
            )
        if min(made.shape[1:]) < WINDOW:
            raise DataError(f"{name}: {made.shape[2]}x{made.shape[1]}; ssim needs {WINDOW} pixels a side")
        one, other = made[None], real[None]
        found = {"psnr": psnr(one, other), "ssim": ssim(one, other)}
        found["l1"] = (one.float() - other.float()).abs().mean(dim=(1, 2, 3))
        if self.lpips is not None:
            with torch.no_grad():
                found["lpips"] = self.lpips(one.float() / 127.5 - 1, other.float() / 127.5 - 1)
        for metric, value in found.items():
            self.values.setdefault(metric, []).append(float(value))

    def scores(self) -> dict[str, float]:
        """Return psnr (dB), ssim, l1 (of 255) and lpips, means over the pairs; DataError where there are none."""
        if not self.values:
            raise DataError("nothing to compare: no pairs")
        return {metric: sum(values) / len(values) for metric, values in self.values.items()}

    def worst(self, count: int) -> list[int]:
        """Return the places of the pairs that are farthest apart by psnr, worst first."""
        order = torch.tensor(self.values["psnr"]).argsort(stable=True)
        return [int(place) for place in order[:count]]
