"""Tables: parquet files, folders in the hub's layout, saved sets; columns and splits by name."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gtool.data.open import open_dataset
from gtool.data.pixel_cache import load_images
from gtool.errors import DataError
from gtool.io import hub
from gtool.io.image import UnreadableImage
from tests.data.helpers import greys
from tests.helpers import odd_images as odd


def png(grey):
    return odd.encode(Image.new("RGB", (8, 8), (grey,) * 3))


def write(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def records(greys):
    return [{"bytes": png(grey), "path": None} for grey in greys]


def typed(path, count=4, **extra):
    """A parquet file with real Image and ClassLabel columns."""
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    columns = {
        "id": [str(k) for k in range(count)],
        "img": records(range(count)),
        "label": [k % 2 for k in range(count)],
    }
    features = {"id": Value("string"), "img": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])}
    for name, values in extra.items():
        columns[name], features[name] = values, ImageFeature()
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=Features(features)).to_parquet(str(path))
    return str(path)


@pytest.fixture(autouse=True)
def _own_library_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    datasets.disable_progress_bars()


def test_parquet_with_image_and_class_columns(tmp_path):
    source = open_dataset(typed(tmp_path / "set.parquet"))
    assert source.kind == "parquet"
    assert greys(source) == [0, 1, 2, 3]
    assert source.labels.tolist() == [0, 1, 0, 1]
    assert source.class_names == ("cat", "dog")


@pytest.mark.parametrize("kind", ["bytes", "records"])
def test_encoded_bytes_without_image_type_are_found(kind, tmp_path):
    values = [png(k) for k in (5, 6)] if kind == "bytes" else records((5, 6))
    source = open_dataset(write(tmp_path / "x.parquet", {"n": [1, 2], "jpg": values}))
    assert greys(source) == [5, 6]
    assert source.labels is None


def test_table_without_images_lists_its_columns(tmp_path):
    path = write(tmp_path / "x.parquet", {"text": ["a", "b"], "n": [1, 2]})
    with pytest.raises(
        DataError,
        match=r"no column of images; name one with data\.image_column; columns: text \(string\), n \(int64\)",
    ):
        open_dataset(path)


def test_named_columns_are_used_or_refused(tmp_path):
    path = typed(tmp_path / "x.parquet", other=records((7, 8, 9, 10)))
    assert greys(open_dataset(path)) == [0, 1, 2, 3]
    assert greys(open_dataset(path, columns={"image": "other"})) == [7, 8, 9, 10]
    with pytest.raises(DataError, match="no column `picture`, which data.image_column names; columns: id"):
        open_dataset(path, columns={"image": "picture"})
    with pytest.raises(DataError, match="column `id`, which data.image_column names, holds no images"):
        open_dataset(path, columns={"image": "id"})
    with pytest.raises(DataError, match="column `img`, which data.label_column names, holds no labels"):
        open_dataset(path, columns={"label": "img"})


def test_text_labels_are_numbered_in_order(tmp_path):
    columns = {"image": records((1, 2, 3)), "label": ["dog", "cat", None]}
    source = open_dataset(write(tmp_path / "x.parquet", columns))
    assert source.labels.tolist() == [1, 0, -1]
    assert source.class_names == ("cat", "dog")


def test_text_labels_mean_the_same_in_every_split(tmp_path):
    for split, names in (("train", ["ant", "bee", "cat"]), ("test", ["cat", "bee"])):
        write(tmp_path / "set" / f"{split}.parquet", {"image": records(range(len(names))), "label": names})
    labels = [open_dataset("./set", split=split).labels.tolist() for split in ("train", "test")]
    assert labels == [[0, 1, 2], [2, 1]]


def test_label_maps_are_read_raw(tmp_path):
    maps = [
        {"bytes": odd.encode(Image.fromarray(np.full((8, 8), 200 + k, np.uint8))), "path": None}
        for k in range(4)
    ]
    source = open_dataset(typed(tmp_path / "x.parquet", annotation=maps))
    (square,) = source.read_maps([2], 8, "center", "segmentation")
    assert square.values.tolist() == [[202] * 8] * 8
    with pytest.raises(DataError, match="no label maps"):
        open_dataset(typed(tmp_path / "y.parquet")).maps_of("segmentation")


def test_bad_rows_are_named_and_left_out(tmp_path):
    values = [*records((1, 2)), {"bytes": b"text", "path": None}, None, {"bytes": None, "path": "/gone.png"}]
    source = open_dataset(write(tmp_path / "x.parquet", {"image": values}))
    with pytest.raises(UnreadableImage, match="row 2: no image of a known format"):
        source.read(2)
    loaded = load_images(source, 4)
    assert len(loaded) == 2
    assert loaded.skipped[1:] == [
        ("row 3", "empty"),
        ("row 4", "no bytes, and its file is /gone.png, which leads out of the data set's folder"),
    ]


README = """---
configs:
- config_name: small
  default: true
  data_files:
  - {split: train, path: small/train-*.parquet}
  - {split: test, path: small/test-*.parquet}
