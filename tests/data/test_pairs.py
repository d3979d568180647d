"""Images and their maps: found, cut and flipped alike, left out together, counted once."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from gtool.data.dataset import ImageDataset
from gtool.data.loader import Batches, read_conditions, read_images
from gtool.data.open import open_dataset
from gtool.data.pixel_cache import DecodedOnAccess, load_images
from gtool.data.synthetic.scenes import CLASSES, draw_scenes
from gtool.errors import DataError
from tests.helpers import odd_images as odd

SIDE = 8


def pair(number, side=SIDE):
    """A photo whose red says which label each pixel has: label = red / 20; and the map."""
    labels = np.random.RandomState(number).randint(0, 6, (side, side)).astype(np.uint8)
    photo = np.stack([20 * labels, labels * 0 + number, labels * 0], axis=2)
    return Image.fromarray(photo), Image.fromarray(labels)


def pair_folder(root, count=5, images="images", maps="segmentations", suffix=".png"):
    for number in range(count):
        photo, labels = pair(number)
        for folder, picture, ending in ((images, photo, suffix), (maps, labels, ".png")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            picture.save(root / folder / f"{number:02}{ending}")
    return root


def load(path="set", condition="segmentation", *, resolution=SIDE, split="train", **options):
    return load_images(open_dataset(str(path), split=split), resolution, condition=condition, **options)


def agree(images, maps):
    """Whether every map says of every pixel what the photo does."""
    return bool((np.asarray(images)[:, 0] == 20 * np.asarray(maps)).all())


@pytest.mark.parametrize(
    ("images", "maps"),
    [
        ("images", "segmentations"),
        ("Images", "Annotations"),
        ("JPEGImages", "SegmentationClass"),
        ("photos", "masks"),
        ("train/images", "train/labels"),
        ("images/training", "annotations/training"),
        ("pictures/img", "pictures/seg"),
    ],
)
def test_pair_folders_are_found(tmp_path, images, maps):
    pair_folder(tmp_path / "set", images=images, maps=maps)
    loaded = load("./set")
    assert len(loaded) == 5
    assert loaded.segmentations.dtype == np.uint8
    assert agree(loaded.images, loaded.segmentations)
    assert loaded.num_labels == 6
    assert loaded.condition_size == 7


def test_zip_of_pairs_is_read_like_its_folder(tmp_path):
    folder = pair_folder(tmp_path / "set", suffix=".bmp")
    with zipfile.ZipFile("set.zip", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path).as_posix())
    from_zip, from_folder = load("./set.zip"), load("./set")
    assert np.array_equal(from_zip.images, from_folder.images)
    assert np.array_equal(from_zip.segmentations, from_folder.segmentations)


def test_photos_of_a_pair_folder_are_a_set_without_maps_too(tmp_path):
    pair_folder(tmp_path / "set")
    source = open_dataset("./set")
    assert (len(source), source.labels) == (5, None)
    assert load("./set", "none").segmentations is None


def test_class_folders_below_images_stay_classes(tmp_path):
    for name in ("cat", "dog"):
        pair_folder(tmp_path / "set", images=f"images/{name}", maps=f"masks/{name}", count=2)
    assert open_dataset("./set").labels.tolist() == [0, 0, 1, 1]
    assert agree(load("./set").images, load("./set").segmentations)


def test_pictures_beside_the_pairs_are_left_out_with_a_note(tmp_path):
    root = pair_folder(tmp_path / "set")
    odd.plain(root / "preview.png")
    odd.plain(root / "colours" / "00.png")
    source = open_dataset("./set")
    assert len(source) == 5
    assert "2 images (00.png, preview.png) left out" in source.describe()
    assert agree(load("./set").images, load("./set").segmentations)


def damage(root):
    """What a folder of pairs can hold: no map, no photo, a map of another shape, of colours, text."""
    (root / "segmentations" / "00.png").unlink()
    (root / "images" / "01.png").write_bytes(b"text")
    odd.plain(root / "segmentations" / "02.png", (1, 2, 3), (SIDE, SIDE))
    Image.fromarray(np.zeros((4, SIDE), np.uint8)).save(root / "segmentations" / "03.png")


@pytest.mark.parametrize("budget_gb", [4.0, 0.0])
def test_half_a_pair_is_left_out_and_named(tmp_path, budget_gb):
    damage(pair_folder(tmp_path / "set", 7))
    loaded = load("./set", budget_gb=budget_gb)
    assert np.asarray(loaded.images)[:, 1, 0, 0].tolist() == [4, 5, 6]
    assert agree(loaded.images, loaded.segmentations)
    assert loaded.skipped == [
        ("images/00.png", "no label map of this name"),
        ("images/01.png", "no image of a known format"),
        ("segmentations/02.png", "a label map must be grey or have a palette; this is RGB"),
        ("segmentations/03.png", "8x4 pixels do not fit an image of 8x8"),
    ]


def next_pair(batches, count):
    """Images and what they are generated from, as a training reads them."""
    indices, flipped = batches.draw(count)
    stored = batches.image_set
    return read_images(stored, indices, flipped), read_conditions(stored, indices, flipped)


@pytest.mark.parametrize("flip", [False, True])
def test_pairs_on_access_equal_those_of_the_cache(tmp_path, flip):
    pair_folder(tmp_path / "set")
    stored, lazy = load("./set"), load("./set", budget_gb=0.0)
    assert isinstance(lazy.segmentations, DecodedOnAccess)
    assert lazy.segmentations.shape == stored.segmentations.shape
    one, other = (Batches(s, seed=1, flip=flip) for s in (stored, lazy))
    for _ in range(4):
        for a, b in zip(next_pair(one, 4), next_pair(other, 4), strict=True):
            assert torch.equal(a, b)


def test_a_second_load_decodes_nothing(tmp_path, monkeypatch):
    pair_folder(tmp_path / "set")
    first = load("./set")
    monkeypatch.setattr(ImageDataset, "read_maps", None)
    again = load("./set")
    assert isinstance(again.segmentations, np.memmap)
    assert np.array_equal(again.segmentations, first.segmentations)
    assert again.num_labels == first.num_labels


def test_entry_is_made_again_when_only_a_map_changes(tmp_path):
    pair_folder(tmp_path / "set")
    plain, before = load("./set", "none"), load("./set")
    Image.fromarray(np.full((SIDE, SIDE), 9, np.uint8)).save("set/segmentations/00.png")
    after = load("./set")
    assert after.fingerprint != before.fingerprint
    assert (after.segmentations[0] == 9).all()
    assert load("./set", "none").fingerprint == plain.fingerprint


def test_image_and_map_are_flipped_together(tmp_path):
    pair_folder(tmp_path / "set")
    batches = Batches(load("./set"), seed=0, flip=True)
    alone = Batches(load("./set"), seed=0, flip=True)
    straight = Batches(load("./set"), seed=0, flip=False)
    images, maps = next_pair(batches, 200)
    assert maps.dtype == torch.int64
    assert torch.equal(images[:, 0], 20 * maps)
    assert torch.equal(images, alone.next(200))
    flipped = (images != straight.next(200)).flatten(1).any(1)
    assert 60 < int(flipped.sum()) < 140


def test_drawn_numbers_are_those_of_the_images_shown(tmp_path):
    pair_folder(tmp_path / "set")
    loaded = load("./set")
    shown, drawn = Batches(loaded, seed=2, flip=True), Batches(loaded, seed=2, flip=True)
    for _ in range(3):
        images = shown.next(4)
        indices, flipped = drawn.draw(4)
        expected = np.array(loaded.images[indices])
        expected[flipped] = expected[flipped][..., ::-1]
        assert np.array_equal(images, expected)
    assert shown.position == drawn.position


def test_unlabelled_pixels_have_the_last_id(tmp_path):
    root = pair_folder(tmp_path / "set")
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[0] = 255
    Image.fromarray(labels).save(root / "segmentations" / "00.png")
    counted, told = load("./set"), load("./set", num_labels=20)
    assert (counted.num_labels, told.num_labels) == (6, 20)
    assert counted.segmentations[0, :2, 0].tolist() == [6, 0]
    assert told.segmentations[0, :2, 0].tolist() == [20, 0]
    assert told.segmentations.max() == told.condition_size - 1


@pytest.mark.parametrize("budget_gb", [4.0, 0.0])
def test_label_beyond_the_number_names_the_file(tmp_path, budget_gb):
    pair_folder(tmp_path / "set", 3)
    with pytest.raises(
        DataError, match=r"segmentations/00\.png: label 5, and data\.num_labels = 5 ends at 4"
    ):
        load("./set", num_labels=5, budget_gb=budget_gb)
    assert [path.name for path in (tmp_path / "cache" / "pixels").glob("*.npy")] == []


def test_many_labels_are_stored_in_16_bits(tmp_path):
    root = pair_folder(tmp_path / "set")
    large = np.full((SIDE, SIDE), 3000, np.uint16)
    large[0, 0] = 65535
    Image.fromarray(large).save(root / "segmentations" / "04.png")
    loaded = load("./set")
    assert loaded.segmentations.dtype == np.uint16
    assert (loaded.num_labels, loaded.segmentations[4, 0, 0], loaded.segmentations[4, 1, 1]) == (
        3001,
        3001,
        3000,
    )
    assert agree(loaded.images[:4], loaded.segmentations[:4])


def test_names_of_labels_are_read_and_counted(tmp_path):
    root = pair_folder(tmp_path / "set")
    (root / "classes.json").write_text('{"names": ["a", "b", "c", "d", "e", "f", "g", "h"]}')
    loaded = load("./set")
    assert (loaded.num_labels, loaded.label_names[7]) == (8, "h")
    (root / "classes.json").write_text("[" * 100_000)  # no names
    assert load("./set").label_names is None


def test_scenes_have_exact_maps():
    source = open_dataset("scenes", num_images=40)
    drawn = draw_scenes(np.arange(40), 16)
    for budget_gb in (1.0, 0.0):
        loaded = load_images(source, 16, condition="segmentation", budget_gb=budget_gb)
        assert np.array_equal(loaded.images[:], drawn.images)
        assert np.array_equal(loaded.segmentations[:], drawn.segmentation)
        assert (loaded.num_labels, loaded.label_names) == (8, CLASSES)
    with pytest.raises(DataError, match="no depth maps; scenes have label maps"):
        load_images(source, 16, condition="depth")


def table(path, column, pictures):
    import pyarrow as pa
    import pyarrow.parquet as pq

    photos = [{"bytes": odd.encode(pair(k)[0]), "path": None} for k in range(len(pictures))]
    maps = [{"bytes": picture and odd.encode(picture), "path": None} for picture in pictures]
    pq.write_table(pa.table({"image": photos, column: maps}), path)
    return str(path)


@pytest.mark.parametrize("column", ["segmentation", "annotation", "mask", "label_map", "label"])
def test_tables_have_columns_of_maps(tmp_path, column):
    loaded = load(table(tmp_path / "x.parquet", column, [pair(0)[1], None, pair(2)[1]]))
    assert len(loaded) == 2
    assert agree(loaded.images, loaded.segmentations)
    assert loaded.skipped == [(f"row 1, {column}", "empty")]


def test_depth_is_minus_one_to_one_in_each_picture(tmp_path):
    ramps = [Image.fromarray((np.arange(64).reshape(8, 8) * k + 5).astype(np.uint16)) for k in (1, 700)]
    path = table(tmp_path / "x.parquet", "depth", ramps)
    batches = Batches(load(path, "depth"), seed=0, flip=False)
    depth = next_pair(batches, 2)[1]
    assert depth.shape == (2, 1, 8, 8)
    assert torch.allclose(depth[0], depth[1], atol=1e-4)
    assert (depth.min(), depth.max()) == (-1, 1)
    with pytest.raises(DataError, match=r"no label maps; they are looked for in a column `segmentation`"):
        load(path)


def test_depth_folders_lie_beside_label_maps(tmp_path):
    pair_folder(tmp_path / "set")
    pair_folder(tmp_path / "set", maps="depth")
    assert load("./set", "depth").depths.shape == (5, 8, 8)
    assert load("./set").segmentations.shape == (5, 8, 8)


def test_classes_are_a_condition_and_unknown_ones_have_the_last_id(tmp_path):
    for name in ("a/0", "b/1", "b/2"):
        odd.plain(tmp_path / "set" / f"{name}.png")
    loaded = load("./set", "class")
    assert (loaded.num_labels, loaded.condition_size, loaded.label_names) == (2, 3, ("a", "b"))
    assert read_conditions(loaded, np.array([2, 0])).tolist() == [1, 0]
    loaded.labels[1] = -1
    assert read_conditions(loaded, np.arange(3)).tolist() == [0, 2, 1]
    with pytest.raises(DataError, match="image 1 has the label 1, and data.num_labels = 1"):
        load("./set", "class", num_labels=1)
    odd.folder(tmp_path / "flat")
    with pytest.raises(DataError, match="no class labels"):
        load("./flat", "class")


def test_without_a_condition_there_is_one_id():
    loaded = load_images(open_dataset("scenes", num_images=4), 8)
    assert loaded.condition_size == 1
    assert next_pair(Batches(loaded, seed=0, flip=True), 4)[1].tolist() == [0] * 4


def test_unknown_condition_is_refused():
    with pytest.raises(
        DataError, match="condition `map` is unknown; use one of none, class, segmentation, depth"
    ):
        load_images(open_dataset("scenes", num_images=4), 8, condition="map")


@pytest.mark.parametrize("budget_gb", [4.0, 0.0])
def test_masks_of_0_and_255_alone_are_two_labels(tmp_path, budget_gb):
    root = pair_folder(tmp_path / "set", 3)
    half = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) // (SIDE * SIDE // 2)
    for number in range(3):
        Image.fromarray((255 * half).astype(np.uint8)).save(root / "segmentations" / f"{number:02}.png")
    loaded = load("./set", budget_gb=budget_gb)
    assert (loaded.num_labels, loaded.is_binary) == (2, True)
    assert np.asarray(loaded.segmentations)[1].tolist() == half.tolist()
    assert (
        load("./set", budget_gb=budget_gb, num_labels=1).segmentations[0].tolist() == half.tolist()
    )  # 1: no label
    Image.fromarray(np.full((SIDE, SIDE), 3, np.uint8)).save(root / "segmentations" / "00.png")
    assert (load("./set").num_labels, load("./set").is_binary) == (4, False)


def test_jpeg_maps_are_left_out_and_said(tmp_path):
    for folder in ("images", "masks"):
        odd.plain(tmp_path / "set" / folder / "0.jpg")
        odd.plain(tmp_path / "set" / folder / "1.jpg")
    with pytest.raises(DataError, match="no label maps: the label maps of masks/ are JPEG files"):
        load("./set")
