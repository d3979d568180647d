"""Sources of images: a name in, images one by one at native size or as squares out.

A source knows where its images are and how to read them; nothing is decoded before it is asked for. Images
that cannot be read raise UnreadableImage when asked for, and come back in the place of their pixels in
blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Protocol

import numpy as np

from gtool.data.label_maps import MapSquare, map_square
from gtool.data.names import Place, find_dataset
from gtool.data.synthetic.scenes import CLASSES, Scenes, draw_scenes
from gtool.data.synthetic.scenes import VERSION as SCENES_VERSION
from gtool.errors import DataError
from gtool.io.image import Encoded, UnreadableImage, read_rgb, read_size, read_values, to_square
from gtool.runtime.random import derive_seed

__all__ = [
    "Columns",
    "ImageSource",
    "Items",
    "Maps",
    "SceneSource",
    "Source",
    "UnreadableImage",
    "open_source",
]

WHERE_MAPS_ARE = {
    "segmentation": "a column `segmentation`, `annotation`, `mask` or `label_map`, or the folders images/ and "
    "segmentations/ with equal file names",
    "depth": "a column `depth`, or the folders images/ and depth/ with equal file names",
}


class Source(Protocol):
    """What the pixel cache and the commands need of a data set."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def fingerprint(self) -> str:
        """Changes when the images do."""
        ...

    @property
    def note(self) -> str | None:
        """One line about what was chosen in place of what was asked for."""
        ...

    @property
    def labels(self) -> np.ndarray | None:
        """int64 (N,), -1 where unknown; None when the source has no labels."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None: ...
    @property
    def is_drawn(self) -> bool:
        """Whether the images are made on access and therefore always readable."""
        ...

    def __len__(self) -> int: ...
    def name_of(self, index: int, kind: str | None = None) -> str:
        """Return what errors call an image, or its map of a kind."""
        ...

    def read(self, index: int) -> np.ndarray: ...
    def label(self, index: int) -> int | None: ...
    def read_segmentation(self, index: int) -> np.ndarray: ...
    def read_squares(
        self, indices: Sequence[int], resolution: int, crop: str
    ) -> list[np.ndarray | UnreadableImage]: ...
    def maps_of(self, kind: str) -> Maps:
        """Return what is known of the maps of a kind; raise DataError where there are none."""
        ...

    def read_maps(
        self, indices: Sequence[int], resolution: int, crop: str, kind: str
    ) -> list[MapSquare | UnreadableImage]:
        """Return the maps that belong to the squares of these images."""
        ...


class Items(Protocol):
    """Encoded images by number."""

    def __len__(self) -> int: ...
    def name(self, index: int) -> str: ...
    def load(self, indices: Sequence[int]) -> list[Encoded]: ...


@dataclass(frozen=True)
class Columns:
    """Columns of a table that a user named; None where they are to be found."""

    image: str | None = None
    label: str | None = None
    segmentation: str | None = None
    depth: str | None = None


@dataclass(frozen=True)
class Maps:
    """Maps of one kind (`segmentation`, `depth`) that belong to the images of a source."""

    fingerprint: str  # changes when the maps do, and may stay when images do
    names: tuple[str, ...] | None = None  # of labels, from the first
    items: Items | None = None  # one for each image; None where maps are drawn


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Encoded images: files of a folder or a zip, rows of a table."""

    name: str
    kind: str
    fingerprint: str
    items: Items
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    maps: Mapping[str, Maps] = field(default_factory=dict)  # by kind
    note: str | None = None
    chosen: np.ndarray | None = None  # (N,) int64: which of the items, all when None
    is_drawn: bool = False

    def __len__(self) -> int:
        return len(self.items) if self.chosen is None else len(self.chosen)

    def _places(self, indices: Sequence[int]) -> Sequence[int]:
        return indices if self.chosen is None else [int(self.chosen[index]) for index in indices]

    def name_of(self, index: int, kind: str | None = None) -> str:
        """Return the name of the file or row of an image, or of its map."""
        items = self._map_items(kind) if kind else self.items
        return items.name(self._places([index])[0])

    def load(self, indices: Sequence[int]) -> list[Encoded]:
        """Return images as they are stored."""
        return self.items.load(self._places(indices))

    def read(self, index: int) -> np.ndarray:
        """Return image `index` as uint8 (H, W, 3) RGB at its native size.

        Raises:
            UnreadableImage: with the name of the file or row and the reason.
        """
        place = self._places([index])[0]
        return np.asarray(read_rgb(self.items.load([place])[0], self.items.name(place)))

    def label(self, index: int) -> int | None:
        """Return the label of image `index`, -1 where it is unknown, None when the source has no labels."""
        return None if self.labels is None else int(self.labels[index])

    def read_segmentation(self, index: int) -> np.ndarray:
        """Return the label map (H, W) of image `index` with the values as they are stored.

        Raises:
            DataError: the source has no label maps.
            UnreadableImage: this one cannot be read.
        """
        place = self._places([index])[0]
        items = self._map_items("segmentation")
        return read_values(items.load([place])[0], items.name(place))

    def maps_of(self, kind: str) -> Maps:
        """Return what is known of the maps of a kind.

        Raises:
            DataError: there are none.
        """
        if kind not in self.maps:
            what = "label maps" if kind == "segmentation" else f"{kind} maps"
            raise DataError(f"{self.name}: no {what}; they are looked for in {WHERE_MAPS_ARE[kind]}")
        return self.maps[kind]

    def _map_items(self, kind: str) -> Items:
        items = self.maps_of(kind).items
        assert items is not None
        return items

    def read_maps(
        self, indices: Sequence[int], resolution: int, crop: str, kind: str
    ) -> list[MapSquare | UnreadableImage]:
        """Return the maps of these images' squares, or the reason why one cannot be used."""
        items, squares = self._map_items(kind), list[MapSquare | UnreadableImage]()
        places = self._places(indices)
        for place, image, encoded in zip(places, self.items.load(places), items.load(places), strict=True):
            try:
                size = read_size(image, self.items.name(place))
                squares.append(map_square(kind, encoded, items.name(place), size, resolution, crop))
            except UnreadableImage as unreadable:
                squares.append(unreadable)
        return squares

    def read_squares(
        self, indices: Sequence[int], resolution: int, crop: str
    ) -> list[np.ndarray | UnreadableImage]:
        """Return images as uint8 (3, R, R), or the reason why one has no pixels."""
        squares: list[np.ndarray | UnreadableImage] = []
        places = self._places(indices)
        for place, encoded in zip(places, self.items.load(places), strict=True):
            try:
                image = read_rgb(encoded, self.items.name(place), at_least=resolution)
                squares.append(to_square(image, resolution, crop))
            except UnreadableImage as unreadable:
                squares.append(unreadable)
        return squares

    def subset(self, count: int, seed: int) -> ImageSource:
        """Return a seeded choice of `count` images in their order; all, with a note, when there are fewer."""
        if count >= len(self):
            note = f"{self.name}: {len(self):,} images, not {count:,}; all are used"
            return replace(self, note=self.note or note) if count > len(self) else self
        random = np.random.Generator(np.random.Philox(derive_seed(seed, "subset")))
        chosen = np.sort(random.permutation(len(self))[:count])
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, chosen=chosen, labels=labels, fingerprint=f"{self.fingerprint}-{count}-{seed}")


