"""How a painting looks: styles, lengths of strokes, marks that vary, the order of a timelapse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.paint.options import STYLES
from gtool.paint.outputs import background_first
from gtool.strokes.brush import MARKS, load_brush
from gtool.strokes.renderer import mark_of, render
from tests.helpers.painted import distance, draw_photo, paint
from tests.strokes.examples import a_painting


def lengths_of(stroke_file: str, longer: int) -> np.ndarray:
    strokes = np.array(json.loads(Path(stroke_file).read_text())["strokes"])
    return longer * strokes[:, 2:4].max(axis=1)


def test_strokes_have_the_lengths_that_were_asked_for():
    draw_photo("photo.png", size=(96, 64))
    flags = ["--min-stroke", 12, "--max-stroke", 40, "--strokes", "s.json", "--detail", 1]
    assert paint("photo.png", "--scale", 2, *flags, method="greedy") == 0
    lengths = lengths_of("s.json", 192)
    assert 11.99 < lengths.min() < lengths.max() < 40.01


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--min-stroke", 9, "--max-stroke", 8], 2, "--max-stroke 8 is less than --min-stroke 9"),
        (["--max-stroke", 2, "--scale", 16], 1, "--max-stroke: at least"),
        (["--style", "oils"], 2, "--style `oils` does not exist; did you mean `oil`"),
    ],
)
def test_lengths_and_styles_that_cannot_be_are_one_line(flags, status, said, capsys):
    draw_photo("photo.png")
    assert paint("photo.png", *flags) == status
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_style_is_a_choice_of_options_that_others_change():
    draw_photo("photo.png")
    for style in STYLES:
        assert paint("photo.png", "-o", f"{style}.png", "--style", style) == 0
        with Image.open(f"{style}.png") as opened:
            assert opened.text["brush"] == STYLES[style]["brush"]
    assert distance("oil.png", "watercolour.png") > 1
    assert paint("photo.png", "-o", "a.png", "--style", "oil", "--brush", "dry") == 0
    with Image.open("a.png") as opened:
        assert opened.text["brush"] == "dry"


def test_marks_of_a_brush_vary_and_go_with_the_turn_of_a_stroke():
    brush = load_brush("flat", marks=MARKS)
    theta = torch.rand(200, generator=torch.Generator().manual_seed(0))
    own = mark_of(theta, MARKS)
    assert own.bincount().tolist() == pytest.approx([200 / MARKS] * MARKS, abs=20)
    strokes = torch.tensor([[32.0, 32, 20, 56, float(angle)] for angle in theta[:20]])
    plain = load_brush("flat")
    one, other = (render(kind, strokes, 64, 64)[0] for kind in (brush, plain))
    assert 0.005 < (one - other).abs().mean() < 0.1
    # The same mark at another size and place.
    assert torch.equal(mark_of(strokes[:, 4], MARKS), own[:20])


def test_a_timelapse_paints_the_background_first_and_ends_the_same():
    painting = a_painting(400, levels=torch.arange(400) // 60)
    ordered = background_first(painting)
    assert torch.equal(painting.render(100, 150), ordered.render(100, 150))
    assert not torch.equal(painting.shape_params, ordered.shape_params)
    assert torch.equal(painting.shape_params[:60], ordered.shape_params[:60])
