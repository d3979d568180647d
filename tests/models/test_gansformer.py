"""GANsformer: sizes and outputs of the released networks, and what every configuration promises."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from gtool.export.files import write_and_check
from gtool.export.parts import of_generator
from gtool.models.gansformer.config import GANsformerConfig
from gtool.models.gansformer.network import Discriminator, Generator, build
from gtool.models.gansformer.released import rename_released
from tests.helpers.gansformer_formula import chirp, formula_noise, formula_weights
from tests.helpers.gansformers import KINDS, generator_of, latents, maps_of, networks, noise_for, tiny
from tests.helpers.released_discriminators import rename_residual_discriminator
from tests.helpers.transgan_formula import summary

GOLDEN = json.loads((Path(__file__).parent / "golden" / "gansformer.json").read_text(encoding="utf-8"))


# The released networks.

CLEVR = {"components": 8, "component_dim": 16}
CLEVR |= {"mapping": {"self_attention": False}, "synthesis": {"style": False}}
# Counted by building the released classes: generator, the same for CLEVR, discriminator.
RELEASED = {
    32: (24_143_178, 23_742_890, 21_507_073),
    64: (30_379_340, 29_880_748, 26_488_833),
    128: (30_866_766, 30_323_118, 28_389_121),
    256: (30_903_632, 30_357_936, 28_864_129),
}


def never_read(config: GANsformerConfig) -> int:
    """Count what the released generator builds and never uses: with learned centroids keys and places of components,
    and without styles all that would make them."""
    width = config.component_dim
    layers = [side for side in config.attended_sides for _ in range(1 if side == 4 else 2)]
    count = sum((width + 1 + config.position_dim + 1) * config.channels(side) for side in layers)
    if config.synthesis.style:
        return count
    count += config.components * width  # places: neither keys nor the mapping use them
    count += (config.mapping.layers + 1) * (width + 1) * width  # the mapping of the global component
    inputs = [side if place else max(side // 2, 4) for side in config.sides for place in (0, 1)]
    inputs = [
        *inputs[1:],
        config.resolution,
        config.resolution,
    ]  # 4 x 4 has one; the last one, and the colours
    return count + sum((width + 1) * config.channels(side) for side in inputs)


@pytest.mark.parametrize("clevr", [False, True])
@pytest.mark.parametrize("resolution", RELEASED)
def test_parameter_counts_are_the_released_less_what_is_never_read(resolution, clevr):
    config = GANsformerConfig(resolution=resolution, attention="centroid", **(CLEVR if clevr else {}))
    with torch.device("meta"):
        counts = [sum(p.numel() for p in network.parameters()) for network in build(config)]
    generator, for_clevr, discriminator = RELEASED[resolution]
    assert counts == [(for_clevr if clevr else generator) - never_read(config), discriminator]


@pytest.mark.parametrize("name", GOLDEN["generators"])
def test_images_equal_those_of_the_released_classes(name):
    known = GOLDEN["generators"][name]
    config, tensors = rename_released(formula_weights(known["shapes"]), known["settings"])
    generator = Generator(config).eval()
    generator.load_state_dict(tensors)
    with torch.no_grad():
        images = generator(chirp((2, *generator.z_shape), 0), formula_noise(generator.noise_shapes, 2))
    made = summary(images)
    tolerance = 1e-4 * max(map(abs, known["images"]["values"]))
    for what in ("values", "mean", "std"):
        assert made[what] == pytest.approx(known["images"][what], rel=1e-4, abs=tolerance)


def test_logits_equal_those_of_the_released_classes():
    known = GOLDEN["discriminator"]
    config = tiny(discriminator={"channel_base": 128, "channel_max": 16, "group_size": 4})
    discriminator = Discriminator(config)
    discriminator.load_state_dict(rename_residual_discriminator(formula_weights(known["shapes"])))
    with torch.no_grad():
        logits = discriminator(chirp((4, 3, 16, 16), 1, 0.4))
    assert logits.tolist() == pytest.approx(known["logits"], rel=1e-4)


# What every configuration promises.


def variants() -> dict[str, dict[str, Any]]:
    """Name every value of every choice, with each kind of attention that it can come with."""
    choices: dict[str, dict[str, Any]] = {
        "plain": {},
        "heads": {"synthesis": {"heads": 2}},
        "iterations": {"synthesis": {"iterations": 3}},
        "gates": {"synthesis": {"gate_pixels": True}},
        "gates without positions": {"synthesis": {"gate_pixels": True, "positions": "none"}},
        "no component positions": {"synthesis": {"component_positions": False}},
        "no positions at all": {"synthesis": {"positions": "none", "component_positions": False}},
        "no style": {"synthesis": {"style": False}},
        "no style, latent stem": {"synthesis": {"style": False, "stem": "latent"}},
        "as CLEVR": {"synthesis": {"style": False}, "mapping": {"self_attention": False}},
    }
    for name in ("mul", "add", "both"):
        for norm in ("layer", "instance", "none"):
            choices[f"{name}, norm {norm}"] = {"synthesis": {"integration": name, "norm": norm}}
    for name in ("sinus", "fourier", "trainable2d", "none"):
        choices[f"positions {name}"] = {"synthesis": {"positions": name}}
    found = {
        f"{kind}, {name}": {"attention": kind, **change} for kind in KINDS for name, change in choices.items()
    }
    for name, change in {
        "skip": {"synthesis": {"architecture": "skip"}},
        "skip, latent stem": {"synthesis": {"architecture": "skip", "stem": "latent"}},
        "small": {"synthesis": {"last_conv": False, "noise": False, "rgb_gain": 0.5, "start": 8}},
        "plain mapping": {"mapping": {"residual": False}},
        "z of the global as it is": {"mapping": {"normalize_global": False}},
        "dropout": {"synthesis": {"dropout": 0.1}},
    }.items():
        found[name] = change
    for name, change in {"": {}, ", skip": {"architecture": "skip"}, ", GAN": GAN}.items():
        found[f"none{name}"] = {"attention": "none", "synthesis": change}
    return found


GAN = {"style": False, "stem": "latent"}
VARIANTS = variants()


def shifts_all_scores_alike(network: nn.Module, name: str) -> bool:
    """Whether a parameter adds one number to the scores of all that compete, which softmax takes out again.

    It is there because the release has it, and because a layer norm is one with it.
    """
    if name.endswith((".key.bias", ".key_position.bias")):
        layer = network.get_submodule(name.rsplit(".", 2)[0])
        return not hasattr(layer, "settings") or (layer.gather is None and layer.centroids is None)
    if name.endswith(".key_norm.bias"):
        return network.get_submodule(name.rsplit(".", 2)[0]).settings.iterations == 1
    return name.startswith("readers.") and name.endswith("place.bias")


def require_gradients(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not shifts_all_scores_alike(network, name):
            assert parameter.grad.abs().max() > 1e-7, name


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_makes_images_and_every_parameter_of_it_learns(name):
    generator, _ = networks(tiny(**VARIANTS[name]))
    images = generator(latents(generator), noise_for(generator))
    assert images.shape == (2, 3, 16, 16)
    (images * torch.randn_like(images)).sum().backward()
    require_gradients(generator)


DISCRIMINATORS = {"released": {}, "no spread": {"group_size": 1}, "more spread": {"group_channels": 4}}


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_discriminator_judges_images_and_every_parameter_of_it_learns(name):
    _, discriminator = networks(tiny(discriminator=DISCRIMINATORS[name]))
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    logits = discriminator(images)
    assert logits.shape == (4,)
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    (logits.square().sum() + slope.square().sum()).backward()
    require_gradients(discriminator)


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_an_image_does_not_depend_on_its_batch(kind):
    generator = generator_of(attention=kind)
    z, noise = latents(generator, 5), noise_for(generator, 5)
    with torch.no_grad():
        together = generator(z, noise)
        alone = generator(z[3:4], [x[3:4] for x in noise])
    torch.testing.assert_close(alone[0], together[3], rtol=1e-4, atol=1e-4)


def test_logits_depend_on_their_own_group_only():
    _, discriminator = networks(tiny())
    images = torch.randn(6, 3, 16, 16)
    with torch.no_grad():
        together = discriminator(images)
        torch.testing.assert_close(discriminator(images[2:4]), together[2:4], rtol=1e-4, atol=1e-5)
        assert (discriminator(images[1:3]) - together[1:3]).abs().max() > 1e-4


def test_images_that_fill_no_groups_are_refused():
    _, discriminator = networks(tiny())
    with pytest.raises(ValueError, match="5 images are no multiple of group_size = 2"):
        discriminator(torch.zeros(5, 3, 16, 16))
    assert discriminator(torch.zeros(1, 3, 16, 16)).shape == (1,)


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_half_precision_makes_nearly_the_same(kind):
    generator, discriminator = networks(tiny(attention=kind))
    z, noise = latents(generator, 4), noise_for(generator, 4)
    with torch.no_grad():
        exact = generator(z, noise)
        of_exact = discriminator(exact)
        with torch.autocast("cpu", torch.bfloat16):
            rough, of_rough = generator(z, noise), discriminator(exact)
    assert rough.dtype == of_rough.dtype == torch.float32
    assert (rough - exact).square().mean().sqrt() < 0.05 * exact.std()
    assert (of_rough - of_exact).abs().max() < 0.05 * of_exact.abs().max()


# Noise, layers and mixing.


def test_noise_is_what_is_handed_in():
    generator = generator_of()
    z, noise = latents(generator), noise_for(generator)
    assert generator.noise_shapes == ((1, 4, 4), (1, 8, 8), (1, 8, 8), (1, 16, 16), (1, 16, 16))
    with torch.no_grad():
        silent = generator(z)
        torch.testing.assert_close(generator(z, [torch.zeros_like(x) for x in noise]), silent)
        assert torch.equal(generator(z), silent)
        for place in range(len(noise)):
            one = [x if i == place else torch.zeros_like(x) for i, x in enumerate(noise)]
            assert (generator(z, one) - silent).abs().max() > 1e-3


def test_noise_begins_without_effect():
    torch.manual_seed(0)
    generator = Generator(tiny())
    z = latents(generator)
    assert torch.equal(generator(z, noise_for(generator)), generator(z))


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({}, 7),
        ({"last_conv": False}, 6),
        ({"stem": "latent"}, 8),
        ({"architecture": "skip"}, 7),
    ],
)
def test_every_layer_takes_a_w_of_its_own(changes, layers):
    """As many as the release has, 2 log2(R) - 1, and one more for a stem that is made of a w."""
    generator = generator_of(synthesis=changes)
    assert generator.num_ws == layers
    ws = generator.broadcast(generator.mapping(latents(generator))).clone().requires_grad_()
    images, _ = generator.synthesis(ws)
    (slope,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), ws)
    assert slope.shape == (2, layers, 4, 8)
    assert (slope[:, :, -1].abs().amax(dim=(0, 2)) > 0).all()


def test_mixing_takes_later_layers_and_later_components_from_the_second():
    generator = generator_of()
    first, second = latents(generator, 3), latents(generator, 3, seed=7)
    layers, components = torch.tensor([0, 3, generator.num_ws]), torch.tensor([4, 2, 4])
    with torch.no_grad():
        images, ws = generator(
            first, second=second, from_layer=layers, from_component=components, with_ws=True
        )
        w, other = generator.mapping(first), generator.mapping(second)
        expected = generator.synthesis(ws)[0]
    torch.testing.assert_close(images, expected)
    assert torch.equal(ws[0], other[0].expand_as(ws[0]))
    assert torch.equal(ws[2], w[2].expand_as(ws[2]))
    assert torch.equal(ws[1, :3, :2], w[1, :2].expand(3, -1, -1))
    assert torch.equal(ws[1, :3, 2:], other[1, 2:].expand(3, -1, -1))
    assert torch.equal(ws[1, 3:], other[1].expand(4, -1, -1))


@pytest.mark.parametrize("given", ["from_layer", "from_component"])
def test_mixing_by_one_axis_leaves_the_other_alone(given):
    generator = generator_of()
    first, second = latents(generator), latents(generator, seed=7)
    all_of_it = {"from_layer": generator.num_ws, "from_component": 4}[given]
    with torch.no_grad():
        for start, expected in ((0, second), (all_of_it, first)):
            made = generator(first, second=second, **{given: torch.full((2,), start)})
            torch.testing.assert_close(made, generator(expected))


# Attention.


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_maps_have_the_size_of_their_layer_and_sum_to_one(kind, heads):
    generator = generator_of(attention=kind, synthesis={"heads": heads})
    assert generator.attention_layers == ("4a", "8a", "8b", "16a", "16b")
    maps = maps_of(generator, latents(generator))
    assert [tuple(m.shape) for m in maps] == [(2, heads, 3, s, s) for s in (4, 8, 8, 16, 16)]
    for attention in maps:
        assert (attention >= 0).all()
        torch.testing.assert_close(attention.sum(dim=2), torch.ones_like(attention[:, :, 0]))


def test_maps_are_made_only_where_attention_is_and_only_when_asked_for():
    generator = generator_of(synthesis={"start": 8, "end": 8})
    ws = generator.broadcast(generator.mapping(latents(generator)))
    assert generator.attention_layers == ("8a", "8b")
    assert generator.synthesis(ws)[1] == ()
    assert len(generator.synthesis(ws, None, True)[1]) == 2
    torch.testing.assert_close(generator.synthesis(ws)[0], generator.synthesis(ws, None, True)[0])
    plain = generator_of(attention="none")
    assert plain.attention_layers == ()


def changed_locals(generator: Generator) -> list[float]:
    """Return how far each layer's maps move when only the local components change."""
    z, noise = latents(generator), noise_for(generator)
    moved = latents(generator, seed=9)
    moved[:, -1] = z[:, -1]
    pairs = zip(maps_of(generator, z, noise), maps_of(generator, moved, noise), strict=True)
    return [float((a - b).abs().max()) for a, b in pairs]


