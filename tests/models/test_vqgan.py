"""The tokenizer: sizes of the release, shapes, gradients, any size of image, precision, refused configs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gtool.errors import DataError
from gtool.models.vqgan import network as vqgan
from gtool.models.vqgan.config import VQGANConfig
from gtool.models.vqgan.network import PaletteTokenizer, build, make_tokenizer
from tests.helpers.vqgans import PLAIN, networks, pictures, tiny

VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "legacy": {"quantizer": {"size": 32, "dim": 4, "legacy": True}},
    "cosine": {"quantizer": {"kind": "cosine", "size": 32, "dim": 4}},
    "dropout": {"dropout": 0.1},
    "scenes": PLAIN,
    "depth": {"image_channels": 1},
    "map": {"image_channels": 5, "discriminator": {"channels": 8, "layers": 1, "norm": "none"}},
    "no middle": {"middle_blocks": 0, "middle_attention": False, "attention_sides": []},
    "one level": {"multipliers": [2], "attention_sides": []},
}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 72_141_699),
        ({"quantizer": {"size": 8192}}, 73_976_707),
        ({"quantizer": {"size": 16384}}, 76_073_859),
        ({"image_channels": 1}, 72_137_089),
        ({"image_channels": 182}, 72_554_294),
        ({"image_channels": 183}, 72_556_599),
    ],
)
def test_the_released_sizes_have_the_released_parameters(changes, expected):
    """Counted in the released networks: 72.14, 73.98, 76.07, 72.14 (depth), 72.55 and 72.56 M (maps)."""
    with torch.device("meta"):
        tokenizer, discriminator = build(VQGANConfig.model_validate(changes))
    assert count(tokenizer) == expected
    if not changes:
        assert count(discriminator) == 2_765_633


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_become_codes_and_images_and_everything_learns(variant):
    config = tiny(**VARIANTS[variant])
    tokenizer, discriminator = networks(config)
    images = pictures(3, config.resolution, config.image_channels)
    out = tokenizer(images)
    side = config.codes_side
    assert out.reconstruction.shape == images.shape
    assert out.codes.shape == (3, side, side)
    assert out.codes.dtype == torch.int64
    assert 0 <= out.codes.min() <= out.codes.max() < config.codebook_size == tokenizer.codebook_size
    assert out.vectors.shape == (3, config.quantizer.dim, side, side)
    logits = discriminator(out.reconstruction)
    assert logits.ndim == 3
    (out.reconstruction.square().mean() + out.quantizer_loss + logits.mean()).backward()
    for network in (tokenizer, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # The gradient of a logit's mean at a constant that a norm takes away again is 0 up to rounding.
            assert parameter.grad.any(), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_codes_and_their_images_are_those_of_the_whole(variant):
    config = tiny(**VARIANTS[variant])
    tokenizer, _ = networks(config)
    images = pictures(2, config.resolution, config.image_channels)
    with torch.no_grad():
        out = tokenizer.eval()(images)
        assert torch.equal(tokenizer.encode(images), out.codes)
        torch.testing.assert_close(tokenizer.decode(out.codes), out.reconstruction, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 20), (24, 16)])
def test_any_size_that_the_codes_divide_is_encoded(height, width):
    tokenizer, _ = networks()
    out = tokenizer(torch.zeros(1, 3, height, width))
    assert out.codes.shape == (1, height // 4, width // 4)
    assert out.reconstruction.shape == (1, 3, height, width)
    assert tokenizer.decode(out.codes).shape == (1, 3, height, width)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 18, 16), "images of 16 x 18 px: this tokenizer needs sides that are multiples of 4"),
        ((1, 1, 16, 16), "images of 1 channels; this tokenizer takes 3"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, message):
    tokenizer, _ = networks()
    for use in (tokenizer, tokenizer.encode):
        with pytest.raises(DataError, match=message):
            use(torch.zeros(shape))


def test_a_larger_side_is_that_of_places_shown_four_times_and_convolved(monkeypatch):
    """The transposed convolution that stands for the two gives their numbers, at the borders too."""
    torch.manual_seed(0)
    layer, x = vqgan.Doubling(6), torch.randn(2, 6, 5, 4, requires_grad=True)
    made = []
    for most in (0, 256):
        monkeypatch.setattr(vqgan, "MOST_TRANSPOSED", most)
        y = layer(x)
        made.append((y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])))
    assert made[0][0].shape == (2, 6, 10, 8)
    for direct, transposed in zip(*made, strict=True):
        torch.testing.assert_close(transposed, direct, rtol=1e-4, atol=1e-4)


def test_an_image_does_not_depend_on_its_batch():
    tokenizer, _ = networks()
    images = pictures(4)
    with torch.no_grad():
        whole = tokenizer(images)
        alone = tokenizer(images[2:3])
    assert torch.equal(whole.codes[2], alone.codes[0])
    torch.testing.assert_close(whole.reconstruction[2], alone.reconstruction[0], rtol=1e-4, atol=1e-5)


def test_half_precision_stops_at_the_quantizer():
    tokenizer, discriminator = networks()
    images = pictures()
    with torch.autocast("cpu", torch.bfloat16):
        out = tokenizer(images)
        logits = discriminator(out.reconstruction)
        codes = tokenizer.quantizer(out.vectors).codes
    assert {x.dtype for x in (out.reconstruction, out.vectors, out.quantizer_loss, logits)} == {torch.float32}
    assert torch.equal(codes, tokenizer.quantizer(out.vectors).codes)
    assert torch.equal(codes, out.codes)
    full = tokenizer(images)
    assert (out.reconstruction - full.reconstruction).abs().mean() < 0.1 * full.reconstruction.std()


def test_the_last_layer_makes_the_image():
    tokenizer, _ = networks()
    assert tokenizer.last_layer is tokenizer.decoder.conv_out.weight
    assert tokenizer.last_layer.shape[0] == 3


def test_eight_steps_bring_the_reconstruction_nearer():
    tokenizer, _ = networks(tiny(**PLAIN))
    images = pictures(8, 32)
    optimizer = torch.optim.Adam(tokenizer.parameters(), 2e-3, betas=(0.5, 0.9))
    losses = []
    for _ in range(8):
        out = tokenizer(images)
        loss = (out.reconstruction - images).abs().mean() + out.quantizer_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


# The palette of image-GPT.


def palette_of(size: int, images: torch.Tensor, seed: int = 0) -> tuple[PaletteTokenizer, float]:
    tokenizer = make_tokenizer(VQGANConfig(kind="palette", palette_size=size))
    assert isinstance(tokenizer, PaletteTokenizer)
    return tokenizer, tokenizer.fit(images, torch.Generator().manual_seed(seed))


def test_a_palette_keeps_the_colours_that_there_are():
    colours = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 0.0, -0.5], [0.0, 0.5, 1.0], [0.2, 0.2, 0.2]])
    which = torch.randint(4, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    images = colours[which].movedim(-1, 1)
    tokenizer, error = palette_of(4, images)
    assert error < 1e-10
    out = tokenizer(images)
    assert out.codes.shape == (2, 8, 8)
    torch.testing.assert_close(out.reconstruction, images)
    assert out.quantizer_loss == 0
    assert (tokenizer.down, tokenizer.codebook_size) == (1, 4)


def test_a_larger_palette_is_nearer_and_a_seed_decides_it():
    images = pictures(4, 16)
    errors = [palette_of(size, images)[1] for size in (4, 16, 64)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0
    palettes = [palette_of(16, images, seed)[0].palette for seed in (0, 0, 1)]
    assert torch.equal(palettes[0], palettes[1])
    assert not torch.equal(palettes[0], palettes[2])


def test_k_means_is_no_worse_than_its_colours_moved():
    """Each colour is the mean of the pixels that it stands for, and each of them stands for some."""
    images = pictures(4, 16)
    tokenizer, _ = palette_of(8, images)
    codes = tokenizer.encode(images)
    for code, colour in enumerate(tokenizer.palette):
        mine = images.movedim(1, -1)[codes == code]
        assert len(mine)
        torch.testing.assert_close(mine.mean(dim=0), colour, atol=0.02, rtol=0)


def test_a_palette_of_more_colours_than_there_are_is_refused():
    with pytest.raises(
        DataError, match="1 different colours, too few for a palette of 4; set model.palette_size"
    ):
        palette_of(4, torch.zeros(1, 3, 8, 8))


def test_a_palette_is_all_that_is_built():
    assert len(build(VQGANConfig(kind="palette"))) == 1


# Configs.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 18}, "resolution 18 cannot be halved 2 times: multipliers has 3 levels"),
        ({"norm_groups": 3}, "norm_groups = 3 does not divide"),
        ({"attention_sides": [5]}, r"attention_sides: 5 is no side of a level; those are \[16, 8, 4\]"),
        ({"middle_blocks": 0}, "middle_attention comes after the first of middle_blocks"),
        ({"kind": "palette", "image_channels": 1}, "image_channels = 1 is not 3"),
        ({"discriminator": {"norm": "layer"}}, "Input should be 'batch', 'group' or 'none'"),
    ],
)
def test_configs_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_another_resolution_keeps_the_weights():
    config = tiny()
    larger = config.at_resolution(32)
    assert (larger.attention_sides, larger.codes_side) == ((8,), 8)
    tokenizer, _ = networks(config)
    networks(larger)[0].load_state_dict(tokenizer.state_dict())
    assert VQGANConfig.model_validate(config.model_dump(mode="json")) == config
