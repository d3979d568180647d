"""`gtool paint` from the command line: one photo, its look, the built-in scene, and weights."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from gtool.errors import printable
from gtool.io import run_folder
from gtool.io.run_folder import METADATA_KEY
from gtool.io.weights import save_weights
from gtool.losses.efficientnet import efficientnet_lite0
from gtool.models.paint_transformer.network import build_predictor
from gtool.models.registry import config_class
from gtool.paint.checks import CANVAS_COLORS
from gtool.paint.painter import level_for
from gtool.strokes.settings import BRUSHES
from tests.helpers import odd_images as odd
from tests.helpers.painted import SIDE, distance, draw_photo, files, paint, pixels, refusal

# One photo.


def test_a_photo_becomes_a_painting_beside_it(capsys):
    draw_photo("in/photo.jpg")
    assert paint("in/photo.jpg", method="greedy") == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["in/photo-painted.png"]
    assert "in/photo.jpg: " in said.err
    assert "strokes, 48x48" in said.err
    flat = np.abs(pixels("in/photo.jpg") - pixels("in/photo.jpg").mean((0, 1))).mean()
    assert 1 < distance("in/photo.jpg", "in/photo-painted.png") < 0.5 * flat
    assert files() == ["in/photo-painted.png", "in/photo.jpg"]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("b.jpg", "JPEG"), ("c.JPEG", "JPEG"), ("d.webp", "WEBP")]
)
def test_the_suffix_chooses_the_format(name, kind):
    draw_photo("photo.png")
    assert paint("photo.png", "-o", name) == 0
    with Image.open(name) as opened:
        assert opened.format == kind
        assert opened.size == (SIDE, SIDE)


def test_a_painting_says_how_it_was_made_and_nothing_of_this_machine():
    photo = draw_photo("photo.png").absolute()
    assert paint(photo, "-o", "a.png", "--seed", 3) == 0
    with Image.open("a.png") as opened:
        text = opened.text
    assert (text["method"], text["seed"], text["brush"]) == ("random", "3", "flat")
    assert int(text["strokes"]) > 50
    assert str(photo.parent) not in str(text)


def test_an_output_that_exists_is_replaced_by_force_alone(capsys):
    draw_photo("photo.png")
    Path("photo-painted.png").write_text("mine")
    assert paint("photo.png") == 1
    assert refusal(capsys).startswith("error: photo-painted.png: exists; add --force")
    assert Path("photo-painted.png").read_text() == "mine"
    assert paint("photo.png", "--force") == 0
    assert pixels("photo-painted.png").shape == (SIDE, SIDE, 3)


def test_a_photo_is_never_painted_over(capsys):
    before = draw_photo("photo.png").read_bytes()
    os.symlink("photo.png", "link.png")
    for name in ("photo.png", "./photo.png", "link.png"):
        assert paint("photo.png", "-o", name, "--force") == 1
        assert "is what is to be painted" in refusal(capsys)
    assert Path("photo.png").read_bytes() == before


def test_the_same_seed_paints_the_same_and_another_does_not():
    draw_photo("photo.png")
    for name, seed in (("a.png", 5), ("b.png", 5), ("c.png", 6)):
        assert paint("photo.png", "-o", name, "--seed", seed, method="greedy") == 0
    assert distance("a.png", "b.png") == 0
    assert distance("a.png", "c.png") > 1


def test_a_camera_that_was_turned_is_turned_back_once():
    Path("turned.jpg").write_bytes(odd.turned_jpeg())
    assert paint("turned.jpg", "-o", "a.jpg", method="greedy") == 0
    with Image.open("a.jpg") as opened:
        assert opened.size == (8, 16)
        assert not opened.getexif()
    right, left = pixels("a.jpg")[8, 6], pixels("a.jpg")[8, 1]
    assert right[0] > right[1] + 60
    assert left[1] > left[0] + 60


def test_transparency_is_kept_where_the_format_can_or_filled_by_a_canvas():
    Path("photo.png").write_bytes(odd.encode(odd.half_transparent().resize((SIDE, SIDE), 0)))
    for name in ("a.png", "a.webp"):
        assert paint("photo.png", "-o", name) == 0
    for name in ("b.png", "a.jpg"):
        assert paint("photo.png", "-o", name, "--canvas-color", "#0000ff") == 0
    with Image.open("b.png") as opened:
        assert opened.mode == "RGB"
    assert distance("b.png", "a.jpg") < 5
    for name in ("a.png", "a.webp"):
        with Image.open(name) as opened:
            assert np.asarray(opened)[:, ::47, 3].tolist() == [[255, 0]] * SIDE
    assert pixels("a.jpg")[:, 36:].mean((0, 1)) == pytest.approx((0, 0, 255), abs=25)
    assert pixels("a.jpg")[:, :12].mean((0, 1)) == pytest.approx(odd.GREEN, abs=40)


def test_the_colour_profile_is_kept():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (SIDE, SIDE), odd.RED).save("photo.png", icc_profile=profile)
    assert paint("photo.png", "-o", "a.jpg") == 0
    with Image.open("a.jpg") as opened:
        assert opened.info["icc_profile"] == profile


@pytest.mark.parametrize(
    ("size", "cap", "expected"),
    [
        ((1, 1), 48, (1, 1)),
        ((3, 5000), 160, (1, 160)),
        ((12000, 50), 480, (480, 2)),
        ((90, 60), 45, (45, 30)),
        ((45, 30), 90, (45, 30)),
    ],
)
def test_sizes_of_every_shape_are_painted(size, cap, expected, capsys):
    odd.plain(Path("photo.png"), size=size)
    assert paint("photo.png", "--max-side", cap, "--detail", 0, "--json") == 0
    (made,) = json.loads(capsys.readouterr().out)["pictures"]
    assert (made["width"], made["height"]) == expected
    assert pixels("photo-painted.png").shape[1::-1] == expected
    assert pixels("photo-painted.png").mean((0, 1)) == pytest.approx(odd.RED, abs=12)


def test_an_animation_is_painted_by_its_first_frame_and_says_so(capsys):
    Path("photo.gif").write_bytes(odd.animation())
    assert paint("photo.gif") == 0
    assert "photo.gif: an animation; its first frame is painted" in capsys.readouterr().err
    assert pixels("photo-painted.png").mean((0, 1)) == pytest.approx(odd.RED, abs=12)


AWKWARD = ["my photo.png", "Größe 写真.png", "-dash.png", "[a].png", "a'b\"$c.png", "line\nbreak.png"]


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names_are_painted(name, capsys):
    draw_photo(name)
    assert paint("--", name) == 0
    assert Path(f"{Path(name).stem}-painted.png").is_file()
    assert len(capsys.readouterr().err.strip().splitlines()) == 2  # what paints, and the picture


def test_names_that_are_no_text_are_painted_and_shown(capsys):
    name = os.fsdecode(b"caf\xe9.png")
    draw_photo("a.png").rename(name)
    assert paint(name) == 0
    assert os.path.isfile(os.fsdecode(b"caf\xe9-painted.png"))
    assert capsys.readouterr().out == "caf\\udce9-painted.png\n"
    assert printable(name) == "caf\\udce9.png"
    Path(name).write_text("no photo")
    assert paint(name, "--force") == 1
    assert refusal(capsys) == "error: caf\\udce9.png: no image of a known format"


# The look.


def strokes(*arguments, capsys, method="greedy") -> int:
    capsys.readouterr()
    assert paint("photo.png", "--force", "--json", *arguments, method=method) == 0
    (made,) = json.loads(capsys.readouterr().out)["pictures"]
    return made["strokes"]


def test_more_detail_is_more_strokes_and_a_nearer_painting(capsys):
    draw_photo("photo.png", size=(96, 96))
    found = {}
    for detail in (0, 0.5, 1):
        found[detail] = strokes("--detail", detail, capsys=capsys), distance("photo.png", "photo-painted.png")
    assert found[0][0] < found[0.5][0] < found[1][0]
    assert found[0][1] > found[0.5][1] > found[1][1]


def test_detail_is_the_same_for_the_eye_at_any_size():
    assert [level_for(detail, 4) for detail in (0, 0.25, 0.5, 0.7, 1)] == [1, 3, 4, 4, 5]
    assert [level_for(detail, 6) for detail in (0, 0.25, 0.5, 0.75, 1)] == [1, 3, 4, 5, 6]
    assert [level_for(detail, 0) for detail in (0, 0.5, 1)] == [0, 0, 1]


def test_a_stroke_budget_is_kept(capsys):
    draw_photo("photo.png")
    assert strokes(capsys=capsys) > 60
    assert strokes("--max-strokes", 60, capsys=capsys) == 60
    assert strokes("--max-strokes", 5, capsys=capsys) == 5


def test_few_strokes_come_nearer_than_they_were_found_and_many_are_as_they_were(monkeypatch):
    draw_photo("photo.png")
    few = ["--max-strokes", 60, "--strokes"]
    assert paint("photo.png", "-o", "refined.png", *few, "refined.json") == 0
    assert paint("photo.png", "-o", "many.png", "--strokes", "many.json") == 0
    monkeypatch.setattr("gtool.paint.painter.MOST_REFINED", 0)
    assert paint("photo.png", "-o", "found.png", *few, "found.json") == 0
    assert distance("photo.png", "refined.png") < 0.8 * distance("photo.png", "found.png")
    assert paint("photo.png", "-o", "again.png", "--strokes", "again.json") == 0
    assert Path("many.json").read_bytes() == Path("again.json").read_bytes()
    assert paint("--from-strokes", "refined.json", "--max-side", SIDE, "-o", "read.png", method=None) == 0
    assert distance("read.png", "refined.png") == 0


def test_keep_all_paints_what_does_not_help_too(capsys):
    draw_photo("photo.png")
    kept, every = (strokes(*flags, capsys=capsys, method="random") for flags in ([], ["--keep-all"]))
    assert kept < 0.8 * every


def test_brushes_differ_and_each_paints_the_photo():
    draw_photo("photo.png")
    for brush in BRUSHES:
        assert paint("photo.png", "-o", f"{brush}.png", "--brush", brush) == 0
    assert distance("flat.png", "round.png") > 0.5
    assert distance("flat.png", "dry.png") > 0.5


def test_a_brush_of_ones_own_is_the_picture_of_a_mark():
    draw_photo("photo.png")
    square = np.full((40, 40), 255, np.uint8)
    square[8:32, 14:26] = 0
    Path("brush").mkdir()
    Image.fromarray(square).save("brush/mark.png")
    assert paint("photo.png", "-o", "a.png", "--brush", "brush", method="greedy") == 0
    assert paint("photo.png", "-o", "b.png", method="greedy") == 0
    assert distance("photo.png", "a.png") < 1.5 * distance("photo.png", "b.png")
    assert distance("a.png", "b.png") > 1
    with Image.open("a.png") as opened:
        assert opened.text["brush"] == "brush/"


def test_thin_paint_lets_the_canvas_through():
    Image.new("RGB", (SIDE, SIDE), (0, 0, 0)).save("photo.png")
    seen = []
    flags = ["--force", "--keep-all", "--max-strokes", 36, "--canvas-color", "white"]
    for opacity in (1, 0.2):
        assert paint("photo.png", *flags, "--opacity", opacity) == 0
        seen.append(pixels("photo-painted.png").mean())
    assert seen[0] < 10
    assert seen[1] > 60


@pytest.mark.parametrize("name", [*CANVAS_COLORS, "#369", "#336699", "LINEN"])
def test_canvas_colours_have_names(name):
    draw_photo("photo.png")
    assert paint("photo.png", "--max-strokes", 1, "--keep-all", "--canvas-color", name) == 0
    written = CANVAS_COLORS.get(name.lower(), "#336699").lstrip("#")
    colour = tuple(bytes.fromhex(written))
    bare = (pixels("photo-painted.png") == colour).all(-1).mean()
    assert bare > 0.5


def test_the_canvas_is_the_mean_of_the_photo_unless_said():
    draw_photo("photo.png")
    assert paint("photo.png", "--max-strokes", 1, "--keep-all") == 0
    colour = pixels("photo.png").mean((0, 1))
    assert (np.abs(pixels("photo-painted.png") - colour).max(-1) <= 1).mean() > 0.5


# The built-in scene.


def test_nothing_named_paints_the_scene_beside_itself(capsys):
    assert paint("--max-side", 64, "--detail", 0) == 0
    assert capsys.readouterr().out.splitlines() == ["scene-painted.png"]
    assert files() == ["scene-painted.png", "scene.png"]
    assert pixels("scene.png").shape == (1024, 1024, 3)
    small = np.asarray(Image.open("scene.png").resize((64, 64)).convert("RGB")).astype(int)
    assert np.abs(small - pixels("scene-painted.png")).mean() < 25
    assert paint() == 1
    assert refusal(capsys).startswith("error: scene-painted.png: exists")


def test_a_scene_of_the_user_stays_theirs():
    Path("scene.png").write_text("mine")
    assert paint("--max-side", 64, "--detail", 0) == 0
    assert Path("scene.png").read_text() == "mine"


# Weights.


CONFIG = {"width": 16, "heads": 2, "depth": 1, "mlp_ratio": 1, "stem_width": 8}


def predictor(path="mine.safetensors", model="paint-transformer", **changed) -> Path:
    config = config_class("paint-transformer").model_validate(CONFIG)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_predictor(config)
    meta = {"model": model, "config": {**config.model_dump(mode="json"), **changed}, "nimg": 0}
    save_weights(Path(path), network.state_dict(), meta)
    return Path(path)


@pytest.mark.parametrize("select", ["gain", "decision"])
def test_weights_paint(select, capsys):
    draw_photo("photo.png")
    assert paint("photo.png", "--weights", predictor(), "--select", select, "--json", method=None) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["method"] == "predictor"
    assert said["weights"] == "mine.safetensors"


def test_a_run_folder_gives_its_weights():
    draw_photo("photo.png")
    Path("runs/mine").mkdir(parents=True)
    predictor("runs/mine/weights-000001.safetensors")
    assert paint("photo.png", "--weights", "runs/mine", method="predictor") == 0


def test_weights_of_the_package_are_the_default(monkeypatch, capsys):
    efficientnet_lite0(torch.device("cpu"))  # read before the package has no weights
    draw_photo("photo.png")
    predictor("paint-transformer.safetensors")
    monkeypatch.setattr(run_folder, "SHIPPED_FOLDER", Path())
    assert paint("photo.png", method=None) == 0
    assert capsys.readouterr().err.startswith("predictor, ")


def test_without_weights_greedy_paints_and_says_so(monkeypatch, capsys):
    efficientnet_lite0(torch.device("cpu"))  # read before the package has no weights
    draw_photo("photo.png")
    monkeypatch.setattr(run_folder, "SHIPPED_FOLDER", Path("nowhere"))
    assert paint("photo.png", method=None) == 0
    assert "no trained weights come with this gtool" in capsys.readouterr().err
    assert paint("photo.png", "--force", method="predictor") == 1
    assert "use --method greedy" in refusal(capsys)


def test_weights_of_another_model_are_refused(tiny_weights, capsys):
    draw_photo("photo.png")
    assert paint("photo.png", "--weights", tiny_weights, method=None) == 1
    assert "weights of 'transgan'; painting needs those of paint-transformer" in refusal(capsys)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": 1024, "heads": 1, "depth": 24}, "not the weights of this model"),
        ({"width": 10**9}, "config.width"),
        ({"colour": 3}, "config.colour"),
    ],
)
def test_weights_that_lie_about_themselves_are_refused(changed, said, capsys):
    draw_photo("photo.png")
    assert paint("photo.png", "--weights", predictor(**changed), method=None) == 1
    assert said in refusal(capsys)
    assert not Path("photo-painted.png").exists()


def test_weights_without_a_description_are_refused(capsys):
    draw_photo("photo.png")
    header = json.dumps(
        {"__metadata__": {METADATA_KEY: '{"format": 1, "model": "paint-transformer"}'}}
    ).encode()
    Path("bad.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert paint("photo.png", "--weights", "bad.safetensors", method=None) == 1
    assert "lacks a config" in refusal(capsys)
