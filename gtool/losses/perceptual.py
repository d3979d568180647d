"""LPIPS: the distance of two images in features of VGG16, weighted by how people judge it.

The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al. 2018), version 0.1 with VGG16;
compared with CompVis/taming-transformers, taming/modules/losses/lpips.py.

Its two weight files are other people's work and come from the user: VGG16 for ImageNet, as torchvision publishes it
(vgg16-397923af.pth), and the five linear heads (vgg.pth of richzhang/PerceptualSimilarity). Nothing is downloaded, and
without both files there is no LPIPS: features of random networks or other networks are no substitute of that name.

Deviation: the release has dropout before the heads, which its training switches on by `model.train()`, so that equal
images have random distances. There is none here.

Axis letters: N images, C channels, H W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.io.weights import load_pickled, read_safetensors

# Convolutions of VGG16, in stages that end where a feature is taken and a maximum of 2 x 2 follows.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
LENGTH_EPS = 1e-10


class LPIPS(nn.Module):
    """Images and what they should look like -> one distance each; frozen, the same in training and in use."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *(width for stage in STAGES for width in stage)]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, width, 3, padding=1) for before, width in pairwise(widths)
        )
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(stage[-1])) for stage in STAGES)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False)

    @classmethod
    def from_files(cls, vgg: Path, heads: Path) -> LPIPS:
        """Read both files, .pth or .safetensors, executing nothing.

        Raises:
            CheckpointError: missing, unreadable, or other tensors than these.
        """
        with torch.random.fork_rng(devices=[]):
            network = cls()
        network.load_vgg(_read(vgg), vgg)
        network.load_heads(_read(heads), heads)
        return network

    def load_vgg(self, tensors: Mapping[str, Tensor], where: str | Path) -> None:
        """Copy the convolutions from VGG16 by torchvision's names, `features.0.weight`; the classifier is not used."""
        place = 0
        convs = iter(self.convs)
        for stage in STAGES:
            for _ in stage:
                conv = next(convs)
                for kind in ("weight", "bias"):
                    _copy(getattr(conv, kind), tensors, f"features.{place}.{kind}", where, "VGG16")
                place += 2  # its activation is a layer
            place += 1  # as is the maximum

    def load_heads(self, tensors: Mapping[str, Tensor], where: str | Path) -> None:
        """Copy the linear heads, `lin0.model.1.weight` (1, C, 1, 1) and so on."""
        for number, head in enumerate(self.heads):
            pattern = re.compile(rf"lin{number}\.model\.[01]\.weight")
            name = next(
                (key for key in tensors if pattern.fullmatch(str(key))), f"lin{number}.model.1.weight"
            )
            _copy(head.view(1, -1, 1, 1), tensors, name, where, "the linear heads of LPIPS")

    def forward(self, images: Tensor, references: Tensor) -> Tensor:
        """Compare images with references, (N, 3, H, W) or (N, 1, H, W) in [-1, 1], of 16 px a side or more.

        Returns:
            (N,) float32; no gradient goes to the references.
        """
        with torch.no_grad():
            wanted = self.features(references)
        return self.distance(self.features(images), wanted)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the five features, as the network makes them."""
        x = (images - self.shift) / self.scale  # one channel becomes three
        found = []
        convs = iter(self.convs)
        for number, stage in enumerate(STAGES):
            if number:
                x = F.max_pool2d(x, 2)
            for _ in stage:
                x = F.relu(next(convs)(x))
            found.append(x)
        return found

    def distance(self, found: list[Tensor], wanted: list[Tensor]) -> Tensor:
        """Return the distances (N,) of images by their features."""
        total = torch.zeros((), device=found[0].device)
        for head, ours, theirs in zip(self.heads, found, wanted, strict=True):
            apart = (_unit(ours) - _unit(theirs)).square().mean(dim=(2, 3))  # (N, C)
            total = total + (apart * head).sum(dim=1)  # no product that autocast would shorten
        return total


def _unit(x: Tensor) -> Tensor:
    """Features (N, C, H, W) of length 1 at each place, in float32."""
    x = x.float()
    # The slope of a length is infinite at 0, where all features of a place are off.
    length = (x.square().sum(dim=1, keepdim=True) + LENGTH_EPS**2).sqrt()
    return x / (length + LENGTH_EPS)


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix.lower() == ".safetensors":
        return read_safetensors(path)
    return load_pickled(path)


@torch.no_grad()
def _copy(own: Tensor, tensors: Mapping[str, Tensor], name: str, where: str | Path, what: str) -> None:
    given = tensors.get(name)
    if not isinstance(given, Tensor):
        raise CheckpointError(f"{where}: not the weights of {what}: `{name}` is missing")
    if given.shape != own.shape:
        raise CheckpointError(
            f"{where}: not the weights of {what}: `{name}` is {tuple(given.shape)}, not {tuple(own.shape)}"
        )
    if not bool(given.isfinite().all()):
        raise CheckpointError(f"{where}: `{name}` holds values that are not finite")
    own.copy_(given)
