"""Few colours to paint with: `--colors` chooses them for the photo, `--palette` names them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gtool.strokes.palette import choose_palette, nearest_in_palette
from tests.helpers.painted import draw_photo, paint, refusal


def colours_of(stroke_file: str) -> set[tuple[int, ...]]:
    """The colours of strokes, 0 to 255."""
    strokes = json.loads(Path(stroke_file).read_text())["strokes"]
    return {tuple(round(255 * part) for part in stroke[5:8]) for stroke in strokes}


def test_a_photo_is_painted_with_so_many_colours():
    draw_photo("photo.png")
    assert paint("photo.png", "--colors", "3", "--strokes", "s.json", method="greedy") == 0
    assert 2 <= len(colours_of("s.json")) <= 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # as some editors mark it
def test_a_photo_is_painted_with_these_colours_and_no_others(encoding):
    draw_photo("photo.png")
    Path("paints.toml").write_text('colors = ["#ff0000", "white", "#123"]', encoding=encoding)
    assert paint("photo.png", "--palette", "paints.toml", "--strokes", "s.json", method="greedy") == 0
    assert colours_of("s.json") <= {(255, 0, 0), (255, 255, 255), (17, 34, 51)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('colors = ["#ff00", "white"]', "paints.toml: not a readable palette: colour `#ff00`: is no colour"),
        ("colors = [nan, 3]", "colour `nan`: is no colour"),
        ('colors = ["white"]', "2 to 256 `colors` are needed, and it has 1"),
        ("colors = []", "paints.toml: not a readable palette: 2 to 256 `colors` are needed, and it has none"),
        ('colors = ["auto", "white"]', "`auto` is no colour"),
        ("colours = 3", "2 to 256 `colors` are needed, and it has none"),
        ("= [", "paints.toml: not a readable palette"),
    ],
)
def test_a_palette_that_is_none_is_one_line(text, says, capsys):
    draw_photo("photo.png")
    Path("paints.toml").write_text(text)
    assert paint("photo.png", "--palette", "paints.toml") != 0
    assert says in refusal(capsys)


def test_colours_are_chosen_or_named(capsys):
    draw_photo("photo.png")
    Path("paints.toml").write_text('colors = ["white"]')
    assert paint("photo.png", "--palette", "paints.toml", "--colors", "3") == 2
    assert "--colors and --palette exclude each other" in refusal(capsys)


def test_a_picture_of_few_colours_is_painted_with_them():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4], pixels[4:, :4] = (200, 30, 30), (20, 20, 180)
    chosen = {tuple(row) for row in (255 * choose_palette(pixels, 3)).round().int().tolist()}
    assert chosen == {(200, 30, 30), (20, 20, 180), (0, 0, 0)}


def test_the_nearest_colour_is_the_one_that_people_see_as_nearest():
    # By plain distance in sRGB the dark blue is nearer to black.
    palette = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.1, 1.0]])
    found = nearest_in_palette(torch.tensor([[0.0, 0.0, 0.45], [0.9, 0.9, 0.9], [0.02, 0.02, 0.0]]), palette)
    assert found.tolist() == palette[[1, 1, 0]].tolist()
