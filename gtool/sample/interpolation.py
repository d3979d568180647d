"""Walks of `gtool sample`: from image to image and back, as a sheet and as an animation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool.sample.loaded_generator import Source, load
from gtool.sample.options import Job, parse_components

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 16
SHEET_COLUMNS = 16  # at most, of the sheet
FRAME_WIDTH = 384  # pixels that a frame of an animation comes near to


def write_walk(job: Job) -> dict[str, Path]:
    """Write the sheet, and the animation where one is asked for: one row a station, closed by the first."""
    import numpy as np
    import torch

    from gtool.io.picture import grid, save_png

    source, request = load(job), job.request
    stations = torch.tensor(job.numbers, dtype=torch.int64)
    steps = request.interpolate or STEPS
    made = (image for batch in _images(source, stations, steps) for image in batch)
    columns = min(steps, SHEET_COLUMNS)
    in_row = [column * steps // columns for column in range(columns)]
    on_sheet = {row * steps + step for row in range(len(stations)) for step in in_row}
    sheet: list[Any] = []
    frames = _keep(made, on_sheet, sheet)
    written = _write_animation(source, frames) if request.animate else {}
    for _ in frames:
        continue
    more = {"components": request.components} if request.components else {}
    text = source.text(job.numbers_as_text, interpolate=str(steps), space=request.space, **more)
    images = np.stack(sheet)
    if request.components is None:
        picture = grid(images, columns=columns, scale=request.scale)
    else:
        picture = _component_sheet(source, images, columns)
    save_png(job.picture, picture, text)
    return {"grid": job.picture, **written}


def _component_sheet(source: Source, images: Any, columns: int) -> Any:
    """Draw a walk of some components: a row a station, and what it changes, which may be little."""
    import numpy as np

    from gtool.io.colormap import heat
    from gtool.io.sheet import Column, Row, fit, image_cell, sheet

    job = source.job
    change = np.abs(images.astype(np.float32) - images[:1]).mean(axis=1)  # (n, R, R), from the first image
    change = change.reshape(-1, columns, *change.shape[1:]).mean(axis=1)  # of a row
    largest = max(1.0, float(change.max()))
    cell = image_cell(source.resolution, columns + 1, job.request.scale)
    cells = [fit(image, cell) for image in images]
    rows = [
        Row(
            f"as image {number}",
            [*cells[place * columns :][:columns], fit(heat(change[place], largest), cell)],
        )
        for place, number in enumerate(job.numbers)
    ]
    title = f"component {job.request.components} moves, all else stays as in image {job.numbers[0]}"
    note = f"change: black 0, white {largest:.0f} of 255"
    heads = [Column("")] * columns + [Column("change")]
    return sheet(rows, heads, cell, source.title(title), note)


def _images(source: Source, stations: Tensor, steps: int) -> Iterator[Any]:
    """Yield the images of the walk; the noise inputs stay those of the first, since they would flicker."""
    from gtool.models.generate import latents
    from gtool.sample.latent_path import closed_walk

    request = source.job.request
    noise_of = stations[:1].expand(len(stations) * steps)
    if request.psi == 1 and request.components is None and request.space == "z":
        z = closed_walk(latents(source.generator, request.seed, stations), steps)
        return source.images(noise_of, z=z)
    moving = None if request.components is None else parse_components(request.components, source.count)
    ws = source.components.walk(stations, steps, moving=moving, in_w=request.space == "w")
    return source.images(noise_of, ws=ws)


def _keep(frames: Iterator[Any], chosen: set[int], kept: list[Any]) -> Iterator[Any]:
    """Pass frames on and copy the chosen ones, so that a long walk is made once and never held whole."""
    for number, frame in enumerate(frames):
        if number in chosen:
            kept.append(frame)
        yield frame


def _write_animation(source: Source, frames: Iterator[Any]) -> dict[str, Path]:
    from gtool.io.animation import save_animation
    from gtool.io.picture import comfortable_scale, enlarge

    request = source.job.request
    path = Path(request.animate or "").expanduser()
    scale = request.scale or comfortable_scale(source.resolution, FRAME_WIDTH)
    save_animation(path, (enlarge(frame, scale) for frame in frames), request.fps)
    return {"animation": path}
