"""TransGAN: sizes and outputs of the released networks, and their checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gtool.errors import CheckpointError
from gtool.models.transgan import network as transgan
from gtool.models.transgan.config import TransGANConfig
from gtool.models.transgan.network import Discriminator, Generator, build
from gtool.models.transgan.released import rename_released
from tests.helpers.released_discriminators import (
    describe_transgan_discriminator,
    rename_transgan_discriminator,
)
from tests.helpers.transgan_formula import formula_noise, formula_tensor, formula_weights, summary

GOLDEN = Path(__file__).parent / "golden"
RELEASED = ("cifar10", "stl10", "church256", "celebahq256")


def _noise(network: Any, images: int) -> list[torch.Tensor] | None:
    return formula_noise(network.noise_shapes, images) or None


def _counts(config: TransGANConfig) -> list[int]:
    with torch.device("meta"):
        return [sum(p.numel() for p in network.parameters()) for network in build(config)]


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


def test_module_names_the_count_of_its_default():
    words = (transgan.__doc__ or "").replace(",", "")
    assert all(str(count) in words for count in PARAMETERS["cifar10"])
