"""Painting from Python: `paint_image`, as a notebook calls it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.errors import GToolError
from gtool.paint.painter import paint_image
from tests.helpers.painted import draw_photo


@pytest.mark.parametrize("kind", ["file", "pillow", "array", "transparent"])
def test_an_image_of_any_kind_is_painted(kind):
    path = draw_photo("photo.png", size=(48, 32))
    pillow = Image.open(path).convert("RGBA" if kind == "transparent" else "RGB")
    image = {"file": path, "array": np.asarray(pillow)}.get(kind, pillow)
    painting = paint_image(image, method="greedy", detail=0.3, max_strokes=40, device="cpu")
    assert 20 < len(painting) <= 40
    made = painting.to_image(48)
    assert made.size == (48, 32)
    assert np.abs(np.asarray(made).astype(int) - np.asarray(pillow.convert("RGB"))).mean() < 40
    assert painting.render(64, 96).shape == (64, 96, 3)
    assert len(painting[:7]) == 7


def test_the_predictor_of_the_package_paints_and_the_seed_decides():
    path = draw_photo("photo.png")
    one, same, other = (paint_image(path, max_strokes=50, device="cpu", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.shape_params, same.shape_params)
    assert not torch.equal(one.shape_params, other.shape_params)


def test_brush_and_canvas_are_named():
    painting = paint_image(
        draw_photo("photo.png"), method="random", brush="dry", canvas_color="white", device="cpu"
    )
    assert (painting.brush.name, painting.ground) == ("dry", (1.0, 1.0, 1.0))
    for wrong in ({"brush": "flatt"}, {"canvas_color": "linnen"}, {"image": "none.png"}):
        with pytest.raises(GToolError):
            paint_image(**{"image": "photo.png", "method": "random", "device": "cpu", **wrong})
