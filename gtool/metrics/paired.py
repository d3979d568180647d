"""Metrics of pairs of pictures (`paired-v1`): PSNR, SSIM and L1 as gtool.metrics.reconstruction defines them."""

from __future__ import annotations

from torch import Tensor

from gtool.errors import DataError
from gtool.metrics.reconstruction import WINDOW, psnr, ssim


def pixel_scores(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Return psnr (dB), ssim and l1 (of 255), each (N,), of images uint8 (N, 3, H, W).

    Raises:
        DataError: images smaller than the window of SSIM.
    """
    if min(fake.shape[2:]) < WINDOW:
        raise DataError(f"{fake.shape[3]}x{fake.shape[2]}; ssim needs {WINDOW} pixels a side")
    l1 = (fake.float() - real.float()).abs().mean(dim=(1, 2, 3))
    return {"psnr": psnr(fake, real), "ssim": ssim(fake, real), "l1": l1}
