"""Defects of the released tokenizers that ours must not have, where no test of a part shows it; the others are

| defect (the sheet, section 4) | where |
|---|---|
| beta on the wrong term of the quantizer's loss | test_quantizers.py; the default is the textbook: here |
| dead codes, and no word of them | test_quantizers.py (restarts, data init), test_reconstruction_losses.py |
| `top_k_top_p_filtering` and other imports that are gone; weights are downloaded | all tests: they run without |
| LPIPS: an image without features has no gradient | test_reconstruction_losses.py |
| maps by a binary cross-entropy of all labels | test_reconstruction_losses.py |

Not built, so that they cannot crash: the EMA quantizer, VQNoDiscModel, the training of GumbelVQ.
"""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch

from gtool.data.loader import Batches
from gtool.data.pixel_cache import ImageArrays
from gtool.data.synthetic.scenes import draw_scenes
from gtool.losses.perceptual import LPIPS
from gtool.losses.reconstruction import adaptive_weight, l1
from gtool.models.vqgan.config import VQGANConfig
from gtool.models.vqgan.network import Tokenizer, build
from gtool.nn import quantizers
from gtool.runtime.device import make_compute
from gtool.train import tokenizer as engine
from tests.helpers.tiny import tiny_tokenizer
from tests.helpers.vqgans import PLAIN, networks, pictures, tiny


def test_beta_is_at_the_commitment_unless_asked_for_otherwise():
    """The fix of the release is off unless its code is edited."""
    assert VQGANConfig().quantizer.legacy is False
    tokenizer, _ = networks(tiny(quantizer={"size": 8, "dim": 4, "legacy": True}))
    assert tokenizer.quantizer.legacy is True


def test_training_mode_does_not_make_the_perceptual_distance_random():
    """The release puts it into eval mode once, and `model.train()` switches its dropout on again."""
    lpips = LPIPS()
    for parameter in lpips.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    holder = torch.nn.ModuleList([lpips]).train()
    images, references = pictures(2, 16), pictures(2, 16, seed=1)
    values = {tuple(holder[0](images, references).tolist()) for _ in range(3)}
    assert len(values) == 1
    assert not any(isinstance(module, torch.nn.Dropout) for module in lpips.modules())


def test_a_step_can_be_had_from_one_pass_of_the_autoencoder():
    """The release runs it twice, once for each optimizer. What the discriminator sees is detached, and the same."""
    tokenizer, judge = networks()
    passes = []
    tokenizer.encoder.register_forward_hook(lambda *_: passes.append(1))
    images = pictures(2)
    out = tokenizer(images)
    (l1(out.reconstruction, images) + out.quantizer_loss).backward()
    before = [p.grad.clone() for p in tokenizer.parameters()]
    (judge(out.reconstruction.detach()).mean() - judge(images).mean()).backward()
    assert len(passes) == 1
    assert all(torch.equal(p.grad, b) for p, b in zip(tokenizer.parameters(), before, strict=True))
    assert all(p.grad is not None for p in judge.parameters())


def test_the_adaptive_weight_needs_no_network():
    """The release computes it, with both gradients, while the adversarial loss is off; here it is asked for or not."""
    wanted = ["nll_gradient", "gan_gradient", "weight", "most"]
    assert list(inspect.signature(adaptive_weight).parameters) == wanted


def test_a_discriminator_that_can_tell_nothing_is_not_made_the_loudest():
    """The release lets the weight grow to 8000 as the gradient of a lost discriminator goes to nothing."""
    recipe = tiny_tokenizer("reconstruction.adversarial_ramp=0.0")
    config = VQGANConfig.model_validate(recipe.model)
    scenes = ImageArrays(draw_scenes(np.arange(16), 16).images, None, "test")
    state = engine.init_state(
        recipe, config, Batches(scenes, seed=0, flip=False), make_compute("cpu", "fp32")
    )
    with torch.no_grad():
        state.discriminator.last.weight.mul_(1e-6)  # the same answer to everything
    state.progress = 0.9
    heard = engine.step(state)["adversarial_weight"]
    assert float(heard) == pytest.approx(
        recipe.reconstruction.adversarial * recipe.reconstruction.adaptive_weight_max
    )
    assert float(heard) < 1


