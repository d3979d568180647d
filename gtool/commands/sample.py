"""`gtool sample`: images of a trained generator as a grid, as separate files, or as a walk between them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import __version__, checkpoint, console
from gtool.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gtool.device import Compute

DEFAULT_NUM = 64
WALK_STATIONS = 8  # of a walk for which neither --num nor --seeds is given
WALK_STEPS = 16
SHEET_COLUMNS = 16  # at most, of the sheet of a walk
FRAME_WIDTH = 384  # pixels that a frame of an animation comes near to
MAX_IMAGES = 10_000_000
MAX_GRID_PIXELS = 200_000_000


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line of `gtool sample`, as typed."""

    target: str | None = None  # a run, weights, a hub id; None for the newest run
    num: int | None = None
    seeds: str | None = None  # image numbers: 0,1,4-6
    seed: int = 0
    interpolate: int | None = None  # steps from one image of a walk to the next
    animate: Path | None = None
    fps: float = 15.0
    out: str | None = None  # FILE.png, or a folder
    overwrite: bool = False
    columns: int | None = None
    scale: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    as_json: bool = False

    @property
    def is_walk(self) -> bool:
        return self.interpolate is not None or self.animate is not None


def sample(request: Request) -> None:
    """Generate images and write them where the user expects them.

    Raises:
        RecipeError: flags that mean nothing, or nothing together.
        GToolError: no such weights, damaged weights, a place that cannot be written.
    """
    numbers = _image_numbers(request)
    _refuse_mixtures(request, numbers)
    weights = checkpoint.find_weights(request.target)
    job = Job(request, numbers, weights)
    _refuse_outputs(job)
    start = time.perf_counter()
    written = _write_walk(job) if request.is_walk else _write_images(job)
    if request.as_json:
        made = {"weights": str(weights), "seed": request.seed, "images": len(numbers)}
        places = {kind: str(path) for kind, path in written.items()}
        return console.result_json(made | places | {"seconds": round(time.perf_counter() - start, 2)})
    for path in written.values():
        console.result(str(path))


# What was asked for, without torch.


