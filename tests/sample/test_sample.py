"""`gtool sample` from the command line: grids, folders, interpolation, and weights that nobody should trust."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import load_file, save_file

from gtool import __version__
from gtool.errors import RecipeError
from gtool.io.run_folder import METADATA_KEY
from gtool.io.weights import load_weights, save_weights
from gtool.sample.latents import interpolate
from gtool.sample.parse import parse_numbers
from tests.sample.commands import pixels, sample

# Grids.


def test_the_newest_run_becomes_a_grid_in_its_samples(tiny_run, capsys):
    assert sample("--num", 6) == 0
    shown = capsys.readouterr()
    path = tiny_run / "samples" / "sample-000012-seed0-0-5.png"
    assert shown.out.strip() == str(path.relative_to(tiny_run.parents[1]))
    assert "weights-000012.safetensors: transgan at 16 px, after 12 kimg" in shown.err
    assert pixels(path).std() > 10


def test_a_run_can_be_named_by_folder_or_name(tiny_run, tmp_path):
    for number, name in enumerate((tiny_run, "transgan-scenes-000", tiny_run / "weights-000012.safetensors")):
        assert sample(name, "--num", 2, "-o", f"{number}.png") == 0
    assert (pixels("0.png") == pixels("1.png")).all()
    assert (pixels("0.png") == pixels("2.png")).all()


def test_weights_that_stand_alone_leave_a_grid_here(tiny_weights, tmp_path):
    assert sample(tiny_weights, "--seed", 3) == 0
    assert (tmp_path / "sample-tiny-seed3-0-63.png").is_file()


def test_a_grid_says_how_it_was_made(tiny_weights):
    assert sample(tiny_weights, "--seeds", "0,4-6", "--seed", 9, "-o", "grid.png") == 0
    with Image.open("grid.png") as opened:
        text = opened.text
    assert text["Software"] == f"gtool {__version__}"
    assert (text["model"], text["seed"], text["index"], text["kimg"]) == ("transgan", "9", "0,4-6", "12")
    assert text["weights"].endswith("/tiny.safetensors")


def test_columns_and_scale_shape_the_grid(tiny_weights):
    assert sample(tiny_weights, "--num", 6, "--columns", 3, "--scale", 1, "-o", "grid.png") == 0
    assert pixels("grid.png").shape == (2 * 18 + 2, 3 * 18 + 2, 3)


def test_json_is_one_object_on_stdout(tiny_weights, capsys):
    assert sample(tiny_weights, "--num", 2, "-o", "grid.png", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record.pop("seconds") >= 0
    assert record == {"weights": str(tiny_weights), "seed": 0, "images": 2, "grid": "grid.png"}


# What an image depends on.


def test_an_image_depends_on_its_number_and_the_seed_alone(tiny_weights):
    assert sample(tiny_weights, "--num", 70, "-o", "all/") == 0
    assert sample(tiny_weights, "--seeds", "69,3,3", "-o", "some/") == 0
    assert sample(tiny_weights, "--num", 4, "--seed", 1, "-o", "other/") == 0
    assert sorted(os.listdir("some")) == ["000003.png", "000069.png"]
    for name in os.listdir("some"):
        assert (pixels(f"all/{name}") == pixels(f"some/{name}")).all()
    assert (pixels("all/000003.png") != pixels("other/000003.png")).any()
    assert (pixels("all/000003.png") != pixels("all/000004.png")).any()


def test_the_batch_size_changes_no_more_than_rounding(tiny_weights):
    for batch_size, name in ((1, "one"), (64, "many")):
        assert sample(tiny_weights, "--num", 5, "--batch-size", batch_size, "-o", f"{name}/") == 0
    for name in os.listdir("one"):
        assert np.abs(pixels(f"one/{name}") - pixels(f"many/{name}")).max() <= 2


# Folders.


def test_a_folder_holds_every_image_at_its_own_size(tiny_weights, capsys):
    assert sample(tiny_weights, "--num", 130, "-o", "samples/") == 0
    assert capsys.readouterr().out.strip() == "samples"
    assert sorted(os.listdir("samples")) == [f"{number:06d}.png" for number in range(130)]
    with Image.open("samples/000129.png") as opened:
        assert opened.size == (16, 16)
        assert opened.text["index"] == "129"


def test_a_folder_is_not_filled_twice_unless_asked(tiny_weights, capsys):
    assert sample(tiny_weights, "--num", 3, "-o", "samples") == 0
    assert sample(tiny_weights, "--num", 2, "-o", "samples") == 1
    assert "samples: exists and is not empty" in capsys.readouterr().err
    assert sample(tiny_weights, "--num", 2, "-o", "samples", "--overwrite") == 0
    assert sorted(os.listdir("samples")) == ["000000.png", "000001.png"]


# Interpolation.


def test_interpolation_is_a_sheet_and_an_animation(tiny_weights, capsys):
    arguments = ("--seeds", "0,1,4", "--interpolate", 4, "--animate", "loop.webp")
    assert sample(tiny_weights, *arguments, "--scale", 1, "-o", "sheet.png") == 0
    assert capsys.readouterr().out.split() == ["sheet.png", "loop.webp"]
    assert pixels("sheet.png").shape == (3 * 18 + 2, 4 * 18 + 2, 3)
    with Image.open("loop.webp") as opened:
        assert opened.n_frames == 12
        assert [frame.size for frame in ImageSequence.Iterator(opened)] == [(16, 16)] * 12


def test_the_rows_of_an_interpolation_begin_with_its_images(tiny_weights):
    assert sample(tiny_weights, "--seeds", "2,5", "--interpolate", 3, "--scale", 1, "-o", "sheet.png") == 0
    assert sample(tiny_weights, "--seeds", "2,5", "-o", "images/") == 0
    sheet = pixels("sheet.png")
    for row, number in enumerate((2, 5)):
        station = sheet[row * 18 + 2 : row * 18 + 18, 2:18]
        assert np.abs(station - pixels(f"images/{number:06d}.png")).max() <= 1


def test_interpolation_goes_round_on_the_sphere_in_equal_steps():
    stations = torch.nn.functional.normalize(torch.randn(3, 32, generator=torch.manual_seed(0)), dim=1)
    path = interpolate(stations, 5)
    assert torch.allclose(path[::5], stations)
    assert torch.allclose(path.norm(dim=1), torch.ones(15), atol=1e-5)
    steps = (path - path.roll(-1, 0)).norm(dim=1).view(3, 5)
    assert torch.allclose(steps, steps[:, :1].expand(3, 5), atol=1e-5)


def test_interpolation_between_equal_latents_stands_still():
    assert torch.equal(interpolate(torch.ones(2, 4), 3), torch.ones(6, 4))


# Flags.


def test_image_numbers_are_read_with_ranges_and_in_order():
    assert parse_numbers("0,1,4-6") == [0, 1, 4, 5, 6]
    assert parse_numbers(" 7 - 8 , 2") == [7, 8, 2]


@pytest.mark.parametrize(
    "text", ["", "a", "1,,2", "-3", "4-", "6-4", "1.5", "0-99999999999", "1;2", "9" * 30]
)
def test_image_numbers_that_make_no_sense_are_refused(text):
    with pytest.raises(RecipeError, match="--seeds"):
        parse_numbers(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "4-x"], "write it as 0,1,4-6"),
        (["--num", "0"], "--num"),
        (["--num", "-5"], "--num"),
        (["--num", "2", "--seeds", "1"], "exclude each other"),
        (["-o", "-"], "nothing is written to stdout"),
        (["--seeds", "3", "--interpolate", "4"], "at least two images"),
        (["--interpolate", "4", "-o", "folder/"], "one .png file"),
        (["--interpolate", "4", "--columns", "3"], "--columns is for grids"),
        (["-o", "grid.jpg"], "a grid ends in .png"),
        (["-o", "loop.webp"], "--animate names others"),
        (["--precision", "fp8"], "precision `fp8` does not exist"),
    ],
)
def test_flags_that_mean_nothing_are_named_in_one_line(tiny_weights, capsys, arguments, message):
    assert sample(tiny_weights, *arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err.splitlines()[-1]
    assert shown.out == ""


# Weights from strangers.


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("executed",))


def assert_refused(path, capsys, message: str) -> None:
    assert sample(path) == 1
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1
    assert message in shown.err
    assert not os.path.exists("executed")


@pytest.mark.parametrize(
    ("name", "message"), [("w.pt", "a torch pickle"), ("w.safetensors", "a torch pickle")]
)
def test_a_pickle_is_never_executed(tmp_path, capsys, name, message):
    torch.save({"weights": Bomb()}, tmp_path / name)
    assert_refused(tmp_path / name, capsys, message)


@pytest.mark.parametrize("kept", [0, 4, 300, -10])
def test_truncated_weights_are_refused(tiny_weights, capsys, kept):
    tiny_weights.write_bytes(tiny_weights.read_bytes()[:kept])
    assert_refused(tiny_weights, capsys, "tiny.safetensors: not a readable safetensors file")


def test_a_forged_header_is_refused(tiny_weights, capsys):
    tiny_weights.write_bytes(struct.pack("<Q", 2**62) + tiny_weights.read_bytes()[8:])
    assert_refused(tiny_weights, capsys, "not a readable safetensors file")


def test_weights_of_another_program_are_refused(tiny_weights, capsys):
    save_file(load_file(tiny_weights), tiny_weights)
    assert_refused(tiny_weights, capsys, "no gtool description")


def changed(path, change, **meta) -> None:
    """Rewrite weights with a changed tensor and description."""
    weights = load_weights(path)
    name = next(iter(weights.tensors))
    tensors = weights.tensors | {name: change(weights.tensors[name])}
    save_weights(path, tensors, weights.meta | meta)


def test_values_that_are_not_finite_are_refused(tiny_weights, capsys):
    changed(tiny_weights, lambda tensor: tensor * float("nan"))
    assert_refused(tiny_weights, capsys, "not finite")


@pytest.mark.parametrize("out", ["grid.png", "images/"])
def test_images_that_are_not_finite_are_refused_and_nothing_is_written(tiny_weights, capsys, out):
    weights = load_weights(tiny_weights)
    huge = {name: tensor * 1e30 for name, tensor in weights.tensors.items()}
    save_weights(tiny_weights, huge, weights.meta)
    before = sorted(os.listdir())
    assert sample(tiny_weights, "-o", out) == 1
    assert "makes values that are not finite (images 0 to 63)" in capsys.readouterr().err
    assert sorted(os.listdir()) == before


def test_tensors_of_another_shape_are_refused(tiny_weights, capsys):
    changed(tiny_weights, lambda tensor: tensor.unsqueeze(0))
    assert_refused(tiny_weights, capsys, "this model has")


@pytest.mark.parametrize(
    "meta",
    [
        {"model": "stylegan"},
        {"model": ["transgan"]},
        {"config": None},
        {"config": {"resolution": 40}},
        {"config": {"resolution": "16"}},
        {"config": {"unknown": 1}},
        {"config": {"z_dim": 10**12}},
        {"config": {"z_dim": 10**30}},
        {"config": {"generator": {"stages": [{"side": 32, "channels": 64, "depth": 10**9}]}}},
        {"nimg": "many"},
    ],
)
def test_a_description_of_other_networks_is_refused(tiny_weights, capsys, meta):
    changed(tiny_weights, lambda tensor: tensor, **meta)
    assert_refused(tiny_weights, capsys, "tiny.safetensors")


@pytest.mark.parametrize("description", ["no json", "[]", "1", '{"format": 99}'])
def test_a_description_that_is_none_is_refused(tiny_weights, capsys, description):
    save_file(load_file(tiny_weights), tiny_weights, metadata={METADATA_KEY: description})
    assert_refused(tiny_weights, capsys, "tiny.safetensors")
