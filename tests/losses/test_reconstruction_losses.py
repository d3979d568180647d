"""Losses of tokenizers: known answers, LPIPS with given weights, the adaptive weight, the use of codes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.losses import reconstruction
from gtool.losses.perceptual import LPIPS, STAGES
from gtool.nn import quantizers
from tests.helpers.vqgans import networks, pictures
from tests.io.test_pickles import Call


def test_l1_is_the_mean_of_absolute_differences():
    assert reconstruction.l1(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 1.0])).item() == 1.5


def test_gradient_difference_counts_edges_and_no_offsets():
    image = torch.zeros(1, 1, 4, 4)
    image[..., 2:] = 1.0  # one edge in each of four rows
    assert reconstruction.gradient_difference(image + 0.5, image).item() == pytest.approx(0, abs=1e-7)
    flat = torch.zeros(1, 1, 4, 4)
    assert reconstruction.gradient_difference(flat, image).item() == pytest.approx(4 / 12)
    assert reconstruction.gradient_difference(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)) == 0


def test_structure_at_several_scales_tells_a_blur_from_an_image():
    images = pictures(2, 32)
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    fine, coarse = (reconstruction.multiscale_gradients(x, images) for x in (blurred, 0.9 * images))
    assert fine > 0
    assert reconstruction.multiscale_gradients(images, images) == 0
    # A checkerboard and a wide wave of one size: the scales above the first see only the wave.
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).float()[None, None] * 2 - 1
    wave = board.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :16, :16]
    zero = torch.zeros_like(board)
    single = [reconstruction.gradient_difference(x, zero).item() for x in (board, wave)]
    several = [reconstruction.multiscale_gradients(x, zero).item() for x in (board, wave)]
    assert several[0] == pytest.approx(single[0] / 3)
    assert several[1] > single[1]
    assert coarse > 0


# The adaptive weight.


@pytest.mark.parametrize(
    ("nll", "gan", "expected"),
    [
        ([3.0, 4.0], [0.0, 2.0], 0.8 * 5 / 2.0001),
        ([0.0, 0.0], [1.0, 1.0], 0.0),
        ([1.0, 0.0], [0.0, 0.0], 0.8 * 1e4),
        ([2.0, 0.0], [0.0, 0.0], 0.8 * 1e4),  # 2 / 0.0001 is clamped
    ],
)
def test_the_adaptive_weight_is_the_ratio_of_norms(nll, gan, expected):
    gradients = torch.tensor(nll, requires_grad=True), torch.tensor(gan)
    weight = reconstruction.adaptive_weight(*gradients)
    assert weight.item() == pytest.approx(expected)
    assert not weight.requires_grad
    assert reconstruction.adaptive_weight(*gradients, weight=0.4).item() == pytest.approx(expected / 2)


def test_one_pass_backwards_has_the_gradient_of_the_whole_loss():
    """The gradients at the reconstruction give both those at the last layer and, weighted, those of everything."""
    tokenizer, judge = networks()
    images = pictures(2)
    out = tokenizer(images)
    nll, gan = reconstruction.l1(out.reconstruction, images), -judge(out.reconstruction).mean()
    direct = [torch.autograd.grad(x, tokenizer.last_layer, retain_graph=True)[0] for x in (nll, gan)]
    slopes = [torch.autograd.grad(x, out.reconstruction, retain_graph=True)[0] for x in (nll, gan)]
    through = [
        torch.autograd.grad(out.reconstruction, tokenizer.last_layer, slope, retain_graph=True)[0]
        for slope in slopes
    ]
    torch.testing.assert_close(through, direct)
    weight = reconstruction.adaptive_weight(*through)
    first = tokenizer.encoder.conv_in.weight
    (whole,) = torch.autograd.grad(nll + weight * gan, first, retain_graph=True)
    (once,) = torch.autograd.grad(out.reconstruction, first, slopes[0] + weight * slopes[1])
    torch.testing.assert_close(once, whole)


# The use of codes.


def test_windows_of_codes_add_up_whoever_counts_them():
    codes = torch.randint(0, 40, (8, 4, 4), generator=torch.Generator().manual_seed(0))
    whole = quantizers.count_codes(codes, 64)
    shares = sum(quantizers.count_codes(share, 64) for share in codes.chunk(4))
    assert torch.equal(whole, shares)
    assert whole.sum() == codes.numel()
    assert quantizers.codebook_usage(whole)["codes_used"] == pytest.approx(len(codes.unique()) / 64)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([5, 5, 5, 5], 4.0), ([7, 0, 0, 0], 1.0), ([3, 3, 0, 0], 2.0), ([0, 0, 0, 0], 0.0)],
)
def test_perplexity_is_the_number_of_codes_as_hard_to_guess(counts, expected):
    assert quantizers.codebook_usage(torch.tensor(counts))["perplexity"] == pytest.approx(expected)


# LPIPS.


def vgg_state(seed: int = 0) -> dict[str, Tensor]:
    """Return tensors of the shapes that torchvision publishes, with a part of a classifier."""
    generator = torch.Generator().manual_seed(seed)
    state, place, before = {"classifier.6.bias": torch.zeros(1000)}, 0, 3
    for stage in STAGES:
        for width in stage:
            scale = (2 / (9 * before)) ** 0.5
            state[f"features.{place}.weight"] = scale * torch.randn(width, before, 3, 3, generator=generator)
            state[f"features.{place}.bias"] = 0.1 * torch.randn(width, generator=generator)
            place, before = place + 2, width
        place += 1
    return state


def head_state(name: str = "lin{}.model.1.weight") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name.format(n): torch.rand(1, stage[-1], 1, 1, generator=generator) for n, stage in enumerate(STAGES)
    }


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    network = LPIPS()
    network.load_vgg(vgg_state(), "test")
    network.load_heads(head_state(), "test")
    return network


def written_out(images: Tensor, references: Tensor) -> Tensor:
    """LPIPS as its paper has it, Eq. 1, in float64, without anything of ours."""
    state, heads = vgg_state(), head_state()
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1).double()
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1).double()
    total = torch.zeros(len(images), dtype=torch.float64)
    pair = [(x.double() - shift) / scale for x in (images, references)]
    number = 0
    for place in range(30):
        if f"features.{place}.weight" in state:
            weight, bias = (state[f"features.{place}.{kind}"].double() for kind in ("weight", "bias"))
            pair = [nn.functional.conv2d(x, weight, bias, padding=1).relu() for x in pair]
        if place in (3, 8, 15, 22, 29):
            unit = [nn.functional.normalize(x, dim=1) for x in pair]
            total += ((unit[0] - unit[1]) ** 2 * heads[f"lin{number}.model.1.weight"]).sum(1).mean((1, 2))
            number += 1
        if place in (4, 9, 16, 23):
            pair = [nn.functional.max_pool2d(x, 2) for x in pair]
    return total


def test_lpips_is_the_sum_of_weighted_distances_of_unit_features(lpips):
    images, references = pictures(2, 32), pictures(2, 32, seed=1)
    found = lpips(images, references)
    assert found.shape == (2,)
    assert found.tolist() == pytest.approx(written_out(images, references).tolist(), rel=1e-4)
    assert lpips(images, images).tolist() == [0, 0]


def test_lpips_has_the_released_parameters_and_learns_nothing(lpips):
    assert sum(parameter.numel() for parameter in lpips.parameters()) == 14_716_160
    images = pictures(1, 16).requires_grad_()
    lpips(images, pictures(1, 16, seed=1)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in lpips.parameters())


def test_one_channel_is_seen_as_grey(lpips):
    depth, other = pictures(1, 16, 1), pictures(1, 16, 1, seed=1)
    grey = lpips(depth.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1))
    torch.testing.assert_close(lpips(depth, other), grey)


def test_black_images_have_a_gradient(lpips):
    """Where all features of a place are 0, their length has none in the release: nan."""
    images = torch.zeros(1, 3, 16, 16, requires_grad=True)
    dead = LPIPS()
    (slope,) = torch.autograd.grad(dead(images, pictures(1, 16)).sum(), images)
    assert slope.isfinite().all()
    (slope,) = torch.autograd.grad(lpips(images, pictures(1, 16)).sum(), images)
    assert slope.isfinite().all()


def test_half_precision_keeps_the_distance(lpips):
    images, references = pictures(2, 32), pictures(2, 32, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        half = lpips(images, references)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, lpips(images, references), rtol=0.05, atol=0)


def test_lpips_is_read_from_the_files_of_its_authors(lpips):
    torch.save(vgg_state(), "vgg16.pth")
    torch.save(head_state("lin{}.model.0.weight"), "vgg.pth")
    read = LPIPS.from_files(Path("vgg16.pth"), Path("vgg.pth"))
    images, references = pictures(1, 16), pictures(1, 16, seed=1)
    assert torch.equal(read(images, references), lpips(images, references))


def test_old_files_of_torch_are_read():
    """Both published files are from before torch wrote zip files."""
    torch.save(vgg_state(), "vgg16.pth", _use_new_zipfile_serialization=False)
    torch.save(head_state(), "vgg.pth", _use_new_zipfile_serialization=False)
    assert LPIPS.from_files(Path("vgg16.pth"), Path("vgg.pth")).heads[0].sum() > 0


@pytest.mark.parametrize(
    ("vgg", "heads", "message"),
    [
        (
            {"features.28.weight": None},
            {},
            "vgg16.pth: not the weights of VGG16: `features.28.weight` is missing",
        ),
        ({"features.0.bias": torch.zeros(3)}, {}, r"`features.0.bias` is \(3,\), not \(64,\)"),
        ({"features.0.bias": torch.full((64,), torch.inf)}, {}, "holds values that are not finite"),
        (
            {},
            {"lin3.model.1.weight": None},
            "vgg.pth: not the weights of the linear heads of LPIPS: `lin3.model.1",
        ),
        ({}, {"lin3.model.1.weight": torch.zeros(512)}, "`lin3.model.1.weight` is"),
        ({"x": Call(os.mkdir, "executed")}, {}, "refused: the file wants to build"),
    ],
)
def test_files_of_other_things_are_refused(vgg, heads, message):
    for name, state, changes in (("vgg16.pth", vgg_state(), vgg), ("vgg.pth", head_state(), heads)):
        torch.save({key: value for key, value in (state | changes).items() if value is not None}, name)
    with pytest.raises(CheckpointError, match=message):
        LPIPS.from_files(Path("vgg16.pth"), Path("vgg.pth"))
    assert sorted(os.listdir()) == ["vgg.pth", "vgg16.pth"]


def test_a_missing_file_is_refused_by_its_name():
    with pytest.raises(CheckpointError, match="none.pth: no such file"):
        LPIPS.from_files(Path("none.pth"), Path("vgg.pth"))
