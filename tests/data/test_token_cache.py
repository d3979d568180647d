"""Codes are made once, whole or not at all, and belong to one tokenizer and one set of images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gtool.data.pixel_cache import ImageArrays
from gtool.data.token_cache import load_codes
from gtool.errors import DataError
from gtool.io import cache

COUNT, GRID = 5, (2, 3)


def images(fingerprint="set"):
    return ImageArrays(np.zeros((COUNT, 3, 8, 8), np.uint8), None, fingerprint)


class Encoder:
    """Codes that count up, in blocks of two rows; knows how often it was asked."""

    def __init__(self, rows=COUNT, first=0):
        self.calls = 0
        self.rows = rows
        self.first = first

    def codes(self):
        return self.first + np.arange(self.rows * 6).reshape(self.rows, *GRID)

    def __call__(self):
        self.calls += 1
        for start in range(0, self.rows, 2):
            yield torch.from_numpy(self.codes()[start : start + 2])


def load(encoder, tokenizer="t", fingerprint="set", size=1000, **options):
    return load_codes(images(fingerprint), tokenizer, GRID, size, encoder, **options)


def files():
    return sorted(path.name for path in (Path(os.environ["GTOOL_CACHE"]) / "tokens").iterdir())


def test_codes_are_made_once_and_mapped():
    encoder = Encoder()
    for _ in range(2):
        codes = load(encoder)
        assert np.array_equal(codes, encoder.codes())
        assert isinstance(codes, np.memmap)
        assert codes.dtype == np.int16
    assert encoder.calls == 1


def test_entry_belongs_to_tokenizer_images_and_versions():
    encoder = Encoder()
    load(encoder)
    load(encoder, tokenizer="u")
    load(encoder, fingerprint="other")
    load(encoder, size=1001)
    load(Encoder(2 * COUNT), flip=True)
    assert encoder.calls == 4
    assert len([name for name in files() if name.endswith(".npy")]) == 5


def test_every_version_of_an_image_has_a_row():
    assert len(load(Encoder(2 * COUNT), flip=True)) == 2 * COUNT


def test_large_codebooks_have_32_bits():
    encoder = Encoder(first=60_000)
    codes = load(encoder, size=65_536)
    assert codes.dtype == np.int32
    assert np.array_equal(codes, encoder.codes())


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (Encoder(4), "4 rows of codes, and 5 expected"),
        (Encoder(6), "after 4 of 5 rows"),
        (Encoder(first=990), "codes 990 to 1001 of a codebook of 1000"),
        (lambda: [np.zeros((5, 3, 3), int)], "codes (5, 3, 3)"),
    ],
)
def test_wrong_codes_are_refused_and_leave_nothing(encoder, message):
    with pytest.raises(ValueError, match=r".") as caught:
        load(encoder)
    assert message in str(caught.value)
    assert [name for name in files() if not name.endswith(".lock")] == []
    assert load(Encoder()).shape == (COUNT, *GRID)


def test_interrupted_encoding_leaves_nothing():
    def interrupted():
        yield np.zeros((2, *GRID), int)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(interrupted)
    assert [name for name in files() if not name.endswith(".lock")] == []


def test_too_small_a_disk_is_one_line(monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"the codes need 60 bytes and 10 bytes.*GTOOL_CACHE"):
        load(Encoder())


def test_progress_counts_rows():
    seen = []
    load(Encoder(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
