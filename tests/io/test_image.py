"""Encoded images of every kind become 8-bit RGB, or say why they do not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from gtool.io.image import UnreadableImage, quiet_pillow, read_rgb, to_square
from tests.helpers import odd_images as odd


def pixel(encoded, x=2, y=2):
    return tuple(read_rgb(encoded, "x").getpixel((x, y)))


def near(colour, expected, tolerance=6):
    return max(abs(a - b) for a, b in zip(colour, expected, strict=True)) <= tolerance


def test_grey_becomes_three_equal_channels():
    assert pixel(odd.encode(Image.new("L", (12, 12), 77))) == (77, 77, 77)


def test_bilevel_becomes_black_and_white():
    assert pixel(odd.encode(Image.new("1", (12, 12), 1))) == odd.WHITE


def test_transparency_is_composed_on_white():
    encoded = odd.encode(odd.half_transparent())
    assert pixel(encoded) == odd.GREEN
    assert pixel(encoded, x=9) == odd.WHITE


def test_half_transparency_is_mixed_with_white():
    assert near(pixel(odd.encode(Image.new("RGBA", (12, 12), (0, 0, 0, 128)))), (127, 127, 127), 1)


def test_grey_with_transparency_is_composed_on_white():
    assert pixel(odd.encode(Image.new("LA", (12, 12), (0, 0)))) == odd.WHITE


def test_palette_is_resolved():
    image = Image.new("RGB", (12, 12), odd.RED).convert("P", palette=Image.Palette.ADAPTIVE)
    assert pixel(odd.encode(image)) == odd.RED


def test_transparent_palette_entry_is_white():
    image = Image.new("P", (12, 12), 0)
    image.putpalette([0, 0, 0, *odd.RED])
    encoded = odd.encode(image, transparency=0)
    assert pixel(encoded) == odd.WHITE


def test_transparent_colour_of_an_rgb_image_is_white():
    encoded = odd.encode(Image.new("RGB", (12, 12), odd.RED), transparency=odd.RED)
    assert pixel(encoded) == odd.WHITE


def test_cmyk_is_converted():
    assert near(pixel(odd.encode(Image.new("CMYK", (12, 12), (0, 255, 255, 0)), "JPEG")), (255, 0, 0), 12)


@pytest.mark.parametrize("name", ["a.jp2", "a.tga", "a.pcx", "a.pgm", "a.pbm", "A.TGA"])
def test_formats_that_few_have_are_read(name, tmp_path):
    mode = {"a.pgm": "L", "a.pbm": "1"}.get(name, "RGB")
    Image.new("RGB", (12, 12), odd.WHITE).convert(mode).save(tmp_path / name)
    assert near(read_rgb(tmp_path / name, name).getpixel((2, 2)), odd.WHITE, 1)


def test_what_has_no_mark_is_taken_for_a_picture_by_its_name_alone():
    encoded = odd.encode(Image.new("RGB", (12, 12)), "TGA")
    with pytest.raises(UnreadableImage, match="no image of a known format"):
        read_rgb(encoded, "a.png")
    assert read_rgb(encoded, "folder/a.tga").size == (12, 12)


def test_libtiff_says_nothing_by_itself(capfd):
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3)).astype(np.uint8))
    encoded = bytearray(odd.encode(noise, "TIFF", compression="tiff_lzw"))
    encoded[2000:2200] = bytes(200)
    with pytest.raises(UnreadableImage, match="damaged"):
        read_rgb(bytes(encoded), "x.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_to_8(kind):
    values = np.full((12, 12), 300 * 257 // 2, np.uint16)
    assert pixel(odd.encode(Image.fromarray(values), kind)) == (150, 150, 150)


def test_float_pixels_are_refused():
    encoded = odd.encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(UnreadableImage, match="no agreed range"):
        read_rgb(encoded, "x.tif")


@pytest.mark.parametrize("value", [200, 1 << 20])
def test_32_bit_pixels_are_refused_whatever_they_hold(value):
    encoded = odd.encode(Image.fromarray(np.full((4, 4), value, np.int32)), "TIFF")
    with pytest.raises(UnreadableImage, match="no agreed range"):
        read_rgb(encoded, "x.tif")


def test_noted_orientation_is_applied():
    image = read_rgb(odd.turned_jpeg(), "x")
    assert image.size == (8, 16)
    assert near(image.getpixel((6, 8)), odd.RED, 20)
    assert near(image.getpixel((1, 8)), odd.GREEN, 20)


def test_damaged_notes_do_not_hide_the_picture():
    with quiet_pillow():
        assert near(pixel(odd.damaged_notes_jpeg()), odd.RED, 6)


def test_first_frame_of_an_animation_is_taken():
    assert near(pixel(odd.animation()), odd.RED)


BAD = {
    "empty": (b"", "empty"),
    "cell": (None, "empty"),
    "text": (b"<html>not found</html>", "no image of a known format"),
    "script": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "no image of a known format"),
    "truncated": (odd.truncated_jpeg(), "damaged: .*truncated"),
    "half a header": (odd.encode(Image.new("RGB", (9, 9)))[:20], "damaged|known format"),
    "bomb": (odd.bomb_png(), "more than 89.5 million pixels"),
    "small bomb": (odd.bomb_png(10_000), "more than 89.5 million pixels"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_file_is_named_with_its_reason(name):
    encoded, reason = BAD[name]
    with quiet_pillow(), pytest.raises(UnreadableImage, match=reason) as caught:
        read_rgb(encoded, "folder/x.png")
    assert str(caught.value).startswith("folder/x.png: ")
    assert "\n" not in str(caught.value)


def test_missing_file_is_unusable(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        read_rgb(tmp_path / "gone.png", "gone.png")


def test_quiet_pillow_leaves_the_filters_as_they_were():
    before = list(warnings.filters)
    with quiet_pillow():
        assert list(warnings.filters) != before
    assert list(warnings.filters) == before


def test_center_takes_the_middle_square_and_fit_the_whole():
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255
    image = Image.fromarray(pixels)
    assert to_square(image, 8, "center").min() == 255
    fitted = to_square(image, 8, "fit")
    assert fitted.shape == (3, 8, 8)
    assert fitted[:, :, 0].max() < 30
    assert fitted[:, :, 3:5].min() > 225


def test_image_of_the_right_size_is_not_touched():
    pixels = np.random.RandomState(0).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    assert np.array_equal(to_square(Image.fromarray(pixels), 16), pixels.transpose(2, 0, 1))


def test_small_images_are_enlarged():
    assert to_square(Image.new("RGB", (3, 5), odd.RED), 16).shape == (3, 16, 16)


def test_resizing_is_antialiased():
    stripes = np.tile(np.array([[0, 255]], np.uint8).repeat(3, 0).T[None], (128, 64, 1))
    small = to_square(Image.fromarray(np.ascontiguousarray(stripes)), 16).astype(int)
    assert np.abs(small - 127).max() < 12


def test_large_jpeg_is_decoded_smaller_to_nearly_the_same_square():
    y, x = np.mgrid[:512, :512] / 511
    picture = np.stack([255 * x, 255 * y, 127 + 127 * np.sin(20 * x * y)], axis=2).astype(np.uint8)
    encoded = odd.encode(Image.fromarray(picture), "JPEG", quality=95)
    whole, quick = read_rgb(encoded, "x"), read_rgb(encoded, "x", at_least=32)
    assert whole.size == (512, 512)
    assert quick.size == (64, 64)
    difference = to_square(whole, 32).astype(int) - to_square(quick, 32)
    assert np.abs(difference).mean() < 1.5