- config_name: tiny
  data_files: tiny/*.parquet
---
"""


@pytest.fixture
def hub_folder(tmp_path):
    """A folder in the hub's layout: two configurations, the first with two splits and two train files."""
    folder = tmp_path / "set"
    for name, count in (("small/train-0", 4), ("small/train-1", 3), ("small/test-0", 2), ("tiny/x", 2)):
        typed(folder / f"{name}.parquet", count)
    (folder / "README.md").write_text(README)
    return folder


def test_folder_in_the_layout_of_the_hub(hub_folder, monkeypatch):
    monkeypatch.setattr(hub, "is_reachable", None)
    assert len(open_dataset("./set")) == 7
    assert len(open_dataset("./set", split="test")) == 2
    assert len(open_dataset("./set:tiny")) == 2
    with pytest.raises(DataError, match="no split `validation`; it has test, train"):
        open_dataset("./set", split="validation")
    with pytest.raises(DataError, match=r"cannot be read: .*huge"):
        open_dataset("./set:huge")


def test_table_is_found_under_its_hub_name_in_a_data_folder(hub_folder, monkeypatch):
    monkeypatch.setenv("GTOOL_DATA", str(hub_folder.parent))
    assert len(open_dataset("owner/set:tiny")) == 2


def test_folder_of_parquet_files_without_readme(hub_folder):
    (hub_folder / "README.md").unlink()
    shutil.rmtree(hub_folder / "tiny")
    (hub_folder / "logo.png").write_bytes(png(1))
    assert len(open_dataset("./set")) == 7
    assert len(open_dataset("./set/small/train-*.parquet")) == 7


def test_only_split_of_a_table_is_used_with_a_note(tmp_path):
    source = open_dataset(typed(tmp_path / "x.parquet"), split="test")
    assert "no split `test`; its only one, `train`, is used" in source.describe()


def test_saved_set_is_read(tmp_path):
    from datasets import load_dataset

    typed(tmp_path / "x.parquet")
    load_dataset(
        "parquet", data_files=str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "c")
    ).save_to_disk("saved")
    assert greys(open_dataset("./saved")) == [0, 1, 2, 3]


def test_damaged_parquet_is_one_line(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 this is text")
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read: ") as caught:
        open_dataset("./x.parquet")
    assert "\n" not in str(caught.value)


def test_fingerprint_changes_with_the_file_the_split_and_the_column(hub_folder):
    first = open_dataset("./set").fingerprint
    assert open_dataset("./set").fingerprint == first
    assert open_dataset("./set", split="test").fingerprint != first
    typed(hub_folder / "small" / "train-1.parquet", 5)
    assert open_dataset("./set").fingerprint != first


def test_cached_hub_set_is_used_offline(tmp_path, monkeypatch):
    from datasets import load_dataset

    typed(tmp_path / "name" / "train.parquet")
    load_dataset(str(tmp_path / "name"), cache_dir=str(tmp_path / "library"))
    (tmp_path / "library" / "name").rename(tmp_path / "library" / "owner___name")
    assert greys(open_dataset("owner/name")) == [0, 1, 2, 3]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    assert "its copy in the local cache is used" in open_dataset("owner/name").describe()


def test_library_stays_quiet_and_as_it_was(tmp_path, capfd):
    import datasets

    datasets.enable_progress_bars()
    open_dataset(typed(tmp_path / "x.parquet"))
    capfd.readouterr()
    open_dataset(typed(tmp_path / "y.parquet", 5))
    assert not datasets.are_progress_bars_disabled()
    assert "Generating" not in capfd.readouterr().err


def test_files_that_rows_name_are_read_inside_the_folder_alone(tmp_path):
    odd.plain(tmp_path / "set" / "images" / "0.png", (5, 5, 5))
    odd.plain(tmp_path / "secret.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "secret.png")
    paths = ["images/0.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "https://a.org/0.png"]
    values = [{"bytes": None, "path": path} for path in paths]
    source = open_dataset(write(tmp_path / "set" / "x.parquet", {"image": values}))
    assert source.read(0)[0, 0, 0] == 5
    for index in range(1, 5):
        with pytest.raises(UnreadableImage) as caught:
            source.read(index)
        assert f"row {index}: no bytes, and its file is {paths[index]}" in str(caught.value)


@pytest.mark.parametrize(
    "path", ["../x.parquet", "small/../../x.parquet", "/x.parquet", "https://a.org/x.parquet"]
)
def test_a_readme_that_names_files_elsewhere_is_refused(path, hub_folder):
    typed(hub_folder.parent / "x.parquet")
    (hub_folder / "README.md").write_text(README.replace("tiny/*.parquet", path))
    with pytest.raises(DataError) as caught:
        open_dataset("./set")
    assert f"README.md names {path}" in str(caught.value)


def test_a_saved_set_that_names_files_elsewhere_is_refused(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"image": [1, 2]}).save_to_disk(str(tmp_path / "saved"))
    state = tmp_path / "saved" / "state.json"
    state.write_text(state.read_text().replace("data-00000", "../data-00000"))
    with pytest.raises(DataError, match=r"state\.json names \.\./data-00000"):
        open_dataset("./saved")


def test_several_labels_a_row_are_said_where_one_is_wanted(tmp_path):
    source = open_dataset(write(tmp_path / "x.parquet", {"image": records((1, 2)), "labels": [[1, 2], [3]]}))
    with pytest.raises(DataError, match="no class labels: column `labels` gives several for each row"):
        source.require("class")


def test_numbers_as_names_are_sorted_by_value(tmp_path):
    columns = {"image": records((1, 2, 3)), "label": ["10", "9", "2"]}
    assert open_dataset(write(tmp_path / "x.parquet", columns)).class_names == ("2", "9", "10")
