"""The Python API, as a notebook would use it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import gtool
from gtool.errors import GToolError
from tests.helpers.painted import draw_photo


def test_importing_gtool_imports_nothing_heavy():
    code = "import sys, gtool; print([m for m in ('torch', 'numpy', 'PIL', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", [None, "runs/transgan-scenes-000", "tiny.safetensors"])
def test_a_model_is_loaded_and_sampled_from(tiny_run, tiny_weights, path):
    model = gtool.load(path, device="cpu")
    images = model.sample(num=3, seed=5)
    assert images.shape == (3, model.resolution, model.resolution, 3)
    assert images.dtype == np.uint8
    assert (images[:2] == gtool.sample(path, num=2, seed=5)).all()


def test_an_image_is_painted():
    draw_photo("photo.png")
    pixels = np.asarray(Image.open("photo.png").convert("RGB"))
    painting = gtool.paint("photo.png", max_strokes=20, device="cpu")
    same = gtool.paint(pixels, max_strokes=20, device="cpu")
    assert 0 < len(painting.colors) <= 20
    assert (painting.shape_params == same.shape_params).all()
    assert max(painting.to_image(64).size) == 64


def test_images_are_scored_against_images():
    random = np.random.default_rng(0)
    real = random.integers(0, 256, (60, 3, 32, 32), np.uint8)
    fake = random.integers(0, 128, (60, 3, 32, 32), np.uint8)
    scores = gtool.score(fake, real, metrics=["swd"], device="cpu")
    assert scores["swd_32"]["value"] > 0


def test_a_mistake_is_an_error_of_one_line(tiny_weights):
    for wrong in (
        lambda: gtool.load("none.safetensors"),
        lambda: gtool.paint("none.png"),
        lambda: gtool.score("none/", "none/", metrics=["fdi"]),
    ):
        with pytest.raises(GToolError, match=r"^[^\n]+$"):
            wrong()


PROGRAMS = [
    "import gtool; print(callable(gtool.paint), callable(gtool.sample))",
    "import gtool.paint.run, gtool.sample.run; print(callable(gtool.paint), callable(gtool.sample))",
    "import gtool; from gtool.paint import run; print(callable(gtool.paint), callable(run.run))",
    "from gtool.paint import run; from gtool import paint; print(callable(paint), callable(run.run))",
]
# Each in a process that has imported nothing of gtool, but torch, which takes seconds.
IN_TURN = """
import os, sys, torch
for program in sys.argv[1:]:
    if not os.fork():
        exec(program)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


def test_functions_and_packages_of_one_name_do_not_hide_each_other():
    """`gtool.paint` is a function, and the package of `gtool paint`, whichever was asked for first."""
    also = "\ntry: gtool.paint('none.png')\nexcept Exception as bad: print(type(bad).__mro__[-4].__name__)"
    programs = [program + also if "import gtool;" in program else program for program in PROGRAMS]
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, *programs], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "True True",
        "GToolError",
        "True True",
        "True True",
        "GToolError",
        "True True",
    ]
