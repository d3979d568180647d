"""Photos: which files are meant, what is kept of them, and files written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from gtool.errors import CheckpointError, DataError
from gtool.io.image import UnreadableImage
from gtool.io.image_files import find_photos
from gtool.io.photo import Photo, fitting, read_ink, read_photo, save_photo
from tests.helpers import odd_images as odd

NOISE = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)


def put(name, content: bytes) -> Path:
    Path(name).write_bytes(content)
    return Path(name)


def near(colour, expected, tolerance=6) -> bool:
    return max(abs(int(a) - int(b)) for a, b in zip(colour, expected, strict=True)) <= tolerance


# Finding.


def paths(*arguments) -> list[str]:
    return [str(item.path) for item in find_photos([str(argument) for argument in arguments])]


def problem(argument) -> str:
    (found,) = find_photos([str(argument)])
    return found.problem


def test_a_folder_stands_for_its_photos_and_those_below(tmp_path):
    for name in ("b.jpg", "a.PNG", "in/c.webp", ".hidden.png", ".thumbs/d.png"):
        odd.plain(tmp_path / "all" / name)
    put(tmp_path / "all" / "notes.txt", b"no photo")
    found = find_photos(["all"])
    assert [(str(item.path), str(item.below)) for item in found] == [
        ("all/a.PNG", "."),
        ("all/b.jpg", "."),
        ("all/in/c.webp", "in"),
    ]
    assert all(item.searched for item in found)


def test_a_quoted_pattern_stands_for_what_it_fits(tmp_path):
    for name in ("a1.png", "a2.png", "b.png", "in/a3.png"):
        odd.plain(tmp_path / name)
    assert paths("a*.png") == ["a1.png", "a2.png"]
    assert paths("**/a*.png") == ["a1.png", "a2.png", "in/a3.png"]
    assert problem("c*.png") == "no file fits this pattern"


def test_brackets_in_a_name_are_no_pattern_where_the_file_is_there(tmp_path):
    odd.plain(tmp_path / "a[1].png")
    assert paths("a[1].png") == ["a[1].png"]


def test_each_photo_is_painted_once(tmp_path):
    odd.plain(tmp_path / "in" / "a.png")
    assert paths("in/a.png", "in", "./in/a.png", tmp_path / "in" / "a.png") == ["in/a.png"]


def test_a_folder_that_is_called_as_a_photo_is_a_folder(tmp_path):
    odd.plain(tmp_path / "album.jpg" / "a.png")
    assert paths("album.jpg") == ["album.jpg/a.png"]
    odd.plain(tmp_path / "all" / "album.jpg" / "b.png")
    assert paths("all") == ["all/album.jpg/b.png"]


def test_links_in_a_circle_are_followed_once(tmp_path):
    odd.plain(tmp_path / "all" / "a.png")
    os.symlink(tmp_path / "all", tmp_path / "all" / "again")
    os.symlink("loop.png", tmp_path / "all" / "loop.png")
    assert paths("all") == ["all/a.png", "all/loop.png"]
    assert problem("all/loop.png") == "a link that leads nowhere"


def test_what_is_not_there_is_named_with_the_nearest(tmp_path):
    odd.plain(tmp_path / "photo.jpg")
    assert problem("photo.jpgg") == "no such file; did you mean `photo.jpg`?"
    assert problem("nowhere/photo.jpg") == "no such file"
    assert problem("") == "a photo without a name"
    assert problem("x" * 5000 + ".jpg") == "no such file"


def test_an_empty_folder_and_a_pipe_are_problems(tmp_path):
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    assert problem("empty").startswith("no photos found (looked for ")
    assert problem("pipe.jpg") == "a pipe, which can be read once; save it as a file"


# Reading.


def test_a_noted_orientation_is_applied():
    photo = read_photo(put("turned.jpg", odd.turned_jpeg()))
    assert photo.size == (16, 8)
    assert near(photo.pixels[8, 6], odd.RED, 20)


def test_transparency_is_kept_and_opaque_alpha_is_none():
    photo = read_photo(put("a.png", odd.encode(odd.half_transparent())))
    assert photo.alpha[:, :6].min() == 255
    assert photo.alpha[:, 6:].max() == 0
    assert read_photo(put("b.png", odd.encode(Image.new("RGBA", (9, 9), (*odd.RED, 255))))).alpha is None


def test_transparency_of_a_palette_is_kept():
    image = Image.new("P", (12, 12), 0)
    image.putpalette([0, 0, 0, *odd.RED])
    image.paste(1, (0, 0, 6, 12))
    photo = read_photo(put("a.gif", odd.encode(image, transparency=0)))
    assert photo.alpha[0, 0] == 255
    assert photo.alpha[0, 9] == 0
    assert tuple(photo.pixels[0, 0]) == odd.RED


def test_what_is_transparent_shows_the_ground_and_no_hidden_colour():
    photo = read_photo(put("a.png", odd.encode(odd.half_transparent())))
    composed = photo.over((0.0, 0.2, 1.0))
    assert tuple(composed[2, 9]) == (0, 51, 255)
    assert tuple(composed[2, 2]) == odd.GREEN
    assert near(255 * np.array(photo.mean_color()), odd.GREEN, 1)


def test_the_mean_colour_of_nothing_is_white():
    nothing = Photo(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))
    assert nothing.mean_color() == (1.0, 1.0, 1.0)
    assert Photo(np.full((2, 2, 3), 51, np.uint8)).mean_color() == pytest.approx((0.2, 0.2, 0.2))


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("L", (9, 9), 77), "PNG", (77, 77, 77)),
        (Image.fromarray(np.full((9, 9), 150 * 257, np.uint16)), "PNG", (150, 150, 150)),
        (Image.new("CMYK", (9, 9), (0, 255, 255, 0)), "JPEG", (255, 0, 0)),
        (Image.new("1", (9, 9), 1), "PNG", (255, 255, 255)),
    ],
    ids=["grey", "16 bits", "CMYK", "bilevel"],
)
def test_other_modes_become_rgb(image, kind, expected):
    photo = read_photo(put("photo", odd.encode(image, kind)))
    assert near(photo.pixels[4, 4], expected, 12)


def test_the_colour_profile_is_kept_where_it_describes_rgb():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = srgb[:16] + b"GRAY" + srgb[20:]
    assert (
        read_photo(put("a.jpg", odd.encode(Image.new("RGB", (9, 9)), "JPEG", icc_profile=srgb))).icc == srgb
    )
    assert read_photo(put("b.png", odd.encode(Image.new("L", (9, 9)), icc_profile=grey))).icc is None
    assert read_photo(put("c.png", odd.encode(Image.new("RGB", (9, 9)), icc_profile=b"rubbish"))).icc is None


def test_the_first_frame_of_an_animation_is_taken_and_said():
    photo = read_photo(put("a.gif", odd.animation()))
    assert near(photo.pixels[2, 2], odd.RED)
    assert photo.notes == ("an animation; its first frame is painted (-o FILE.mp4 paints them all)",)
    assert read_photo(odd.plain(Path("b.png"))).notes == ()


@pytest.mark.parametrize("size", [(1, 1), (3, 5000), (12000, 50)])
def test_thin_photos_keep_a_pixel_across(size):
    odd.plain(Path("a.png"), size=size)
    height, width = read_photo(Path("a.png"), 256).size
    assert (width, height) == fitting(*size, 256)
    assert max(width, height) <= 256
    assert min(width, height) >= 1


def test_a_large_jpeg_made_smaller_looks_as_it_is():
    ramp = np.linspace(0, 255, 1600).astype(np.uint8)[None, :, None].repeat(1000, 0).repeat(3, 2)
    photo = read_photo(put("a.jpg", odd.encode(Image.fromarray(ramp), "JPEG", quality=95)), 64)
    assert photo.size == (40, 64)
    assert np.abs(photo.pixels[20, :, 0] - np.linspace(2, 253, 64)).max() < 4


BAD = {
    "empty": (b"", "empty"),
    "text": (b"dear photo", "no image of a known format"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image of a known format"),
    "truncated": (odd.truncated_jpeg(), "damaged: .*truncated"),
    "bomb": (odd.bomb_png(), "more than 89.5 million pixels"),
    "small bomb": (odd.bomb_png(10_000), "more than 89.5 million pixels"),
    "float": (odd.encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "no agreed range"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_unusable_file_is_named_with_its_reason(name):
    content, reason = BAD[name]
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_photo(put("my photo.jpg", content), 64)
    assert str(caught.value).startswith("my photo.jpg: ")


def test_a_missing_file_is_named():
    with pytest.raises(UnreadableImage, match="^none.jpg: no such file"):
        read_photo(Path("none.jpg"))


# Brush marks.


def mark() -> np.ndarray:
    """A mark twice as high as wide, its ink fading downwards."""
    ink = np.zeros((60, 60), np.float32)
    ink[10:50, 20:40] = np.linspace(1, 0.3, 40)[:, None]
    return ink


def saved(ink, name="mark.png"):
    Image.fromarray((255 * ink).astype(np.uint8)).save(name)
    return Path(name)


def test_ink_is_found_on_light_and_on_dark_paper_and_cut_out():
    on_dark, on_light = read_ink(saved(mark())), read_ink(saved(1 - mark()))
    assert on_dark.shape == (40, 20)
    assert on_dark == pytest.approx(mark()[10:50, 20:40], abs=0.01)
    assert on_light == pytest.approx(on_dark, abs=0.02)


def test_ink_is_what_is_not_transparent():
    image = Image.new("RGBA", (60, 60), (*odd.RED, 0))
    image.putalpha(Image.fromarray((255 * mark()).astype(np.uint8)))
    image.save("mark.png")
    assert read_ink(Path("mark.png")) == pytest.approx(mark()[10:50, 20:40], abs=0.01)


def test_a_mark_that_lies_is_turned_upright():
    assert read_ink(saved(mark().T)) == pytest.approx(read_ink(saved(mark())))


def test_blank_paper_with_its_grain_is_no_mark():
    with pytest.raises(UnreadableImage, match="no ink"):
        read_ink(saved(0.9 + 0.02 * np.random.RandomState(0).rand(40, 40)))


# Writing.


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.jpg", "a.JPEG"])
def test_a_picture_comes_back_in_every_format(name):
    smooth = np.asarray(Image.fromarray(NOISE[:2, :3]).resize((30, 20), Image.Resampling.BILINEAR))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save_photo(Path(name), smooth, icc=profile)
    with Image.open(name) as opened:
        back = np.asarray(opened).astype(int)
        assert opened.info["icc_profile"] == profile
        assert not opened.getexif()
    assert np.abs(back - smooth).mean() < (1 if name == "a.png" else 4)


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGBA"), ("a.webp", "RGBA"), ("a.jpg", "RGB")])
def test_transparency_is_written_where_the_format_can(name, mode):
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:, :10] = 255
    save_photo(Path(name), NOISE, alpha=alpha)
    with Image.open(name) as opened:
        assert opened.mode == mode
        if mode == "RGBA":
            assert (np.asarray(opened)[..., 3] == alpha).all()


def test_a_png_says_how_it_was_made():
    save_photo(Path("a.png"), NOISE, text={"Software": "gtool"})
    with Image.open("a.png") as opened:
        assert opened.text == {"Software": "gtool"}


def test_a_format_that_is_too_small_is_refused():
    with pytest.raises(DataError, match=r"^a.webp: .webp holds at most 16,383 pixels a side; write .png"):
        save_photo(Path("a.webp"), np.zeros((1, 16_384, 3), np.uint8))


def test_an_interrupted_write_leaves_what_was_there(monkeypatch):
    save_photo(Path("a.png"), NOISE)
    before = Path("a.png").read_bytes()

    def stop(self, file, **options):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        save_photo(Path("a.png"), NOISE)
    assert os.listdir() == ["a.png"]
    assert Path("a.png").read_bytes() == before


def test_a_place_that_cannot_be_written_is_named():
    put("file", b"")
    with pytest.raises(CheckpointError, match="^file/a.png: cannot be written"):
        save_photo(Path("file/a.png"), NOISE)
