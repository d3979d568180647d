"""Images to Inception's input, resized by clean-fid: each of its three protocols has exactly one resizer.

Parmar et al. 2022 (On Aliased Resizing and Surprising Subtleties in GAN Evaluation): the resizer alone moves FID by
points. `clean` is Pillow's bicubic with antialiasing, `legacy_pytorch` bilinear without. `legacy_tensorflow` is the
resizer inside the TorchScript file of the weights, which TensorFlow 1 had: bilinear with corners at the origin.
"""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from cleanfid.resize import build_resizer, make_resizer
from torch import Tensor

from gtool.runtime.precision import full_fp32

SIDE = 299


@full_fp32()
def to_input(images: Tensor, mode: str) -> Tensor:
    """Return uint8 (N, 3, H, W) as the network's input, (N, 3, 299, 299) fp32 in about [-1, 1].

    The aspect ratio is not kept; no protocol keeps it.
    """
    if mode == "legacy_tensorflow":
        return _resize_as_tensorflow(images.float()).sub_(128).div_(128)
    pixels = resize(images, mode)
    return pixels.div(127.5).sub_(1) if mode == "legacy_pytorch" else pixels.sub(128).div_(128)


def resize(images: Tensor, mode: str = "clean", side: int = SIDE) -> Tensor:
    """Return uint8 (N, 3, H, W) as grey levels 0..255, fp32 (N, 3, side, side); sides but Inception's are `clean`."""
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow works without Python's lock
        resized = np.stack(list(pool.map(_resizer(mode, side), arrays)))
    return torch.from_numpy(resized).permute(0, 3, 1, 2).to(images.device)


@cache
def _resizer(mode: str, side: int) -> Callable[[np.ndarray], np.ndarray]:
    with warnings.catch_warnings():  # clean-fid switches all warnings off
        inception, clean = build_resizer(mode), make_resizer("PIL", False, "bicubic", (side, side))
    return inception if side == SIDE else clean


def _resize_as_tensorflow(pixels: Tensor) -> Tensor:
    """Return (N, 3, 299, 299): the sample at i of 299 is read at i * size / 299, between pixels linearly."""
    height, width = pixels.shape[2:]
    # affine_grid and grid_sample count from the centres of corner pixels: the shift brings both origins together.
    shift = [[1.0, 0.0, 1 / width - 1 / SIDE], [0.0, 1.0, 1 / height - 1 / SIDE]]
    theta = torch.tensor(shift, device=pixels.device).expand(len(pixels), 2, 3)
    grid = F.affine_grid(theta, [len(pixels), 3, SIDE, SIDE], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
