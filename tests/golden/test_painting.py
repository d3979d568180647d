"""`gtool paint`: pixels, strokes and vectors of each method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .commands import draw, paint, pixels

METHODS = {
    "predictor": ["--method", "predictor", "--max-strokes", 60],
    "decision": ["--method", "predictor", "--select", "decision", "--max-strokes", 60],
    "greedy": ["--method", "greedy", "--max-strokes", 40, "--seed", 1],
    "random": ["--method", "random", "--max-strokes", 40, "--keep-all"],
    "looks": ["--method", "greedy", "--max-strokes", 30, "--brush", "dry", "--canvas-color", "linen"],
    "thin": ["--method", "greedy", "--max-strokes", 30, "--opacity", 0.7, "--detail", 0.2],
}


@pytest.fixture(autouse=True)
def _strokes_as_they_are_found(monkeypatch):
    """A hundred steps of Adam turn other last bits into other strokes: refining has tests of its own."""
    monkeypatch.setattr("gtool.paint.painter.MOST_REFINED", 0)


@pytest.fixture
def _photo():
    Image.fromarray(draw(3, 64)).save("photo.png")


@pytest.mark.usefixtures("_photo")
@pytest.mark.parametrize("name", METHODS)
def test_a_painting_has_the_same_pixels_strokes_and_vectors(name, run_of, frozen):
    of_run = ["--weights", run_of("paint-transformer")] if "predictor" in METHODS[name] else []
    places = ["-o", "painted.png", "--svg", "painted.svg", "--strokes", "painted.json"]
    assert paint("photo.png", "--max-side", 48, *METHODS[name], *of_run, *places) == 0
    frozen.pixels(f"paint/{name}/pixels", pixels("painted.png"), within=12)
    strokes = json.loads(Path("painted.json").read_text(encoding="utf-8"))["strokes"]
    frozen.rows(f"paint/{name}/strokes", np.array(strokes, np.float64), within=0.1)
    frozen.text(f"paint/{name}/svg", Path("painted.svg").read_text(encoding="utf-8"))


def test_strokes_of_a_file_have_the_same_pixels_at_another_size(frozen):
    columns = ["x", "y", "width", "height", "theta", "red", "green", "blue", "level"]
    strokes = [[0.3, 0.4, 0.5, 0.2, 0.1, 0.9, 0.1, 0.2, 0], [0.7, 0.6, 0.3, 0.4, 0.6, 0.1, 0.3, 0.8, 1]]
    said = {"format": "gtool-strokes", "version": 1, "aspect": 1.5, "ground": [0.8, 0.7, 0.6]}
    said |= {"brush": "round", "opacity": 0.9, "columns": columns, "strokes": strokes}
    Path("strokes.json").write_text(json.dumps(said), encoding="utf-8")
    assert paint("--from-strokes", "strokes.json", "--max-side", 60, "-o", "painted.png") == 0
    frozen.pixels("paint/from-strokes", pixels("painted.png"), within=0.5)


def test_the_built_in_scene_is_painted_the_same_by_the_weights_of_the_package(frozen):
    assert paint("--max-side", 64, "--max-strokes", 150, "-o", "painted.png") == 0
    frozen.pixels("paint/scene", pixels("painted.png"), within=5)
