"""Sets of images that are scored: made by a model, or stored in a folder, data set or array; all with one interface."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gtool import console
from gtool.config.recipe import require_recipe
from gtool.data.dataset import ImageDataset
from gtool.data.held_out import held_out_of
from gtool.data.loader import ids_of_depth, ids_of_maps, read_conditions
from gtool.data.open import open_dataset
from gtool.data.pixel_cache import load_images
from gtool.data.threads import in_order
from gtool.errors import DataError, printable
from gtool.eval.image_checks import check_files, check_images, find_damaged, tolerate
from gtool.io.image import UnreadableImage, quiet_pillow
from gtool.metrics.images import as_tensor
from gtool.models.generate import TrainedModel, load_model
from gtool.models.prior.pipeline import encode_condition
from gtool.models.prior.sampling import BATCH
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed, permutation

Batch = Tensor | list[Tensor]  # uint8 (n, 3, H, W), or n images (3, H, W) of different sizes


class ImageSet(Protocol):
    """Images in an order of their own; `grain` of them are made at once, and shares of processes begin there."""

    @property
    def count(self) -> int: ...

    @property
    def grain(self) -> int: ...

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Yield images `start` to `stop`, batch after batch."""
        ...


# Images that a model makes.


@dataclass(frozen=True)
class GeneratedImages:
    """Images that a model makes as they are asked for; image i is a function of (seed, i).

    condition: from image numbers (n,) to what a prior samples them from; None without.
    """

    model: TrainedModel
    seed: int
    count: int
    condition: Callable[[Tensor], Tensor] | None = None

    @property
    def grain(self) -> int:
        return BATCH if self.model.samples_from == "codes" else 1

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Tensor]:
        indices = torch.arange(start, self.count if stop is None else stop)
        if self.model.samples_from == "codes":
            batch_size = BATCH  # another one would change images
        yield from self.model.batches(indices, self.seed, condition=self.condition, batch_size=batch_size)


def open_generated(
    path: Path, compute: Compute, *, num: int, seed: int
) -> tuple[GeneratedImages, dict[str, Any]]:
    """Load a model; return `num` images that it makes, and what a record says of them."""
    model = load_model(path, compute=compute)
    if model.samples_from != "codes":
        return GeneratedImages(model, seed, num), {}
    condition, origin = _conditions(model, num, seed)
    about = {"sampling": {"top_k": model.default_params.top_k, "conditions": origin}}
    return GeneratedImages(model, seed, num, condition), about


def _conditions(model: TrainedModel, num: int, seed: int) -> tuple[Callable[[Tensor], Tensor] | None, str]:
    """Return what gives the conditions of image numbers (n,), and where they are taken from, in words.

    They are held-out ones of the training's data where there are enough of them, else all, by the seed.
    """
    kind = model.network.prior.config.condition
    if kind == "none":
        return None, "nothing"
    recipe = require_recipe(model.meta, model.path, f", and samples from its {kind}")
    images, kept = held_out_of(recipe, model.compute, "another run")
    places, which = kept, "held-out"
    if num > len(kept):
        places, which = np.arange(len(images)), "all"
        console.notice(
            f"only {len(kept):,} images were kept aside: conditions of all {len(images):,} are used"
        )
    places = places[permutation(len(places), derive_seed("eval-conditions", seed))]

    def conditions(indices: Tensor) -> Tensor:
        found = read_conditions(images, places[indices.numpy() % len(places)])
        if kind == "class":
            return found[:, None]
        cell_ids = ids_of_maps if kind == "segmentation" else ids_of_depth
        return encode_condition(model.network, found, model.compute, cell_ids)

    return conditions, f"{kind} of {recipe.data.dataset}, {which}"


# Images that are stored.


@dataclass(frozen=True)
class ImageSpec:
    """Which images, and how they are read; `resolution` None keeps the images' own size.

    crop: `center` or `fit`; of images that keep their size, whether those that are not square are accepted.
    columns, layout: what a recipe says of a table or of folders, as `open_dataset` takes them.
    sized: the resolution was asked for, and is not that of a model; then it is part of the name.
    skip_bad: how many images may be unreadable; None is any number, as in training.
    strict: refuse a folder with files that are no images.
    """

    dataset: str
    split: str = "train"
    resolution: int | None = None
    crop: str = "center"
    columns: Mapping[str, Any] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    num_images: int | None = None
    cache_gb: float = 4.0
    skip_bad: int | None = 0
    strict: bool = False
    sized: bool = False

    @property
    def name(self) -> str:
        """`cifar10-train` for a data set with splits, the bare name for a folder; behind it `@32px` and `@fit`."""
        path = Path(self.dataset).expanduser()
        name = path.resolve().name if path.exists() else f"{self.dataset.split('/')[-1]}-{self.split}"
        size = f"@{self.resolution}px" if self.sized else ""
        return printable(name) + size + ("@fit" if self.crop == "fit" else "")


class NativeImages:
    """The images of a data set at the size they have: those at `places` (N,)."""

    def __init__(self, dataset: ImageDataset, places: np.ndarray) -> None:
        self.dataset = dataset
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: np.ndarray) -> Tensor:
        return one_size(list(self.read(index)), self.dataset.name)

    def read(self, index: np.ndarray, ahead: int = 0) -> Iterator[Tensor]:
        """Yield images uint8 (3, H, W) in order, decoded by all cores, so many ahead; DataError names damaged ones."""

        def decode(place: int) -> Tensor:
            return torch.from_numpy(np.array(self.dataset.read(place).transpose(2, 0, 1), order="C"))

        places = self.places[index]
        try:
            with quiet_pillow():
                yield from in_order(decode, map(int, places), ahead=ahead)
        except UnreadableImage:
            find_damaged(self.dataset, places, 0, {})
            raise


