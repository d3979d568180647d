"""What lists of file names and of columns are taken for: splits, classes, pairs."""

from __future__ import annotations

import pytest

from gtool.data.layout import choose_split, read_layout
from gtool.data.tables import choose_columns
from gtool.errors import DataError


def layout(*names, split="train", **asked):
    return read_layout(names, split, "set", **asked)


def classes(*names, split="train"):
    found = layout(*names, split=split)
    return found.class_names, None if found.labels is None else found.labels.tolist()


@pytest.mark.parametrize(
    "names", [("a/1.png", "2.png"), ("a/x/1.png", "b/2.png"), ("a/1.png", "a/2.png"), ("1.png", "2.png")]
)
def test_other_folders_are_no_classes(names):
    assert classes(*names) == (None, None)


def test_a_class_means_the_same_in_every_split():
    names = ("test/dog/4.png", "test/emu/5.png", "train/cat/1.png", "train/dog/2.png", "train/emu/3.png")
    assert classes(*names) == (("cat", "dog", "emu"), [0, 1, 2])
    assert classes(*names, split="test") == (("cat", "dog", "emu"), [1, 2])


@pytest.mark.parametrize(
    ("images", "maps", "kind"),
    [
        ("images", "segmentations", "segmentation"),
        ("Images", "Annotations", "segmentation"),
        ("JPEGImages", "SegmentationClass", "segmentation"),
        ("photos", "masks", "segmentation"),
        ("train/images", "train/labels", "segmentation"),
        ("images/training", "annotations/training", "segmentation"),
        ("pictures/img", "pictures/seg", "segmentation"),
        ("images", "depth", "depth"),
    ],
)
def test_folders_of_images_and_of_maps_are_pairs(images, maps, kind):
    found = layout(f"{images}/a.jpg", f"{images}/b.jpg", f"{images}/c.jpg", f"{maps}/a.png", f"{maps}/c.png")
    assert found.images == [0, 1, 2]
    assert found.maps == {kind: [3, None, 4]}
    assert found.labels is None


def test_the_best_of_several_maps_is_taken():
    found = layout("a_leftImg8bit.png", "a_gtFine_color.png", "a_gtFine_labelIds.png", "b_leftImg8bit.png")
    assert found.maps == {"segmentation": [2, None]}


def test_classes_called_as_folders_of_pairs_are_classes_where_that_is_said():
    names = ("cats/3.png", "masks/1.png", "photos/2.png")
    with pytest.raises(DataError, match="masks/ holds 1 file called as label maps"):
        layout(*names)
    assert layout(*names, folders="classes").class_names == ("cats", "masks", "photos")
    below = ("images/cat/1.jpg", "images/dog/2.jpg", "masks/cat/1.png", "masks/dog/2.png")
    assert classes(*below) == (("cat", "dog"), [0, 1])


def test_a_folder_that_is_named_and_not_there_is_refused():
    with pytest.raises(DataError, match=r"set: no folder `truth`, which data\.segmentation_folder names"):
        layout("images/a.jpg", "masks/a.png", segmentation_folder="truth")


@pytest.mark.parametrize(
    ("available", "split", "chosen"),
    [
        (("train", "test"), "train", "train"),
        (("Train", "TEST"), "test", "TEST"),
        (("training", "val"), "train", "training"),
        (("train", "dev"), "validation", "dev"),
        (("a", "b"), "b", "b"),
    ],
)
def test_splits_are_found_by_other_names_too(available, split, chosen):
    assert choose_split(available, split, "set") == (chosen, None)


def columns(types, **requested):
    return {role: column for role, column in choose_columns(types, requested, "set").items() if column}


def test_columns_are_found_by_name_and_type():
    assert columns({"id": "string", "img": "Image", "label": "ClassLabel"}) == {
        "image": "img",
        "label": "label",
    }
    assert columns({"n": "int64", "jpg": "binary"}) == {"image": "jpg"}
    assert columns({"photo": "Image", "kind": "ClassLabel"}) == {"image": "photo", "label": "kind"}
    assert columns({"image": "Image", "label": "Image", "depth": "Image"}) == {
        "image": "image",
        "segmentation": "label",
        "depth": "depth",
    }


def test_named_columns_are_taken_or_refused():
    types = {"id": "string", "img": "Image", "other": "encoded image"}
    assert columns(types, image="other")["image"] == "other"
    for requested, message in (
        ({"image": "picture"}, "no column `picture`, which data.image_column names; columns: id"),
        ({"image": "id"}, "column `id`, which data.image_column names, holds no images"),
        ({"label": "img"}, "column `img`, which data.label_column names, holds no labels"),
        ({"depth": "id"}, "column `id`, which data.depth_column names, holds no depth maps"),
    ):
        with pytest.raises(DataError, match=message):
            columns(types, **requested)
    with pytest.raises(
        DataError, match=r"several columns of images \(before, after\); name one with data\.image_column"
    ):
        columns({"before": "Image", "after": "Image"})
    with pytest.raises(
        DataError, match=r"no column of images; name one with data\.image_column; columns: text \(string\)"
    ):
        columns({"text": "string"})
