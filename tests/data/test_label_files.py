"""Labels in a file beside the images: dataset.json, metadata.jsonl, metadata.csv."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from gtool.data.open import open_dataset
from gtool.errors import DataError
from tests.helpers import odd_images as odd


def stylegan(labels):
    return "dataset.json", json.dumps({"labels": labels})


def lines(*rows):
    return "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows)


def opened(file, count=3, **options):
    odd.folder(Path("set"), count)
    Path("set", file[0]).write_text(file[1], encoding="utf-8")
    return open_dataset("./set", **options)


FILES = {
    "numbers": (stylegan([["00.png", 7], ["01.png", 0], ["02.png", 7]]), [7, 0, 7], None),
    "an object": (stylegan({"00.png": 1, "01.png": 0, "02.png": 1}), [1, 0, 1], None),
    "some images": (stylegan([["02.png", 1], ["gone.png", 2]]), [-1, -1, 1], None),
    "texts": (
        lines({"file_name": "00.png", "label": "b"}, {"file_name": "./01.png", "label": "a"}),
        [1, 0, -1],
        "ab",
    ),
    "one in a list": (
        lines({"file_name": "00.png", "label": [2]}, {"file_name": "01.png", "label": 1}),
        [2, 1, -1],
        None,
    ),
    "truth": (
        lines({"file_name": "00.png", "label": True}, {"file_name": "01.png", "label": False}),
        [1, 0, -1],
        None,
    ),
    "a table": (("metadata.csv", "file_name,text,Class\n00.png,hello,3\n01.png,hi,4\n"), [3, 4, -1], None),
    "byte order mark": (("metadata.csv", "\ufefffile_name,label\n00.png,9\n01.png,x\n"), [0, 1, -1], "9x"),
    "identities": (
        lines({"file_name": "00.png", "label": 10**12}, {"file_name": "01.png", "label": 9}),
        [1, 0, -1],
        None,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_labels_are_read(name):
    file, labels, names = FILES[name]
    source = opened(file)
    assert source.labels.tolist() == labels
    if name == "identities":
        assert source.class_names == ("9", "1000000000000")
    else:
        assert source.class_names == (names and tuple(names))
    assert file[0] in source.describe()


WHY = {
    "several": (
        lines({"file_name": "01.png", "label": [1, 2]}),
        "metadata.jsonl gives 01.png several labels, and one",
    ),
    "twice": (stylegan([["01.png", 1], ["01.png", 2]]), "dataset.json gives 01.png several labels"),
    "null": (stylegan(None), "dataset.json: holds no labels"),
    "no names": (
        ("metadata.csv", "name,label\n00.png,1\n"),
        "no column `file_name`; its columns: name, label",
    ),
    "no label": (
        ("metadata.csv", "file_name,text\n00.png,a\n"),
        "data.label_column names none; its columns: file_name",
    ),
    "other images": (stylegan([["x.png", 1]]), "dataset.json gives no label of any of the images"),
    "damage": (("dataset.json", "{"), "dataset.json cannot be read"),
    "a list": (("dataset.json", "[1]"), "dataset.json cannot be read"),
    "deep": (("dataset.json", "[" * 100_000), "dataset.json cannot be read"),
    "a long number": (lines({"file_name": "00.png", "label": "9" * 5000}), "metadata.jsonl cannot be read"),
    "fractions": (lines({"file_name": "00.png", "label": 0.5}), "labels are whole numbers or texts"),
}


@pytest.mark.parametrize("name", WHY)
def test_a_file_without_labels_matters_only_where_they_are_wanted(name):
    file, why = WHY[name]
    source = opened(file)
    assert source.labels is None
    assert f", no classes ({file[0]}" in source.describe()
    assert why in source.describe()
    with pytest.raises(DataError, match="no class labels: ") as caught:
        source.require("class")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_of_images_that_are_not_there_are_told():
    one = opened(stylegan([["00.png", 1], ["gone.png", 2]])).describe()
    assert "; 2 images without a label; labels of 1 image that are not there (gone.png)" in one
    several = opened(stylegan({"00.png": 1, "a\n.png": 1, "b.png": 1, "c.png": 1})).describe()
    assert "labels of 3 images that are not there (a\\n.png, b.png, ...)" in several


def test_names_that_lead_elsewhere_are_names_of_no_image(tmp_path, monkeypatch):
    """Nothing is opened by what a file of labels says, below the folder or on the network."""
    odd.plain(tmp_path / "secret.png")
    monkeypatch.setattr("socket.create_connection", None)
    elsewhere = ["../secret.png", str(tmp_path / "secret.png"), "https://a.org/x.png", "x/../../secret.png"]
    rows = [{"file_name": name, "label": 7} for name in elsewhere]
    source = opened(lines({"file_name": "01.png", "label": 3}, *rows))
    assert sorted(set(source.labels.tolist())) == [-1, 3]


def test_the_column_can_be_named():
    file = ("metadata.csv", "file_name,label,kind\n00.png,1,b\n01.png,2,a\n02.png,3,b\n")
    assert opened(file, columns={"label": "kind"}).class_names == ("a", "b")
    with pytest.raises(
        DataError, match="set: no column `none` of labels; its columns: file_name, label, kind"
    ):
        opened(file, columns={"label": "none"})


def test_labels_mean_the_same_in_every_split():
    for split, label in (("train", "b"), ("test", "a")):
        odd.folder(Path("set", split), 2)
        Path("set", split, "metadata.csv").write_text(f"file_name,label\n00.png,{label}\n01.png,{label}\n")
    assert open_dataset("./set").labels.tolist() == [1, 1]
    assert open_dataset("./set", split="test").labels.tolist() == [0, 0]


def test_labels_in_a_zip(tmp_path):
    with zipfile.ZipFile("set.zip", "w") as archive:
        for name in ("00000/a.png", "00000/b.png"):
            archive.write(odd.plain(tmp_path / "x.png"), name)
        archive.writestr(*stylegan([["00000/a.png", 1], ["00000/b.png", 0]]))
    assert open_dataset("./set.zip").labels.tolist() == [1, 0]
