"""Sheets of `gtool sample`: truncation, attention and noise, image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gtool.sample.loaded_generator import Source, load
from gtool.sample.options import Job, parse_psis

NOISE_DRAWS = 100


def write_psi_sweep(job: Job) -> dict[str, Path]:
    """Write a row for each image, a column for each psi."""
    import torch

    from gtool.io.sheet import Column, Row, fit, image_cell, sheet

    source = load(job)
    psis = parse_psis(job.request.psi_sweep or "")
    indices = torch.tensor(job.numbers).repeat_interleave(len(psis))
    ws = source.components.plain(indices, torch.tensor(psis).repeat(len(job.numbers)))
    cell = image_cell(source.resolution, len(psis), job.request.scale)
    cells = [fit(image, cell) for image in source.all_images(indices, ws)]
    rows = [
        Row(f"image {number}", cells[place * len(psis) :][: len(psis)])
        for place, number in enumerate(job.numbers)
    ]
    picture = sheet(rows, [Column(f"psi {psi:g}") for psi in psis], cell, "truncation")
    return {"grid": source.save_sheet(picture, psi=job.request.psi_sweep or "")}


def write_noise_variation(job: Job) -> dict[str, Path]:
    """Write a row for each image: as it is, the mean over other noise, and how much that changes."""
    import torch

    from gtool.io.colormap import heat
    from gtool.io.sheet import Column, Row, fit, image_cell, sheet

    source = load(job)
    source.refuse_too_many(3 * len(job.numbers))
    images = source.all_images(torch.tensor(job.numbers))
    found = _variations(source)
    largest = max(float(one.spread.max()) for one in found)
    cell = image_cell(source.resolution, 3, job.request.scale)
    rows = []
    for number, image, one in zip(job.numbers, images, found, strict=True):
        mean = one.mean.round().to(torch.uint8).numpy()
        shown = (image, mean, heat(one.spread.numpy(), largest))
        rows.append(Row(f"image {number}", [fit(picture, cell) for picture in shown]))
    columns = [Column("image"), Column(f"mean of {NOISE_DRAWS}"), Column("deviation")]
    title = source.title("noise drawn anew")
    note = f"deviation: black 0, white {largest:.1f} of 255"
    return {"grid": source.save_sheet(sheet(rows, columns, cell, title, note), draws=str(NOISE_DRAWS))}


def _variations(source: Source) -> list[Any]:
    from gtool import console
    from gtool.sample.noise_sensitivity import noise_variation

    job, found = source.job, []
    components = source.components if job.request.psi != 1 else None
    with console.progress("drawing noise") as update:
        for number in job.numbers:
            found.append(
                noise_variation(
                    source.generator,
                    job.request.seed,
                    number,
                    source.compute,
                    draws=NOISE_DRAWS,
                    batch_size=source.batch_size,
                    components=components,
                )
            )
            update(len(found), len(job.numbers), f"{len(found)} of {len(job.numbers)} images")
    return found


def write_attention(job: Job) -> dict[str, Path]:
    """Write for each image every component's attention at each layer and head: below each other, or in files."""
    import numpy as np
    import torch

    from gtool.io.image_folder import open_folder

    source = load(job)
    indices = torch.tensor(job.numbers, dtype=torch.int64)
    if job.folder is None:
        heads = source.meta["config"]["synthesis"]["heads"]
        source.refuse_too_many(len(indices) * heads * len(source.generator.attention_layers))
        return {
            "attention": source.save_sheet(np.concatenate([sheet for _, sheet in _sheets(source, indices)]))
        }
    with open_folder(job.folder, overwrite=job.request.overwrite) as files:
        for number, sheet in _sheets(source, torch.unique(indices)):
            files.add([number], [sheet.transpose(2, 0, 1)], [source.text(str(number))])
    return {"folder": job.folder}


def _sheets(source: Source, indices: Any) -> Any:
    """Yield image numbers with their sheets (H, W, 3)."""
    from gtool import console
    from gtool.sample.attention_pictures import layers_sheet

    with console.progress("drawing attention") as update:
        for done, (number, (image, maps)) in enumerate(
            zip(indices.tolist(), source.maps(indices), strict=True)
        ):
            update(done + 1, len(indices), f"{done + 1} of {len(indices)} images")
            yield number, layers_sheet(image, maps, title=source.title(f"image {number}: attention"))