@pytest.mark.parametrize("style", [True, False])
@pytest.mark.parametrize("kind", ["duplex", "simplex"])
def test_maps_of_every_layer_follow_the_local_latents(kind, style):
    generator = generator_of(attention=kind, synthesis={"style": style})
    assert min(changed_locals(generator)) > 1e-3


@pytest.mark.parametrize("style", [True, False])
def test_released_centroids_leave_the_first_map_to_chance(style):
    """For the record: at 4 x 4 the released attention compares a constant with constants (sheet 0.4)."""
    generator = generator_of(attention="centroid", synthesis={"style": style})
    first, *others = changed_locals(generator)
    assert first == 0
    assert min(others) > 1e-3
    if not style:
        everything = maps_of(generator, latents(generator, 6))[0]
        assert torch.equal(everything, everything[:1].expand_as(everything))


@pytest.mark.parametrize("kind", ["duplex", "simplex"])
def test_without_positions_components_can_change_places(kind):
    generator = generator_of(attention=kind, synthesis={"component_positions": False})
    z, order = latents(generator), [2, 0, 1]
    swapped = z[:, [*order, 3]]
    with torch.no_grad():
        torch.testing.assert_close(generator(swapped), generator(z), rtol=1e-4, atol=1e-4)
    for before, after in zip(maps_of(generator, z), maps_of(generator, swapped), strict=True):
        torch.testing.assert_close(after, before[:, :, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"attention": "centroid"}, {"attention": "duplex"}])
