"""TransGAN: what networks of every configuration promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gtool.models.transgan.config import RESOLUTIONS, TransGANConfig
from gtool.models.transgan.network import Discriminator, Generator, build
from tests.helpers.transgan_formula import formula_noise

# The smallest networks of every kind, as changes of `_tiny`.
VARIANTS: dict[str, dict[str, Any]] = {
    "released": {},
    "pixel norm": {"generator": {"norm": "pn"}, "discriminator": {"norm": "pn"}},
    "layer": {"generator": {"norm": "layer"}, "discriminator": {"norm": "layer"}},
    "no norm": {"generator": {"norm": "none"}, "discriminator": {"norm": "none"}},
    "noise": {"generator": {"noise": True}, "discriminator": {"noise": True}},
    "bicubic": {"generator": {"upsample": "bicubic"}},
    "cross-attention": {"generator": {"modulation": "cross-attention", "norm": "pn"}},
    "gain": {"generator": {"modulation": "gain", "upsample": "bilinear", "relative_position": "local"}},
    "first positions": {"generator": {"positions": "first-stage", "upsample": "bilinear"}},
    "tiles": {
        "generator": {"window": 4, "full_attention_until": 4},
        "discriminator": {"window": 2, "full_attention_until": 2},
    },
    "output": {"generator": {"output": "tanh"}},
    "pooled": {"discriminator": {"head": "pooled", "activation": "gelu", "init": "fan-in"}},
    "leaky": {"generator": {"activation": "leaky-relu"}, "discriminator": {"activation": "leaky-relu"}},
    "deep head": {"discriminator": {"head_depth": 3, "relative_position": "none"}},
}
OVERLAP = {
    "discriminator": {
        "stages": [
            {"side": 8, "channels": 8, "depth": 2, "overlap": True, "full_blocks": 1},
            {"side": 4, "channels": 8, "depth": 0},
        ],
        "full_attention_until": 4,
        "window": 4,
    }
}
PATCHES = {
    "generator": {
        "stages": [
            {"side": 4, "channels": 16, "depth": 1},
            {"side": 8, "channels": 8, "depth": 1, "low_pass": True},
        ],
        "patch_size": 2,
    }
}
SMOOTH_PATCHES = {"generator": {**PATCHES["generator"], "smooth": True}}
VARIANTS |= {"overlap": OVERLAP, "patches": PATCHES, "smooth patches": SMOOTH_PATCHES}


def _tiny(**changes: Any) -> TransGANConfig:
    generator = {
        "stages": [
            {"side": 4, "channels": 32, "depth": 1},
            {"side": 8, "channels": 16, "depth": 1},
            {"side": 16, "channels": 4, "depth": 2},
        ],
        "heads": 2,
    }
    discriminator = {
        "stages": [{"side": 8, "channels": 8, "depth": 1}, {"side": 4, "channels": 12, "depth": 1}],
        "heads": 2,
    }
    values = {"resolution": 16, "z_dim": 6, "generator": generator, "discriminator": discriminator}
    for key, change in changes.items():
        values[key] = {**values[key], **change} if isinstance(change, dict) else change
    return TransGANConfig(**values)


def _networks(variant: str = "released", seed: int = 0) -> tuple[Generator, Discriminator]:
    torch.manual_seed(seed)
    return build(_tiny(**VARIANTS[variant]))


def _noise(network: Any, images: int) -> list[torch.Tensor] | None:
    return formula_noise(network.noise_shapes, images) or None


# What every network promises.


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_of_images_and_logits(variant):
    generator, discriminator = _networks(variant)
    images = generator(torch.randn(3, 6), _noise(generator, 3))
    assert images.shape == (3, 3, 16, 16)
    logits = discriminator(images, _noise(discriminator, 3))
    assert logits.shape == (3,)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("resolution", RESOLUTIONS[:-2])
def test_networks_work_at_every_resolution(resolution):
    small = {
        "preset": "cpu32",
        "z_dim": 4,
        "generator": {"head_width": 4},
        "discriminator": {"head_width": 4},
    }
    stages = [{"side": 8, "channels": 8, "depth": 1}, {"side": 16, "channels": 4, "depth": 1}]
    small["generator"] |= {"stages": [*stages, {"side": 32, "channels": 4, "depth": 1}]}
    small["discriminator"] |= {"stages": [{"side": 8, "channels": 8, "depth": 1}]}
    generator, discriminator = build(TransGANConfig(**small).at_resolution(resolution))
    with torch.no_grad():
        images = generator(torch.randn(1, 4))
        assert images.shape == (1, 3, resolution, resolution)
        assert discriminator(images).shape == (1,)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_parameter(variant):
    generator, discriminator = _networks(variant)
    images = generator(torch.randn(2, 6), _noise(generator, 2))
    (discriminator(images, _noise(discriminator, 2)) * torch.tensor([1.0, -2.0])).sum().backward()
    silent = [
        name
        for network in (generator, discriminator)
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    # A context token's key moves nothing while all values are equal; the bias of a mean-free sum has none
    # either.
    assert silent == []


# With leaky ReLU the gradient at the images jumps, so that differences say nothing.
SMOOTH = [
    name for name in VARIANTS if name != "leaky" and ("discriminator" in VARIANTS[name] or not VARIANTS[name])
]


@pytest.mark.parametrize("variant", SMOOTH)
def test_a_gradient_penalty_has_the_right_gradient(variant):
    discriminator = _networks(variant)[1].double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)

    def penalty() -> torch.Tensor:
        inputs = images.clone().requires_grad_()
        logits = discriminator(inputs)
        (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    weight = discriminator.stages[0].blocks[0].mlp.expand.weight
    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn_like(weight)
    values = []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            weight += step * direction
        values.append(penalty().item())
        with torch.no_grad():
            weight -= step * direction
    expected = (values[0] - values[1]) / 2e-4
    assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_positions_of_the_first_stage_alone_make_no_pattern_of_pixels():
    """Free numbers for every pixel are noise at the start, which a small discriminator may never see."""
    roughness = {}
    for positions in ("every-stage", "first-stage"):
        torch.manual_seed(0)
        generator = TransGANConfig.preset("cpu32").generator.model_copy(update={"positions": positions})
        network = Generator(TransGANConfig.preset("cpu32").model_copy(update={"generator": generator}))
        assert sum(name.endswith(".position") for name, _ in network.named_parameters()) == (
            3 if positions == "every-stage" else 1
        )
        with torch.no_grad():
            image = network(torch.randn(4, 64, generator=torch.Generator().manual_seed(1)))
        smooth = torch.nn.functional.avg_pool2d(image, 3, 1)
        roughness[positions] = (image[..., 1:-1, 1:-1] - smooth).std() / image.std()
    assert roughness["first-stage"] < 0.8 * roughness["every-stage"]


def test_a_frozen_discriminator_passes_gradients_on_and_keeps_none():
    generator, discriminator = _networks()
    discriminator.requires_grad_(False)
    discriminator(generator(torch.randn(2, 6))).sum().backward()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(parameter.grad is not None for parameter in generator.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_does_not_depend_on_its_batch(variant):
    generator, discriminator = _networks(variant)
    z = torch.randn(4, 6)
    noise = _noise(generator, 4)
    with torch.no_grad():
        images = generator(z, noise)
        alone = generator(z[2:3], noise and [values[2:3] for values in noise])
        torch.testing.assert_close(images[2:3], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(discriminator(images)[2:3], discriminator(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["released", "gain", "cross-attention", "pooled"])
def test_bf16_stays_close_to_fp32(variant):
    generator, discriminator = _networks(variant)
    z, images = torch.randn(8, 6), torch.randn(8, 3, 16, 16)
    exact = generator(z), discriminator(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = generator(z), discriminator(images)
    for a, b in zip(exact, rough, strict=True):
        assert (a - b).norm() < 0.03 * a.norm()


def test_images_and_logits_are_fp32_under_autocast():
    generator, discriminator = _networks()
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(torch.randn(2, 6))
        assert images.dtype == discriminator(images).dtype == torch.float32


@pytest.mark.parametrize("variant", ["released", "pooled", "layer"])
def test_a_penalty_in_bf16_points_where_it_does_in_fp32(variant):
    discriminator = _networks(variant)[1]
    images = torch.randn(16, 3, 16, 16).requires_grad_()

    def gradient(bf16: bool) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = discriminator(images)
        (of_images,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        penalty = (of_images.flatten(1).norm(dim=1) - 1).square().mean()
        found = torch.autograd.grad(penalty, list(discriminator.parameters()), allow_unused=True)
        return torch.cat([value.flatten() for value in found if value is not None]).double()

    assert torch.cosine_similarity(gradient(True), gradient(False), dim=0) > 0.99


def test_no_noise_is_zero_noise():
    generator, _ = _networks("noise")
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            parameter += 1.0 if name.endswith("noise_strength") else 0.0
        z = torch.randn(2, 6)
        zeros = [torch.zeros(2, *shape) for shape in generator.noise_shapes]
        assert torch.equal(generator(z), generator(z, zeros))
        assert not torch.equal(generator(z), generator(z, _noise(generator, 2)))


def test_a_wrong_number_of_noise_inputs_is_refused():
    generator, discriminator = _networks("noise")
    with pytest.raises(ValueError, match="1 noise inputs for a network that takes 4"):
        generator(torch.randn(1, 6), [torch.zeros(1, 16, 1)])
    with pytest.raises(ValueError, match="1 noise inputs"):
        discriminator(torch.randn(1, 3, 16, 16), [torch.zeros(1, 16, 1)])


def test_tanh_bounds_images():
    generator, _ = _networks("output")
    assert generator(30 * torch.randn(2, 6)).abs().max() <= 1


# The tricks of version 1.


def test_locality_limits_the_last_block_and_can_be_lifted():
    generator, _ = _networks()
    z = torch.randn(2, 6)
    free = generator(z)
    generator.set_locality(2)
    assert not torch.equal(generator(z), free)
    assert [block.attention.mask is None for block in generator.stages[-1].blocks] == [True, False]
    assert generator.state_dict().keys() == _networks()[0].state_dict().keys()
    generator.set_locality(None)
    assert torch.equal(generator(z), free)


def test_locality_that_spans_the_map_limits_nothing():
    generator, _ = _networks()
    z = torch.randn(2, 6)
    free = generator(z)
    generator.set_locality(16)
    torch.testing.assert_close(generator(z), free)


def test_super_resolution_makes_an_image_of_every_image():
    generator = Generator(_tiny(generator={"super_resolution": True}))
    images = torch.randn(2, 3, 16, 16)
    made = generator.super_resolve(images)
    assert made.shape == images.shape
    made.square().mean().backward()
    assert generator.low_input.weight.grad.abs().sum() > 0


def test_super_resolution_is_built_only_when_asked_for():
    generator, _ = _networks()
    assert not any(name.startswith("low_input") for name, _ in generator.named_parameters())
    with pytest.raises(ValueError, match="super_resolution"):
        generator.super_resolve(torch.zeros(1, 3, 16, 16))


# Initialisation.


def test_discriminator_starts_as_released():
    discriminator = Discriminator(TransGANConfig())
    for name, module in discriminator.named_modules():
        if isinstance(module, nn.Linear) and module.weight.numel() > 1000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15), name
            assert module.bias is None or not module.bias.any()
    embed = discriminator.stages[0].embed.weight
    bound = (6 / (embed[0].numel() + embed.shape[0] * embed[0, 0].numel())) ** 0.5
    assert 0.95 * bound < embed.abs().max() <= bound


def test_generator_starts_healthy():
    """1.28 was measured on the released CIFAR-10 generator with the initialisation of its training script."""
    torch.manual_seed(0)
    generator = Generator(TransGANConfig())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images = generator(torch.randn(4, 256)).float()
    assert images.std().item() == pytest.approx(1.28, rel=0.1)
    assert images.std(dim=0).mean() > 0.6 * images.std()
