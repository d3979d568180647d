"""How near pictures are to those they were made from: PSNR, SSIM and mean difference; and how codes are used.

SSIM is that of Wang et al. 2004 ("Image quality assessment: from error visibility to structural similarity"): windows
of 11 x 11 pixels weighted by a Gaussian of deviation 1.5, K1 = 0.01, K2 = 0.03, of values from 0 to 255, on red, green
and blue, where windows fit into the picture; their mean.

N images, H W pixels, K codes there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.errors import DataError

PROTOCOL = "reconstruction-v1"
WINDOW, DEVIATION = 11, 1.5
K1, K2, RANGE = 0.01, 0.03, 255.0
LEAST_ERROR = 1e-3  # of PSNR, squared levels: equal pictures would have an infinite one


def psnr(made: Tensor, real: Tensor) -> Tensor:
    """Return the dB (N,) of images uint8 (N, 3, H, W), from each one's mean squared difference."""
    error = (made.float() - real.float()).square().mean(dim=(1, 2, 3)).clamp(min=LEAST_ERROR)
    return 10 * torch.log10(RANGE**2 / error)


def ssim(made: Tensor, real: Tensor) -> Tensor:
    """Return the SSIM (N,) of images uint8 (N, 3, H, W).

    Raises:
        DataError: pictures smaller than a window.
    """
    if min(made.shape[2:]) < WINDOW:
        raise DataError(
            f"ssim needs pictures of {WINDOW} pixels a side; got {made.shape[3]} x {made.shape[2]}"
        )
    x, y = made.double(), real.double()
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x, variance_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    near = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    alike = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (near * alike).mean(dim=(1, 2, 3))


def _blurred(x: Tensor) -> Tensor:
    """Weight every window that fits: (N, C, H, W) -> (N, C, H - 10, W - 10)."""
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weight = torch.exp(-(place**2) / (2 * DEVIATION**2))
    weight = (weight / weight.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(x, weight, groups=x.shape[1])
    return F.conv2d(x, weight.transpose(2, 3), groups=x.shape[1])


@dataclass
class Nearness:
    """Pictures and codes taken batch by batch, and what is found of them."""

    codebook_size: int
    count: int = 0
    _sums: dict[str, float] = field(default_factory=dict)
    _codes: Tensor | None = None  # (K,) how often each was used

    def add(self, made: Tensor, real: Tensor, codes: Tensor) -> None:
        """Take images uint8 (n, 3, H, W), those they were made from, and the codes (n, h, w) between."""
        found = {"psnr": psnr(made, real), "l1": (made.float() - real.float()).abs().mean(dim=(1, 2, 3))}
        if min(made.shape[2:]) >= WINDOW:
            found["ssim"] = ssim(made, real)
        for name, values in found.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(values.double().sum())
        counts = torch.bincount(codes.flatten(), minlength=self.codebook_size)
        self._codes = counts if self._codes is None else self._codes + counts
        self.count += len(made)

    def scores(self) -> dict[str, float]:
        """Return psnr (dB), ssim (where pictures are large enough) and l1 (of 255), means over the images.

        codes_used: share of the codebook. perplexity: e to the entropy of the codes.

        Raises:
            DataError: no images.
        """
        if self._codes is None:
            raise DataError("nothing to compare: no images")
        shares = self._codes[self._codes > 0].double() / self._codes.sum()
        usage = {
            "codes_used": float((self._codes > 0).double().mean()),
            "perplexity": float((-(shares * shares.log()).sum()).exp()),
        }
        return {name: total / self.count for name, total in self._sums.items()} | usage
