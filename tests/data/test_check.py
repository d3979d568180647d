"""What a training would say of its data, found out without reading all of them: for `--dry-run`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gtool.config.schema import Recipe
from gtool.data.dataset import ImageDataset
from gtool.data.held_out import open_images
from gtool.errors import DataError
from tests.helpers import odd_images as odd


def recipe(dataset, **data):
    return Recipe.model_validate({"model_name": "transgan", "data": {"dataset": str(dataset), **data}})


def test_two_images_are_read_and_no_more(tmp_path, monkeypatch):
    read, calls = ImageDataset.read, []
    monkeypatch.setattr(ImageDataset, "read", lambda self, index: calls.append(index) or read(self, index))
    odd.folder(tmp_path / "set", 9)
    (tmp_path / "set" / "00.png").write_bytes(b"text")
    assert open_images(recipe("./set")).describe() == "set: 9 images, no classes"
    assert calls == [0, 1, 2]


def broken(folder):
    for name in ("0.png", "1.png"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"text")


def partly_labelled(folder):
    odd.folder(folder, 3)
    (folder / "metadata.csv").write_text("file_name,label\n00.png,a\n01.png,b\n")


def labelled(*labels):
    """A function that makes a table with a column of these labels, `set`."""

    def make(path):
        rows = [{"bytes": odd.encode(Image.new("RGB", (12, 12))), "path": None} for _ in labels]
        pq.write_table(pa.table({"image": rows, "label": list(labels)}), f"{path}.parquet")

    return make


REFUSED = {
    "missing": (lambda folder: None, {}, "no such folder"),
    "empty": (lambda folder: folder.mkdir(), {}, "no images found"),
    "one": (lambda folder: odd.folder(folder, 1), {}, "1 image found; at least 2"),
    "broken": (broken, {}, "0 of 2 images can be read, and 2 are needed; 0.png: no image of a known format"),
    "classes": (lambda folder: odd.folder(folder, 2), {"condition": "class"}, "no class labels"),
    "numbers": (labelled(0, 10**12), {"condition": "class"}, "labels to 1,000,000,000,000 are no numbers of"),
    "fractions": (
        labelled(0.5, 1.5),
        {"condition": "class"},
        "column `label` holds float64, and labels are whole",
    ),
    "some classes": (partly_labelled, {"condition": "class"}, "1 image without a class; data.condition"),
    "maps": (lambda folder: odd.folder(folder, 2), {"condition": "segmentation"}, "no label maps"),
    "zip": (lambda folder: zipfile.ZipFile("set", "w").close(), {}, "no data set that can be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_training_refuses_is_refused(name):
    make, data, message = REFUSED[name]
    make(Path("set"))
    there = "./set.parquet" if Path("set.parquet").exists() else "./set"
    with pytest.raises(DataError) as caught:
        open_images(recipe(there, **data))
    assert message in str(caught.value)
