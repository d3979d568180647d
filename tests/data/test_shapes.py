"""What data sets of the shapes that people download are taken for: the table of docs/data.md, row by row.

A shape is a list of files, `{a,b}` and `{1..3}` standing for several, in the folder `set`, or in a zip after `zip:`. A
file is a picture by its suffix, a grey one of the label 1 where its folder or its name say that it is a map. After
`table:` come the columns of a table, of two rows.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from gtool.data.label_maps import MapSquare
from gtool.data.open import open_dataset
from gtool.errors import DataError
from gtool.io.image_files import IMAGE_SUFFIXES
from tests.helpers import odd_images as odd

TEXTS = {
    "dataset.json": '{"labels": [["0.png", 1], ["1.png", 0], ["a/0.png", 1], ["a/1.png", 0]]}',
    "metadata.jsonl": '{"file_name": "0.png", "label": "dog"}\n{"file_name": "1.png", "label": "cat"}\n',
    "metadata.csv": "file_name,label\n0.png,3\n1.png,2\n",
}
COLUMNS = {
    "image": [{"bytes": odd.encode(Image.new("RGB", (4, 4), (k, 0, 0))), "path": None} for k in range(2)],
    "map": [{"bytes": odd.encode(Image.new("L", (4, 4), k)), "path": None} for k in range(2)],
    "number": [1, 0],
    "text": ["dog", "cat"],
    "numbers": [[1, 2], [3, 4]],
}


def expand(text):
    """`a/{1..3}.png` -> three names."""
    braces = re.search(r"\{([^{}]*)\}", text)
    if not braces:
        return [text]
    first, dots, last = braces[1].partition("..")
    choices = (
        [str(k).zfill(len(first)) for k in range(int(first), int(last) + 1)] if dots else braces[1].split(",")
    )
    return [n for choice in choices for n in expand(text[: braces.start()] + choice + text[braces.end() :])]


def content(name, number):
    path = Path(name.replace("\\", "/"))
    if path.name in TEXTS:
        return TEXTS[path.name].encode()
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return b"text"
    is_map = (
        re.search("mask|annot|manual|label|maps|seg|gtFine|depth|semantic", name, re.IGNORECASE)
        and "seg_" not in name
    )
    picture = Image.new("L", (4, 4), 1) if is_map else Image.new("RGB", (4, 4), (number % 256, 0, 0))
    kind = {".png": "PNG", ".gif": "GIF", ".webp": "WEBP", ".tif": "TIFF"}.get(path.suffix.lower(), "JPEG")
    return odd.encode(picture, kind)


@pytest.fixture
def make():
    """Make the shape; returns the name of the data set."""

    def build(shape):
        kind, colon, rest = shape.partition(":")
        if kind == "table":
            import pyarrow as pa
            import pyarrow.parquet as pq

            columns = dict(part.split("=") for part in rest.split())
            pq.write_table(pa.table({name: COLUMNS[what] for name, what in columns.items()}), "set.parquet")
            return "./set.parquet"
        names = [name for part in (rest if colon else shape).split() for name in expand(part)]
        files = {name: content(name, number) for number, name in enumerate(names)}
        if kind == "zip":
            with zipfile.ZipFile("set.zip", "w") as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
            return "./set.zip"
        for name, data in files.items():
            path = Path("set", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return "./set"

    return build


def rows():
    """The rows of the table in docs/data.md: files, settings, what they are taken for, images."""
    text = (
        (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8").partition("## Shapes")[2]
    )
    table = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip(" |").replace("`", "") for cell in row] for row in table]


@pytest.mark.parametrize("row", rows(), ids=lambda row: " ".join(row[:2]).strip())
def test_shape_is_taken_for_what_the_table_says(row, make):
    files, settings, said, *images = row
    options = dict(part.split("=") for part in settings.split())
    name, split = make(files), options.pop("split", "train")
    if said.startswith("refused: "):
        with pytest.raises(DataError) as caught:
            open_dataset(name, split=split, layout=options)
        message = str(caught.value)
        assert "\n" not in message
        assert all(part in message.replace("`", "") for part in said.removeprefix("refused: ").split("; "))
        return
    source = open_dataset(name, split=split, layout=options)
    assert source.describe().partition(": ")[2].replace("`", "") == said
    first = files.partition(":")[2] or files
    taken = {"all": first, "the first": first.split()[0]}.get(images[0], images[0]).replace("\\", "/")
    expected = (
        ["row 0", "row 1"] if source.unit == "row" else sorted(n for t in taken.split() for n in expand(t))
    )
    assert [source.name_of(index) for index in range(len(source))] == expected
    assert source.labels is None or len(source.labels) == len(source)
    for kind, maps in source.maps.items():
        read = source.read_maps(range(len(source)), 4, "center", kind)
        assert sum(isinstance(m, MapSquare) for m in read) == (maps.count or len(source))


def test_the_table_has_many_shapes():
    assert len(rows()) > 70
