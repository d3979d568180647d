"""`loss.projected`: heads on features of EfficientNet-Lite0 judge beside the discriminator."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from gtool.cli import run
from gtool.models import registry
from gtool.models.projected import SCALES, ProjectedDiscriminator
from gtool.train import gan
from tests.helpers import runs
from tests.helpers.tiny import tiny_gansformer, tiny_recipe
from tests.train.test_adversarial import make_state

SETTINGS = ("loss.projected=0.5", "train.kimg=0.064", "train.snapshot_kimg=0.032", "train.metrics=[]")


def judges(num_classes=0):
    recipe = tiny_recipe()
    config = registry.config_class("transgan")(**recipe.model)
    _, pixels = registry.network_module("transgan").build(config)
    return ProjectedDiscriminator(pixels, num_classes), torch.rand(
        3, 3, config.resolution, config.resolution
    ) * 2 - 1


@pytest.mark.parametrize("recipe", [tiny_recipe, tiny_gansformer], ids=["transgan", "gansformer"])
def test_a_resumed_run_ends_with_the_same_bits(recipe):
    recipe = recipe(*SETTINGS)
    path = runs.write_recipe(recipe)
    assert runs.train(recipe.model_name, path, "straight") == 0
    assert runs.train(recipe.model_name, path, "pieces", "--kimg", "0.032") == 0
    assert run(["train", recipe.model_name, "--resume", "pieces", "--kimg", "0.064", "--device", "cpu"]) == 0
    runs.assert_same_state("straight", "pieces")
    # The network that gives the features comes with the package and is not saved again.
    heads = [name for name in runs.final_state(Path("straight")) if name.startswith("discriminator/")]
    assert {name.split("/")[1].split(".")[0] for name in heads} == {"pixels", "heads"}


def test_a_penalty_is_on_the_gradient_of_pixels_alone():
    settings = ("loss.kind=non-saturating", "loss.gradient_penalty=0", "loss.drift=0", "loss.r1_gamma=1")
    with_heads, without = (gan.step(make_state(*settings, f"loss.projected={w}")) for w in (1.0, 0.0))
    assert with_heads["penalty"] == pytest.approx(float(without["penalty"]), rel=1e-4)
    assert with_heads["real_logit"] == pytest.approx(float(without["real_logit"]), rel=1e-4)
    assert with_heads["discriminator_loss"] > without["discriminator_loss"] + 0.1


def test_heads_judge_until_their_share_of_the_run_is_over():
    settings = ("loss.kind=lsgan", "loss.gradient_penalty=0", "loss.drift=0")
    state, without = (
        make_state(*settings, f"loss.projected={w}", "loss.projected_until=0.5") for w in (1, 0)
    )
    state.progress = 0.5
    before = copy.deepcopy(state.bare("discriminator").heads.state_dict())
    assert gan.step(state)["discriminator_loss"] == gan.step(without)["discriminator_loss"]
    assert all(
        torch.equal(before[name], now) for name, now in state.bare("discriminator").heads.state_dict().items()
    )
    state.progress = 0.49
    assert gan.step(state)["discriminator_loss"] > gan.step(without)["discriminator_loss"] + 0.1


def test_images_learn_from_the_heads_while_these_do_not_learn():
    network, images = judges()
    images.requires_grad_(True)
    network(images)[:, 1:].sum().backward()
    assert images.grad.count_nonzero() == 0
    assert all(parameter.grad is not None for parameter in network.heads.parameters())
    network.requires_grad_(False)
    network(images)[:, 1:].sum().backward()
    assert images.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_each_scale_judges_each_image_by_itself_and_by_its_class():
    network, images = judges(num_classes=2)
    for head in network.heads:
        torch.nn.init.normal_(head.classes.weight)
    with torch.no_grad():
        network.pixels.forward = lambda images, noise, classes, with_features: (
            images.mean((1, 2, 3)),
            images,
        )
        first, second = (network(images, None, torch.full((3,), label)) for label in (0, 1))
        alone = network(images[1:2], None, torch.zeros(1, dtype=torch.int64))
    assert first.shape == (3, 1 + len(SCALES))
    torch.testing.assert_close(first[:, 0], second[:, 0])
    assert (first[:, 1:] - second[:, 1:]).abs().min() > 0
    torch.testing.assert_close(alone, first[1:2], rtol=1e-4, atol=1e-5)
