"""`gtool paint` from the command line: several photos, strokes, vectors, animations, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from gtool.cli import run
from gtool.paint import run as painting_run
from gtool.strokes import painting
from tests.helpers import odd_images as odd
from tests.helpers.painted import SIDE, distance, draw_photo, files, paint, pixels, refusal

# Several photos.


def test_a_folder_keeps_its_subfolders(capsys):
    for number, name in enumerate(("all/a.jpg", "all/deep/er/b.png", "all/c.webp")):
        draw_photo(name, number)
    assert paint("all", "-o", "painted/") == 0
    made = ["painted/a-painted.png", "painted/c-painted.png", "painted/deep/er/b-painted.png"]
    assert capsys.readouterr().out.splitlines() == made
    assert [name for name in files() if name.startswith("painted")] == made


def test_paintings_in_a_folder_are_not_painted_again(capsys):
    draw_photo("all/a.png")
    assert paint("all", "-o", "all/painted") == 0
    draw_photo("all/b.png")
    assert paint("all") == 0
    assert "left out 1 of 3, called as paintings (*-painted.*)" in capsys.readouterr().err
    assert [name for name in files() if "painted" in name] == [
        "all/a-painted.png",
        "all/b-painted.png",
        "all/painted/a-painted.png",
    ]


def test_a_painting_does_not_depend_on_the_others():
    for number in range(3):
        draw_photo(f"all/{number}.png", number)
    assert paint("all", "-o", "painted", method="greedy") == 0
    assert paint("all/1.png", "-o", "alone.png", method="greedy") == 0
    assert distance("alone.png", "painted/1-painted.png") == 0


def test_brush_and_network_are_loaded_once(monkeypatch):
    opened = []
    real = painting_run.open_brush
    monkeypatch.setattr(painting_run, "open_brush", lambda *given: opened.append(1) or real(*given))
    for number in range(3):
        draw_photo(f"all/{number}.png", number)
    assert paint("all") == 0
    assert opened == [1]


def test_one_bad_picture_does_not_stop_the_others(capsys):
    draw_photo("all/a.png")
    Path("all/b.jpg").write_text("no photo")
    Path("all/c.png").write_bytes(odd.bomb_png())
    Path("all/d.jpg").write_bytes(odd.truncated_jpeg())
    Path("all/e.png").touch()
    os.symlink("nowhere", "all/f.png")
    draw_photo("all/g.png", 1)
    assert paint("all", "none.jpg", "-o", "painted/") == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == ["painted/a-painted.png", "painted/g-painted.png"]
    for reason in (
        "warning: all/b.jpg: no image of a known format",
        "warning: all/c.png: more than 89.5 million pixels",
        "warning: all/d.jpg: damaged: ",
        "warning: all/e.png: empty",
        "warning: all/f.png: a link that leads nowhere",
        "warning: none.jpg: no such file",
    ):
        assert sum(line.startswith(reason) for line in said.err.splitlines()) == 1
    assert said.err.splitlines()[-1] == "error: 6 of 8 photos were not painted"


def test_a_call_can_be_taken_up_where_it_stopped(capsys):
    for number in range(2):
        draw_photo(f"all/{number}.png", number)
    assert paint("all/0.png") == 0
    before = Path("all/0-painted.png").stat().st_mtime_ns
    capsys.readouterr()
    assert paint("all") == 1
    assert capsys.readouterr().out.splitlines() == ["all/1-painted.png"]
    assert Path("all/0-painted.png").stat().st_mtime_ns == before


def test_photos_of_one_name_get_paintings_of_their_own(capsys):
    for number, name in enumerate(("all/a.png", "all/a.webp", "all/A.jpg")):
        draw_photo(name, number)
    assert paint("all", "-o", "painted") == 0
    assert len(list(Path("painted").iterdir())) == 3
    draw_photo("x/a.png")
    draw_photo("y/a.png")
    assert paint("x/a.png", "y/a.png", "-o", "both") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["both/a-painted.png", "both/a-png-painted.png"]


def test_a_quoted_pattern_is_understood(capsys):
    for name in ("a1.png", "a2.png", "b.png"):
        draw_photo(name)
    assert paint("a*.png") == 0
    assert capsys.readouterr().out.splitlines() == ["a1-painted.png", "a2-painted.png"]
    assert paint("a*.png", "--force") == 0
    assert capsys.readouterr().out.splitlines() == ["a1-painted.png", "a2-painted.png"]
    assert paint("*-painted.png") == 1
    assert refusal(capsys) == "error: *-painted.png: nothing but what is called as paintings (*-painted.*)"


def test_json_is_one_object(capsys):
    draw_photo("a.png")
    Path("b.png").write_text("no photo")
    assert paint("a.png", "b.png", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    (made,) = said["pictures"]
    assert (said["method"], said["seed"]) == ("random", 0)
    assert (made["in"], made["out"], made["width"], made["height"]) == ("a.png", "a-painted.png", SIDE, SIDE)
    assert made["strokes"] > 50
    assert made["seconds"] > 0
    assert made["l1"] == pytest.approx(distance("a.png", "a-painted.png") / 255, abs=1e-4)
    assert made["uncovered"] < 0.001
    assert said["failed"] == [{"in": "b.png", "reason": "b.png: no image of a known format"}]


# Strokes, vectors, the making of.


def test_strokes_render_to_the_same_pixels_and_at_any_size(capsys):
    draw_photo("photo.png", size=(48, 36))
    assert paint("photo.png", "--strokes", "photo.json", "--brush", "dry", "--opacity", 0.7) == 0
    assert paint("--from-strokes", "photo.json", "--max-side", 48, "-o", "again.png", method=None) == 0
    assert distance("photo-painted.png", "again.png") == 0
    capsys.readouterr()
    assert paint("--from-strokes", "photo.json", "--max-side", 480, method=None) == 0
    assert capsys.readouterr().out.splitlines() == ["photo-painted-480.png"]
    large = Image.open("photo-painted-480.png")
    assert large.size == (480, 360)
    small = np.asarray(large.resize((48, 36), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - pixels("photo-painted.png")).mean() < 4


def test_strokes_can_be_rendered_otherwise(capsys):
    draw_photo("photo.png")
    assert paint("photo.png", "--strokes", "photo.json", "--canvas-color", "white") == 0
    flags = ("--max-side", 48, "-o", "a.png", "--force")
    changes = [[], ["--brush", "dry"], ["--opacity", 0.5], ["--canvas-color", "black", "--max-strokes", 1]]
    seen = []
    for change in changes:
        assert paint("--from-strokes", "photo.json", *flags, *change, method=None) == 0
        seen.append(pixels("a.png"))
    assert all(np.abs(seen[0] - other).mean() > 0.3 for other in seen[1:])
    assert (seen[3] == 0).all(-1).mean() > 0.5


def test_a_brush_of_ones_own_has_to_be_named_again(capsys):
    draw_photo("photo.png")
    Path("flat").mkdir()
    Image.fromarray(np.pad(np.zeros((20, 10), np.uint8), 9, constant_values=255)).save("flat/mark.png")
    assert paint("photo.png", "--strokes", "photo.json", "--brush", "./flat") == 0
    capsys.readouterr()
    again = ("--from-strokes", "photo.json", "--max-side", 48, "-o", "again.png")
    assert paint(*again, method=None) == 1
    assert "name its folder with --brush" in refusal(capsys)
    assert paint(*again, "--brush", "./flat", method=None) == 0
    assert distance("photo-painted.png", "again.png") == 0


@pytest.mark.parametrize("content", ["", "no strokes", "{}", '{"format": "gtool-strokes", "version": 99}'])
def test_a_stroke_file_that_is_none_is_refused(content, capsys):
    Path("photo.json").write_text(content)
    assert paint("--from-strokes", "photo.json", method=None) == 1
    assert refusal(capsys).startswith("error: photo.json: ")
    assert files() == ["photo.json"]


@pytest.mark.parametrize("name", ["making.gif", "making.webp", "making.mp4"])
def test_the_making_ends_with_the_painting(name):
    draw_photo("photo.png")
    assert paint("photo.png", "--animate", name, "--frames", 5, "--fps", 8) == 0
    if name.endswith(".mp4"):
        import av

        with av.open(name) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    else:
        with Image.open(name) as opened:
            frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]
    assert len(frames) >= 5
    if name.endswith(".mp4"):
        assert len(frames) == 5 + 12  # the end is held for a second and a half
    errors = [np.abs(frame.astype(int) - pixels("photo-painted.png")).mean() for frame in frames]
    assert errors[-1] < 12
    assert errors[0] > errors[-1]


def test_what_is_painted_smaller_than_it_is_is_said(monkeypatch, capsys):
    monkeypatch.setattr(painting_run, "DEFAULT_SIDE", 24)
    draw_photo("photo.png", size=(48, 36))
    assert paint("photo.png") == 0
    assert "photo.png: 48x36 is painted at 24x18; --max-side 48 paints it larger" in capsys.readouterr().err
    assert pixels("photo-painted.png").shape == (18, 24, 3)
    assert paint("photo.png", "--max-side", 24, "--force") == 0
    assert "--max-side" not in capsys.readouterr().err


def test_vectors_are_written():
    draw_photo("photo.png")
    assert paint("photo.png", "--svg", "photo.svg") == 0
    assert "<svg" in Path("photo.svg").read_text(encoding="utf-8")[:500]


def test_several_photos_put_everything_into_folders(capsys):
    draw_photo("all/a.png")
    draw_photo("all/deep/b.png", 1)
    flags = ("-o", "out/", "--svg", "out/", "--strokes", "json/", "--animate", "films/", "--frames", 3)
    assert paint("all", *flags, "--json") == 0
    first, second = json.loads(capsys.readouterr().out)["pictures"]
    assert (first["out"], first["svg"]) == ("out/a-painted.png", "out/a-painted.svg")
    assert second["stroke_file"] == "json/deep/b-painted.json"
    assert second["animation"] == "films/deep/b-painted.webp"
    assert all(Path(second[kind]).stat().st_size for kind in ("out", "svg", "stroke_file", "animation"))


# What is refused, before anything is written.

REFUSED = {
    "missing photo": (["phoot.png"], 1, "phoot.png: no such file; did you mean `photo.png`?"),
    "text": (["notes.txt"], 1, "notes.txt: no image of a known format"),
    "empty folder": (["empty"], 1, "empty: no photos found"),
    "suffix": (
        ["photo.png", "-o", "a.tiff"],
        2,
        "-o a.tiff: ends in .png, .jpg, .jpeg, .webp, .mp4 or .webm",
    ),
    "svg suffix": (["photo.png", "--svg", "a.png"], 2, "--svg a.png: ends in .svg"),
    "strokes suffix": (["photo.png", "--strokes", "a.txt"], 2, "--strokes a.txt: ends in .json"),
    "animation suffix": (["photo.png", "--animate", "a.avi"], 2, "ends in .webp, .gif or .mp4"),
    "one file twice": (["photo.png", "-o", "a.webp", "--animate", "a.webp"], 2, "is named for two things"),
    "file for several": (["photo.png", "other.png", "-o", "a.png"], 2, "2 photos need a folder"),
    "svg for several": (
        ["photo.png", "other.png", "--svg", "a.svg"],
        2,
        "--svg a.svg: 2 photos need a folder",
    ),
    "file for a folder": (["one", "-o", "a.png"], 2, "photos of a folder or pattern need a folder"),
    "brush": (["photo.png", "--brush", "flatt"], 2, "did you mean `flat`?"),
    "brush folder": (["photo.png", "--brush", "./none"], 1, "--brush ./none: no such folder"),
    "brush without pictures": (["photo.png", "--brush", "empty"], 1, "--brush empty: no photos found"),
    "brush of several pictures": (
        ["photo.png", "--brush", "."],
        1,
        "pictures, none called `vertical`; name one of them",
    ),
    "standard output": (["photo.png", "-o", "-"], 2, "-o -: nothing is written to stdout"),
    "brush without ink": (["photo.png", "--brush", "blank.png"], 1, "blank.png: no ink"),
    "colour": (["photo.png", "--canvas-color", "linnen"], 2, "did you mean `linen`?"),
    "colour digits": (["photo.png", "--canvas-color", "#12345"], 2, "is no colour; write #rrggbb"),
    "method": (["photo.png", "--method", "gredy"], 2, "did you mean `greedy`?"),
    "select": (["photo.png", "--select", "best"], 2, "--select `best` does not exist"),
    "precision": (["photo.png", "--precision", "fp8"], 2, "precision `fp8` does not exist"),
    "device": (["photo.png", "--device", "gpu"], 1, "device `gpu` is unknown"),
    "weights without network": (["photo.png", "--method", "greedy", "--weights", "x"], 2, "--weights is for"),
    "select without network": (["photo.png", "--method", "random", "--select", "gain"], 2, "--select is for"),
    "missing weights": (["photo.png", "--weights", "runs/none"], 1, "runs/none: no such run or file"),
    "opacity": (["photo.png", "--opacity", "0"], 2, "--opacity"),
    "opacity nan": (["photo.png", "--opacity", "nan"], 2, "--opacity"),
    "detail": (["photo.png", "--detail", "1.5"], 2, "--detail"),
    "detail nan": (["photo.png", "--detail", "nan"], 2, "--detail"),
    "no strokes": (["photo.png", "--max-strokes", "0"], 2, "--max-strokes"),
    "too large": (["photo.png", "--max-side", "9000"], 2, "painted at up to 8192 px"),
    "fps alone": (["photo.png", "--fps", "8"], 2, "--fps is for --animate"),
    "frames alone": (["photo.png", "--frames", "8"], 2, "--frames is for --animate"),
    "strokes and photo": (["photo.png", "--from-strokes", "a.json"], 2, "takes no photo"),
    "strokes and method": (["--from-strokes", "a.json", "--method", "greedy"], 2, "--method is for painting"),
    "strokes and auto": (["--from-strokes", "a.json", "--canvas-color", "auto"], 2, "auto needs a photo"),
    "missing strokes": (["--from-strokes", "a.json"], 1, "a.json: no such stroke file"),
    "below a file": (
        ["photo.png", "-o", "notes.txt/a.png"],
        1,
        "cannot be written: notes.txt is not a folder",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_means_nothing_is_refused_in_one_line(name, capsys):
    for photo in ("photo.png", "other.png", "one/a.png"):
        draw_photo(photo)
    Path("notes.txt").write_text("no photo")
    Path("empty").mkdir()
    Image.new("L", (9, 9), 99).save("blank.png")
    before = files()
    arguments, status, said = REFUSED[name]
    assert run(["paint", *arguments]) == status
    assert said in refusal(capsys)
    assert files() == before


def test_a_folder_in_the_place_of_the_painting_is_no_output(capsys):
    draw_photo("photo.png")
    Path("photo-painted.png").mkdir()
    assert paint("photo.png", "--force") == 1
    assert refusal(capsys) == "error: photo-painted.png: is a folder"


def test_too_little_memory_is_said_in_one_line(monkeypatch, capsys):
    draw_photo("photo.png")

    def fail(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    monkeypatch.setattr(painting, "_underpainting", fail)
    assert paint("photo.png") == 1
    assert "photo.png: not enough memory; lower --max-side" in capsys.readouterr().err
    assert files() == ["photo.png"]


def test_an_interruption_leaves_nothing_half_written(monkeypatch, capsys):
    draw_photo("photo.png")
    real = Image.Image.save

    def stop(self, file, **options):
        real(self, file, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop)
    assert paint("photo.png") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "error: interrupted"
    assert files() == ["photo.png"]


# Larger than the photo.


def test_a_small_photo_becomes_a_large_print_of_the_same_strokes(capsys):
    photo = Image.open(draw_photo("photo.png"))
    photo.putalpha(Image.fromarray(np.uint8(np.indices((SIDE, SIDE))[0] > SIDE // 2) * 255))
    photo.save("cut-out.png")
    assert paint("cut-out.png", "--scale", "3", "-o", "large.png", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)["pictures"]
    assert paint("cut-out.png", "-o", "small.png", "--json") == 0
    (small,) = json.loads(capsys.readouterr().out)["pictures"]
    assert (record["width"], record["height"]) == (3 * SIDE, 3 * SIDE)
    assert (record["strokes"], record["l1"]) == (small["strokes"], small["l1"])
    with Image.open("large.png") as large, Image.open("small.png") as once:
        assert (large.mode, large.size) == ("RGBA", (3 * SIDE, 3 * SIDE))
        reduced = np.asarray(large.resize(once.size, Image.Resampling.BOX)).astype(int)
        assert np.abs(reduced - np.asarray(once).astype(int))[SIDE // 2 + 2 :].mean() < 4


def test_a_print_that_nothing_could_open_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(painting_run, "LARGEST_PAINTING", 100)
    draw_photo("photo.png")
    assert paint("photo.png", "--scale", "3") == 1
    assert refusal(capsys) == "error: photo.png: --scale 3 makes 144 px of 48; at most 100 px"
