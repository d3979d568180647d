"""Defects of the released PyTorch port that ours must not have, where no test of a part shows it; the others are

| defect (numbers of the sheet, section 4) | where |
|---|---|
| 0.4 maps at 4 x 4 that depend on no local latent; 3 keys that nothing reads | test_gansformer.py, test_bipartite.py |
| 0.5 networks that get no gradient where styles are off | test_gansformer.py (every parameter of every variant) |
| 1 one batch of latents for all stages of a step | test_components_training.py |
| 1.4 heads of which one sees content and one position | test_bipartite.py |
| 3 `both` and learned positions crash | test_gansformer.py; a second backward and a copy: here |
| 4 path length over the wrong axis; component mixing by the chance of style mixing | test_components_training.py |
| 4 `wgan` is an undefined name; the sign of `hinge` | test_losses.py |
| 5 mixing and walks in w by arguments that do not exist | test_gansformer.py (mixing); tests of sampling |
| 7 CUDA everywhere | all tests: they run without it |
| 9 metrics fetch their networks at run time | test_fid.py |

Not built, so that they cannot crash: assignments carried from layer to layer (`iterative`), one mapping of all
components together (`mapping_shared`).
"""

from __future__ import annotations

import copy
import json

import pytest
import torch

from gtool.cli import run
from gtool.models.gansformer.config import GANsformerConfig
from gtool.models.gansformer.network import Generator
from tests.helpers.gansformers import generator_of, latents, networks, noise_for, tiny


def test_the_mapping_is_stored_large_and_acts_at_unit_variance():
    """2: it was stored divided the wrong way until 2022, and learned 10,000 times too slowly."""
    torch.manual_seed(0)
    generator = Generator(GANsformerConfig(resolution=8))
    for block in generator.mapping_network.shared.blocks:
        assert block.first.weight.std().item() == pytest.approx(100, rel=0.1)
        assert (block.first.weight.std() * block.first.gain * 32**0.5).item() == pytest.approx(1, rel=0.1)


def test_learned_positions_survive_two_steps_and_a_copy():
    """3: those of the release fail in the second backward, or cannot be copied for the average of weights."""
    generator, _ = networks(tiny(synthesis={"positions": "trainable2d"}))
    z = latents(generator)
    for _ in range(2):
        generator(z).square().sum().backward()
    twin = copy.deepcopy(generator)
    assert torch.equal(twin(z), generator(z))
    learned = [name for name, _ in twin.named_parameters() if ".grid." in name]
    assert len(learned) == 5


@pytest.mark.parametrize("attention", ["duplex", "none"])
def test_a_stem_can_be_made_of_the_latent(attention):
    """The release's baseline GAN names a variable that does not exist."""
    generator = generator_of(attention=attention, synthesis={"stem": "latent"})
    images = generator(latents(generator))
    assert (images[0] - images[1]).abs().max() > 1e-2


def test_batch_normalisation_is_not_taken_for_another():
    """`batch` is accepted by the release and acts as `layer`."""
    with pytest.raises(ValueError, match="Input should be 'layer', 'instance' or 'none'"):
        tiny(synthesis={"norm": "batch"})


@pytest.mark.parametrize("kimg", [["--kimg=3"], ["--kimg", "3"]])
def test_a_flag_wins_over_the_recipe_however_it_is_written(kimg, capsys):
    """6: presets of the release take back values that are written as `--flag=value`."""
    settings = ["--set=loss.r1_gamma=7.0", "--set", "model.synthesis.heads=2"]
    assert run(["train", "gansformer", "--dry-run", "--json", *kimg, *settings]) == 0
    recipe = json.loads(capsys.readouterr().out)["resolved"]
    assert recipe["train"]["kimg"] == 3
    assert (recipe["loss"]["r1_gamma"], recipe["model"]["synthesis"]["heads"]) == (7, 2)


def test_maps_keep_the_size_of_their_layers():
    """8: the release enlarges all maps to the image, and had to turn them off in training for want of memory."""
    generator = generator_of(resolution=32)
    ws = generator.broadcast(generator.mapping(latents(generator)))
    _, maps = generator.synthesis(ws, noise_for(generator), with_maps=True)
    assert [m.shape[-1] for m in maps] == [4, 8, 8, 16, 16, 32, 32]
    assert sum(m.numel() for m in maps) < 0.5 * len(maps) * maps[-1].numel()


def test_groups_of_the_discriminator_do_not_depend_on_the_size_of_the_batch():
    """The release puts images that are a quarter of the batch apart into a group: shares of processes differ."""
    _, discriminator = networks(tiny(discriminator={"group_size": 4}))
    images = torch.randn(8, 3, 16, 16)
    with torch.no_grad():
        whole = discriminator(images)
        halves = torch.cat([discriminator(images[:4]), discriminator(images[4:])])
    torch.testing.assert_close(whole, halves, rtol=1e-4, atol=1e-5)


def test_noise_of_an_image_is_an_input():
    """The release draws it inside, so that no image can be made again without its neighbours."""
    generator = generator_of()
    z = latents(generator)
    state = torch.random.get_rng_state()
    generator(z, noise_for(generator))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_networks_have_no_running_state():
    """Truncation of the release pulls all components to one running mean, which differs from process to process."""
    generator, discriminator = networks(tiny())
    held = [*generator.named_parameters(), *generator.named_buffers(), *discriminator.named_buffers()]
    before = [value.detach().clone() for _, value in held]
    discriminator(generator.train()(latents(generator)))
    for (name, value), old in zip(held, before, strict=True):
        assert torch.equal(old, value), name
