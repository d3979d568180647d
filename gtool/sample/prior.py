"""`gtool sample` of a prior: pictures composed of codes, as a grid, as files, and code by code as an animation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.data.conditions_for_sampling import Conditions, Given, conditions_of
from gtool.errors import RecipeError
from gtool.sample.loaded_generator import MAX_PIXELS
from gtool.sample.options import Job, kimg_of
from gtool.sample.prior_options import Plan, make_plan

if TYPE_CHECKING:
    import numpy as np

    from gtool.io.picture import Pixels
    from gtool.models.prior.autoregressive import Known, Request
    from gtool.runtime.device import Compute

FOLDER_BLOCK = 256  # images whose conditions are held at a time
UNDECIDED = 128  # grey


@dataclass(frozen=True)
class Source:
    """A loaded prior with its tokenizer, and what its pictures are composed from.

    photo: uint8 (3, H, W), whose upper part is kept, where there is one.
    """

    plan: Plan
    composer: Any
    compute: Compute
    conditions: Conditions
    photo: Pixels | None

    @property
    def job(self) -> Job:
        """What was asked for."""
        return self.plan.job

    @property
    def batch_size(self) -> int:
        """Images at once. It is the same however many there are, since rounding depends on it."""
        from gtool.models.prior.autoregressive import BATCH

        return self.job.request.batch_size or BATCH

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes."""
        height, width = self.conditions.size
        return height // self.plan.down, width // self.plan.down

    @property
    def kept_rows(self) -> int:
        """Rows of codes that a completion keeps."""
        return round(self.plan.keep * self.grid[0])

    @cached_property
    def _photo_codes(self) -> Any:
        import torch

        from gtool.models.prior.conditional_generator import codes_of_images

        assert self.photo is not None
        return codes_of_images(self.composer, torch.from_numpy(self.photo)[None], self.compute)

    def known(self, count: int) -> Known | None:
        """Return the codes that are kept of a photo, for so many images."""
        from gtool.models.prior.conditional_generator import upper_part

        if self.photo is None:
            return None
        return upper_part(self._photo_codes.expand(count, -1, -1), self.kept_rows)

    def request(self, numbers: Sequence[int], given: Given) -> Request:
        """Return what is to be drawn."""
        import torch

        from gtool.models.prior.autoregressive import Request

        return Request(
            condition=given.ids,
            indices=torch.tensor(numbers, dtype=torch.int64),
            seed=self.job.request.seed,
            choice=self.plan.choice,
            known=self.known(len(numbers)),
            size=self.grid,
        )

    @property
    def shared(self) -> list[Pixels]:
        """What all images have in common, as pictures (3, H, W): the map, what is kept of the photo."""
        shown = [] if self.conditions.shown is None else [self.conditions.shown]
        if self.photo is not None:
            kept = self.photo.copy()
            kept[:, self.kept_rows * self.plan.down :] = UNDECIDED
            shown.append(kept)
        return shown

    def text(self, numbers: str, condition: str) -> dict[str, str]:
        """Text chunks that say how a picture was made."""
        choice, request = self.plan.choice, self.job.request
        height, width = self.conditions.size
        more = {"temperature": f"{choice.temperature:g}", "top_k": str(choice.top_k)}
        more |= {"top_p": f"{1 if choice.top_p is None else choice.top_p:g}", "condition": condition}
        more |= {"size": f"{width}x{height}"}
        if request.complete:
            more |= {"complete": request.complete.name, "keep": f"{self.plan.keep:g}"}
        return self.job.text(self.plan.meta, numbers, **more)


def write_composed(job: Job) -> dict[str, Path]:
    """Write what was asked for of a prior; returns where it is.

    Raises:
        RecipeError: flags that mean nothing for this prior.
        GToolError: damaged weights, maps that cannot be used, a place that cannot be written.
    """
    source = load(job)
    return _write_folder(source) if job.folder is not None else _write_grid(source)


