"""`gtool sample` of priors: maps, classes, half photos, larger pictures, animations, and what is refused."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from gtool.data.synthetic.scenes import CLASS_COLOURS, draw_scenes
from gtool.io.weights import load_weights, save_weights
from tests.helpers.tiny import save_prior, save_tokenizer
from tests.sample import commands
from tests.sample.commands import pixels, text

sample = partial(commands.sample, "--precision", "fp32")
LABELS = 9  # ids of scenes, with that for no label


@pytest.fixture
def by_map(tmp_path):
    """A prior over label maps of scenes, the newest run."""
    path = tmp_path / "runs" / "prior-scenes-000" / "weights-000002.safetensors"
    return save_prior(path, condition="segmentation", condition_size=LABELS)


@pytest.fixture
def plain(tmp_path):
    """A prior without condition, whose weights stand alone."""
    path = save_prior(tmp_path / "plain.safetensors")
    (tmp_path / "recipe.toml").unlink()
    return path


@pytest.fixture
def by_class(tmp_path):
    """A prior over two classes of a folder of pictures."""
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number, image in enumerate(draw_scenes(np.arange(6), 16, len(name)).images):
            Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "pets" / name / f"{number}.png")
    return save_prior(
        tmp_path / "classes" / "weights-000002.safetensors",
        f"data.dataset={tmp_path / 'pets'}",
        "data.num_images=10",
        condition="class",
        condition_size=3,
    )


@pytest.fixture
def maps(tmp_path):
    """Label maps as users have them: ids, painted, wide, and pictures that are none."""
    scene = draw_scenes(np.array([3]), 32, 1)
    ids = scene.segmentation[0].astype(np.uint8)
    Image.fromarray(ids).save("map.png")
    Image.fromarray(ids[::2, ::2]).save("small.png")
    Image.fromarray(np.concatenate([ids, ids], axis=1)[:24, :48]).save("wide.png")
    Image.fromarray(np.array(CLASS_COLOURS, np.uint8)[ids]).save("painted.png")
    Image.fromarray(ids + 40).save("unknown.png")
    Image.fromarray(ids[:31]).save("odd.png")
    Image.fromarray(ids[:10, :10]).save("tiny.png")
    Image.fromarray(scene.images[0].transpose(1, 2, 0)).save("photo.png")
    Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))).save("depth.png")


# Grids and files.


def test_the_newest_run_composes_from_held_out_maps_beside_their_photos(by_map, capsys):
    assert sample("--num", 4) == 0
    shown = capsys.readouterr()
    assert shown.out == "runs/prior-scenes-000/samples/sample-000002-seed0-0-3.png\n"
    assert "from segmentation of held-out images of scenes" in shown.err
    written = text(by_map.parent / "samples" / "sample-000002-seed0-0-3.png")
    assert (written["model"], written["kimg"], written["seed"], written["index"]) == (
        "prior",
        "2",
        "0",
        "0-3",
    )
    assert (written["temperature"], written["top_k"], written["top_p"]) == ("1", "32", "1")
    assert written["condition"] == "segmentation of held-out images of scenes"


def test_a_prior_without_condition_makes_a_plain_grid(plain):
    assert sample(plain, "-n", 6, "--columns", 3, "--scale", 1, "-o", "grid.png") == 0
    assert pixels("grid.png").shape == (2 * 18 + 2, 3 * 18 + 2, 3)
    assert pixels("grid.png").std() > 5


def test_an_image_depends_on_its_number_and_the_seed_alone(by_map):
    for name, arguments in {
        "all": ["-n", 19],
        "some": ["--seeds", "18,3,3"],
        "other": ["-n", 4, "--seed", 1],
    }.items():
        assert sample(*arguments, "-o", f"{name}/") == 0
    assert sorted(os.listdir("some")) == ["000003.png", "000018.png"]
    for name in os.listdir("some"):
        assert (pixels(f"all/{name}") == pixels(f"some/{name}")).all()
    assert text("some/000003.png")["condition"].startswith("segmentation of image ")
    assert (pixels("all/000003.png") != pixels("other/000003.png")).any()
    assert (pixels("all/000003.png") != pixels("all/000004.png")).any()


def test_json_is_one_object_on_stdout(plain, capsys):
    assert sample(plain, "-n", 2, "-o", "grid.png", "--animate", "grid.webp", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record.pop("seconds") >= 0
    places = {"grid": "grid.png", "animation": "grid.webp"}
    assert record == {"weights": str(plain), "seed": 0, "images": 2, **places}


def test_temperature_and_top_k_change_what_is_drawn(plain):
    for name, more in {
        "plain": [],
        "cold": ["--temperature", 0],
        "one": ["--top-k", 1],
        "few": ["--top-p", 0.2],
    }.items():
        assert sample(plain, "-n", 2, *more, "-o", f"{name}/") == 0
    assert (pixels("cold/000000.png") == pixels("cold/000001.png")).all()
    assert (pixels("cold/000000.png") == pixels("one/000000.png")).all()
    assert (pixels("plain/000000.png") != pixels("few/000000.png")).any()
    assert text("few/000000.png")["top_p"] == "0.2"


# What pictures are composed from.


def test_a_painted_map_means_the_same_as_its_ids(by_map, maps):
    for name in ("map", "painted"):
        assert sample("--segmentation", f"{name}.png", "--size", "16x16", "-n", 2, "-o", f"{name}/") == 0
    assert (pixels("map/000001.png") == pixels("painted/000001.png")).all()
    assert text("map/000001.png")["condition"] == "map.png"


def test_a_sheet_of_one_map_begins_with_it(by_map, maps):
    assert sample("--segmentation", "small.png", "-n", 3, "--scale", 1, "-o", "grid.png") == 0
    grid, ids = pixels("grid.png"), np.asarray(Image.open("small.png"))
    assert (grid[54:102:3, 89:137:3] == np.array(CLASS_COLOURS)[ids]).all()
    assert grid.shape[0] > 54 + 2 * 51  # the legend


def test_other_maps_give_other_pictures(by_map, maps):
    Image.new("L", (16, 16), 4).save("boxes.png")
    for name in ("small", "boxes"):
        assert sample("--segmentation", f"{name}.png", "--temperature", 0, "-n", 1, "-o", f"{name}/") == 0
    assert (pixels("small/000000.png") != pixels("boxes/000000.png")).any()


def test_a_class_is_a_number_or_a_name(by_class):
    for name, wanted in (("number", "1"), ("name", "dogs"), ("other", "cats")):
        assert sample(by_class, "--class", wanted, "-n", 2, "-o", f"{name}/") == 0
    assert (pixels("number/000001.png") == pixels("name/000001.png")).all()
    assert (pixels("other/000001.png") != pixels("name/000001.png")).any()
    assert text("number/000001.png")["condition"] == "dogs"


def test_the_legend_names_what_a_condition_can_be(by_class, by_map, capsys):
    assert sample(by_class, "--legend") == 0
    assert capsys.readouterr().out == "   0  cats\n   1  dogs\n"
    assert sample(by_map, "--legend", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["legend"]
    assert [row["number"] for row in rows] == list(range(LABELS - 1))
    assert rows[4] == {"number": 4, "name": "box", "colour": "#{:02x}{:02x}{:02x}".format(*CLASS_COLOURS[4])}
    # A map painted in these colours is the map of these numbers.
    painted = np.array([[int(row["colour"][i : i + 2], 16) for i in (1, 3, 5)] for row in rows], np.uint8)
    ids = np.arange(16 * 16).reshape(16, 16) % len(rows)
    for name, picture in (("numbers", ids.astype(np.uint8)), ("colours", painted[ids])):
        Image.fromarray(picture).save(f"{name}.png")
        assert sample(by_map, "--segmentation", f"{name}.png", "-n", 1, "-o", f"{name}/") == 0
    assert (pixels("numbers/000000.png") == pixels("colours/000000.png")).all()
    capsys.readouterr()
    assert sample(by_class, "--legend", "-n", 2) == 2
    assert "--legend samples nothing; leave --num out" in capsys.readouterr().err


def test_without_a_class_those_of_held_out_photos_are_taken(by_class):
    assert sample(by_class, "-n", 3, "-o", "own/") == 0
    assert {text(path)["condition"] for path in Path("own").iterdir()} <= {"cats", "dogs"}
    assert sample(by_class, "-n", 3, "-o", "own.png") == 0


def test_a_depth_map_is_scaled_by_its_own_range(tmp_path, maps):
    path = save_prior(tmp_path / "depth.safetensors", condition="depth", condition_size=64)
    assert (
        sample(path, "--depth", "depth.png", "--size", "16x16", "-n", 2, "--scale", 1, "-o", "grid.png") == 0
    )
    lead = pixels("grid.png")[54:102, 89:137]
    assert (lead[0, 0] < 16).all()
    assert (lead[0, -1] > 240).all()


def test_depth_maps_of_held_out_photos_are_taken_without_one(tmp_path):
    for folder in ("images", "depth"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
    for number, image in enumerate(draw_scenes(np.arange(9), 16, 4).images):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "pairs" / "images" / f"{number}.png")
        Image.fromarray(image[0]).save(tmp_path / "pairs" / "depth" / f"{number}.png")
    data = (f"data.dataset={tmp_path / 'pairs'}", "data.num_images=9")
    path = save_prior(tmp_path / "weights.safetensors", *data, condition="depth", condition_size=64)
    assert sample(path, "-n", 3, "-o", "grid.png") == 0
    assert text("grid.png")["condition"].startswith("depth of held-out images of ")


def test_maps_can_be_turned_into_codes_by_a_tokenizer_of_their_own(tmp_path, maps):
    of_maps = ("model.image_channels=8",)
    path = save_prior(
        tmp_path / "w.safetensors", condition="segmentation", condition_size=32, of_maps=of_maps
    )
    assert sample(path, "--segmentation", "small.png", "-n", 2, "-o", "grid.png") == 0
    assert sample(path, "--segmentation", "wide.png", "-n", 2, "-o", "wide/") == 0
    assert pixels("wide/000000.png").shape == (24, 48, 3)


def test_a_completion_keeps_the_upper_part(tmp_path, maps):
    # One code a pixel: what is kept is the photo in the colours of the palette.
    path = save_prior(
        tmp_path / "pixels.safetensors", tokenizer=("model.kind=palette", "model.palette_size=16")
    )
    arguments = ["--complete", "photo.png", "--keep", 0.25, "-n", 2]
    assert sample(path, *arguments, "-o", "half/") == 0
    first, second = pixels("half/000000.png"), pixels("half/000001.png")
    assert (first[:4] == second[:4]).all()
    assert (first[4:] != second[4:]).any()
    assert text("half/000000.png")["keep"] == "0.25"
    assert sample(path, *arguments, "--scale", 1, "-o", "grid.png") == 0
    sheet = pixels("grid.png")
    lead, head, label = sheet[54:102, 89:137], sheet[30:54, 89:137], sheet[54:102, :86]
    assert (lead[12:] == 128).all()
    assert lead[:12].std() > 5
    assert head.min() < 160  # words
    assert label.min() < 160


def test_everything_kept_is_a_reconstruction(plain, maps):
    assert sample(plain, "--complete", "photo.png", "--keep", 1, "-n", 2, "-o", "all/") == 0
    assert (pixels("all/000000.png") == pixels("all/000001.png")).all()


@pytest.mark.parametrize(("condition", "size"), [("class", 4), ("segmentation", LABELS), ("depth", 65)])
def test_a_prior_that_was_not_always_told_completes_and_goes_wide_without_being_told(
    tmp_path, maps, condition, size
):
    path = save_prior(
        tmp_path / "w.safetensors", "prior.condition_dropout=0.1", condition=condition, condition_size=size
    )
    assert sample(path, "--complete", "photo.png", "-n", 2, "-o", "half/") == 0
    assert text("half/000000.png")["condition"] == "nothing said"
    assert sample(path, "--size", "32x16", "-n", 1, "-o", "wide/") == 0
    assert pixels("wide/000000.png").shape == (16, 32, 3)


# Size.


def test_a_map_says_the_size_and_windows_fill_it(by_map, maps):
    assert sample("--segmentation", "wide.png", "-n", 2, "-o", "wide/") == 0
    assert pixels("wide/000001.png").shape == (24, 48, 3)
    assert text("wide/000001.png")["size"] == "48x24"


def test_a_size_is_width_by_height(plain):
    assert sample(plain, "--size", "24x16", "-n", 2, "-o", "larger/") == 0
    assert pixels("larger/000000.png").shape == (16, 24, 3)
    assert sample(plain, "--size", "24x16", "-n", 2, "--animate", "film.webp", "-o", "grid.png") == 0


# Animations.


def test_an_animation_ends_with_the_finished_pictures(plain):
    arguments = ["-n", 3, "--scale", 1, "--columns", 3]
    assert sample(plain, *arguments, "-o", "still.png") == 0
    assert sample(plain, *arguments, "-o", "grid.png", "--animate", "film.gif", "--fps", 10) == 0
    assert (pixels("still.png") == pixels("grid.png")).all()
    with Image.open("film.gif") as film:
        frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(film)]
    assert len(frames) >= 64
    assert (frames[0][10:18, 2:18] == 128).all()
    assert np.abs(frames[-1] - pixels("grid.png")).mean() < 6  # 256 colours


def test_an_animation_shows_every_map(by_map):
    assert sample("-n", 2, "--scale", 1, "--animate", "film.webp", "-o", "grid.png") == 0
    with Image.open("film.webp") as film:
        assert film.n_frames >= 64
        assert film.size == (2 * 18 + 2, 2 * 18 + 2)


# What is refused.

PRIOR = "runs/prior-scenes-000/weights-000002.safetensors"
REFUSED = {
    "photo as map": (["--segmentation", "photo.png"], 1, "is it a photo"),
    "unknown labels": (["--segmentation", "unknown.png"], 1, "unknown labels 4"),
    "no map": (["--segmentation", "none.png"], 1, "none.png: no such file"),
    "map of odd size": (["--segmentation", "odd.png"], 1, "multiples of 2, as 32x3"),
    "map of another shape": (["--segmentation", "wide.png", "--size", "32x32"], 1, "32x32 or the same shape"),
    "small map": (["--segmentation", "tiny.png"], 2, "smaller than the 16x16 pixels"),
    "small size": (["--segmentation", "map.png", "--size", "8x8"], 2, "smaller than the 16x16 pixels"),
    "odd size": (["--segmentation", "map.png", "--size", "33x32"], 2, "multiples of 2, the pixels of a code"),
    "no size": (["--segmentation", "map.png", "--size", "big"], 2, "write WIDTHxHEIGHT"),
    "size without map": (["--size", "32x32"], 2, "add --segmentation map.png"),
    "photo without map": (["--complete", "photo.png"], 2, "add --segmentation map.png"),
    "class": (["--class", "3"], 2, "--class: "),
    "depth": (["--depth", "depth.png"], 2, "conditioned on label maps; use --segmentation"),
    "keep alone": (["--keep", "0.5"], 2, "add --complete"),
    "keep beyond": (
        ["--segmentation", "map.png", "--complete", "photo.png", "--keep", "1.5"],
        2,
        "from 0 to 1",
    ),
    "no photo": (["--segmentation", "map.png", "--complete", "none.png"], 1, "none.png: no such file"),
    "temperature": (["--temperature", "-1"], 2, "--temperature -1: must be 0"),
    "endless temperature": (["--temperature", "nan"], 2, "--temperature nan: must be 0"),
    "top-k": (["--top-k", "33"], 2, "--top-k 33: the codebook has 32 codes"),
    "no top-k": (["--top-k", "0"], 2, "--top-k 0"),
    "top-p": (["--top-p", "1.5"], 2, "--top-p 1.5"),
    "no top-p": (["--top-p", "0"], 2, "--top-p 0"),
    "latents": (["--psi", "0.5"], 2, "--psi: "),
    "interpolation": (["--interpolate", "4"], 2, "--interpolate: "),
    "animation of files": (
        ["--animate", "film.webp", "-o", "files/"],
        2,
        "an animation is of the images of a grid",
    ),
    "animation of no kind": (["--animate", "film.txt"], 2, "an animation ends in"),
    "too many": (["--num", "2000000"], 2, "too many for one picture"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_means_nothing_is_one_line_and_writes_nothing(by_map, maps, capsys, name):
    arguments, status, message = REFUSED[name]
    before = sorted(Path().rglob("*.png"))
    assert sample("-n", 2, *arguments) == status
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""
    assert sorted(Path().rglob("*.png")) == before
    assert not Path("files").exists()


@pytest.mark.parametrize("arguments", [["--size", "32x32"], ["--segmentation", "map.png"]])
@pytest.mark.usefixtures("maps")
def test_larger_pictures_in_another_order_are_refused_before_anything_is_loaded(tmp_path, capsys, arguments):
    order = {"order": "spiral-out"}
    if "--segmentation" in arguments:
        order |= {"condition": "segmentation", "condition_size": LABELS}
    weights = save_prior(tmp_path / "run" / "weights-000002.safetensors", **order)
    assert sample(weights, *arguments) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "order `spiral-out`, which only fits 16x16 pixels" in shown


def test_classes_that_do_not_exist_are_refused(by_class, capsys):
    for wanted, message in (
        ("2", "the classes are cats, dogs"),
        ("²", "no such class"),
        ("dog", "no such class"),
    ):
        assert sample(by_class, "--class", wanted) == 2
        assert message in capsys.readouterr().err


def test_flags_of_priors_mean_nothing_to_generators(tiny_weights, capsys):
    assert sample(tiny_weights, "--temperature", 1) == 2
    assert "--temperature: " in capsys.readouterr().err


def test_a_tokenizer_is_answered_with_what_is_needed(by_map, capsys):
    path = save_tokenizer(Path("runs/vqgan-scenes-000/weights-000001.safetensors"))
    assert sample(path) == 1
    shown = capsys.readouterr().err
    assert "weights of vqgan, which makes no images by itself" in shown
    assert f"`gtool train prior --tokenizer {path}`" in shown
    assert "the newest prior is runs/prior-scenes-000" in shown


def test_weights_whose_data_are_not_here_need_a_condition(tmp_path, capsys, maps):
    path = save_prior(
        tmp_path / "away.safetensors",
        "data.dataset=./nothing",
        condition="segmentation",
        condition_size=LABELS,
    )
    assert sample(path, "-n", 2) == 1
    assert "add --segmentation map.png" in capsys.readouterr().err
    assert sample(path, "-n", 2, "--segmentation", "small.png", "-o", "grid.png") == 0


def test_weights_of_another_time_are_used_whatever_else_their_recipe_says(by_map):
    weights = load_weights(by_map)
    recipe = weights.meta["recipe"] | {"optim": {"forgotten": 3}, "unknown": {}}
    save_weights(by_map, weights.tensors, weights.meta | {"recipe": recipe})
    assert sample("-n", 2, "-o", "grid.png") == 0


def test_data_that_make_no_sense_are_one_line(by_map, capsys):
    weights = load_weights(by_map)
    recipe = weights.meta["recipe"] | {"data": {"resolution": "wide"}}
    save_weights(by_map, weights.tensors, weights.meta | {"recipe": recipe})
    assert sample("-n", 2, "-o", "grid.png") == 1
    assert "weights-000002.safetensors: `recipe.data.resolution`" in capsys.readouterr().err


def test_orders_but_raster_have_one_size(tmp_path, capsys):
    path = save_prior(tmp_path / "spiral.safetensors", order="spiral-in")
    assert sample(path, "-n", 2, "--size", "32x16", "-o", "grid.png") == 2
    assert "larger images need the order `raster`" in capsys.readouterr().err
    assert not Path("grid.png").exists()
