"""PatchGAN: a discriminator that judges overlapping patches of an image, by convolutions alone.

Image-to-Image Translation with Conditional Adversarial Networks (Isola et al. 2017), section 3.2.2; compared with
CompVis/taming-transformers, taming/modules/discriminator/model.py. 2,765,633 parameters for colours, 64 channels and
three layers; then a logit sees 70 x 70 px.

The released norm is over the batch: an image is judged by what else is in it, and two processes differ from one.
`group` and `none` judge each image by itself.

Axis letters: N images, C channels, H W pixels, h w patches.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.models.vqgan.config import VQGANConfig
from gtool.nn.normalization import GroupNorm, channels_last_on_cpu
from gtool.nn.ranges import ramp

SLOPE = 0.2
INIT_STD = 0.02
MOST_WIDER = 8  # times the first channels
GROUP_CHANNELS = 16  # of a group of the group norm


class PatchDiscriminator(nn.Module):
    """Image -> one logit for each patch."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        settings = config.discriminator
        widths = [settings.channels * min(2**n, MOST_WIDER) for n in range(settings.layers + 1)]
        biased = settings.norm == "none"
        self.compares = settings.norm == "batch"  # an image is judged by those beside it
        self.image_shape = (config.image_channels, config.resolution, config.resolution)
        self.first = nn.Conv2d(config.image_channels, widths[0], 4, stride=2, padding=1)
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for number, (before, width) in enumerate(pairwise(widths), 1):
            stride = 1 if number == settings.layers else 2
            self.convs.append(nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=biased))
            self.norms.append(_norm(settings.norm, width))
        self.last = nn.Conv2d(widths[-1], 1, 4, padding=1)
        self.apply(_init)

    def forward(self, images: Tensor) -> Tensor:
        """Judge images (N, C, H, W) in [-1, 1]: logits (N, h, w) float32."""
        x = F.leaky_relu(self.first(channels_last_on_cpu(images)), SLOPE)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), SLOPE)
        logits: Tensor = self.last(x)
        return logits.squeeze(1).float()

    def example_inputs(self) -> tuple[Tensor]:
        """Return one image."""
        return (ramp(self.first.weight, *self.image_shape),)


def _norm(kind: str, width: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(width)
    return GroupNorm(max(1, width // GROUP_CHANNELS), width) if kind == "group" else nn.Identity()


@torch.no_grad()
def _init(module: nn.Module) -> None:
    """N(0, 0.02) weights of convolutions, norms N(1, 0.02), as released; biases of convolutions are torch's."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=INIT_STD)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, INIT_STD)
