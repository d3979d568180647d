"""Metrics of pairs of images: PSNR and SSIM by torchmetrics, L1, LPIPS.

SSIM is that of Wang et al. 2004 (Image quality assessment: from error visibility to structural similarity): windows of
11 x 11 pixels weighted by a Gaussian of deviation 1.5, K1 = 0.01, K2 = 0.03, on red, green and blue, where windows fit.
LPIPS is version 0.1 with VGG16 (gtool/losses/perceptual.py); its linear heads come with torchmetrics. Importing
torchmetrics takes 2 s of CPU more than torch, so it waits until something is measured.

N images, H W pixels.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from gtool.errors import DataError
from gtool.losses.perceptual import LPIPS
from gtool.metrics.features.weights import VGG16, find_weights

WINDOW = 11  # pixels a side that SSIM needs
BORDER = WINDOW // 2
MOST_PSNR = 78.13080360867912  # dB, of a mean squared error of 0.001; equal pictures have no end


def pixel_scores(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Return `psnr` (dB), `ssim` and `l1` (of 255), (N,) each, of uint8 (N, 3, H, W); DataError for small images."""
    if min(fake.shape[2:]) < WINDOW:
        raise DataError(f"ssim needs images of {WINDOW} pixels a side; got {fake.shape[3]} x {fake.shape[2]}")
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    x, y = fake.double(), real.double()
    psnr = peak_signal_noise_ratio(x, y, data_range=255.0, reduction="none", dim=(1, 2, 3))
    # torchmetrics mirrors the picture at its border; the paper takes the windows that fit.
    _, windows = structural_similarity_index_measure(
        x, y, data_range=255.0, reduction="none", return_full_image=True
    )
    windows = windows[..., BORDER:-BORDER, BORDER:-BORDER]
    ssim, l1 = windows.mean(dim=(1, 2, 3)), (x - y).abs().mean(dim=(1, 2, 3))
    return {"psnr": psnr.clamp(max=MOST_PSNR), "ssim": ssim, "l1": l1}


@torch.no_grad()
def lpips(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Return `lpips` (N,) of uint8 (N, 3, H, W); NetworkError where the weights of VGG16 cannot be had."""
    network = load_lpips().to(fake.device)
    return {"lpips": network(fake.float() / 127.5 - 1, real.float() / 127.5 - 1)}


@cache
def load_lpips() -> LPIPS:
    """Return the network on the CPU; NetworkError where the weights of VGG16 cannot be had."""
    import torchmetrics

    heads = Path(str(torchmetrics.__file__)).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
    return LPIPS.from_files(find_weights(VGG16).path, heads)