@dataclass(frozen=True, kw_only=True)
class SceneSource:
    """The built-in scenes: image i is a function of (seed, i)."""

    seed: int
    count: int
    resolution: int  # of single reads; squares are drawn at theirs
    name: str = "scenes"
    kind: str = "scenes"
    note: str | None = None
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    is_drawn: bool = True

    @property
    def fingerprint(self) -> str:
        return f"scenes-{SCENES_VERSION}-{self.seed}-{self.count}"

    def __len__(self) -> int:
        return self.count

    def name_of(self, index: int, kind: str | None = None) -> str:
        """Scenes are named by number."""
        return f"scene {index}"

    def read(self, index: int) -> np.ndarray:
        """Return image `index` as uint8 (R, R, 3) RGB."""
        return np.moveaxis(self._draw([index]).images[0], 0, 2)

    def label(self, index: int) -> int | None:
        """Scenes have no labels."""
        return None

    def read_segmentation(self, index: int) -> np.ndarray:
        """Return the semantic map (R, R) of image `index`; values index `scenes.CLASSES`."""
        return np.asarray(self._draw([index]).segmentation[0])

    def read_squares(
        self, indices: Sequence[int], resolution: int, crop: str
    ) -> list[np.ndarray | UnreadableImage]:
        """Return images as uint8 (3, R, R); a scene is a square already."""
        return list(self._draw(indices, resolution).images)

    def maps_of(self, kind: str) -> Maps:
        """Return what is known of the semantic maps; scenes have no others."""
        if kind != "segmentation":
            raise DataError(f"{self.name}: no {kind} maps; scenes have label maps")
        return Maps(self.fingerprint, CLASSES)

    def read_maps(
        self, indices: Sequence[int], resolution: int, crop: str, kind: str
    ) -> list[MapSquare | UnreadableImage]:
        """Return semantic maps, drawn as the squares are."""
        self.maps_of(kind)
        maps = self._draw(indices, resolution).segmentation.astype(np.uint16)
        return [MapSquare(values, len(CLASSES) - 1) for values in maps]

    def _draw(self, indices: Sequence[int], resolution: int | None = None) -> Scenes:
        return draw_scenes(np.asarray(indices, np.int64), resolution or self.resolution, self.seed)


