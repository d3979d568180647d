"""RFD (`rfd-v1`): Frechet distance on the features of a fixed random network; needs no weights file.

It is not FID and must never be called so: it sees static, blur, collapse, wrong layout and wrong colours, not
whether a cat looks like a cat. Read it against its floor, the same distance between two disjoint sets of real
images. The metric follows the idea of Naeem et al. 2020 (section 5: randomly initialised embeddings).

The recipe is frozen; any change of a number below is a new version under a new name.
1. uint8 pixels to [-1, 1]; images larger than 32 px are averaged down to 32 x 32 (finer detail is for SWD).
2. Three stages: 3 x 3 convolution without bias (64, 128, 256 channels, orthogonal matrices made from our own
   counter-based normals), standardised per channel on the reference, leaky ReLU 0.2, 2 x 2 mean between.
3. 704 features: the 64 + 128 + 256 spatial means of the stages, and 256 samples of the last map averaged to
   4 x 4: channel c is read at cell c mod 16, so every channel and every place of the picture takes part.
4. The Frechet distance in fp64.

Standardisation depends on the reference only, so candidates scored against one reference are comparable.
N images, C channels, H W pixels, D = 704.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import frechet, influence
from gtool.metrics.images import Images, in_chunks
from gtool.metrics.intervals import Values, with_interval
from gtool.runtime.precision import full_fp32
from gtool.runtime.random import derive_seed
from gtool.runtime.torch_random import hashed_normal

PROTOCOL = "rfd-v1"
WIDTHS = (64, 128, 256)
SIDE = 32  # pixels per side that the network sees at most
GRID = 4  # cells per side of the sampled last map
SLOPE = 0.2
NUM_CALIBRATION = 256  # reference images that set the standardisation
CHUNK = 128  # images in flight at most: 33 MB for the widest map
CHUNK_PIXELS = 128 * 256 * 256  # and pixels: 100 MB before they are averaged down


def rfd(fake: Features, real: Features, seed: int = 0, *, interval: bool = False) -> Values:
    """Return `rfd` of two sets of 704 random features, with its interval where that is asked for.

    It depends on no seed. DataError below two images.
    """
    value = frechet(real.gaussian, fake.gaussian)
    if not interval:
        return {"rfd": value}
    return with_interval("rfd", value, influence(real.gaussian, fake.gaussian, fake.all_rows))


class RandomFeatures:
    """The frozen random network, standardised on a reference set: uint8 images to 704 features.

    reference: its first 256 images set the standardisation of each stage, one after the other.
    """

    @torch.no_grad()
    @full_fp32()
    def __init__(self, reference: Images, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.filters: list[tuple[Tensor, Tensor]] = []
        chunks = in_chunks(reference, CHUNK, CHUNK_PIXELS, total=NUM_CALIBRATION)
        maps = torch.cat([_pixels(chunk.to(self.device)) for _, chunk in chunks])
        maps = maps.contiguous(memory_format=torch.channels_last)
        channels = 3
        for stage, width in enumerate(WIDTHS):
            weight = _orthogonal(width, channels * 9, stage).view(width, channels, 3, 3).to(self.device)
            weight, bias = _standardise(weight, F.conv2d(maps, weight, padding=1))
            self.filters.append((weight.contiguous(memory_format=torch.channels_last), bias))
            maps = F.avg_pool2d(F.leaky_relu(F.conv2d(maps, weight, bias, padding=1), SLOPE), 2)
            channels = width

    @torch.no_grad()
    @full_fp32()
    def __call__(self, images: Images, positions: object = None) -> Tensor:
        """Return (N, 704) fp32 features on the CPU for images of any side >= 16, wherever they are in their set."""
        chunks = in_chunks(images, CHUNK, CHUNK_PIXELS)
        return torch.cat([self._features(chunk.to(self.device)) for _, chunk in chunks])

    def _features(self, images: Tensor) -> Tensor:
        # A convolution of one image alone adds in another order than one of several: the last digits would differ.
        maps = _pixels(images if len(images) > 1 else images.expand(2, -1, -1, -1))
        features = []
        for stage, (weight, bias) in enumerate(self.filters):
            maps = F.avg_pool2d(maps, 2) if stage else maps
            maps = F.leaky_relu_(F.conv2d(maps, weight, bias, padding=1), SLOPE)
            features.append(maps.mean((2, 3)))
        cells = F.adaptive_avg_pool2d(maps, GRID).flatten(2)  # (N, 256, 16)
        channel = torch.arange(WIDTHS[-1], device=maps.device)
        features.append(cells[:, channel, channel % GRID**2])
        return torch.cat(features, dim=1)[: len(images)].cpu()


def _pixels(images: Tensor) -> Tensor:
    pixels = images.to(torch.float32).div_(127.5).sub_(1)
    if max(pixels.shape[2:]) > SIDE:
        pixels = F.adaptive_avg_pool2d(pixels, SIDE)
    return pixels.contiguous(memory_format=torch.channels_last)


def _orthogonal(rows: int, columns: int, stage: int) -> Tensor:
    """Return an fp32 matrix with orthonormal rows or columns, whichever are fewer."""
    indices = torch.arange(rows, dtype=torch.int64)
    normal = hashed_normal(derive_seed(PROTOCOL), indices, columns, stream=stage).double()
    basis, triangle = torch.linalg.qr(normal if rows >= columns else normal.T)
    basis = basis * triangle.diagonal().sign()  # makes the decomposition unique
    matrix: Tensor = basis if rows >= columns else basis.T
    return matrix.float().contiguous()


def _standardise(weight: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """Fold the response's mean and deviation per channel into the filter: return weight and bias."""
    rows = response.transpose(0, 1).flatten(1).cpu().double()  # (C, N H W); not every device has fp64
    scale = rows.std(1).clamp_min(1e-3).reciprocal()
    bias = -rows.mean(1) * scale
    return weight * scale.view(-1, 1, 1, 1).to(weight), bias.to(weight)
