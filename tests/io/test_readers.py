"""Damaged files of every kind, a seeded slice of `tests/benchmarks/fuzz_readers.py`; and the door that they pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from gtool.errors import CheckpointError, DataError
from gtool.reading import check_plain, limited, looks_like, parse_json, reading
from tests.benchmarks.fuzz_readers import fuzz


def test_damaged_files_are_read_or_refused_in_one_line():
    found = fuzz(204, seed=1)
    assert {name: reader.wrong for name, reader in found.items() if reader.wrong} == {}
    assert all(reader.done == 17 for reader in found.values())


def test_what_a_parser_raises_is_the_fault_of_the_file():
    Path("x.json").write_text("{")
    for bad in (
        KeyError("a"),
        RecursionError(),
        MemoryError(),
        ValueError("two\nlines"),
        OSError(5, "I/O error"),
    ):
        said = r"^x\.json: not a readable thing: [^\n]+$"
        with pytest.raises(CheckpointError, match=said), reading(Path("x.json"), "thing", CheckpointError):
            raise bad
    with pytest.raises(DataError, match=r"^ours$"), reading(Path("x.json"), "thing", CheckpointError):
        raise DataError("ours")
    with pytest.raises(KeyboardInterrupt), reading(Path("x.json"), "thing"):
        raise KeyboardInterrupt


def test_missing_files_and_folders_are_named_as_such():
    Path("folder").mkdir()
    with (
        pytest.raises(DataError, match=r"^folder: a folder; name a file in it$"),
        reading(Path("folder"), "thing"),
    ):
        pass
    with pytest.raises(DataError, match=r"^none: no such file$"), reading(Path("none"), "thing"):
        pass


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x80\x04.", "a pickle"),
        (b"\x89PNG\r\n", "a PNG image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, whose file was not downloaded"),
        (b"\x02\0\0\0\0\0\0\0{}" + bytes(9), "a safetensors file"),
        (b"text", ""),
    ],
)
def test_files_are_known_by_their_first_bytes(content, what):
    Path("x").write_bytes(content)
    assert looks_like(Path("x")) == what


def test_values_that_nothing_counts_in_are_refused():
    check_plain([{"a": [1, 2**62, 0.5, None, "text"]}])
    for text in ("[" * 100_000, "[" * 100 + "]" * 100, f"[{10**400}]"):
        with pytest.raises((ValueError, RecursionError)):
            parse_json(text)


def test_a_file_that_grows_beyond_its_limit_is_an_error():
    Path("x").write_bytes(bytes(1000))
    with open("x", "ab", 0) as file:
        with pytest.raises(OSError, match="too large"), limited(1 << 30, 1000):
            file.write(b"more")
        assert file.write(b"more") == 4
