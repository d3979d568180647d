"""A set of images: how many, what they are called, their pixels, labels and maps.

Nothing is decoded before it is asked for. Images that cannot be read raise UnreadableImage when asked for one by
one, and come back in the place of their pixels in blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gtool.data.label_maps import MAX_LABELS, MapSquare, map_square
from gtool.data.layout import count_of
from gtool.data.synthetic.scenes import CLASSES, Scenes, draw_scenes
from gtool.data.synthetic.scenes import VERSION as SCENES_VERSION
from gtool.errors import DataError
from gtool.io.image import Encoded, UnreadableImage, bytes_of, open_image, read_rgb, read_size, to_square
from gtool.runtime.random import derive_seed

_WHERE = {
    "class": "no class labels; a folder for each class, a column `label`, or a file dataset.json, metadata.jsonl or "
    "metadata.csv has them",
    "segmentation": "no label maps; they are looked for in a column `segmentation`, `annotation`, `mask` or "
    "`label_map`, or in the folders images/ and masks/ with equal file names",
    "depth": "no depth maps; they are looked for in a column `depth`, or in the folders images/ and depth/ with equal "
    "file names",
}


@dataclass(frozen=True)
class EncodedFiles:
    """Encoded images or maps by number: files of a folder or a zip, rows of a table."""

    count: int
    name: Callable[[int], str]  # what errors call one
    load: Callable[[Sequence[int]], list[Encoded]]  # nothing is read or unpacked yet

    def take(self, numbers: Sequence[int]) -> EncodedFiles:
        """Return the files of these numbers alone."""
        return EncodedFiles(
            len(numbers),
            lambda index: self.name(numbers[index]),
            lambda indices: self.load([numbers[index] for index in indices]),
        )


@dataclass(frozen=True)
class Maps:
    """Maps of one kind (`segmentation`, `depth`) that belong to the images of a set."""

    fingerprint: str  # changes when the maps do, and may stay when images do
    files: EncodedFiles | None = None  # one for each image; None where maps are drawn
    label_names: tuple[str, ...] | None = None  # of labels, from the first
    count: int | None = None  # of images that have one; None for all


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Images with labels and maps, from `gtool.data.open.open_dataset`.

    kind: `folder`, `zip`, `parquet`, `arrow`, `hub` or `scenes`.
    fingerprint: changes when the images do.
    labels: int64 (N,), -1 where unknown; None where there are none.
    split: that was taken, empty where there are none, and those that were not.
    labels_from: where the labels stand, as `folders` or `column label`.
    notes: what was left out, or taken in place of what was asked for.
    missing: by condition, why there are no labels or maps where some were seen.
    """

    name: str
    kind: str
    fingerprint: str
    files: EncodedFiles
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    maps: Mapping[str, Maps] = field(default_factory=dict)  # by kind
    split: str = ""
    other_splits: tuple[str, ...] = ()
    labels_from: str = "folders"
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.files.count

    def describe(self) -> str:
        """Say in one line what the data set is taken for: images, split, classes, maps, what was left out."""
        taken = count_of(len(self), "row" if self.unit == "row" else "image")
        if self.split:
            others = f" (not of {', '.join(self.other_splits)})" if self.other_splits else ""
            taken += f" of the split {self.split}{others}"
        if self.labels is None:
            why = f" ({self.missing['class']})" if self.missing.get("class") else ""
            taken += "" if self.is_drawn else f", no classes{why}"
        elif self.class_names is None:
            taken += f", labels 0 to {self.labels.max(initial=0)} ({self.labels_from})"
        else:
            names = ", ".join(self.class_names[:3]) + (", ..." if len(self.class_names) > 3 else "")
            taken += f", {count_of(len(self.class_names), 'class')} ({self.labels_from}: {names})"
        for kind, maps in self.maps.items():
            what = "label map" if kind == "segmentation" else f"{kind} map"
            has_all = maps.count in (None, len(self))
            taken += f", each with a {what}" if has_all else f", {maps.count:,} with a {what}"
        return "; ".join([f"{self.name}: {taken}", *self.notes])

    @property
    def is_drawn(self) -> bool:
        """Whether the images are drawn on access, and therefore always readable."""
        return self.kind == "scenes"

    @property
    def unit(self) -> str:
        """What holds an image: `file` or `row`."""
        return "row" if self.kind in ("parquet", "arrow", "hub") else "file"

    def name_of(self, index: int, kind: str | None = None) -> str:
        """Return the name of the file or row of an image, or of its map of a kind."""
        return self._map_files(kind).name(index) if kind else self.files.name(index)

    def maps_of(self, kind: str) -> Maps:
        """Return the maps of a kind; raise DataError where there are none."""
        self.require(kind)
        return self.maps[kind]

    def require(self, condition: str) -> None:
        """Raise DataError where images cannot be generated from a condition for lack of labels or maps."""
        if condition == "none" or (
            self.labels is not None if condition == "class" else condition in self.maps
        ):
            return
        why = _WHERE[condition]
        if self.is_drawn:
            why = f"{why.partition(';')[0]}; scenes have label maps"
        elif seen := self.missing.get(condition):
            why = f"{why.partition(';')[0]}: {seen}"
        raise DataError(f"{self.name}: {why}")

    def require_class_of_each(self) -> None:
        """Raise DataError where an image has no class, or a number that counts no classes."""
        if self.labels is None:
            return
        if unknown := int((self.labels < 0).sum()):
            raise DataError(
                f"{self.name}: {count_of(unknown)} without a class; data.condition = 'class' needs one for each"
            )
        if (most := int(self.labels.max())) >= MAX_LABELS:
            raise DataError(
                f"{self.name}: labels to {most:,} are no numbers of classes, of which there are {MAX_LABELS:,} at "
                "most; data.label_column names another column"
            )

    def _map_files(self, kind: str) -> EncodedFiles:
        return self.maps_of(kind).files or self.files  # scenes are named as their maps

    def read(self, index: int) -> np.ndarray:
        """Return image `index` as uint8 (H, W, 3) RGB at its native size.

        Raises:
            UnreadableImage: with the name of the file or row and the reason.
        """
        return np.asarray(read_rgb(self.files.load([index])[0], self.files.name(index)))

    def require_readable(self) -> None:
        """Raise DataError where fewer than two images can be read; decodes no more than it takes to find two."""
        good, bad = 0, list[UnreadableImage]()
        for index in range(len(self)):
            try:
                self.read(index)
            except UnreadableImage as unreadable:
                bad.append(unreadable)
            else:
                good += 1
            if good == 2:
                return
        raise DataError(
            f"{self.name}: {good} of {count_of(len(self))} can be read, and 2 are needed; {bad[0]}"
        )

    def read_squares(
        self, indices: Sequence[int], resolution: int, crop: str
    ) -> list[np.ndarray | UnreadableImage]:
        """Return images as uint8 (3, R, R), or the reason why one has no pixels."""
        squares: list[np.ndarray | UnreadableImage] = []
        for index, encoded in zip(indices, self.files.load(indices), strict=True):
            try:
                image = read_rgb(encoded, self.files.name(index), at_least=resolution)
                squares.append(to_square(image, resolution, crop))
            except UnreadableImage as unreadable:
                squares.append(unreadable)
        return squares

    def read_maps(
        self, indices: Sequence[int], resolution: int, crop: str, kind: str
    ) -> list[MapSquare | UnreadableImage]:
        """Return the maps of these images' squares, or the reason why one cannot be used."""
        files, squares = self._map_files(kind), list[MapSquare | UnreadableImage]()
        for index, image, encoded in zip(indices, self.files.load(indices), files.load(indices), strict=True):
            try:
                size = read_size(image, self.files.name(index))
                squares.append(map_square(kind, encoded, files.name(index), size, resolution, crop))
            except UnreadableImage as unreadable:
                squares.append(unreadable)
        return squares

    def has_colour_maps(self) -> bool:
        """Say whether label maps are stored in colour, by the first few of them."""
        files = self.maps_of("segmentation").files
        few = files.load(range(min(8, len(self)))) if files else []
        for encoded in few:
            with suppress(UnreadableImage), open_image(encoded, self.name) as image:
                return image.mode in ("RGB", "RGBA")
        return False

    def sampled_digest(self) -> str:
        """Return a hash of names, sizes and labels, and of the bytes of a few images: the same on every machine.

        A fingerprint also changes with the times of files, which copies on several machines do not share.
        """
        digest = hashlib.blake2b(digest_size=6)
        few = np.unique(np.linspace(0, len(self) - 1, 64).astype(int)).tolist()
        for files in [self.files, *(maps.files for maps in self.maps.values() if maps.files)]:
            encoded = files.load(few)
            if isinstance(encoded[0], Path):  # of a folder: sizes cost little
                paths = [path for path in files.load(range(len(self))) if isinstance(path, Path)]
                digest.update(str([(path.name, path.stat().st_size) for path in paths]).encode())
            for place, one in zip(few, encoded, strict=True):
                try:
                    with bytes_of(one, files.name(place)) as content:
                        digest.update(content)
                except UnreadableImage as bad:
                    digest.update(bad.reason.encode())
        if self.labels is not None:
            digest.update(self.labels.tobytes())
        return digest.hexdigest() if not self.is_drawn else self.fingerprint

    def subset(self, count: int, seed: int) -> ImageDataset:
        """Return a seeded choice of `count` images in their order; all, with a note, when there are fewer."""
        if count >= len(self):
            note = f"{count_of(len(self))}, not {count:,}; all are used"
            return replace(self, notes=(*self.notes, note)) if count > len(self) else self
        random = np.random.Generator(np.random.Philox(derive_seed(seed, "subset")))
        chosen = np.sort(random.permutation(len(self))[:count])
        numbers = chosen.tolist()
        return replace(
            self,
            files=self.files.take(numbers),
            labels=None if self.labels is None else self.labels[chosen],
            maps={
                k: replace(m, files=m.files and m.files.take(numbers), count=None)
                for k, m in self.maps.items()
            },
            notes=(f"a choice of {count:,} of {len(self):,}", *self.notes),
            fingerprint=f"{self.fingerprint}-{count}-{seed}",
        )


