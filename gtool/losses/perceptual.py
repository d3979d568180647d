"""Distances of images in features of networks: of EfficientNet-Lite0, which comes with gtool, and LPIPS.

`perceptual_distance` compares features of EfficientNet-Lite0 as they are; nothing in it was fitted to what people
judge, and no number of it is an LPIPS.

LPIPS: the distance of two images in features of VGG16, weighted by how people judge it.

The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al. 2018), version 0.1 with VGG16;
compared with CompVis/taming-transformers, taming/modules/losses/lpips.py.

Its two weight files are other people's work: VGG16 for ImageNet, as torchvision publishes it (vgg16-397923af.pth), and
the five linear heads (vgg.pth of richzhang/PerceptualSimilarity), which come with torchmetrics; `gtool.metrics.paired`
finds them. Features of random networks or other networks are no substitute of that name.

Kept in the place of torchmetrics' network of this name, which is private, has the dropout below, shortens lengths and
heads to half precision under autocast, and builds VGG16's 123 M other parameters to throw them away.

Deviation: the release has dropout before the heads, which its training switches on by `model.train()`, so that equal
images have random distances. There is none here.

Axis letters: N images, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.io.safe_pickle import load_pickled
from gtool.losses.efficientnet import efficientnet_lite0

# Convolutions of VGG16, in stages that end where a feature is taken and a maximum of 2 x 2 follows.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
LENGTH_EPS = 1e-10


def perceptual_features(images: Tensor) -> list[Tensor]:
    """Return what `features_apart` compares: features of EfficientNet-Lite0 at five scales, of length 1 at each place.

    images: (N, 3, H, W) or (N, 1, H, W) in [-1, 1].
    """
    return [_unit(x) for x in efficientnet_lite0(images.device)(images)]


def features_apart(some: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Return (N,) distances in [0, 4] of perceptual features: squared, averaged over places, then over scales."""
    scales = [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in zip(some, others, strict=True)]
    return torch.stack(scales).mean(dim=0)


def perceptual_distance(images: Tensor, references: Tensor) -> Tensor:
    """Return (N,) distances in [0, 4] of images and references in [-1, 1], of one size, whatever it is."""
    return features_apart(perceptual_features(images), perceptual_features(references))


class LPIPS(nn.Module):
    """Images and what they should look like -> one distance each; frozen, the same in training and in use."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage in STAGES:
            for width in stage:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])  # numbered as torchvision does
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(stage[-1])) for stage in STAGES)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False)

    @classmethod
    def from_files(cls, vgg: Path, heads: Path) -> LPIPS:
        """Read both files, executing nothing.

        Raises:
            CheckpointError: missing, unreadable, or other tensors than these.
        """
        with torch.random.fork_rng(devices=[]):
            network = cls()
        network.load_vgg(load_pickled(vgg), vgg)
        network.load_heads(load_pickled(heads), heads)
        return network

    def load_vgg(self, tensors: Mapping[str, Tensor], where: str | Path) -> None:
        """Copy the convolutions from VGG16 by torchvision's names, `features.0.weight`; the classifier is not used."""
        for name, own in self.features.named_parameters():
            _copy(own, tensors, f"features.{name}", where, "VGG16")

    def load_heads(self, tensors: Mapping[str, Tensor], where: str | Path) -> None:
        """Copy the linear heads, `lin0.model.1.weight` (1, C, 1, 1) and so on; 0 where dropout was left out."""
        for number, head in enumerate(self.heads):
            names = [f"lin{number}.model.{place}.weight" for place in (1, 0)]
            name = next((name for name in names if name in tensors), names[0])
            _copy(head.view(1, -1, 1, 1), tensors, name, where, "the linear heads of LPIPS")

    def forward(self, images: Tensor, references: Tensor) -> Tensor:
        """Compare images with references, (N, 3, H, W) or (N, 1, H, W) in [-1, 1], of 16 px a side or more.

        Returns:
            (N,) float32; no gradient goes to the references.
        """
        with torch.no_grad():
            wanted = self._features(references)
        total = torch.zeros((), device=images.device)
        for head, ours, theirs in zip(self.heads, self._features(images), wanted, strict=True):
            apart = (_unit(ours) - _unit(theirs)).square().mean(dim=(2, 3))  # (N, C)
            total = total + (apart * head).sum(dim=1)  # no product that autocast would shorten
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        """Return what each stage makes of images, before its maximum."""
        x, found = (images - self.shift) / self.scale, []  # one channel becomes three
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                found.append(x)
            x = layer(x)
        return [*found, x]


def _unit(x: Tensor) -> Tensor:
    """Features (N, C, H, W) of length 1 at each place, in float32."""
    x = x.float()
    # The slope of a length is infinite at 0, where all features of a place are off.
    length = (x.square().sum(dim=1, keepdim=True) + LENGTH_EPS**2).sqrt()
    return x / (length + LENGTH_EPS)


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