def open_source(  # noqa: PLR0913  (one keyword for each key of a recipe's [data])
    dataset: str,
    *,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
    segmentation_column: str | None = None,
    depth_column: str | None = None,
    num_images: int | None = None,
    resolution: int | None = None,
    seed: int = 0,
    offline: bool = False,
    arrays: bool = False,
) -> Source:
    """Open a data set by name; see `gtool.data.names` for what a name can be.

    Args:
        dataset: `scenes`, a path, a short name or a hub id (`owner/name` or `owner/name:configuration`).
        split: `train`, `test`, ...; a set with a single split gives that one, with a note.
        image_column: column of a table; otherwise `img`, `image` or the first that holds images.
        label_column: otherwise `label`, `labels`, `fine_label` or the first with class names.
        segmentation_column: otherwise `segmentation`, `annotation`, `mask`, `label_map` or the like.
        depth_column: otherwise `depth` or `depth_map`.
        num_images: a seeded choice of so many; for scenes, how many there are.
        resolution: of scenes read one by one.
        seed: of scenes and of the choice.
        offline: send nothing over the network.
        arrays: of a folder or zip, .npy files are images too.

    Raises:
        DataError: nothing there, or nothing in it that can be used.
        NetworkError: the hub cannot be reached and the set is not cached.
    """
    place = find_dataset(dataset)
    if place.kind == "scenes":
        return _scenes(split, num_images, resolution, seed)
    columns = Columns(image_column, label_column, segmentation_column, depth_column)
    source = _open(place, dataset, split, columns, offline, arrays)
    if len(source) < 2:
        raise DataError(f"{source.name}: {len(source)} images found; at least 2 are needed")
    return source if num_images is None else source.subset(num_images, seed)


def _scenes(split: str, num_images: int | None, resolution: int | None, seed: int) -> SceneSource:
    """20,000 training scenes; the other splits are drawn from seeds of their own, 2,000 each."""
    training = split == "train"
    return SceneSource(
        seed=seed if training else derive_seed(seed, "scenes", split),
        count=num_images or (20_000 if training else 2_000),
        resolution=resolution or 256,
    )


def _open(
    place: Place, dataset: str, split: str, columns: Columns, offline: bool, arrays: bool
) -> ImageSource:
    if place.config and place.kind not in ("parquet", "hub"):
        raise DataError(f"{dataset}: a {place.kind} has no configurations, so none named `{place.config}`")
    if place.kind in ("folder", "zip"):
        named = [column for column in astuple(columns) if column]
        if named:
            raise DataError(f"{dataset}: a {place.kind} of images has no columns, so none named `{named[0]}`")
        from gtool.data.files import open_files

        return open_files(place, split, arrays=arrays)
    from gtool.data.tables import open_table

    return open_table(place, dataset, split, columns, offline)