@dataclass(frozen=True, kw_only=True)
class SceneDataset(ImageDataset):
    """The built-in scenes with their label maps: image i is a function of (seed, i)."""

    seed: int
    resolution: int  # of single reads; squares are drawn at theirs
    numbers: np.ndarray | None = None  # int64 (N,), of the scenes that are here; None for 0 to N - 1

    def read(self, index: int) -> np.ndarray:
        return np.moveaxis(self._draw([index], self.resolution).images[0], 0, 2)

    def read_squares(
        self, indices: Sequence[int], resolution: int, crop: str
    ) -> list[np.ndarray | UnreadableImage]:
        return list(self._draw(indices, resolution).images)

    def read_maps(
        self, indices: Sequence[int], resolution: int, crop: str, kind: str
    ) -> list[MapSquare | UnreadableImage]:
        self.maps_of(kind)
        maps = self._draw(indices, resolution).segmentation.astype(np.uint16)
        return [MapSquare(values, len(CLASSES) - 1) for values in maps]

    def _draw(self, indices: Sequence[int], resolution: int) -> Scenes:
        places = np.asarray(indices, np.int64)
        return draw_scenes(places if self.numbers is None else self.numbers[places], resolution, self.seed)

    def take(self, numbers: np.ndarray) -> SceneDataset:
        """Return the scenes of these numbers, int64 (n,), alone."""
        digest = hashlib.blake2b(numbers.tobytes(), digest_size=6).hexdigest()
        files = self.files.take(numbers.tolist())
        return replace(self, files=files, numbers=numbers, fingerprint=f"{self.fingerprint}-{digest}")


def scenes(split: str, num_images: int | None, resolution: int | None, seed: int) -> SceneDataset:
    """Return 20,000 training scenes; the other splits are drawn from seeds of their own, 2,000 each."""
    training = split == "train"
    seed = seed if training else derive_seed(seed, "scenes", split)
    count = num_images or (20_000 if training else 2_000)
    fingerprint = f"scenes-{SCENES_VERSION}-{seed}-{count}"
    return SceneDataset(
        name="scenes",
        kind="scenes",
        fingerprint=fingerprint,
        files=EncodedFiles(count, "scene {}".format, lambda indices: [None] * len(indices)),
        maps={"segmentation": Maps(fingerprint, label_names=CLASSES)},
        seed=seed,
        resolution=resolution or 256,
    )
