"""`gtool sample`: grids, files, walks, parts that swap, conditions and completions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from .commands import draw, folder_pixels, pixels, sample

GRIDS = {
    "transgan": ("transgan", ["--num", 4]),
    "walk": ("transgan", ["--seeds", "0,3", "--interpolate", 3]),
    "gansformer": ("gansformer", ["--num", 4, "--seed", 2]),
    "psi": ("gansformer", ["--num", 2, "--psi", 0.5]),
    "psi-sweep": ("gansformer", ["--num", 2, "--psi-sweep", "0,0.5,1"]),
    "mix": ("gansformer", ["--mix", "0,1", "--components", "0-1"]),
    "mix-table": ("gansformer", ["--mix", "0-1:2-3", "--layers", "0-1"]),
    "noise": ("gansformer", ["--num", 2, "--noise-variation"]),
    "walk-of-a-component": (
        "gansformer",
        ["--num", 2, "--interpolate", 2, "--component", "1", "--space", "w"],
    ),
}
# Pictures of codes: elsewhere another code may be drawn, and all that follow it.
COMPOSED = {
    "prior": ("prior", ["--num", 3, "--temperature", 0.9, "--top-k", 20, "--top-p", 0.95]),
    "likeliest": ("prior", ["--num", 2, "--temperature", 0]),
    "map": ("prior", ["--num", 2, "--segmentation", "map.png"]),
    "wide": ("prior", ["--num", 1, "--segmentation", "wide.png"]),
    "completion": (
        "prior",
        ["--num", 2, "--segmentation", "map.png", "--complete", "photo.png", "--keep", 0.5],
    ),
    "class": ("prior-of-classes", ["--num", 2, "--class", "dogs"]),
    "own-classes": ("prior-of-classes", ["--num", 3]),
}


@pytest.fixture
def _pictures():
    """A label map, a wide one, and a photo."""
    ids = np.zeros((16, 16), np.uint8)
    ids[9:], ids[4:12, 5:11] = 1, 3
    Image.fromarray(ids).save("map.png")
    Image.fromarray(np.concatenate([ids, ids], axis=1)[:, :24]).save("wide.png")
    Image.fromarray(draw(7, 16)).save("photo.png")


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_has_the_same_pixels(name, run_of, frozen):
    model, arguments = GRIDS[name]
    assert sample(run_of(model), *arguments, "--scale", 1, "-o", "grid.png") == 0
    frozen.pixels(f"sample/{name}", pixels("grid.png"))


def test_a_sheet_of_attention_has_the_same_pixels(run_of, frozen):
    assert sample(run_of("gansformer"), "--num", 1, "--attention", "-o", "sheet.png") == 0
    frozen.pixels("sample/attention", pixels("sheet.png"), within=15)


@pytest.mark.usefixtures("_pictures")
@pytest.mark.parametrize("name", COMPOSED)
def test_a_picture_of_codes_has_the_same_pixels(name, run_of, frozen):
    model, arguments = COMPOSED[name]
    assert sample(run_of(model), *arguments, "--scale", 1, "-o", "files/") == 0
    frozen.pixels(f"sample/{name}", folder_pixels("files"), within=30)


@pytest.mark.parametrize("model", ["transgan", "gansformer"])
def test_files_have_the_same_pixels_as_the_grid(model, run_of, frozen):
    run = run_of(model)
    assert sample(run, "--num", 3, "-o", "files/") == 0
    frozen.pixels(f"sample/{model}/files", folder_pixels("files"))
    assert sample(run, "--seeds", "2,1", "-o", "other/") == 0
    assert (pixels("other/000002.png") == pixels("files/000002.png")).all()
    assert (pixels("other/000001.png") == pixels("files/000001.png")).all()
