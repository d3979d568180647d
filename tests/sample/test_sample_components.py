"""`gtool sample` of models with latent components: truncation, mixing, interpolation, attention, noise."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.errors import RecipeError
from gtool.io.pictures import HEAD, LABEL, PAD, TITLE_HEIGHT, image_cell
from gtool.io.weights import save_weights
from gtool.models import registry
from gtool.models.generate import TrainedModel, batches, latents, load_model, weights_meta
from gtool.nn.ranges import to_uint8
from gtool.runtime.device import make_compute
from gtool.sample.latents import interpolated_ws, mixed_ws, noise_variation
from gtool.sample.parse import parse_components, parse_mix, parse_psis
from tests.helpers.tiny import tiny_gansformer
from tests.sample.commands import pixels, sample, text

CELL = 96  # of a 16 px image at --scale 6
K, LAYERS = 3, 7


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    """Return the image (16, 16, 3) of a cell of a sheet made with --scale 6."""
    top = TITLE_HEIGHT + HEAD + row * (CELL + PAD)
    left = LABEL + PAD + column * (CELL + PAD)
    return sheet[top : top + CELL : 6, left : left + CELL : 6]


def make_weights(path: Path, *settings: str) -> Path:
    recipe = tiny_gansformer(*settings)
    config = registry.config_class("gansformer").model_validate(recipe.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = registry.network_module("gansformer").Generator(config)
    tensors = generator.state_dict()
    for name, values in tensors.items():
        if name.endswith("noise_strength"):
            values.fill_(0.2)
    save_weights(path, tensors, weights_meta(recipe, config, 12_000))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return make_weights(tmp_path_factory.mktemp("components") / "parts.safetensors")


@pytest.fixture(scope="module")
def noiseless(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("noiseless") / "calm.safetensors"
    return make_weights(path, "model.synthesis.noise=false")


@pytest.fixture(scope="module")
def stylegan(tmp_path_factory) -> Path:
    return make_weights(tmp_path_factory.mktemp("none") / "none.safetensors", 'model.attention="none"')


@pytest.fixture(scope="module")
def compute():
    return make_compute("cpu", "fp32")


@pytest.fixture(scope="module")
def model(weights, compute) -> TrainedModel:
    return load_model(weights, compute=compute)


@pytest.fixture(scope="module")
def generator(model):
    return model.network


def w(model, numbers, seed, psi=1.0) -> torch.Tensor:
    return model.w(latents(model.network, seed, numbers), psi)


# What an image depends on.


@pytest.mark.parametrize("psi", [[], ["--psi", 0.5]])
def test_an_image_depends_on_its_number_and_the_seed_alone(weights, psi):
    assert sample(weights, "--num", 9, "-o", "all/", *psi) == 0
    assert sample(weights, "--seeds", "8,3,3", "-o", "some/", *psi) == 0
    assert sample(weights, "--seeds", "3,8", "--batch-size", 1, "-o", "alone/", *psi) == 0
    assert sorted(os.listdir("some")) == ["000003.png", "000008.png"]
    for name in os.listdir("some"):
        assert (pixels(f"all/{name}") == pixels(f"some/{name}")).all()
        assert np.abs(pixels(f"all/{name}") - pixels(f"alone/{name}")).max() <= 1
    assert (pixels("all/000003.png") != pixels("all/000008.png")).any()


# Truncation.


def test_each_component_is_pulled_to_its_own_mean(model, generator):
    numbers = torch.arange(5)
    full, half = w(model, numbers, 7), w(model, numbers, 7, psi=0.5)
    mean = model.mean_w
    torch.testing.assert_close(half, mean + 0.5 * (full - mean))
    assert mean.shape == (K + 1, 8)
    assert (mean[0] - mean[1]).abs().max() > 1e-4  # one mean for all components would be another truncation
    many = generator.mapping(torch.randn(4096, K + 1, 8, generator=torch.manual_seed(0))).mean(0)
    assert (many - mean).norm() < 0.2 * full.std(0).norm()


def test_psi_1_is_off_and_psi_0_leaves_one_image(noiseless):
    for name, psi in {"default": [], "one": ["--psi", 1], "none": ["--psi", 0]}.items():
        assert sample(noiseless, "--num", 2, "--columns", 1, "--scale", 1, "-o", f"{name}.png", *psi) == 0
    assert (pixels("default.png") == pixels("one.png")).all()
    top, bottom = pixels("none.png")[2:18], pixels("none.png")[20:36]
    assert (top == bottom).all()
    assert (pixels("none.png") != pixels("one.png")).any()
    assert (text("one.png")["psi"], text("none.png")["psi"]) == ("1", "0")


def test_a_sweep_shows_every_image_at_every_psi(weights):
    assert sample(weights, "--psi-sweep", "0,0.5,1", "--seeds", "4,7", "--scale", 6, "-o", "sweep.png") == 0
    assert sample(weights, "--seeds", "4,7", "-o", "images/") == 0
    assert sample(weights, "--seeds", "4,7", "--psi", 0.5, "-o", "half/") == 0
    sheet = pixels("sweep.png")
    for row, number in enumerate((4, 7)):
        assert np.abs(cell(sheet, row, 2) - pixels(f"images/{number:06d}.png")).max() <= 1
        assert np.abs(cell(sheet, row, 1) - pixels(f"half/{number:06d}.png")).max() <= 1
    assert text("sweep.png")["psi"] == "0,0.5,1"


# Mixing.


def test_mixed_images_take_what_is_marked_and_nothing_else(model):
    a, b, rows = torch.tensor([3]), torch.tensor([8]), torch.tensor([0])
    taken = torch.zeros(1, LAYERS, K + 1, dtype=torch.bool)
    taken[:, 2:4, 1] = True
    ws = mixed_ws(model, a, b, taken, 0)(rows)
    assert torch.equal(ws[taken], model.ws(b, 0)(rows)[taken])
    assert torch.equal(ws[~taken], model.ws(a, 0)(rows)[~taken])


def test_two_images_swap_components_together_and_one_by_one(weights, noiseless):
    assert sample(noiseless, "--mix", "3,8", "--components", "0-2,global", "--scale", 6, "-o", "mix.png") == 0
    assert sample(noiseless, "--seeds", "3,8", "-o", "images/") == 0
    sheet = pixels("mix.png")
    assert sheet.shape[1] == LABEL + PAD + (1 + 1 + K + 1) * (CELL + PAD)
    first, second = (pixels(f"images/{number:06d}.png") for number in (3, 8))
    assert np.abs(cell(sheet, 0, 0) - first).max() <= 1
    assert np.abs(cell(sheet, 0, 1) - second).max() <= 1  # all components are those of the other
    assert np.abs(cell(sheet, 2, 1) - first).max() <= 1
    assert all((cell(sheet, 0, 2 + one) != first).any() for one in range(K + 1))
    assert (text("mix.png")["index"], text("mix.png")["swapped"]) == ("3,8", "components 0-2,global")


def test_columns_take_parts_of_rows(noiseless):
    assert sample(noiseless, "--mix", "0-1:4,5,1", "--layers", "0-2", "--scale", 6, "-o", "table.png") == 0
    assert sample(noiseless, "--seeds", "0,1,4", "-o", "images/") == 0
    sheet = pixels("table.png")
    zero, one, four = (pixels(f"images/{number:06d}.png") for number in (0, 1, 4))
    assert np.abs(cell(sheet, 1, 0) - zero).max() <= 1
    assert np.abs(cell(sheet, 0, 1) - four).max() <= 1
    assert np.abs(cell(sheet, 2, 3) - one).max() <= 1  # image 1 with parts of itself
    mixed = cell(sheet, 1, 1)
    assert (mixed != zero).any()
    assert (mixed != four).any()


def test_without_local_components_layers_are_swapped(stylegan):
    assert sample(stylegan, "--mix", "0,1", "--scale", 6, "-o", "mix.png") == 0
    assert pixels("mix.png").shape[1] == LABEL + PAD + (1 + LAYERS) * (CELL + PAD)


def test_cells_are_whole_blocks_and_sheets_stay_small():
    assert all(image_cell(16, columns) % 16 == 0 for columns in range(1, 40))
    assert image_cell(16, 400) >= 48  # its label has to fit
    assert (image_cell(256, 2), image_cell(256, 18), image_cell(256, 18, scale=1)) == (256, 128, 256)


# Interpolation.


@pytest.mark.parametrize("space", ["z", "w"])
def test_only_the_named_component_moves(model, space):
    numbers, rows = torch.tensor([3, 5]), torch.arange(8)
    ws = interpolated_ws(model, numbers, 4, 0, moving=[1], space=space)(rows)
    first = model.ws(numbers[:1], 0)(rows[:1])
    others = torch.tensor([0, 2, 3])
    assert torch.equal(ws[:, :, others], first[:, :, others].expand(8, -1, -1, -1))
    torch.testing.assert_close(ws[0], first[0])
    assert (ws[1:, 0, 1] - ws[:-1, 0, 1]).norm(dim=-1).min() > 1e-3


def test_interpolation_in_w_goes_straight_from_image_to_image(model):
    numbers = torch.tensor([3, 5])
    ws = interpolated_ws(model, numbers, 4, 0, psi=0.6, space="w")(torch.arange(8))
    start, end = model.ws(numbers, 0, psi=0.6)(torch.arange(2))
    torch.testing.assert_close(ws[3], 0.25 * start + 0.75 * end)


def test_interpolation_of_one_component_is_a_sheet_and_an_animation(weights, capsys):
    arguments = ("--seeds", "1,2", "--interpolate", 3, "--animate", "loop.webp", "--component", 1)
    assert sample(weights, *arguments, "--psi", 0.8, "--scale", 6, "-o", "sheet.png") == 0
    assert capsys.readouterr().out.split() == ["sheet.png", "loop.webp"]
    with Image.open("loop.webp") as opened:
        assert opened.n_frames == 6
    assert sample(weights, "--seeds", "1", "--psi", 0.8, "-o", "images/") == 0
    sheet = pixels("sheet.png")
    assert np.abs(cell(sheet, 0, 0) - pixels("images/000001.png")).max() <= 1
    assert (cell(sheet, 0, 1) != cell(sheet, 0, 0)).any()
    assert (text("sheet.png")["components"], text("sheet.png")["psi"]) == ("1", "0.8")


# Noise.


def test_noise_variation_is_the_spread_over_noise_alone(weights, compute):
    model = load_model(weights, compute=compute)
    generator = model.network
    z = latents(generator, 0, torch.tensor([4])).expand(12, -1, -1)
    (_, found), (_, again) = (noise_variation(model, 4, 0, draws=12, batch_size=size) for size in (12, 5))
    assert found.shape == (16, 16)
    assert found.min() > 0
    torch.testing.assert_close(found, again, rtol=1e-3, atol=1e-2)
    made = batches(generator, 99, torch.arange(12), compute, given=z)
    images = torch.cat([to_uint8(images) for images, _ in made]).float()
    assert found.mean() == pytest.approx(images.std(0).mean().item(), rel=0.3)
    for name, values in generator.named_parameters():
        if name.endswith("noise_strength"):
            values.fill_(0)
    assert noise_variation(model, 4, 0, draws=4, batch_size=4)[1].max() < 1e-3


def test_noise_variation_is_a_picture(weights):
    assert sample(weights, "--noise-variation", "--seeds", "0,6", "--scale", 6, "-o", "noise.png") == 0
    assert sample(weights, "--seeds", "0,6", "-o", "images/") == 0
    sheet = pixels("noise.png")
    assert np.abs(cell(sheet, 1, 0) - pixels("images/000006.png")).max() <= 1
    assert cell(sheet, 1, 2).max() > 60


# Attention.


def test_maps_belong_to_the_images_of_their_numbers(model, generator, compute):
    numbers = torch.tensor([2, 9, 4])
    ws = model.ws(numbers, 0)
    made = list(batches(generator, 0, numbers, compute, batch_size=2, given=ws, with_maps=True))
    assert [len(images) for images, _ in made] == [2, 1]
    maps = [torch.cat(layer) for layer in zip(*(own for _, own in made), strict=True)]
    assert [tuple(layer.shape) for layer in maps] == [(3, 2, K, side, side) for side in (4, 8, 8, 16, 16)]
    for layer in maps:
        torch.testing.assert_close(layer.sum(2), torch.ones_like(layer.sum(2)))
    ws = model.ws(numbers[1:2], 0)
    _, alone = next(batches(generator, 0, numbers[1:2], compute, batch_size=2, given=ws, with_maps=True))
    torch.testing.assert_close(alone[-1][0], maps[-1][1], rtol=1e-3, atol=1e-4)


def test_attention_is_one_picture_or_one_for_each_image(weights, capsys):
    assert sample(weights, "--attention", "--seeds", "2,5", "-o", "both.png", "--json") == 0
    assert json.loads(capsys.readouterr().out)["attention"] == "both.png"
    assert sample(weights, "--attention", "--seeds", "2,5", "-o", "each/") == 0
    assert sorted(os.listdir("each")) == ["000002.png", "000005.png"]
    both, one, other = pixels("both.png"), pixels("each/000002.png"), pixels("each/000005.png")
    assert (both == np.concatenate([one, other])).all()
    assert one.shape[0] > 5 * 2 * 48  # a row for every layer and head
    assert (one != other).any()


# Flags.


def test_components_are_numbers_ranges_and_the_global_one():
    assert parse_components("2,0-1,global", 5) == [0, 1, 2, 5]
    assert parse_components("global", 0) == [0]
    with pytest.raises(RecipeError, match="this model has 0 to 4 and `global`"):
        parse_components("5", 5)
    with pytest.raises(RecipeError, match="`globe` is no number"):
        parse_components("globe", 5)


def test_images_to_mix_are_pairs_lists_or_rows_and_columns():
    assert parse_mix("0-2") == ([0, 1, 2], None)
    assert parse_mix("0,1:4-5") == ([0, 1], [4, 5])
    for bad in ("3", "3,3", "", ":", "1:", "a,b"):
        with pytest.raises(RecipeError, match="--mix"):
            parse_mix(bad)


def test_psis_are_numbers():
    assert parse_psis("0, 0.5,-1") == [0, 0.5, -1]
    for bad in ("", "a", "0,,1", "nan", "0,3", "inf"):
        with pytest.raises(RecipeError, match="--psi-sweep"):
            parse_psis(bad)


def refused(capsys, arguments, message: str) -> None:
    assert sample(*arguments) == 2
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1
    assert message in shown.err
    assert shown.out == ""
    assert not [name for name in os.listdir() if name.endswith(".png")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--psi", "nan"], "--psi nan"),
        (["--psi", "0.5", "--psi-sweep", "0,1"], "exclude each other"),
        (["--mix", "0,1", "--attention"], "exclude each other"),
        (["--interpolate", "3", "--noise-variation"], "exclude each other"),
        (["--mix", "0,1", "--seeds", "3"], "--mix names its images itself"),
        (["--mix", "0-2"], "needs --components or --layers"),
        (["--components", "0"], "add --mix 3,8 or --interpolate 12"),
        (["--layers", "0"], "add --mix 3,8"),
        (["--space", "w"], "add --interpolate 12"),
        (["--space", "x", "--interpolate", "3"], "`z` or `w`"),
        (["--psi-sweep", "0,1", "-o", "folder/"], "--psi-sweep makes one .png file"),
        (["--attention", "--scale", "2"], "--scale"),
        (["--attention", "--num", "65"], "write one for each with -o FOLDER/"),
        (["--mix", "0,1", "--columns", "2"], "--columns"),
        (["--mix", "0,1", "--components", "3"], "no component 3; this model has 0 to 2 and `global`"),
        (["--interpolate", "3", "--component", "7"], "no component 7"),
        (["--mix", "0,1", "--layers", "0-7"], "no layer 7; this model has 0 to 6"),
    ],
)
def test_flags_that_mean_nothing_are_named_in_one_line(weights, capsys, arguments, message):
    refused(capsys, [weights, *arguments], message)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--psi", "0.5"],
        ["--psi-sweep", "0,1"],
        ["--mix", "0,1"],
        ["--interpolate", "3", "--component", "1"],
        ["--interpolate", "3", "--space", "w"],
        ["--attention"],
    ],
)
def test_models_without_components_say_what_they_lack(tiny_weights, capsys, arguments):
    refused(capsys, [tiny_weights, *arguments], "transgan has no ")


def test_models_without_attention_or_noise_say_so(stylegan, noiseless, capsys):
    refused(capsys, [stylegan, "--attention"], "attention = none")
    refused(capsys, [stylegan, "--mix", "0,1", "--components", "0"], "this model has `global` alone")
    refused(capsys, [noiseless, "--noise-variation"], "no noise inputs")
