"""Maps that a user gives: understood as stored or by colour, and otherwise one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gtool.data.label_colours import NO_LABEL, colour_maps, legend, palette
from gtool.data.label_maps import read_label_map_file
from gtool.data.synthetic.scenes import CLASS_COLOURS, draw_scenes
from gtool.errors import DataError

COLOURS = palette(8, CLASS_COLOURS)


def save(values, name="map.png"):
    Image.fromarray(values).save(name)
    return Path(name)


def scene(side=32):
    return draw_scenes(np.array([3]), side).segmentation[0]


def test_grey_values_are_labels():
    assert (read_label_map_file(save(scene()), 8, cell=4) == scene()).all()
    assert read_label_map_file(save(scene().astype(np.uint16)), 8).tolist() == scene().tolist()


def test_255_is_no_label():
    labels = scene()
    labels[0] = 255
    assert (read_label_map_file(save(labels), 8)[0] == 8).all()
    assert (read_label_map_file(save(labels), 150)[0] == 150).all()


def test_0_and_255_are_the_labels_where_there_are_two():
    half = (np.arange(64).reshape(8, 8) // 32).astype(np.uint8)
    assert read_label_map_file(save(255 * half), 2).tolist() == half.tolist()
    half[0] = 1
    mixed = np.where(np.arange(8) < 4, half, 255).astype(np.uint8)
    assert 2 in read_label_map_file(save(mixed), 2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_map_painted_in_the_colours_of_the_set_is_understood(mode):
    labels = scene()
    labels[:2] = 8
    painted = Image.fromarray(np.moveaxis(colour_maps(labels, COLOURS), 0, 2))
    painted = painted.quantize(16) if mode == "P" else painted.convert(mode)
    painted.save("map.png")
    assert (read_label_map_file(Path("map.png"), 8, colours=COLOURS) == labels).all()


def test_palette_of_other_colours_gives_its_indices():
    picture = Image.fromarray(scene()).convert("P")
    picture.putdata(scene().ravel().tolist())
    picture.putpalette([value for k in range(256) for value in (k, 255 - k, 9)])
    picture.save("map.png")
    assert (read_label_map_file(Path("map.png"), 8, colours=COLOURS) == scene()).all()


def test_map_of_the_same_shape_is_brought_to_the_wanted_size():
    large = scene().repeat(8, 0).repeat(8, 1)
    assert (read_label_map_file(save(large), 8, (32, 32)) == scene()).all()
    wide = np.concatenate([large, large], axis=1)
    assert read_label_map_file(save(wide), 8, (32, 64)).shape == (32, 64)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (
            np.zeros((20, 30), np.uint8),
            {"cell": 16},
            "30x20 pixels; both sides must be multiples of 16, as 32x16",
        ),
        (np.zeros((20, 30), np.uint8), {"size": (32, 32)}, "30x20 pixels, and 32x32 or the same shape"),
        (
            np.full((8, 8), 9, np.uint8),
            {},
            "unknown labels 9; those from 0 to 7 are known, and 255 is no label (65535 in a map of 16 bits)",
        ),
        (np.arange(64, dtype=np.uint8).reshape(8, 8), {}, "unknown labels 8, 9, 10 and 53 more"),
        (
            np.full((8, 8, 3), (9, 9, 8), np.uint8),
            {},
            "must be grey or have a palette; this is RGB; is it a photo?",
        ),
        (
            np.full((8, 8, 3), (9, 9, 8), np.uint8),
            {"colours": COLOURS},
            "1 of its colours, as #090908, are none of the 9",
        ),
        (np.full((8, 8, 4), 9, np.uint8), {"colours": COLOURS}, "no transparent pixels"),
    ],
)
def test_what_cannot_be_used_is_one_line(values, options, message):
    with pytest.raises(DataError) as caught:
        read_label_map_file(save(values), 8, **options)
    assert message in str(caught.value)
    assert str(caught.value).startswith("map.png: ")
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read_label_map_file(Path("none.png"), 8)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(DataError, match=r"text\.png: no image of a known format"):
        read_label_map_file(Path("text.png"), 8, colours=COLOURS)


def test_palette_keeps_the_colours_of_the_set_and_ends_grey():
    assert COLOURS.tolist() == [*map(list, CLASS_COLOURS), list(NO_LABEL)]
    assert palette(3).shape == (4, 3)
    assert palette(0).tolist() == [list(NO_LABEL)]


def test_colours_of_many_labels_differ_and_stay_when_there_are_more():
    colours = palette(183)
    assert len(np.unique(colours, axis=0)) == 184
    assert (palette(151)[:151] == colours[:151]).all()
    apart = np.abs(colours[:40, None].astype(int) - colours[:40]).sum(2) + 999 * np.eye(40, dtype=int)
    assert apart.min() > 40
    assert palette(3000).shape == (3001, 3)


def test_maps_become_pictures_of_their_colours():
    pictures = colour_maps(np.array([[[0, 8]], [[1, 0]]], np.uint8), COLOURS)
    assert pictures.shape == (2, 3, 1, 2)
    assert pictures[0, :, 0, 1].tolist() == list(NO_LABEL)
    assert pictures[1, :, 0, 0].tolist() == list(CLASS_COLOURS[1])


def test_legend_shows_the_labels_that_are_there():
    drawn = legend(np.array([[0, 2, 8]]), COLOURS, ("sky", "ground", "shadow"), 300)
    assert drawn.shape == (20, 300, 3)
    seen = {tuple(pixel) for pixel in drawn.reshape(-1, 3).tolist()}
    assert {CLASS_COLOURS[0], CLASS_COLOURS[2], NO_LABEL} <= seen
    assert CLASS_COLOURS[1] not in seen
    assert legend(np.arange(9)[None], COLOURS, None, 120).shape[0] > 40
