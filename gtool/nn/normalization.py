"""Normalisation of tokens, each image by itself.

Axis letters: N batch, L tokens, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.nn import second_derivatives

PIXEL_NORM_EPS = 1e-8  # released code
LAYER_NORM_EPS = 1e-5
GAIN_STD = 0.1  # of gains that are linear in z, at the start


class Normalization(nn.Module):
    """One of the norms of TransGAN on (N, L, C), with gains that are learned, or linear in z.

    ln: layer norm, gain and bias. layer: layer norm without bias. pn: x / rms over channels, no parameters
    ("modified normalisation" of the paper). none: nothing.

    With `z_dim`, the gain is 1 + Wz + b in place of a learned one, and there is no bias.
    """

    def __init__(self, kind: str, channels: int, z_dim: int | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.channels = channels
        self.gain = nn.Linear(z_dim, channels) if z_dim else None
        learned = z_dim is None and kind in ("ln", "layer")
        self.weight = nn.Parameter(torch.ones(channels)) if learned else None
        self.bias = nn.Parameter(torch.zeros(channels)) if learned and kind == "ln" else None
        if self.gain is not None:
            nn.init.normal_(self.gain.weight, std=GAIN_STD * self.gain.in_features**-0.5)
            nn.init.zeros_(self.gain.bias)

    def forward(self, x: Tensor, z: Tensor | None = None, twice: bool = False) -> Tensor:
        """Normalise (N, L, C); z (N, z_dim) is needed where the gain is linear in it.

        twice: a second derivative will be taken.
        """
        if twice and self.weight is not None and self.kind in ("ln", "layer"):
            x = second_derivatives.layer_norm(x, self.weight, self.bias, LAYER_NORM_EPS)
        elif self.kind in ("ln", "layer"):
            x = F.layer_norm(x, (self.channels,), self.weight, self.bias, LAYER_NORM_EPS)
        elif self.kind == "pn":
            x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + PIXEL_NORM_EPS)
        if self.gain is not None and z is not None:
            x = x * (1 + self.gain(z)).unsqueeze(1)  # (N, 1, C)
        return x
