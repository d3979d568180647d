"""Normalisation of tokens, each image by itself, and of maps.

Axis letters: N batch, L tokens, C channels, H W pixels of a map.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gtool.nn import second_derivatives
from gtool.nn.precision import without_autocast

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


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """Return (N, C, H, W) laid out as a CPU convolves it in half to three quarters of the time; elsewhere as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


class GroupNorm(nn.GroupNorm):
    """Group norm of (N, C, H, W) in the precision of the map, moments in fp32; it can be differentiated once."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        with without_autocast(x):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            if x.dtype == torch.float32 or x.device.type != "cpu" or not torch.is_grad_enabled():
                return F.group_norm(x, self.num_groups, weight, bias, self.eps)
            out: Tensor = _GroupNorm.apply(x, weight, bias, self.num_groups, self.eps)
            return out


class _GroupNorm(torch.autograd.Function):
    """The library's, whose backward pass in half precision, with channels last, is four times as fast in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        n, channels, height, width = x.shape
        ctx.shape = (n, channels, height * width, groups)
        out, *moments = torch.ops.aten.native_group_norm(x, weight, bias, *ctx.shape, eps)
        ctx.save_for_backward(x, *moments, weight)
        return out  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        gradients = torch.ops.aten.native_group_norm_backward(
            grad.float(), *(value.float() for value in saved), *ctx.shape, [True] * 3
        )
        return *(value.to(saved[0].dtype) for value in gradients), None, None