def one_size(images: Batch, name: str) -> Tensor:
    """Return the batch as one tensor; DataError when the images have several sizes."""
    if isinstance(images, Tensor):
        return images
    sizes = sorted({f"{image.shape[2]}x{image.shape[1]}" for image in images})
    if len(sizes) > 1:
        raise DataError(
            f"{name}: images of several sizes ({', '.join(sizes[:3])}), and rfd and swd need one; "
            "crop and resize both sides with --resolution R"
        )
    return torch.stack(images)


@dataclass(frozen=True)
class StoredImages:
    """Chosen images of a folder, data set or array; `images` is a pixel array (N, 3, R, R) or `NativeImages`."""

    name: str  # as in protocol strings
    images: Any
    chosen: np.ndarray
    key: dict[str, str | int]  # what the pixels depend on
    summary: dict[str, Any] = field(default_factory=dict)  # for the record: formats, modes, what was left out
    dataset: Any = None  # an ImageDataset; None for an array
    places: Any = None  # of `images` in the data set
    grain: int = 1

    @property
    def count(self) -> int:
        return len(self.chosen)

    @property
    def names(self) -> list[str]:
        """Names of files or rows."""
        return [self.dataset.name_of(int(place)) for place in self.places[self.chosen]]

    def subset(self, places: np.ndarray) -> StoredImages:
        """Return the images at these places (n,) alone."""
        return replace(self, chosen=self.chosen[places])

    def batches(self, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        chosen = self.chosen[start:stop]
        if isinstance(self.images, NativeImages):
            images = self.images.read(chosen, ahead=batch_size)
            while group := list(islice(images, batch_size)):
                yield group
            return
        for first in range(0, len(chosen), batch_size):
            yield torch.from_numpy(np.array(self.images[chosen[first : first + batch_size]]))


def open_stored(spec: ImageSpec, num: int | None, seed: int) -> StoredImages:
    """Open a data set and choose all its images, or `num` of them by the seed; check each before it is scored."""
    dataset = open_dataset(
        spec.dataset,
        split=spec.split,
        num_images=spec.num_images,
        resolution=spec.resolution,
        arrays=True,
        columns=spec.columns,
        layout=spec.layout,
    )
    for note in dataset.notes:
        console.notice(f"{dataset.name}: {note}")
    summary = check_files(dataset, spec.dataset, strict=spec.strict)
    places = np.arange(len(dataset))
    images: Any = None
    if spec.resolution is not None:
        with console.progress(f"reading {dataset.name}") as update:
            loaded = load_images(
                dataset, spec.resolution, crop=spec.crop, budget_gb=spec.cache_gb, progress=update
            )
        tolerate(loaded.skipped, dataset.name, spec.skip_bad, summary)
        if skipped := {name for name, _ in loaded.skipped}:
            places = np.array([i for i in range(len(dataset)) if dataset.name_of(i) not in skipped])
        images = loaded.images
    elif spec.skip_bad != 0:
        places = np.delete(places, find_damaged(dataset, places, spec.skip_bad, summary))
    chosen = _choose(len(places), num, seed)
    is_part = len(chosen) < len(places)
    if is_part:
        summary["chosen_from"] = len(places)
    if len(chosen) < 2:
        raise DataError(f"{dataset.name}: {len(chosen)} images can be read; at least 2 are needed")
    square = spec.resolution is None and spec.crop != "fit"
    content = check_images(dataset, places[chosen], summary, square=square)
    key: dict[str, str | int] = {"source": content, "resolution": spec.resolution or 0}
    key |= {"crop": spec.crop, "num": len(chosen), "seed": seed if is_part else 0}
    images = NativeImages(dataset, places) if images is None else images
    return StoredImages(spec.name, images, chosen, key, summary, dataset, places)


def spec_of_training(meta: dict[str, Any], path: Path, split: str | None = None) -> ImageSpec:
    """Return how to open the data set that weights were trained on, or another split of it."""
    data = require_recipe(meta, path, "; name a data set with --reference").data
    folders = {key: getattr(data, key) for key in ("folders", "segmentation_folder")}
    return ImageSpec(
        data.dataset,
        split or data.split,
        meta["config"]["resolution"],
        data.crop,
        {role: getattr(data, f"{role}_column") for role in ("image", "label", "segmentation")},
        {key: value for key, value in folders.items() if value is not None},
        data.num_images if split in (None, data.split) else None,
        data.cache_gb,
        skip_bad=None,  # what training could not read is left out here too
    )


def open_array(images: Any, num: int | None, seed: int) -> StoredImages:
    """Return the images of an array or tensor uint8 (N, 3, H, W), or `num` of them by the seed."""
    pixels = as_tensor(images).cpu().numpy()
    content = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:24]
    key: dict[str, str | int] = {"source": content, "resolution": pixels.shape[-1], "num": num or len(pixels)}
    return StoredImages("array", pixels, _choose(len(pixels), num, seed), key | {"seed": seed})


def _choose(count: int, num: int | None, seed: int) -> np.ndarray:
    """Return the places of `num` of `count` images by the seed, in order; of all where there are no more."""
    if num is None or num >= count:
        return np.arange(count)
    return np.sort(permutation(count, derive_seed("eval", seed))[:num])
