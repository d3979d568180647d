"""Pictures of attention: colours that mean a component, greys that mean a share, sheets that hold them all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gtool.io import attention_pictures as attention
from gtool.io import pictures as layout
from gtool.metrics.segmentation_agreement import to_image_size
from tests.helpers import pictures

COUNT = 8


def one_component(number: int, side: int = 8) -> np.ndarray:
    maps = np.zeros((COUNT, side, side), np.float32)
    maps[number] = 1
    return maps


def test_no_two_components_have_nearly_one_colour():
    colours = attention.palette()
    assert colours.shape == (32, 3)
    apart = np.abs(colours[:, None] - colours).sum(-1) + 999 * np.eye(32)
    assert apart.min() >= 50
    assert apart[:8, :8].min() >= 80  # of the usual eight


def test_a_component_has_its_colour_in_every_image_and_picture():
    black = np.zeros((3, 16, 16), np.uint8)
    painted = attention.paint_labels(black, attention.hard_labels(one_component(5), 16))
    expected = np.rint(attention.TINT * attention.palette()[5])
    assert (painted == expected[:, None, None]).all()
    picture = attention.layers_sheet(black, {"8a": one_component(5)[None]})
    assert (picture == expected).all(-1).sum() >= 48 * 48
    assert (picture == attention.palette()[5]).all(-1).sum() > 48  # the head of its column


def test_ground_keeps_the_grey_of_the_image():
    image = pictures.draw(1, seed=0, side=16)[0]
    painted = attention.paint_labels(image, np.full((16, 16), -1))
    assert (painted == painted[:1]).all()
    assert painted[0].mean() == pytest.approx(np.tensordot([0.299, 0.587, 0.114], image, 1).mean(), abs=0.5)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_a_score_sheet_leaves_ground_without_colour(kind):
    """Masks are bytes: ground must not wrap round to a component's colour."""
    white = np.full((1, 3, 128, 128), 255, np.uint8)
    masks, cells = np.zeros((1, 128, 128), kind), np.zeros((128, 128), np.int64)
    maps = one_component(0)[None]
    picture = attention.score_sheet(white, masks, maps, clusters=cells[None], cells=cells, layer="8a")
    assert (picture == 255).all(-1).sum() > 2 * 128 * 128


def test_hard_attention_is_what_is_scored():
    maps = torch.rand(COUNT, 8, 8, generator=torch.Generator().manual_seed(0))
    scored = to_image_size(maps[None], 32).argmax(1)[0].numpy()
    assert (attention.hard_labels(maps.numpy(), 32) == scored).mean() > 0.999


def test_soft_attention_is_black_at_none_and_white_at_all():
    for share, grey in ((0, 0), (0.25, 128), (1, 255)):
        found = attention.soft_grey(np.full((8, 8), share, np.float32), 16)
        assert found.shape == (3, 16, 16)
        assert np.abs(found.astype(int) - grey).max() <= 1


@pytest.mark.parametrize("side", [16, 32, 256])
@pytest.mark.parametrize("count", [1, 8, 32])
def test_sheets_show_every_image_layer_head_and_component(side, count):
    images = pictures.draw(3, seed=1, side=side)
    maps = np.full((3, count, 8, 8), 1 / count, np.float32)
    cell = layout.cell_side(2 + count)
    height, width = cell + layout.PAD, layout.LABEL + layout.PAD
    top = layout.TITLE_HEIGHT + layout.HEAD
    layers = {"8a": maps[:2], "16a": maps[:2]}  # of two heads each
    sheet = attention.layers_sheet(images[0], layers, title="image 0")
    assert sheet.dtype == np.uint8
    assert sheet.shape == (top + 4 * height, width + (2 + count) * height, 3)
