"""TransGAN: sizes and outputs of the released networks, and what every configuration promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from gtool.errors import CheckpointError
from gtool.models.transgan import network as transgan
from gtool.models.transgan.config import PRESETS, RESOLUTIONS, TransGANConfig
from gtool.models.transgan.network import Discriminator, Generator, build
from gtool.models.transgan.released import rename_released
from tests.helpers.released_discriminators import (
    describe_transgan_discriminator,
    rename_transgan_discriminator,
)
from tests.helpers.transgan_formula import formula_noise, formula_tensor, formula_weights, summary

GOLDEN = Path(__file__).parent / "golden"
RELEASED = ("cifar10", "stl10", "church256", "celebahq256")

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
VARIANTS |= {"overlap": OVERLAP, "patches": PATCHES}


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


def _counts(config: TransGANConfig) -> list[int]:
    with torch.device("meta"):
        return [sum(p.numel() for p in network.parameters()) for network in build(config)]


# The released networks.

# Counted by building the released classes. Theirs have more where a parameter never receives a gradient: 20
# noise strengths inside cross-attention (CelebA-HQ generator); CIFAR-10 and STL-10 discriminators draw
# noise in 7 blocks.
PARAMETERS = {
    "cifar10": (83_312_495, 10_210_400 - 7),
    "stl10": (168_466_623, 10_341_536 - 7),
    "church256": (205_291_952, 17_754_569),
    "celebahq256": (212_903_275 - 20, 13_334_593),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_networks_have_the_released_parameter_counts(name):
    assert tuple(_counts(TransGANConfig.preset(name))) == PARAMETERS[name]


def test_version_1_differs_from_its_sizes_by_the_relative_tables():
    with_tables = {"preset": "v1-s", "generator": {"relative_position": "learned"}}
    count = _counts(TransGANConfig(**with_tables))[0]
    assert abs(count / 18.68e6 - 1) < 1e-3


@pytest.mark.parametrize("name", RELEASED)
def test_outputs_equal_those_of_the_released_classes(name):
    known = json.loads((GOLDEN / f"transgan_{name}.json").read_text(encoding="utf-8"))
    weights = {key: formula_weights(known[key]["shapes"]) for key in ("generator", "discriminator")}
    config, tensors = rename_released(weights["generator"])
    described = describe_transgan_discriminator(weights["discriminator"])
    config = TransGANConfig.model_validate(config.model_dump() | {"discriminator": described})
    generator, discriminator = Generator(config), Discriminator(config)
    generator.load_state_dict(tensors)
    discriminator.load_state_dict(rename_transgan_discriminator(weights["discriminator"]))
    with torch.no_grad():
        images = generator(formula_tensor((1, *generator.z_shape), 0), _noise(generator, 1))
        logits = discriminator(formula_tensor(images.shape, 1), _noise(discriminator, 1))
    made = summary(images)
    assert made["values"] == pytest.approx(known["generator"]["images"]["values"], rel=1e-4, abs=1e-5)
    assert [made["mean"], made["std"]] == pytest.approx(
        [known["generator"]["images"][key] for key in ("mean", "std")], rel=1e-4, abs=1e-6
    )
    assert logits.tolist() == pytest.approx(known["discriminator"]["logits"], rel=1e-4)


def _state(name: str = "cifar10") -> dict[str, torch.Tensor]:
    known = json.loads((GOLDEN / f"transgan_{name}.json").read_text(encoding="utf-8"))
    return formula_weights(known["generator"]["shapes"])


def test_importer_pairs_a_generator_with_a_discriminator_of_its_resolution():
    config, tensors = rename_released(_state("church256"))
    assert config.resolution == 256
    assert config.generator.noise
    Generator(config).load_state_dict(tensors)


def test_importer_drops_what_the_release_never_reads():
    state = _state("celebahq256")
    index = {"blocks_2.block.0.attn.relative_position_index": torch.zeros(256, 256)}
    assert rename_released(state | index)[1].keys() == rename_released(state)[1].keys()
    assert any("cross_attention.noise" in name for name in state)


def test_importer_names_what_it_does_not_know():
    with pytest.raises(CheckpointError, match=r"`blocks\.block\.0\.gate"):
        rename_released(_state() | {"blocks.block.0.gate": torch.zeros(1)})


@pytest.mark.parametrize("missing", ["l1.weight", "pos_embed_1"])
def test_importer_names_what_is_missing(missing):
    state = _state()
    del state[missing]
    with pytest.raises(CheckpointError, match=missing):
        rename_released(state)


# The schema.


def test_defaults_are_the_cifar10_release():
    assert TransGANConfig() == TransGANConfig.preset("cifar10")


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name):
    config = TransGANConfig.preset(name)
    assert TransGANConfig(**json.loads(config.model_dump_json())) == config
    assert TransGANConfig(**config.model_dump(mode="json", exclude_none=True)) == config


def test_a_preset_gives_way_to_the_keys_beside_it():
    config = TransGANConfig(preset="stl10", generator={"norm": "ln"})
    assert config.generator.norm == "ln"
    assert config.generator.stages == TransGANConfig.preset("stl10").generator.stages


STAGES = [{"side": 8, "channels": 64, "depth": 1}, {"side": 16, "channels": 16, "depth": 1}]
REFUSED = {
    "resolution 64 cannot be made: generator.stages of sides 8, 16, 32 make 32 x 32": {"resolution": 64},
    "preset = 'church' does not exist; known: cifar10": {"preset": "church"},
    "side 24 after 8; each doubles": {"generator": {"stages": [STAGES[0], {**STAGES[1], "side": 24}]}},
    "24 channels cannot be shared by heads": {
        "generator": {"stages": [{"side": 32, "channels": 24, "depth": 1}], "head_width": 32}
    },
    "channels cannot fall": {
        "discriminator": {"stages": [{**STAGES[1]}, {"side": 8, "channels": 8, "depth": 1}]}
    },
    "cannot be cut into 12 x 12": {"discriminator": {"stages": [{"side": 12, "channels": 384, "depth": 3}]}},
    "full_blocks exceeds depth": {"discriminator": {"stages": [{**STAGES[0], "full_blocks": 2}]}},
    "overlap needs an even patch": {
        "discriminator": {"stages": [{**STAGES[1], "side": 32, "overlap": True}]}
    },
    "head_side = 3": {"discriminator": {"head": "pooled", "head_side": 3}},
    "needs a norm per token": {"generator": {"modulation": "gain", "norm": "none"}},
    "nothing below it": {"generator": {"stages": [{**STAGES[0], "side": 32, "upsample": "bicubic"}]}},
    "pixelshuffle needs a multiple of 4": {
        "generator": {"heads": 2, "stages": [{**STAGES[0], "channels": 18}, STAGES[1]]}
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_impossible_networks_are_refused_with_a_reason(message):
    with pytest.raises(ValidationError) as refused:
        TransGANConfig(**REFUSED[message])
    assert message in str(refused.value)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("name", ["cifar10", "stl10", "church256", "cpu32"])
def test_any_networks_can_be_laid_out_for_any_usual_resolution(name, resolution):
    config = TransGANConfig.preset(name).at_resolution(resolution)
    assert config.resolution == config.generator.resolution == resolution
    assert config.discriminator.stages[0].side <= 64
    assert resolution // config.discriminator.stages[0].side >= 2
    assert config.discriminator.stages[-1].side >= 8


def test_at_resolution_keeps_what_it_can():
    config = TransGANConfig.preset("cpu32").at_resolution(64)
    assert config.generator.stages[:3] == TransGANConfig.preset("cpu32").generator.stages
    assert config.generator.stages[3].channels == 32
    assert [stage.side for stage in config.discriminator.stages] == [16, 8]


@pytest.mark.parametrize("resolution", [40, 31, 1024])
def test_at_resolution_refuses_with_one_line(resolution):
    with pytest.raises(ValueError, match=f"resolution {resolution} cannot be made") as refused:
        TransGANConfig().at_resolution(resolution)
    assert "\n" not in str(refused.value)


def test_schema_needs_no_torch():
    code = "import sys, gtool.models.transgan.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


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


def test_module_names_the_count_of_its_default():
    words = (transgan.__doc__ or "").replace(",", "")
    assert all(str(count) in words for count in PARAMETERS["cifar10"])
