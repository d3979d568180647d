"""Pixels are decoded once, kept whole or not at all, and the same when they are decoded on access."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gtool.data.dataset import ImageDataset
from gtool.data.open import open_dataset
from gtool.data.pixel_cache import DecodedOnAccess, load_images
from gtool.errors import DataError
from gtool.io import cache
from tests.helpers import odd_images as odd


def load(path="pictures", resolution=8, **options):
    return load_images(open_dataset(str(path)), resolution, **options)


def cached_files():
    return sorted(path.name for path in (Path(os.environ["GTOOL_CACHE"]) / "pixels").iterdir())


@pytest.fixture
def pictures(tmp_path):
    return odd.folder(tmp_path / "pictures", 5)


def test_images_come_in_the_order_of_their_names(pictures):
    images = load(pictures).images
    assert images.shape == (5, 3, 8, 8)
    assert images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]


def test_second_load_decodes_nothing(pictures, monkeypatch):
    first = load(pictures)
    monkeypatch.setattr(ImageDataset, "read_squares", None)
    again = load(pictures)
    assert np.array_equal(again.images, first.images)
    assert again.fingerprint == first.fingerprint
    assert isinstance(again.images, np.memmap)


def test_entry_belongs_to_resolution_and_crop(pictures):
    keys = {load(pictures, r, crop=c).fingerprint for r in (8, 12) for c in ("center", "fit")}
    assert len(keys) == 4


@pytest.mark.parametrize("change", ["content", "name", "more"])
def test_entry_is_made_again_when_the_folder_changes(pictures, change):
    before = load(pictures)
    if change == "content":
        odd.plain(pictures / "00.png", (200, 200, 200), (20, 20))
    elif change == "name":
        (pictures / "00.png").rename(pictures / "99.png")
    else:
        odd.plain(pictures / "05.png", (200, 200, 200))
    after = load(pictures)
    assert after.fingerprint != before.fingerprint
    assert not np.array_equal(after.images, before.images)


def test_entry_can_be_read_by_numpy_alone(pictures):
    expected = load(pictures).images
    (entry,) = Path(os.environ["GTOOL_CACHE"]).glob("pixels/pictures-8-*.npy")
    assert np.array_equal(np.load(entry), expected)


def spoil(folder):
    (folder / "00a.jpg").write_bytes(odd.truncated_jpeg())
    (folder / "01a.png").write_bytes(b"")
    (folder / "02a.gif").write_bytes(b"this is text")
    (folder / "03a.png").write_bytes(odd.bomb_png())


@pytest.mark.parametrize("budget_gb", [4.0, 0.0])
def test_unreadable_files_are_left_out_and_named(pictures, budget_gb):
    spoil(pictures)
    loaded = load(pictures, budget_gb=budget_gb)
    assert loaded.images[:][:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert [name for name, _ in loaded.skipped] == ["00a.jpg", "01a.png", "02a.gif", "03a.png"]
    reasons = [reason for _, reason in loaded.skipped]
    assert "truncated" in reasons[0]
    assert reasons[1:3] == ["empty", "no image of a known format"]
    assert load(pictures, budget_gb=budget_gb).skipped == loaded.skipped


def test_labels_stay_with_their_images_when_one_is_left_out(tmp_path):
    for name, grey in (("a/0", 1), ("b/1", 2), ("b/2", 3)):
        odd.plain(tmp_path / "set" / f"{name}.png", (grey,) * 3)
    (tmp_path / "set" / "a" / "9.png").write_bytes(b"")
    loaded = load(tmp_path / "set")
    assert loaded.labels.tolist() == [0, 1, 1]
    assert loaded.images[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_one_readable_image_is_not_enough(tmp_path):
    odd.folder(tmp_path / "set", 1)
    (tmp_path / "set" / "bad.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"1 of 2 images can be read"):
        load(tmp_path / "set")
    assert [name for name in cached_files() if name.endswith((".npy", ".json"))] == []


def test_nothing_readable_names_the_first_file(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "set" / name).write_bytes(b"text")
    with pytest.raises(DataError, match=r"0 of 2.*a\.png: no image of a known format"):
        load(tmp_path / "set", budget_gb=0.0)


def test_images_on_access_equal_those_of_the_cache(pictures):
    stored, lazy = load(pictures).images, load(pictures, budget_gb=0.0).images
    assert isinstance(lazy, DecodedOnAccess)
    assert lazy.shape == stored.shape
    for key in (0, -1, slice(1, 4), np.array([3, 0, 3]), [2, 1], np.arange(5) > 2):
        assert np.array_equal(lazy[key], stored[key])
    assert np.array_equal(np.asarray(lazy), stored)


def test_image_that_vanishes_later_is_named(pictures):
    lazy = load(pictures, budget_gb=0.0).images
    (pictures / "03.png").unlink()
    with pytest.raises(DataError, match=r"03\.png: .*No such file"):
        lazy[np.array([3])]


def test_scenes_are_cached_as_they_are_drawn():
    from gtool.data.synthetic.scenes import draw_scenes

    source = open_dataset("scenes", num_images=300)
    expected = draw_scenes(np.arange(300), 16).images
    assert np.array_equal(load_images(source, 16).images, expected)
    assert np.array_equal(load_images(source, 16, budget_gb=0.0).images[:], expected)


def test_progress_ends_with_all_images(pictures):
    seen = []
    load(pictures, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)


def test_unknown_crop_is_refused(pictures):
    with pytest.raises(DataError, match="crop `centre` is unknown; use center or fit"):
        load(pictures, crop="centre")


def test_cut_off_entry_is_made_again(pictures):
    expected = np.array(load(pictures).images)
    (entry,) = Path(os.environ["GTOOL_CACHE"]).glob("pixels/*.npy")
    os.truncate(entry, 300)
    assert np.array_equal(load(pictures).images, expected)


def test_failed_write_is_one_line_and_leaves_nothing(pictures, monkeypatch):
    def full(self, rows):
        self._file.write(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.RowWriter, "append", full)
    with pytest.raises(DataError, match=r"No space left on device.*GTOOL_CACHE") as caught:
        load(pictures)
    assert "\n" not in str(caught.value)
    assert [name for name in cached_files() if not name.endswith(".lock")] == []


def test_too_small_a_disk_is_said_before_anything_is_decoded(pictures, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    monkeypatch.setattr(ImageDataset, "read_squares", None)
    with pytest.raises(DataError, match=r"need 960 bytes and 100 bytes are free.*GTOOL_CACHE"):
        load(pictures)


def test_cache_that_cannot_be_written_is_one_line(pictures, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GTOOL_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set \\$GTOOL_CACHE to another folder"):
        load(pictures)


def test_leftovers_of_a_killed_process_are_removed(pictures):
    load(pictures)
    (entry,) = Path(os.environ["GTOOL_CACHE"]).glob("pixels/*.npy")
    left = entry.with_name(f".{entry.stem}.12345.tmp.npy")
    left.write_bytes(b"half")
    entry.unlink()
    load(pictures)
    assert not left.exists()


def test_processes_that_start_together_build_an_entry_once(pictures, tmp_path):
    code = (
        "import sys; from gtool.data import pixel_cache as cache; from gtool.data.open import open_dataset\n"
        "build = cache._Squares._build\n"
        "cache._Squares._build = lambda *a: (open(sys.argv[2], 'a').write('built\\n'), build(*a))[1]\n"
        "print(cache.load_images(open_dataset(sys.argv[1]), 8).images.sum())"
    )
    log = tmp_path / "log"
    command = [sys.executable, "-c", code, str(pictures), str(log)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = {process.communicate()[0] for process in started}
    assert len(sums) == 1
    assert sums != {""}
    assert log.read_text() == "built\n"
