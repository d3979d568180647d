"""The layers of StyleGAN2, against their formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from gtool.nn.stylegan2 import Convolution, EqualizedLinear, LowPass, ModulatedConvolution, activate

TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def filtered(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H + 3, W + 3) -> (N, C, H, W), one axis after the other."""
    channels = x.shape[1]
    x = F.conv2d(x, TAPS.view(1, 1, 4, 1).expand(channels, 1, 4, 1), groups=channels)
    return F.conv2d(x, TAPS.view(1, 1, 1, 4).expand(channels, 1, 1, 4), groups=channels)


def spread_out(x: torch.Tensor) -> torch.Tensor:
    """Put zeros between pixels: (N, C, H, W) -> (N, C, 2 H, 2 W)."""
    n, channels, height, width = x.shape
    wide = torch.zeros(n, channels, height, 2, width, 2)
    wide[:, :, :, 0, :, 0] = x
    return wide.view(n, channels, 2 * height, 2 * width)


@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_linear_maps_are_stored_at_unit_speed_and_act_at_unit_variance(multiplier):
    layer = EqualizedLinear(400, 300, bias=0.5, multiplier=multiplier)
    assert layer.weight.std().item() == pytest.approx(1 / multiplier, rel=0.02)
    x = torch.randn(64, 400)
    torch.testing.assert_close(layer(x), x @ (layer.weight * multiplier / 20).T + 0.5)
    assert (layer(x) - 0.5).std().item() == pytest.approx(1, rel=0.05)


def test_activation_keeps_the_second_moment():
    x = torch.randn(100_000)
    assert activate(x).square().mean().item() == pytest.approx(1.04, rel=0.02)  # 2 (1 + 0.2^2) / 2


def test_halving_is_filtering_and_leaving_out():
    x = torch.randn(2, 3, 8, 6)
    expected = filtered(F.pad(x, (1, 1, 1, 1)))[:, :, ::2, ::2]
    torch.testing.assert_close(LowPass().shrink(x), expected)


def test_doubling_is_putting_zeros_between_and_filtering():
    x = torch.randn(2, 3, 5, 4)
    expected = 4 * filtered(F.pad(spread_out(x), (2, 1, 2, 1)))
    torch.testing.assert_close(LowPass().enlarge(x), expected)


def test_resampling_keeps_flat_pictures_flat():
    flat = torch.ones(1, 2, 8, 8)
    torch.testing.assert_close(LowPass().enlarge(flat)[:, :, 2:-2, 2:-2], torch.ones(1, 2, 12, 12))
    torch.testing.assert_close(LowPass().shrink(flat)[:, :, 1:-1, 1:-1], torch.ones(1, 2, 2, 2))


@pytest.mark.parametrize("size", [1, 3])
def test_a_convolution_that_halves_is_the_filter_and_every_second_pixel(size):
    layer = Convolution(3, 4, size, down=True, gain=0.7)
    x, margin = torch.randn(2, 3, 8, 8), 1 + size // 2
    smooth = filtered(F.pad(x, (margin,) * 4))
    expected = F.conv2d(smooth, layer.weight * 0.7 / math.sqrt(3 * size**2))[:, :, ::2, ::2]
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("size", [1, 3])
def test_a_convolution_that_doubles_is_a_transposed_one_and_the_filter(size):
    layer = Convolution(3, 4, size, up=True, bias=False)
    x = torch.randn(2, 3, 6, 6)
    wide, margin = spread_out(x), 2 + size // 2
    turned = layer.weight / math.sqrt(3 * size**2)
    padded = F.conv2d(F.pad(wide, (margin, margin - 1) * 2), turned.flip(2, 3))
    torch.testing.assert_close(layer(x), 4 * filtered(padded))


def test_gains_and_biases_inside_convolutions_are_those_after_them():
    layer = Convolution(3, 4, 3, active=True, gain=math.sqrt(0.5))
    with torch.no_grad():
        layer.bias += torch.randn(4)
    x = torch.randn(2, 3, 6, 6)
    y = F.conv2d(x, layer.weight / math.sqrt(27), padding=1) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), activate(y) * math.sqrt(0.5))


def plain_modulation(layer: ModulatedConvolution, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Weights of each image of their own (Karras et al. 2020, equations 1 and 3)."""
    made = []
    for image, vector in zip(x, w, strict=True):
        weight = layer.weight * layer.gain * layer.affine(vector)[None, :, None, None]
        if layer.demodulate:
            weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        made.append(F.conv2d(image[None], weight, padding=weight.shape[-1] // 2))
    return torch.cat(made)


@pytest.mark.parametrize(("size", "demodulate"), [(3, True), (1, False)])
def test_modulating_inputs_and_outputs_is_modulating_weights(size, demodulate):
    layer = ModulatedConvolution(5, 4, size, 6, demodulate=demodulate)
    x, w = torch.randn(3, 5, 6, 6), torch.randn(3, 6)
    made, scale = layer(x, w)
    if scale is not None:
        made = made * scale[:, :, None, None]
    torch.testing.assert_close(made, plain_modulation(layer, x, w), rtol=1e-4, atol=1e-5)


def test_demodulated_outputs_have_unit_variance_whatever_the_style():
    layer = ModulatedConvolution(64, 64, 3, 8)
    x, w = torch.randn(2, 64, 16, 16), 30 * torch.randn(2, 8)
    made, scale = layer(x, w)
    assert (made * scale[:, :, None, None])[..., 1:-1, 1:-1].std().item() == pytest.approx(1, rel=0.1)


def test_without_style_a_convolution_is_plain():
    layer = ModulatedConvolution(5, 4, 3, 6, style=False)
    x = torch.randn(2, 5, 6, 6)
    made, scale = layer(x, torch.randn(2, 6))
    assert scale is None
    torch.testing.assert_close(made, F.conv2d(x, layer.weight / math.sqrt(45), padding=1))


@pytest.mark.parametrize("up", [False, True])
def test_half_precision_is_near(up):
    layer = Convolution(16, 16, 3, active=True, up=up)
    x = torch.randn(2, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - layer(x)).square().mean().sqrt() < 0.02
