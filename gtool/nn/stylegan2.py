"""Layers of StyleGAN2: equalised learning rate, modulated convolution, resampling with a low-pass filter.

Analyzing and Improving the Image Quality of StyleGAN (Karras et al. 2020), section 2 and appendix B; compared with
dorarad/gansformer, pytorch_version/training/networks.py and torch_utils/ops/.

Weights are stored as N(0, 1) and scaled at use, so that Adam moves all of them at one relative speed. A modulated
convolution scales its input and its output and leaves the weights alone: no weights per image, no grouped
convolution, and the demodulation is one small matrix product.

Axis letters: N images, I input channels, O output channels, H W pixels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.nn.precision import without_autocast
from gtool.nn.second_derivatives import convolve

SLOPE = 0.2  # of leaky ReLU
DEMODULATION_EPS = 1e-8


class EqualizedLinear(nn.Module):
    """x W^T / sqrt(fan in) + b, both times the learning-rate multiplier that they are stored divided by."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: float | None = 0.0, multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = None if bias is None else nn.Parameter(torch.full((outputs,), bias / multiplier))
        self.gain = multiplier / math.sqrt(inputs)
        self.multiplier = multiplier

    @property
    def scaled(self) -> tuple[Tensor, Tensor | None]:
        """Weight (O, I) and bias (O,) as they act."""
        bias = self.bias if self.bias is None or self.multiplier == 1 else self.bias * self.multiplier
        return self.weight * self.gain, bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return F.linear(x, *self.scaled)


def activate(x: Tensor, gain: float = math.sqrt(2)) -> Tensor:
    """Leaky ReLU times a gain that keeps the variance."""
    return F.leaky_relu(x, SLOPE) * gain


class LowPass(nn.Module):
    """The filter [1, 3, 3, 1] in both directions, before pixels are left out or after they are put in.

    Where pixels are left out or put in it works in float32: the library's kernels for that are about 50 times as slow
    in bfloat16 on a CPU, forward or backward.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device="cpu") / 8
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
        """(N, C, H, W) -> (N, C, H + 2 padding - 3, W + 2 padding - 3)."""
        return _each_channel(x, self.kernel * gain, padding=padding)

    def shrink(self, x: Tensor) -> Tensor:
        """Halve the sides: (N, C, H, W) -> (N, C, H / 2, W / 2)."""
        with without_autocast(x):
            return _each_channel(x.float(), self.kernel, padding=1, stride=2).to(x.dtype)

    def enlarge(self, x: Tensor) -> Tensor:
        """Double the sides: (N, C, H, W) -> (N, C, 2 H, 2 W)."""
        with without_autocast(x):
            enlarged = _each_channel(x.float(), self.kernel * 4, padding=1, stride=2, transposed=True)
            return enlarged.to(x.dtype)


def _each_channel(x: Tensor, kernel: Tensor, **how: Any) -> Tensor:
    """Convolve every channel of (N, C, H, W) with a kernel (4, 4)."""
    kernel = kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)
    return convolve(x, kernel, groups=x.shape[1], **how)


class Convolution(nn.Module):
    """Convolution of 1 x 1 or 3 x 3 that keeps, doubles (up) or halves (down) the sides.

    Doubling is a transposed convolution, then the low-pass; halving the low-pass, then a strided convolution. With
    `active`, leaky ReLU follows. The gain of the output, and the activation's sqrt(2), are taken into weight and bias,
    since leaky ReLU is homogeneous: the library adds the bias inside the convolution, and no pass is left to make.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        active: bool = False,
        up: bool = False,
        down: bool = False,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.active = active
        self.gain = gain * (math.sqrt(2) if active else 1.0)
        self.scale = self.gain / math.sqrt(inputs * size**2)
        self.up, self.down = up, down
        self.low_pass = LowPass() if up or down else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, H, W) -> (N, O, H', W')."""
        bias = None if self.bias is None else self.bias * self.gain
        weight = self.weight * self.scale
        x = resampled_convolution(x, weight, self.low_pass, bias, up=self.up)
        return F.leaky_relu(x, SLOPE, inplace=True) if self.active else x


def resampled_convolution(
    x: Tensor, weight: Tensor, low_pass: LowPass | None, bias: Tensor | None = None, *, up: bool = False
) -> Tensor:
    """Convolve (N, I, H, W) with (O, I, s, s), s = 1 or 3; given a low-pass, double or halve the sides on the way."""
    size = weight.shape[-1]
    if low_pass is None:
        return convolve(x, weight, bias, padding=size // 2)
    if not up:
        if size == 1:
            return convolve(low_pass.shrink(x), weight, bias)
        return convolve(low_pass(x, padding=2), weight, bias, stride=2)
    if size == 1:
        x = low_pass.enlarge(convolve(x, weight))
    else:
        x = low_pass(convolve(x, weight.transpose(0, 1), stride=2, transposed=True), padding=1, gain=4.0)
    return x if bias is None else x + bias.to(x.dtype)[:, None, None]


class ModulatedConvolution(nn.Module):
    """A convolution whose input channels are scaled for each image, and its outputs back to unit variance.

    With `style` off it is a plain convolution: the baseline GAN, and the released recipe for CLEVR.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        w_dim: int,
        *,
        style: bool = True,
        demodulate: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.affine = EqualizedLinear(w_dim, inputs, bias=1.0) if style else None
        self.gain = 1 / math.sqrt(inputs * size**2)
        self.demodulate = demodulate
        self.up = up
        self.low_pass = LowPass() if up else None

    def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """Convolve (N, I, H, W) under w (N, w_dim).

        Returns:
            (N, O, H', W'), and what each channel of each image is still to be multiplied by, (N, O), or None:
            whoever comes next has a multiplication to do anyway.
        """
        if self.affine is None:
            x = resampled_convolution(x, self.weight * self.gain, self.low_pass, up=self.up)
            return x, None
        with without_autocast(x):
            styles = self.affine(w.float()) * self.gain  # (N, I)
            scale = None
            if self.demodulate:
                energy = self.weight.square().sum(dim=(2, 3))  # (O, I)
                scale = (styles.square() @ energy.T + DEMODULATION_EPS).rsqrt()
        x = x * styles.to(x.dtype)[:, :, None, None]
        return resampled_convolution(x, self.weight, self.low_pass, up=self.up), scale