def load(job: Job) -> Source:
    """Understand the job, read what pictures are composed from, then load the networks."""
    from gtool.models.prior.conditional_generator import load_composer
    from gtool.runtime.device import make_compute

    plan = make_plan(job)
    compute = make_compute(job.request.device, job.request.precision)
    conditions = conditions_of(plan, compute)
    _refuse_too_many(plan, conditions)
    photo = _read_photo(plan, conditions)
    composer, meta = load_composer(job.weights, compute)
    trained = f"from {meta['source']}" if "source" in meta else f"after {kimg_of(meta)} kimg"
    side = plan.config.resolution
    console.notice(
        f"{job.weights}: prior at {side} px, {trained}; from {conditions.text}; "
        f"{compute.describe()}, {compute.precision}"
    )
    if plan.choice.temperature == 0:
        console.notice(
            "--temperature 0: nothing is left to chance, and pictures of one condition are the same"
        )
    source = Source(plan, composer, compute, conditions, photo)
    if photo is not None:
        console.notice(f"--keep {plan.keep:g}: {source.kept_rows} of {source.grid[0]} rows of codes stay")
    return source


def _refuse_too_many(plan: Plan, conditions: Conditions) -> None:
    height, width = conditions.size
    count = len(plan.job.numbers) if plan.job.folder is None else 1
    if count * height * width * (plan.job.request.scale or 1) ** 2 > MAX_PIXELS:
        raise RecipeError(
            f"{count:,} pictures of {width}x{height} pixels are too many for one file; ask for fewer or smaller ones"
            + (", or write separate files with -o FOLDER/" if count > 1 else "")
        )


def _read_photo(plan: Plan, conditions: Conditions) -> Pixels | None:
    from gtool.io.photo import read_cropped

    path = plan.job.request.complete
    return None if path is None else read_cropped(path.expanduser(), conditions.size)


# A grid.


def _write_grid(source: Source) -> dict[str, Path]:
    from gtool.io.picture import save_png

    job = source.job
    given = source.conditions.of(job.numbers, source.composer, source.compute)
    written: dict[str, Path] = {}
    if job.request.animate is None:
        pictures = _pictures(source, job.numbers, given)
    else:
        from gtool.sample.prior_film import write_film

        path = job.request.animate.expanduser()
        pictures = write_film(source, given, path)
        written = {"animation": path}
    save_png(
        job.picture,
        lay_out(source, pictures, given),
        source.text(job.numbers_as_text, source.conditions.text),
    )
    return {"grid": job.picture, **written}


def _pictures(source: Source, numbers: Sequence[int], given: Given) -> np.ndarray:
    """Return uint8 (n, 3, H, W)."""
    import numpy as np

    from gtool.models.prior.conditional_generator import compose_pictures

    made, count = [], 0
    request = source.request(numbers, given)
    with console.progress("composing") as update:
        for step in compose_pictures(source.composer, request, source.compute, source.batch_size):
            if step.pictures is not None:
                made.append(step.pictures.numpy())
                count += len(step.pictures)
            update(step.done, step.total, f"{count:,} of {len(numbers):,} images")
    return np.concatenate(made)


def lay_out(source: Source, pictures: np.ndarray, given: Given) -> Pixels:
    """Return the picture (H, W, 3) of some images with what they were composed from."""
    import numpy as np

    from gtool.io.picture import grid
    from gtool.sample.prior_sheet import beside_photos, with_legend

    if given.photos is not None:
        return beside_photos(source, pictures, given)
    request, tiles = source.job.request, np.stack([*source.shared, *pictures])
    return with_legend(
        source, grid(tiles, columns=request.columns, scale=request.scale), source.conditions.labels
    )


# Files.


def _write_folder(source: Source) -> dict[str, Path]:
    import numpy as np

    from gtool.io.image_folder import open_folder

    job, request = source.job, source.job.request
    assert job.folder is not None
    numbers = np.unique(np.asarray(job.numbers, np.int64)).tolist()
    with open_folder(job.folder, overwrite=request.overwrite, scale=request.scale or 1) as files:
        for start in range(0, len(numbers), FOLDER_BLOCK):
            block = numbers[start : start + FOLDER_BLOCK]
            given = source.conditions.of(block, source.composer, source.compute)
            names = given.names or given.origins or (source.conditions.text,) * len(block)
            texts = [source.text(str(number), name) for number, name in zip(block, names, strict=True)]
            files.add(block, _pictures(source, block, given), texts)
    return {"folder": job.folder}
