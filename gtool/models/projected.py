"""A second opinion beside a discriminator of pixels: small discriminators of features of EfficientNet-Lite0.

Projected GANs Converge Faster (Sauer et al. 2021), in small, and beside the discriminator instead of in its place: a
network that was trained to name objects tells early what stands apart from what, and is blind to colours and fine
texture, which the discriminator of pixels sees. The features are frozen; each scale has a head of its own. No penalty
is taken on them, and the network that gives them is no part of what is saved.

Axis letters: N images, C channels, R resolution, H W places of a map, S scales.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.losses.efficientnet import CHANNELS, efficientnet_lite0
from gtool.nn import classes as by_class
from gtool.nn.precision import without_autocast

SMALLEST = 64  # pixels a side that smaller images are enlarged to, so that the coarsest map has 4 x 4 places
SCALES = (1, 2, 3)  # at 1/4, 1/8 and 1/16 of the image
WIDTH = 64


class FeatureHead(nn.Module):
    """Features (N, C, H, W) of one scale -> one logit an image, the mean of those of its places."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.logit = nn.Linear(WIDTH, 1)
        self.classes = by_class.embedding(range(num_classes), WIDTH, zero=True)

    def forward(self, features: Tensor, classes: Tensor | None) -> Tensor:
        """(N, C, H, W), and int64 (N,) of a conditional one -> (N, 1)."""
        seen = self.layers(features).mean(dim=(2, 3))
        return by_class.add_projection(self.logit(seen), seen, self.classes, classes)


class ProjectedDiscriminator(nn.Module):
    """A discriminator, and beside its logit of an image those of the heads.

    uses_heads: without them the heads rest, and what comes back is (N, 1).
    """

    def __init__(self, pixels: Any, num_classes: int) -> None:
        super().__init__()
        self.pixels = pixels
        self.heads = nn.ModuleList(FeatureHead(CHANNELS[scale], num_classes) for scale in SCALES)
        self.uses_heads = True
        self.noise_shapes, self.group_size = pixels.noise_shapes, pixels.group_size

    def forward(
        self, images: Tensor, noise: Any = None, classes: Tensor | None = None, *, with_features: bool = False
    ) -> Any:
        """Judge images (N, 3, R, R) in [-1, 1] as the discriminator of pixels does; returns fp32 logits (N, 1 + S).

        with_features: return the features of the discriminator of pixels beside them.
        """
        own = () if classes is None else (classes,)
        pixels, features = self.pixels(images, noise, *own, with_features=True)
        logits = self._with_heads(images, classes, pixels[:, None].float())
        return (logits, features) if with_features else logits

    def _with_heads(self, images: Tensor, classes: Tensor | None, pixels: Tensor) -> Tensor:
        """Append the logits of the heads to those of pixels: (N, 1) -> (N, 1 + S)."""
        if not self.uses_heads:  # processes exchange gradients of all parameters: those of the heads are zero
            nothing = sum(parameter.sum() for parameter in self.heads.parameters())
            return pixels + 0.0 * nothing
        # While the heads learn, no gradient of theirs is wanted at the images: a penalty is on that of pixels alone.
        learning = next(self.heads.parameters()).requires_grad
        with without_autocast(images):
            x = (images.detach() if learning else images).float()
            if x.shape[-1] < SMALLEST:
                x = F.interpolate(x, size=(SMALLEST, SMALLEST), mode="bilinear")
            features = efficientnet_lite0(x.device)(x, scales=max(SCALES) + 1)
            judged = [head(features[scale], classes) for scale, head in zip(SCALES, self.heads, strict=True)]
        return torch.cat([pixels, *judged], dim=1)

    def example_inputs(self) -> tuple[Any, ...]:
        """Return what the discriminator of pixels takes."""
        inputs: tuple[Any, ...] = self.pixels.example_inputs()
        return inputs
