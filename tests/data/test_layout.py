"""What lists of file names and of columns are taken for: splits, classes, pairs."""

from __future__ import annotations

import pytest

from gtool.data.layout import choose_columns, choose_split, read_layout
from gtool.errors import DataError


def layout(*names, split="train"):
    return read_layout(names, split, "set")


def classes(*names, split="train"):
    found = layout(*names, split=split)
    return found.class_names, None if found.labels is None else found.labels.tolist()


def test_folders_are_classes_where_every_image_lies_one_deep():
    assert classes("cat/2.png", "dog/1.png", "dog/3.png") == (("cat", "dog"), [0, 1, 1])
    assert classes("top/cat/2.png", "top/dog/1.png") == (("cat", "dog"), [0, 1])


@pytest.mark.parametrize(
    "names", [("a/1.png", "2.png"), ("a/x/1.png", "b/2.png"), ("a/1.png", "a/2.png"), ("1.png", "2.png")]
)
def test_other_folders_are_no_classes(names):
    assert classes(*names) == (None, None)


def test_folders_called_as_splits_are_splits():
    names = ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/4.png", "val/dog/5.png")
    assert layout(*names).images == [0, 1]
    assert layout(*names, split="validation").images == [2, 3, 4]
    assert classes(*names, split="validation") == (("cat", "dog"), [0, 1, 1])
    assert layout("top/Training/1.png", "top/Test/2.png", split="train").images == [0]
    with pytest.raises(DataError, match="set: no split `test`; it has train, val"):
        layout(*names, split="test")


def test_a_class_means_the_same_in_every_split():
    names = ("test/dog/4.png", "test/emu/5.png", "train/cat/1.png", "train/dog/2.png", "train/emu/3.png")
    assert classes(*names) == (("cat", "dog", "emu"), [0, 1, 2])
    assert classes(*names, split="test") == (("cat", "dog", "emu"), [1, 2])


def test_the_only_split_is_taken_with_a_note():
    found = layout("test/1.png", "test/2.png")
    assert found.images == [0, 1]
    assert found.note == "set: no split `train`; its only one, `test`, is used"


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


def test_maps_are_files_without_loss_and_of_half_of_the_images():
    assert layout("images/a.jpg", "masks/a.jpg").maps == {}
    assert layout("images/a.jpg", "images/b.jpg", "images/c.jpg", "masks/a.png").maps == {}


def test_files_beside_the_pairs_are_left_out_with_a_note():
    found = layout("images/a.jpg", "images/b.jpg", "masks/a.png", "masks/b.png", "preview.png")
    assert found.images == [0, 1]
    assert found.note == "set: 1 images that are not in its folders of images and maps are left out"


def test_classes_called_as_folders_of_pairs_stay_classes():
    assert classes("cats/3.png", "masks/1.png", "photos/2.png")[0] == ("cats", "masks", "photos")
    assert classes("masks/1.png", "photos/2.png")[0] == ("masks", "photos")
    below = ("images/cat/1.jpg", "images/dog/2.jpg", "masks/cat/1.png", "masks/dog/2.png")
    assert classes(*below) == (("cat", "dog"), [0, 1])


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
        ({"image": "picture"}, "no column `picture`; columns: id"),
        ({"image": "id"}, "column `id` holds no images"),
        ({"label": "img"}, "column `img` holds no labels"),
        ({"depth": "id"}, "column `id` holds no depth maps"),
    ):
        with pytest.raises(DataError, match=message):
            columns(types, **requested)
    with pytest.raises(DataError, match=r"no column of images; columns: text \(string\)"):
        columns({"text": "string"})