def test_positions_and_centroids_tell_components_apart(changes):
    generator = generator_of(**changes)
    z = latents(generator)
    with torch.no_grad():
        assert (generator(z[:, [2, 0, 1, 3]]) - generator(z)).abs().max() > 1e-2


def test_every_component_changes_the_image():
    generator = generator_of()
    z = latents(generator)
    with torch.no_grad():
        image = generator(z)
        for place in range(4):
            moved = z.clone()
            moved[:, place] += 1
            assert (generator(moved) - image).abs().max() > 1e-3


def test_dropout_is_for_training():
    generator = generator_of(synthesis={"dropout": 0.5})
    z = latents(generator)
    with torch.no_grad():
        assert torch.equal(generator(z), generator(z))
        generator.train()
        assert not torch.equal(generator(z), generator(z))


# Files for other programs.


@pytest.mark.parametrize(("attention", "kind"), [("duplex", "onnx"), ("centroid", "pt2"), ("none", "pt2")])
def test_exported_files_make_the_images_of_torch(attention, kind, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    # Exporting takes time by the number of layers: of the costliest, two attend, which is enough to hand centroids on.
    small = {"resolution": 8, "mapping": {"layers": 2}}
    synthesis = {"heads": 2} | ({"start": 8} if attention == "duplex" else {})
    generator = generator_of(attention=attention, synthesis=synthesis, **small).requires_grad_(False)
    meta = {"model": "gansformer", "config": generator.config.model_dump(mode="json")}
    exportable = of_generator(generator, meta)["generator"]
    shape = "(N, 4, 8)" if attention != "none" else "(N, 1, 24)"
    assert exportable.description["input"].startswith(f"z {shape} float32")
    assert write_and_check(exportable, tmp_path / f"file.{kind}", kind) < 1e-4


# Configs.

BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "odd resolution": ({"resolution": 24}, "resolution 24 cannot be made: it is no power of two"),
    "heads": ({"synthesis": {"heads": 3}}, "synthesis.heads = 3 does not divide the 8 channels of side 4"),
    "nothing attended": ({"synthesis": {"start": 64}}, "attention = 'none' leaves attention out"),
    "order": ({"synthesis": {"start": 16, "end": 8}}, "synthesis.end = 8 is below synthesis.start = 16"),
    "position width": ({"synthesis": {"position_dim": 6}}, "position_dim = 6 is no multiple of 4"),
    "component width": ({"component_dim": 6}, "component_dim = 6 is no multiple of 4"),
    "heads of the mapping": (
        {"component_dim": 12, "synthesis": {"heads": 8, "channel_base": 128}},
        "synthesis.heads = 8 does not divide model.component_dim = 12",
    ),
    "kind": ({"attention": "duplo"}, "Input should be 'duplex', 'simplex', 'centroid' or 'none'"),
    "unknown": ({"synthesis": {"head": 2}}, "Extra inputs are not permitted"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_config_that_means_nothing_says_why_in_one_line(name):
    changes, message = BAD_CONFIGS[name]
    with pytest.raises(ValidationError) as caught:
        tiny(**changes)
    (error,) = caught.value.errors()
    assert message in error["msg"]
    assert "\n" not in error["msg"]


def test_without_attention_all_components_are_one_latent():
    assert tiny(attention="none", components=4, component_dim=6).z_shape == (1, 24)
    generator = generator_of(attention="none")
    assert generator.mapping(latents(generator)).shape == (2, 1, 24)


@pytest.mark.parametrize("resolution", [8, 32])
def test_the_same_kind_can_have_another_resolution(resolution):
    config = tiny(synthesis={"integration": "both"}).at_resolution(resolution)
    assert config.synthesis == tiny(synthesis={"integration": "both"}).synthesis
    generator, discriminator = build(config)
    images = generator(latents(generator))
    assert images.shape == (2, 3, resolution, resolution)
    assert discriminator(images).shape == (2,)


def test_no_power_of_two_is_no_resolution():
    with pytest.raises(ValueError, match="no power of two"):
        tiny().at_resolution(48)
