"""Grids, animations and charts: what ends up in the files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageSequence

from gtool.errors import CheckpointError, GToolError
from gtool.io import outputs, pictures, video


def numbered(count: int, side: int = 4) -> np.ndarray:
    """Images of one grey each: image i has the value i + 1."""
    values = np.arange(1, count + 1, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return np.broadcast_to(values, (count, 3, side, side))


def frames(count: int, height: int, width: int) -> list[np.ndarray]:
    return [np.full((height, width, 3), 40 * number, np.uint8) for number in range(count)]


# Grids.


def test_a_grid_runs_from_left_to_right_and_downwards():
    laid = pictures.grid(numbered(5), columns=3, pad=1, scale=1)
    assert laid.shape == (11, 16, 3)
    assert [int(laid[row, column, 0]) for row in (2, 7) for column in (2, 7, 12)] == [1, 2, 3, 4, 5, 255]


def test_a_grid_separates_images_by_white():
    laid = pictures.grid(numbered(4), columns=2, pad=2, scale=1)
    assert (laid[:2] == 255).all()
    assert (laid[:, -2:] == 255).all()
    assert (laid[6:8] == 255).all()


def test_white_pictures_have_cells_that_can_be_seen():
    white = np.full((4, 3, 8, 8), 255, np.uint8)
    white[:, :, 3:5, 3:5] = 0
    laid = pictures.grid(white, pad=1, scale=1)
    assert (laid[0] < 220).all()
    assert (laid[:, 9] < 220).all()
    assert (laid[1:9, 1:9] == white[0].transpose(1, 2, 0)).all()


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (4, 2), (5, 3), (64, 8)])
def test_a_grid_is_as_square_as_can_be(count, columns):
    assert pictures.default_columns(count) == columns


def test_more_columns_than_images_leave_no_empty_cells():
    assert pictures.grid(numbered(2), columns=10, pad=0, scale=1).shape == (4, 8, 3)


@pytest.mark.parametrize(("count", "side"), [(64, 32), (64, 64), (16, 128), (1, 32), (100, 16)])
def test_a_grid_is_comfortable_to_look_at(count, side):
    laid = pictures.grid(np.zeros((count, 3, side, side), np.uint8))
    assert 512 <= laid.shape[1] <= 1100


def test_enlarging_repeats_pixels_and_changes_none():
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
    enlarged = pictures.enlarge(image, 3)
    assert enlarged.shape == (15, 21, 3)
    assert (enlarged[1::3, 2::3].transpose(2, 0, 1) == image).all()


def test_a_png_is_lossless_and_carries_its_text(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    pictures.save_png(tmp_path / "new" / "a.png", pixels, {"seed": "3", "model": "transgan"})
    with Image.open(tmp_path / "new" / "a.png") as opened:
        assert (np.asarray(opened) == pixels).all()
        assert opened.text == {"seed": "3", "model": "transgan"}


# Folders.


def test_a_folder_holds_numbered_files_when_it_is_complete(tmp_path):
    with pictures.open_folder(tmp_path / "out") as add:
        add([0, 1], numbered(2), [{"index": "0"}, {"index": "1"}])
        assert not list((tmp_path / "out").glob("*.png"))
        add([7], numbered(1), [{"index": "7"}])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png", "000007.png"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    def fill_and_fail() -> None:
        with pictures.open_folder(tmp_path / "out") as add:
            add([0], numbered(1), [{}])
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fill_and_fail()
    assert not (tmp_path / "out").exists()


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / pictures.UNFINISHED).mkdir()
    (tmp_path / pictures.UNFINISHED / "000009.png").touch()
    with pictures.open_folder(tmp_path) as add:
        add([0], numbered(1), [{}])
    assert [p.name for p in tmp_path.iterdir()] == ["000000.png"]


def test_overwriting_replaces_numbered_files_and_leaves_others(tmp_path):
    for name in ("000003.png", "notes.txt"):
        (tmp_path / name).touch()
    with pictures.open_folder(tmp_path, overwrite=True) as add:
        add([0], numbered(1), [{}])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000.png", "notes.txt"]


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(CheckpointError, match="not empty"), pictures.open_folder(tmp_path):
        pass


def test_a_full_disk_ends_in_one_line(tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "write_png", refuse)
    with (
        pytest.raises(CheckpointError, match=r"out: cannot be written: No space left"),
        pictures.open_folder(tmp_path / "out") as add,
    ):
        add([0], numbered(1), [{}])
    assert not (tmp_path / "out").exists()


# Animations.


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_shows_every_frame_for_its_time_and_for_ever(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    video.save_animation(path, iter(frames(5, 33, 41)), fps=10)
    with Image.open(path) as opened:
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]
        assert opened.info["loop"] == 0
        assert opened.info["duration"] == 100
    assert [frame.shape for frame in shown] == [(33, 41, 3)] * 5
    assert [int(frame[0, 0, 0]) for frame in shown] == pytest.approx([0, 40, 80, 120, 160], abs=4)


def test_a_film_has_even_sides_and_every_frame(tmp_path):
    av = pytest.importorskip("av")
    video.save_animation(tmp_path / "a.mp4", iter(frames(6, 33, 41)), fps=12.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 12.5
    assert [frame.shape for frame in shown] == [(34, 42, 3)] * 6
    assert [int(frame[5, 5, 0]) for frame in shown] == pytest.approx([0, 40, 80, 120, 160, 200], abs=5)


def test_a_film_without_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "find_spec", lambda name: None)
    with pytest.raises(GToolError, match=r'pip install "gtool\[video\]"'):
        outputs.check_animation(tmp_path / "a.mp4")


def test_an_unknown_kind_of_animation_is_refused(tmp_path):
    with pytest.raises(GToolError, match=r"a\.avi: an animation ends in \.webp, \.gif or \.mp4"):
        video.save_animation(tmp_path / "a.avi", frames(2, 8, 8), 10)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_that_fails_leaves_no_file(tmp_path, suffix):
    def broken():
        yield from frames(2, 8, 8)
        raise ValueError("stop")

    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="stop"):
        video.save_animation(tmp_path / "out" / f"a{suffix}", broken(), 10)
    assert list((tmp_path / "out").iterdir()) == []
