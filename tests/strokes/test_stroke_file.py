"""Stroke files: what is written is read, renders the same, and nothing else is read."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from gtool.errors import CheckpointError, DataError
from gtool.strokes import stroke_file
from gtool.strokes.brush import MARKS, load_brush
from gtool.strokes.settings import BRUSHES
from gtool.strokes.stroke_file import load_strokes, save_strokes
from tests.strokes.examples import a_painting

ROW = [0.5, 0.4, 0.3, 0.2, 0.25, 0.9, 0.5, 0.1, 0]


def document(**changes):
    made = {
        "format": "gtool-strokes",
        "version": 1,
        "aspect": 1.5,
        "ground": [0.2, 0.5, 0.7],
        "brush": "flat",
        "opacity": 1.0,
        "columns": ["x", "y", "width", "height", "theta", "red", "green", "blue", "level"],
        "strokes": [ROW, ROW, ROW],
    }
    return {key: value for key, value in (made | changes).items() if value is not ...}


def row(**changes):
    """Three strokes, the second one changed."""
    columns = document()["columns"]
    changed = [changes.get(name, value) for name, value in zip(columns, ROW, strict=True)]
    return document(strokes=[ROW, changed, ROW])


def refusal(path, content):
    """Return the one line that a file is refused with."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(DataError) as caught:
        load_strokes(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


# Round trips.


@pytest.mark.parametrize("kind", BRUSHES)
def test_a_painting_that_was_saved_renders_the_same_pixels(tmp_path, kind):
    brush = load_brush(kind, marks=MARKS)
    painting = a_painting(400, brush=brush, opacity=0.8, levels=torch.arange(400) // 40)
    save_strokes(tmp_path / "a.json", painting)
    loaded = load_strokes(tmp_path / "a.json")
    for size in ((64, 96), (150, 225)):
        one, other = (p.render(*size) for p in (painting, loaded))
        assert torch.equal(one, other)
    for field in ("shape_params", "colors", "levels"):
        assert torch.equal(getattr(painting, field), getattr(loaded, field))
    assert replace(loaded, shape_params=0, colors=0, levels=0) == replace(
        painting, shape_params=0, colors=0, levels=0
    )


def test_every_float_comes_back_exactly(tmp_path):
    random = np.random.default_rng(0)
    mantissas, exponents = random.uniform(1, 10, (5000, 8)), random.integers(-30, 0, (5000, 8))
    values = torch.from_numpy((mantissas * 10.0**exponents).astype(np.float32))
    painting = a_painting(5000, shape_params=values[:, :5].contiguous(), colors=values[:, 5:].contiguous())
    save_strokes(tmp_path / "a.json", painting)
    loaded = load_strokes(tmp_path / "a.json")
    assert torch.equal(loaded.shape_params, painting.shape_params)
    assert torch.equal(loaded.colors, painting.colors)


def test_a_painting_without_strokes_is_a_ground(tmp_path):
    save_strokes(tmp_path / "a.json", a_painting()[:0])
    loaded = load_strokes(tmp_path / "a.json")
    assert len(loaded) == 0
    assert loaded.render(4, 6).unique().tolist() == [51, 128, 178]


def test_saving_again_gives_the_same_file(tmp_path):
    save_strokes(tmp_path / "a.json", a_painting())
    save_strokes(tmp_path / "b.json", load_strokes(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_colours_a_rounding_error_outside_the_range_are_kept(tmp_path):
    """A mean of white pixels may come to 1.0000001."""
    painting = a_painting(1, colors=torch.tensor([[1.0000001, -1e-8, 0.5]]), ground=(1.0000001, 0.0, 0.0))
    save_strokes(tmp_path / "a.json", painting)
    assert torch.equal(load_strokes(tmp_path / "a.json").colors, painting.colors)


def test_the_file_is_what_is_documented(tmp_path):
    save_strokes(tmp_path / "a.json", a_painting(2))
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    read = json.loads(text)
    assert {**read, "strokes": []} == document(strokes=[])
    assert [len(row) for row in read["strokes"]] == [9, 9]
    assert len(text.splitlines()) == 3
    assert all(f"{key}" in stroke_file.__doc__ for key in read)


def test_files_written_by_others_are_read(tmp_path):
    """Whole numbers, a byte order mark, other keys, any order, white space."""
    made = document(
        aspect=2, ground=[0, 0, 1], opacity=1, note="by hand", strokes=[[0, 1, 1, 2, 0, 1, 0, 1, 3.0]]
    )
    reordered = dict(reversed(made.items()))
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(reordered, indent=2), encoding="utf-8")
    loaded = load_strokes(tmp_path / "a.json")
    assert loaded.shape_params.tolist() == [[0, 1, 1, 2, 0]]
    assert loaded.levels.tolist() == [3]
    assert (loaded.aspect, loaded.ground) == (2.0, (0.0, 0.0, 1.0))


def test_200_000_strokes_are_read_in_about_a_second(tmp_path):
    save_strokes(tmp_path / "a.json", a_painting(200_000))
    began = time.process_time()
    loaded = load_strokes(tmp_path / "a.json")
    assert time.process_time() - began < 4  # 0.7 s measured; room for slow machines
    assert len(loaded) == 200_000


# What is refused.


def test_what_is_no_json_is_refused(tmp_path):
    path = tmp_path / "a.json"
    assert refusal(path, b"").startswith("not a stroke file: no JSON: ")
    assert refusal(path, b"hello").startswith("not a stroke file: no JSON: ")
    assert refusal(path, json.dumps(document()).encode()[:-40]).startswith("not a stroke file: no JSON: ")
    assert "no JSON: 'utf-8' codec can't decode" in refusal(path, b"\x89PNG\xff\xfe")
    assert refusal(path, b"[" * 200_000).startswith("not a stroke file: no JSON: ")
    assert refusal(path, b"7" * 10_000).startswith("not a stroke file: no JSON: ")


@pytest.mark.parametrize("content", [[], 7, None, "text", {}, {"format": "svg"}, document(format=...)])
def test_other_json_is_refused(tmp_path, content):
    assert refusal(tmp_path / "a.json", content) == 'not a stroke file: its "format" is not "gtool-strokes"'


@pytest.mark.parametrize("version", [2, 0, "1", None, True, 1.5, [1]])
def test_an_unknown_version_is_refused_with_the_known_one(tmp_path, version):
    text = refusal(tmp_path / "a.json", document(version=version))
    assert text == f"stroke file of version {json.dumps(version)}; this gtool reads version 1"


@pytest.mark.parametrize("key", ["version", "aspect", "ground", "brush", "opacity", "columns", "strokes"])
def test_a_missing_key_is_named(tmp_path, key):
    assert refusal(tmp_path / "a.json", document(**{key: ...})) == f'damaged stroke file: no "{key}" in it'


WRONG = {
    "aspect": [0, -1, "1.5", None, True, float("nan"), float("inf"), 1e30, [1], 10**400],
    "ground": [
        [0.1, 0.2],
        [0.1, 0.2, 0.3, 0.4],
        [0.1, 0.2, 1.5],
        [0.1, 0.2, "0"],
        0.5,
        [0.1, 0.2, float("nan")],
    ],
    "brush": ["", 7, None, ["flat"], "x" * 2000],
    "opacity": [-0.1, 1.1, "1", None, float("nan"), True],
    "columns": [["x", "y"], None, "xy"],
    "strokes": [None, {}, "strokes", 7],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in WRONG.items() for value in values],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_value_is_named(tmp_path, key, value):
    assert refusal(tmp_path / "a.json", document(**{key: value})).startswith(
        f'damaged stroke file: "{key}" must be'
    )


BAD_STROKES = {
    "x nan is not in [-10, 10]": row(x=float("nan")),
    "theta -inf is not in [-1000000, 1000000]": row(theta=float("-inf")),
    "height inf is not in [0, 10]": row(height=float("inf")),
    "y 100000000000 is not in [-10, 10]": row(y=10**400),
    "y 11 is not in [-10, 10]": row(y=11),
    "width -0.1 is not in [0, 10]": row(width=-0.1),
    "height 10.5 is not in [0, 10]": row(height=10.5),
    "theta 1000000000.0 is not in [-1000000, 1000000]": row(theta=1e9),
    "red 1.01 is not in [0, 1]": row(red=1.01),
    "blue -0.5 is not in [0, 1]": row(blue=-0.5),
    "green is not a number": row(green="0.5"),
    "x is not a number": row(x=True),
    "y is not a number": row(y=None),
    "blue is not a number": row(blue=[1]),
    "level 0.5 is not a whole number": row(level=0.5),
    "level -1 is not in [0, 1000]": row(level=-1),
    "is not a list of 9 numbers": document(strokes=[ROW, ROW[:8], ROW]),
}


@pytest.mark.parametrize("reason", BAD_STROKES)
def test_a_bad_stroke_is_named_by_its_number(tmp_path, reason):
    assert refusal(tmp_path / "a.json", BAD_STROKES[reason]) == f"damaged stroke file: stroke 2: {reason}"


@pytest.mark.parametrize("stroke", [[*ROW, 1], {"x": 1}, "stroke", None])
def test_a_stroke_that_is_no_row_is_named(tmp_path, stroke):
    text = refusal(tmp_path / "a.json", document(strokes=[ROW, stroke]))
    assert text == "damaged stroke file: stroke 2: is not a list of 9 numbers"


def test_the_first_bad_stroke_of_many_is_named(tmp_path):
    strokes = [list(ROW) for _ in range(5000)]
    strokes[4321][2] = strokes[4800][0] = 50
    text = refusal(tmp_path / "a.json", document(strokes=strokes))
    assert text == "damaged stroke file: stroke 4322: width 50 is not in [0, 10]"


def test_huge_files_are_refused_before_they_are_understood(tmp_path, monkeypatch):
    monkeypatch.setattr(stroke_file, "MOST_STROKES", 1000)
    path = tmp_path / "a.json"
    monkeypatch.setattr(stroke_file.json, "loads", lambda text: pytest.fail("was parsed"))
    assert refusal(path, document(strokes=[ROW] * 1200)) == "more than 1,000 strokes"
    assert refusal(path, b"[" + b"1," * 30_000 + b"1]") == "more than 1,000 strokes"
    assert refusal(path, b"[" + b"{} " * 2000 + b"]") == "not a stroke file: strokes are lists of numbers"
    monkeypatch.setattr(stroke_file, "MOST_BYTES", 2**20)
    assert refusal(path, b" " * (2**20 + 1)) == "larger than 1 MB, the most a stroke file may have"


def test_a_count_just_over_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(stroke_file, "MOST_STROKES", 2)
    assert refusal(tmp_path / "a.json", document()) == "3 strokes; at most 2 fit into a stroke file"


def test_files_that_cannot_be_read_are_named(tmp_path):
    for path, reason in (
        (tmp_path / "none.json", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
    ):
        with pytest.raises(DataError) as caught:
            load_strokes(path)
        assert str(caught.value) == f"{path}: {reason}"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"loop: cannot be read: .+$"):
        load_strokes(tmp_path / "loop")


# What is not written.


def test_a_painting_that_could_not_be_read_is_not_written(tmp_path, monkeypatch):
    params = a_painting(5).shape_params.clone()
    params[3, 2] = float("nan")
    with pytest.raises(DataError, match="a.json: damaged stroke file: stroke 4: width nan is not in"):
        save_strokes(tmp_path / "a.json", a_painting(5, shape_params=params))
    with pytest.raises(DataError, match='"opacity" must be a number in'):
        save_strokes(tmp_path / "a.json", a_painting(5, opacity=2.0))
    monkeypatch.setattr(stroke_file, "MOST_STROKES", 4)
    with pytest.raises(DataError, match="5 strokes; at most 4"):
        save_strokes(tmp_path / "a.json", a_painting(5))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_strokes(tmp_path / "a.json", a_painting(3))
    before = (tmp_path / "a.json").read_bytes()

    def full(one, other):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match="cannot be written: No space left"):
        save_strokes(tmp_path / "a.json", a_painting(4))
    assert (tmp_path / "a.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