def parse_numbers(text: str) -> list[int]:
    """Read image numbers written as `0,1,4-6`.

    Raises:
        RecipeError: anything else, or more numbers than could be meant.
    """
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", part)
        if found is None:
            raise RecipeError(
                f"--seeds {text}: `{part.strip()}` is no number and no range; write it as 0,1,4-6"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first >= MAX_IMAGES:
            raise RecipeError(f"--seeds {text}: the range `{part.strip()}` is empty or too long")
        numbers += range(first, last + 1)
    return numbers


def _image_numbers(request: Request) -> Sequence[int]:
    if request.seeds is not None and request.num is not None:
        raise RecipeError("--num and --seeds exclude each other; --num 8 is --seeds 0-7")
    if request.seeds is not None:
        return parse_numbers(request.seeds)
    return range(request.num or (WALK_STATIONS if request.is_walk else DEFAULT_NUM))


def _refuse_mixtures(request: Request, numbers: Sequence[int]) -> None:
    out = request.out
    into_folder = out is not None and _is_folder(out)
    if request.is_walk and len(numbers) < 2:
        raise RecipeError("a walk goes between at least two images; give --seeds 0,1 or --num 2")
    if request.is_walk and into_folder:
        raise RecipeError(f"-o {out}: the sheet of a walk is one .png file; name that, or leave -o out")
    if request.columns and (request.is_walk or into_folder):
        raise RecipeError("--columns is for grids; a walk has one row for each image, a folder has none")
    if out is not None and not into_folder and Path(out).suffix.lower() != ".png":
        raise RecipeError(f"-o {out}: a grid ends in .png, a folder in /; an animation is named by --animate")


def _is_folder(out: str) -> bool:
    separators = tuple(filter(None, (os.sep, os.altsep)))
    return out.endswith(separators) or Path(out).is_dir() or Path(out).suffix == ""


@dataclass(frozen=True)
class Job:
    """A request with its image numbers and its weights file."""

    request: Request
    numbers: Sequence[int]
    weights: Path

    @property
    def folder(self) -> Path | None:
        out = self.request.out
        return Path(out).expanduser() if out is not None and _is_folder(out) else None

    @property
    def picture(self) -> Path:
        """The grid or sheet: -o, or in the run's samples, or here when the weights stand alone."""
        if self.request.out is not None:
            return Path(self.request.out).expanduser()
        kind = "walk" if self.request.is_walk else "sample"
        stem = self.weights.stem.removeprefix("weights-")
        name = f"{kind}-{stem}-seed{self.request.seed}-{self.numbers_in_name}.png"
        run = self.weights.parent
        return run / "samples" / name if (run / "recipe.toml").is_file() else Path(name)

    @property
    def numbers_as_text(self) -> str:
        return self.request.seeds or f"0-{len(self.numbers) - 1}"

    @property
    def numbers_in_name(self) -> str:
        return re.sub(r"\s*,\s*", "_", self.numbers_as_text.strip())[:60]


def _refuse_outputs(job: Job) -> None:
    """Find out before the work whether its results can be written."""
    if job.request.animate is not None:
        from gtool.render.animation import check_animation

        check_animation(job.request.animate)
    if job.folder is not None:
        from gtool.render.folder import check_folder

        check_folder(job.folder, job.request.overwrite)


# Images.


@dataclass(frozen=True)
class _Source:
    """A loaded generator and what is known of it."""

    job: Job
    generator: nn.Module
    meta: dict[str, Any]
    compute: Compute

    @property
    def resolution(self) -> int:
        return int(self.meta["config"]["resolution"])

    def text(self, numbers: str) -> dict[str, str]:
        """Text chunks that say how a picture was made, and can be made again."""
        weights = self.job.weights
        return {
            "Software": f"gtool {__version__}",
            "model": str(self.meta["model"]),
            "weights": f"{weights.resolve().parent.name}/{weights.name}",
            "kimg": f"{self.meta.get('nimg', 0) / 1000:g}",
            "seed": str(self.job.request.seed),
            "index": numbers,
        }

    def images(self, indices: Tensor, z: Tensor | None = None) -> Iterator[Any]:
        """Yield uint8 arrays (b, 3, R, R), with progress."""
        from gtool.engines.generation import generate

        batch_size = self.job.request.batch_size or _batch_size(self.resolution)
        total, done = len(indices), 0
        seed = self.job.request.seed
        with console.progress("sampling") as update:
            for batch in generate(self.generator, seed, indices, self.compute, batch_size=batch_size, z=z):
                done += len(batch)
                update(done, total, f"{done:,} of {total:,} images")
                yield batch.numpy()


def _batch_size(resolution: int) -> int:
    """Keep the pixels of a batch about equal, since memory and time follow them."""
    return max(4, min(256, 2**18 // resolution**2))


def _load(job: Job) -> _Source:
    from gtool.device import make_compute
    from gtool.engines.generation import load_generator

    compute = make_compute(job.request.device, job.request.precision)
    generator, meta = load_generator(job.weights, compute)
    source = _Source(job, generator, meta, compute)
    trained = f"from {meta['source']}" if "source" in meta else f"after {meta.get('nimg', 0) / 1000:g} kimg"
    console.notice(
        f"{job.weights}: {meta['model']} at {source.resolution} px, {trained}; "
        f"{compute.describe()}, {compute.precision}"
    )
    return source


def _write_images(job: Job) -> dict[str, Path]:
    import torch

    source = _load(job)
    indices = torch.tensor(job.numbers, dtype=torch.int64)
    if job.folder is not None:
        return {"folder": _write_folder(source, job.folder, indices)}
    return {"grid": _write_grid(source, indices)}


def _write_grid(source: _Source, indices: Tensor) -> Path:
    import numpy as np

    from gtool.render.picture import grid, save_png

    job = source.job
    pixels = len(indices) * (source.resolution * (job.request.scale or 1)) ** 2
    if pixels > MAX_GRID_PIXELS:
        raise RecipeError(
            f"{len(indices):,} images at {source.resolution} px are too many for one picture; "
            "write separate files with -o FOLDER/"
        )
    images = np.concatenate(list(source.images(indices)))
    picture = grid(images, columns=job.request.columns, scale=job.request.scale)
    save_png(job.picture, picture, source.text(job.numbers_as_text))
    return job.picture


def _write_folder(source: _Source, folder: Path, indices: Tensor) -> Path:
    import torch

    from gtool.render.folder import open_folder

    request = source.job.request
    text = source.text("")
    remaining = torch.unique(indices)
    with open_folder(folder, overwrite=request.overwrite, scale=request.scale or 1) as files:
        for images in source.images(remaining):
            numbers, remaining = remaining[: len(images)].tolist(), remaining[len(images) :]
            files.add(numbers, images, [text | {"index": str(number)} for number in numbers])
    return folder


# Walks.


def _write_walk(job: Job) -> dict[str, Path]:
    """Write the sheet, and the animation where one is asked for: one row a station, closed by the first."""
    import numpy as np
    import torch

    from gtool.engines.generation import latents
    from gtool.engines.walk import closed_walk
    from gtool.render.picture import grid, save_png

    source, request = _load(job), job.request
    stations = torch.tensor(job.numbers, dtype=torch.int64)
    steps = request.interpolate or WALK_STEPS
    z = closed_walk(latents(source.generator, request.seed, stations), steps)
    # The noise inputs stay those of the first image: they would flicker.
    made = (image for batch in source.images(stations[:1].expand(len(z)), z) for image in batch)
    columns = min(steps, SHEET_COLUMNS)
    in_row = [column * steps // columns for column in range(columns)]
    on_sheet = {row * steps + step for row in range(len(stations)) for step in in_row}
    sheet: list[Any] = []
    frames = _keep(made, on_sheet, sheet)
    written = _write_animation(source, frames) if request.animate else {}
    for _ in frames:
        continue
    text = source.text(job.numbers_as_text) | {"interpolate": str(steps)}
    save_png(job.picture, grid(np.stack(sheet), columns=columns, scale=request.scale), text)
    return {"grid": job.picture, **written}


def _keep(frames: Iterator[Any], chosen: set[int], kept: list[Any]) -> Iterator[Any]:
    """Pass frames on and copy the chosen ones, so that a long walk is made once and never held whole."""
    for number, frame in enumerate(frames):
        if number in chosen:
            kept.append(frame)
        yield frame


def _write_animation(source: _Source, frames: Iterator[Any]) -> dict[str, Path]:
    from gtool.render.animation import save_animation
    from gtool.render.picture import comfortable_scale, enlarge

    request = source.job.request
    path = Path(request.animate or "").expanduser()
    scale = request.scale or comfortable_scale(source.resolution, FRAME_WIDTH)
    save_animation(path, (enlarge(frame, scale) for frame in frames), request.fps)
    return {"animation": path}
