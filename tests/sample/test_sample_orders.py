"""`gtool sample` of priors of any order: holes in photos, guidance, several codes a step, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gtool.data.synthetic.scenes import draw_scenes
from tests.helpers.tiny import save_prior
from tests.sample import commands
from tests.sample.commands import pixels, text

sample = partial(commands.sample, "--precision", "fp32")


@pytest.fixture
def by_map(tmp_path):
    """A prior of any order over label maps that were dropped at times, whose weights stand alone."""
    path = tmp_path / "any.safetensors"
    dropped = "prior.condition_dropout=0.1"
    return save_prior(path, dropped, condition="segmentation", condition_size=9, orders="any")


@pytest.fixture
def pictures(tmp_path):
    """A photo with its map, and masks."""
    scene = draw_scenes(np.array([3]), 16, 1)
    hole = np.zeros((16, 16), np.uint8)
    hole[5:12, 3:9] = 255
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[4:, :, 0] = 255
    Image.fromarray(scene.images[0].transpose(1, 2, 0)).save("photo.png")
    Image.fromarray(scene.segmentation[0].astype(np.uint8)).save("map.png")
    for name, mask in {
        "hole": hole,
        "empty": 0 * hole,
        "full": 0 * hole + 255,
        "other": hole[:, :12],
        "colours": colours,
    }.items():
        Image.fromarray(mask).save(f"{name}.png")
    return hole > 0


@pytest.mark.parametrize("more", [[], ["--steps", 4], ["--segmentation", "map.png", "--guidance", 2]])
def test_a_hole_is_filled_and_the_photo_around_it_stays_bit_for_bit(by_map, pictures, more):
    arguments = ["--complete", "photo.png", "--mask", "hole.png", "-n", 2, *more]
    assert sample(by_map, *arguments, "-o", "filled/") == 0
    first, second, photo = pixels("filled/000000.png"), pixels("filled/000001.png"), pixels("photo.png")
    assert (first[~pictures] == photo[~pictures]).all()
    assert (first[pictures] != photo[pictures]).any()
    assert (first[pictures] != second[pictures]).any()
    assert text("filled/000000.png")["mask"] == "hole.png"


def test_a_grid_shows_the_hole_and_an_animation_ends_with_the_pictures(by_map, pictures):
    arguments = ["--complete", "photo.png", "--mask", "hole.png", "-n", 1, "--scale", 1]
    assert sample(by_map, *arguments, "-o", "grid.png", "--animate", "film.webp") == 0
    lead = pixels("grid.png")[54:102:3, 89:137:3]
    assert (lead[pictures] == 128).all()
    assert (lead[~pictures] == pixels("photo.png")[~pictures]).all()
    with Image.open("film.webp") as film:
        frame = np.asarray(film.convert("RGB")).astype(int)[2:18, 20:36]
    assert np.abs(frame - pixels("photo.png"))[~pictures].mean() < 8  # nothing of it is grey


def test_a_mask_is_cropped_and_made_smaller_with_its_photo(by_map):
    photo = draw_scenes(np.array([3]), 64, 1).images[0].transpose(1, 2, 0)
    hole = np.zeros((64, 48), np.uint8)
    hole[30:45, 10:29] = 255
    Image.fromarray(photo[:, :48]).save("photo.png")
    Image.fromarray(hole).save("hole.png")
    assert (
        sample(
            by_map, "--complete", "photo.png", "--mask", "hole.png", "-n", 1, "-o", "grid.png", "--scale", 1
        )
        == 0
    )
    grey = (pixels("grid.png")[54:102:3, 89:137:3] == 128).all(axis=-1)
    expected = np.zeros((16, 16), bool)
    expected[7:13, 3:10] = True  # of 48 x 48 pixels from row 8 on, three to one
    assert (grey == expected).all()


def test_a_larger_photo_is_filled_by_windows(by_map):
    photo = draw_scenes(np.array([3]), 32, 1).images[0].transpose(1, 2, 0)
    hole = np.zeros((16, 32), np.uint8)
    hole[6:10, 12:20] = 255
    Image.fromarray(photo[:16]).save("photo.png")
    Image.fromarray(hole).save("hole.png")
    arguments = ["--complete", "photo.png", "--mask", "hole.png", "--size", "32x16", "-n", 1]
    assert sample(by_map, *arguments, "-o", "wide/") == 0
    assert (pixels("wide/000000.png")[hole == 0] == pixels("photo.png")[hole == 0]).all()


def test_guidance_of_one_changes_nothing_and_more_does(by_map, pictures):
    for name, more in {"plain": [], "one": ["--guidance", 1], "four": ["--guidance", 4]}.items():
        assert sample(by_map, "--segmentation", "map.png", "-n", 1, *more, "-o", f"{name}/") == 0
    assert (pixels("one/000000.png") == pixels("plain/000000.png")).all()
    assert (pixels("four/000000.png") != pixels("plain/000000.png")).any()
    assert text("four/000000.png")["guidance"] == "4"


HOLE = ["--complete", "photo.png", "--mask", "hole.png"]
REFUSED = {
    "mask alone": (["--mask", "hole.png"], 2, "add --complete"),
    "mask and share": ([*HOLE, "--keep", 0.5], 2, "exclude each other"),
    "no mask": (["--complete", "photo.png", "--mask", "none.png"], 1, "none.png: no such file"),
    "another size": (
        ["--complete", "photo.png", "--mask", "other.png"],
        1,
        "has the size of its photo, 16x16",
    ),
    "empty": (["--complete", "photo.png", "--mask", "empty.png"], 1, "nothing is sampled"),
    "full": (["--complete", "photo.png", "--mask", "full.png"], 1, "nothing is kept"),
    "colours": (["--complete", "photo.png", "--mask", "colours.png"], 1, "has colours"),
    "no condition": ([*HOLE, "--guidance", 2], 2, "add --segmentation map.png"),
    "guidance": (["--guidance", "nan"], 2, "--guidance nan: must be 1"),
    "no steps": (["--steps", 0], 2, "use 1 to 64"),
    "many steps": (["--steps", 65], 2, "use 1 to 64"),
    "steps of a larger one": (["--size", "32x16", "--steps", 4], 2, "leave --steps out"),
}
OF_ONE_ORDER = {
    "mask": (HOLE, "model.prior.orders=any` fills any region"),
    "steps": (["--steps", 4], "model.prior.orders=any` predicts several codes at once"),
    "guidance": (["--guidance", 2], "prior.condition_dropout=0.1` can be guided"),
}


def refused(capsys, weights, arguments) -> tuple[int, str]:
    status = sample(weights, "-n", 1, *arguments, "-o", "out.png")
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert not Path("out.png").exists()
    return status, said


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.usefixtures("pictures")
def test_what_cannot_be_done_is_one_line_and_writes_nothing(by_map, capsys, name):
    arguments, status, message = REFUSED[name]
    found, said = refused(capsys, by_map, arguments)
    assert (found, message in said) == (status, True), said


@pytest.mark.parametrize("name", OF_ONE_ORDER)
@pytest.mark.usefixtures("pictures")
def test_a_prior_of_one_order_says_which_one_can(tmp_path, capsys, name):
    path = save_prior(tmp_path / "one.safetensors", condition="segmentation", condition_size=9)
    arguments, message = OF_ONE_ORDER[name]
    if name == "mask":
        arguments = [*arguments, "--segmentation", "map.png"]
    status, said = refused(capsys, path, arguments)
    assert (status, message in said) == (2, True), said