@pytest.mark.parametrize("norm", ["group", "none"])
def test_an_image_is_judged_by_itself(norm):
    """Batch norm in batches of 3 to 12, not shared by processes, judges images by their neighbours."""
    _, judge = networks(tiny(discriminator={"channels": 8, "layers": 2, "norm": norm}))
    images = pictures(4)
    with torch.no_grad():
        torch.testing.assert_close(judge.train()(images)[1:2], judge(images[1:2]))
    assert not list(judge.buffers())
    _, released = networks(tiny())
    with torch.no_grad():
        assert not torch.allclose(released.train()(images)[1:2], released(images[1:2]))


@pytest.mark.parametrize("name", ["Codebook", "CosineCodebook"])
def test_every_quantizer_can_be_built_and_used(name):
    """The EMA quantizer of the release names variables that do not exist."""
    kind = getattr(quantizers, name)
    quantizer = kind(12, 2)
    out = quantizer(torch.randn(1, 2, 3, 3))
    assert quantizer.embedding().shape == (12, 2)
    assert out.codes.shape == (1, 3, 3)
    assert copy.deepcopy(quantizer)(out.vectors.detach()).codes.shape == (1, 3, 3)


def test_codes_can_be_decoded():
    """`decode_code` of the release calls a method that the quantizer has not."""
    tokenizer, _ = networks()
    with torch.no_grad():
        assert tokenizer.decode(torch.zeros(2, 3, 5, dtype=torch.int64)).shape == (2, 3, 12, 20)


def test_codes_have_the_shape_of_their_grid_and_the_order_of_the_images():
    """The release returns them flat unless told otherwise, and the prior has to know how many images there were."""
    tokenizer, _ = networks()
    images = pictures(3)
    with torch.no_grad():
        codes = tokenizer.encode(images)
        assert codes.shape == (3, 4, 4)
        assert torch.equal(tokenizer.encode(images[1:2])[0], codes[1])


def test_maps_of_labels_can_be_taken_in_and_given_back():
    """`to_rgb` of the release draws random colours where they are missing, so that no two pictures are alike."""
    config = tiny(image_channels=6)
    tokenizer, _ = networks(config)
    labels = torch.randint(6, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    maps = torch.nn.functional.one_hot(labels, 6).movedim(-1, 1).float()
    assert tokenizer(maps).reconstruction.argmax(dim=1).shape == labels.shape
    assert not any("color" in name for name in tokenizer.state_dict())


def test_sizes_of_codebooks_have_one_name_each():
    """`n_embed` and `embed_dim` of the release are taken for each other."""
    config = tiny(quantizer={"size": 32, "dim": 8})
    tokenizer, _ = networks(config)
    assert config.codebook_size == tokenizer.codebook_size == len(tokenizer.quantizer.embedding()) == 32
    assert config.quantizer.dim == tokenizer.quantizer.embedding().shape[1] == 8


def test_a_tokenizer_has_no_loss_and_no_state_beside_its_weights():
    """Files of the release carry VGG16, the discriminator and their buffers; here each network is its own."""
    tokenizer, judge = build(tiny(**PLAIN))
    names = {name.partition(".")[0] for name in tokenizer.state_dict()}
    assert names == {"encoder", "to_codes", "quantizer", "from_codes", "decoder"}
    assert tokenizer.state_dict().keys() == dict(tokenizer.named_parameters()).keys()
    assert not {id(p) for p in judge.parameters()} & {id(p) for p in tokenizer.parameters()}


def test_nothing_is_printed_when_networks_are_built(capsys):
    """The release prints the shape of z and the kind of loss from its constructors."""
    Tokenizer(tiny())
    assert capsys.readouterr() == ("", "")
