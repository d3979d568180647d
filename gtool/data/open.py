"""`open_dataset`: from the name of a data set to its images."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gtool.data.dataset import ImageDataset, scenes
from gtool.data.folders import open_files
from gtool.data.layout import count_of
from gtool.data.names import find_dataset
from gtool.data.tables import open_table
from gtool.errors import DataError


def open_dataset(
    dataset: str,
    *,
    split: str = "train",
    columns: Mapping[str, str | None] = MappingProxyType({}),
    layout: Mapping[str, Any] = MappingProxyType({}),
    num_images: int | None = None,
    resolution: int | None = None,
    seed: int = 0,
    arrays: bool = False,
) -> ImageDataset:
    """Open a data set by name; `gtool.data.names` says what a name can be, `gtool.data.layout` what it holds.

    Args:
        dataset: `scenes`, a path, a short name or a hub id (`owner/name` or `owner/name:configuration`).
        split: `train`, `test`, ...; a set with a single split gives that one, with a note.
        columns: of a table, those that the user named, by role: `image`, `label`, `segmentation`, `depth`. The others
            are found by name and type. `label` also of a file of labels beside images.
        layout: of a folder or zip, what the user says: `folders` and `segmentation_folder` of `read_layout`.
        num_images: a seeded choice of so many; for scenes, how many there are.
        resolution: of scenes read one by one.
        seed: of scenes and of the choice.
        arrays: of a folder or zip, .npy files are images too.

    Raises:
        DataError: nothing there, or nothing in it that can be used.
        NetworkError: the hub cannot be reached and the set is not cached.
    """
    place = find_dataset(dataset)
    if place.kind == "scenes":
        return scenes(split, num_images, resolution, seed)
    if place.config and place.kind not in ("parquet", "hub"):
        raise DataError(f"{dataset}: a {place.kind} has no configurations, so none named `{place.config}`")
    is_table = place.kind not in ("folder", "zip")
    if is_table:
        if said := next((key for key, value in layout.items() if value not in (None, "auto")), None):
            raise DataError(f"{dataset}: a table has no folders, so that data.{said} means nothing")
        found = open_table(place, split, columns)
    else:
        if named := next((v for role, v in columns.items() if v and role != "label"), None):
            raise DataError(f"{dataset}: a {place.kind} of images has no columns, so none named `{named}`")
        found = open_files(place, split, arrays=arrays, label_column=columns.get("label"), **layout)
    if len(found) < 2:
        what = count_of(len(found), "row" if is_table else "image")
        raise DataError("; ".join([f"{found.name}: {what} found; at least 2 are needed", *found.notes]))
    return found if num_images is None else found.subset(num_images, seed)
