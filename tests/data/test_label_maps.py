"""Label maps and depth: as stored, never mixed, on the same pixels as their image; the commonest label of a cell."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gtool.data.label_maps import UNLABELLED, majority, map_square, nearest, read_depth, read_labels, to_ids
from gtool.io.image import UnreadableImage, quiet_pillow, read_rgb, read_size, to_square
from tests.helpers import odd_images as odd


def png(values):
    return odd.encode(Image.fromarray(values))


def stripes(height, width):
    """Labels 3 and 5 by turns: any mixing makes a 4."""
    columns = np.where(np.arange(width) % 2, 3, 5).astype(np.uint8)
    return np.tile(columns, (height, 1))


def square(kind, values, size, resolution=8, crop="center"):
    return map_square(kind, png(values), "map", size, resolution, crop).values


@pytest.mark.parametrize("resolution", [5, 8, 13, 40])
@pytest.mark.parametrize("crop", ["center", "fit"])
def test_resizing_a_map_makes_no_label_that_was_not_there(resolution, crop):
    made = square("segmentation", stripes(21, 33), (33, 21), resolution, crop)
    assert made.shape == (resolution, resolution)
    assert set(np.unique(made)) <= {3, 5}


@pytest.mark.parametrize("crop", ["center", "fit"])
@pytest.mark.parametrize("scale", [1, 2])
def test_map_lies_on_the_pixels_of_its_image(crop, scale):
    # Four quarters of an odd picture, in the colours that the labels have in the map.
    random = np.random.RandomState(0)
    blocks = random.randint(0, 3, (6, 9)).astype(np.uint8)
    labels = blocks.repeat(16, 0).repeat(16, 1)
    photo = np.stack([100 * labels] * 3, axis=2)
    pixels = to_square(Image.fromarray(photo), 48, crop)[0]
    labels = labels[::scale, ::scale]  # a map that is smaller than its photo
    labels_square = map_square("segmentation", png(labels), "map", (144, 96), 48, crop).values
    # Lanczos runs over the edges; inside the blocks both say the same.
    agreeing = np.abs(pixels.astype(int) - 100 * labels_square.astype(int)) < 40
    assert agreeing.mean() > 0.85


def test_same_size_changes_nothing():
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (square("segmentation", values, (8, 8)) == values).all()


def test_map_of_another_shape_is_refused_in_one_line():
    with pytest.raises(UnreadableImage, match="map: 20x10 pixels do not fit an image of 30x20"):
        square("segmentation", stripes(10, 20), (30, 20))
    square("segmentation", stripes(10, 20), (41, 20))  # within a pixel


def test_labels_outside_of_the_square_count():
    values = np.zeros((8, 24), np.uint8)
    values[0, 0] = 7
    made = map_square("segmentation", png(values), "map", (24, 8), 4, "center")
    assert (made.values.max(), made.largest) == (0, 7)
    nothing = map_square("segmentation", png(np.full((8, 8), 255, np.uint8)), "map", (8, 8), 4, "center")
    assert nothing.largest == -1


def test_255_and_65535_are_no_label():
    small = read_labels(png(np.array([[0, 254, 255]], np.uint8)), "a")
    assert small.tolist() == [[0, 254, UNLABELLED]]
    large = read_labels(png(np.array([[0, 255, 65535]], np.uint16)), "a")
    assert large.tolist() == [[0, 255, UNLABELLED]]
    assert to_ids(small, 255).tolist() == [[0, 254, 255]]
    assert to_ids(small, 255).dtype == np.uint8
    assert to_ids(large, 256).tolist() == [[0, 255, 256]]


def test_maps_with_a_palette_give_its_indices():
    picture = Image.fromarray(np.array([[0, 7], [7, 255]], np.uint8)).convert("P")
    picture.putdata([0, 7, 7, 255])
    picture.putpalette([value for k in range(256) for value in (255 - k, k, 9)])
    assert read_labels(odd.encode(picture), "a").tolist() == [[0, 7], [7, UNLABELLED]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_grey_that_is_stored_in_colour_gives_its_values(mode):
    picture = Image.fromarray(np.array([[0, 7], [200, 255]], np.uint8)).convert(mode)
    assert read_labels(odd.encode(picture), "a").tolist() == [[0, 7], [200, UNLABELLED]]
    picture.putpixel((1, 1), (7, 7, 8))
    with pytest.raises(UnreadableImage, match=f"this is {mode}"):
        read_labels(odd.encode(picture), "a")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            np.eye(4, dtype=np.uint8)[:, :3, None] + np.arange(3, dtype=np.uint8),
            "must be grey or have a palette; this is RGB",
        ),
        (np.full((4, 4), 70000, np.int32), "labels from 70000 to 70000"),
    ],
)
def test_what_is_no_label_map_is_refused(values, reason):
    kind = "PNG" if values.dtype == np.uint8 else "TIFF"
    with pytest.raises(UnreadableImage, match=reason):
        read_labels(odd.encode(Image.fromarray(values), kind), "map")


def test_depth_is_scaled_by_its_own_range_and_averaged():
    values = np.tile(np.linspace(1000, 3000, 64).astype(np.uint16), (64, 1))
    depth = read_depth(png(values), "a")
    assert (depth.min(), depth.max()) == (0, 1)
    made = square("depth", values, (64, 64), 16).astype(float) / 65535
    assert np.allclose(made[0], (np.arange(16) + 0.5) / 16, atol=0.02)
    assert not square("depth", np.full((8, 8), 77, np.uint16), (8, 8)).any()
    with pytest.raises(UnreadableImage, match="a depth map must be grey; this is RGB"):
        read_depth(png(np.zeros((4, 4, 3), np.uint8)), "a")


def test_size_is_that_of_the_upright_image():
    turned = odd.turned_jpeg()
    assert read_size(turned, "a") == read_rgb(turned, "a").size == (8, 16)
    with quiet_pillow():
        assert read_size(odd.damaged_notes_jpeg(), "a") == (12, 12)


def test_nearest_takes_the_pixel_that_holds_the_centre():
    values = np.arange(6)[None]
    assert nearest(values, (1, 3)).tolist() == [[1, 3, 5]]
    assert nearest(values, (1, 12)).tolist() == [[k // 2 for k in range(12)]]


def slow_majority(maps, h, w):
    count, height, width = maps.shape
    found = np.empty((count, h, w), maps.dtype)
    for n in range(count):
        for i in range(h):
            for j in range(w):
                cell = maps[n, i * height // h : (i + 1) * height // h, j * width // w : (j + 1) * width // w]
                found[n, i, j] = np.bincount(cell.ravel()).argmax()
    return found


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (16, 16), (1, 1)])
def test_majority_is_the_commonest_label_and_the_lower_of_equals(dtype, grid):
    maps = np.random.RandomState(1).randint(0, 4, (5, 16, 16)).astype(dtype)
    found = majority(maps, grid)
    assert found.dtype == dtype
    assert (found == slow_majority(maps, *grid)).all()


def test_majority_of_many_maps_does_not_depend_on_the_chunk(monkeypatch):
    maps = np.random.RandomState(1).randint(0, 300, (7, 8, 8)).astype(np.uint16)
    whole = majority(maps, 2)
    monkeypatch.setattr("gtool.data.label_maps._CHUNK_PIXELS", 130)
    assert (majority(maps, 2) == whole).all()
    assert majority(maps[:0], 2).shape == (0, 2, 2)


def test_majority_needs_whole_cells():
    with pytest.raises(ValueError, match="maps of 10x10 pixels and a grid of 4x4"):
        majority(np.zeros((1, 10, 10), np.uint8), 4)


def test_flipping_and_the_majority_commute():
    maps = np.random.RandomState(2).randint(0, 3, (3, 12, 12))
    assert (majority(maps[:, :, ::-1], 3) == majority(maps, 3)[:, :, ::-1]).all()


@pytest.mark.parametrize("mode", ["P", "L", "I;16"])
def test_label_map_keeps_its_values(mode):
    values = np.arange(144, dtype=np.uint16 if mode == "I;16" else np.uint8).reshape(12, 12)
    image = Image.fromarray(values)
    if mode == "P":
        image = image.convert("L")
        image.putpalette(list(range(255, -1, -1)) * 3)
    assert np.array_equal(read_labels(odd.encode(image), "x"), values)
