"""`gtool sample`: images of a trained model as a grid, as separate files, as a walk, or taken apart."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gtool import console
from gtool.errors import CheckpointError
from gtool.io.run_folder import find_weights, newest_run, read_meta
from gtool.models import registry
from gtool.sample.options import Job, Request, image_numbers, refuse_foreign, refuse_mixtures, refuse_strays

if TYPE_CHECKING:
    from torch import Tensor

    from gtool.sample.loaded_generator import Source


def sample(request: Request) -> None:
    """Generate images and write them where the user expects them.

    Raises:
        RecipeError: flags that mean nothing, or nothing together, or nothing to this model.
        GToolError: no such weights, damaged weights, a place that cannot be written.
    """
    refuse_strays(request)
    weights = find_weights(request.target)
    request = replace(request, model=_model_of(weights))
    refuse_foreign(request, weights)
    numbers = image_numbers(request)
    refuse_mixtures(request, numbers)
    job = Job(request, numbers, weights)
    _refuse_outputs(job)
    start = time.perf_counter()
    written = _write(job)
    if request.as_json:
        made = {"weights": str(weights), "seed": request.seed, "images": len(numbers)}
        places = {kind: str(path) for kind, path in written.items()}
        return console.result_json(made | places | {"seconds": round(time.perf_counter() - start, 2)})
    for path in written.values():
        console.result(str(path))


def _model_of(weights: Path) -> str:
    """Return the model that weights are of.

    Raises:
        CheckpointError: no weights of gtool, or of a model that others learn from and that makes no images.
    """
    model = str(read_meta(weights).get("model"))
    learner = next(iter(registry.models_that(learns_from=model)), None)
    if learner is None:
        return model
    newest = newest_run(learner)
    there = f"; the newest {learner} is {newest.path}" if newest else ""
    use = registry.find_model(model).next_command.format(path=weights)
    raise CheckpointError(
        f"{weights}: weights of {model}, a tokenizer, which makes no images by itself; a {learner} over its codes "
        f"does: `{use}`{there}"
    )


def _refuse_outputs(job: Job) -> None:
    """Find out before the work whether its results can be written."""
    if job.request.animate is not None:
        from gtool.io.animation import check_animation

        check_animation(job.request.animate)
    if job.folder is not None:
        from gtool.io.image_folder import check_folder

        check_folder(job.folder, job.request.overwrite)


def _write(job: Job) -> dict[str, Path]:
    if job.request.composes:
        from gtool.sample.prior import write_composed

        return write_composed(job)
    from gtool.sample import interpolation as walk
    from gtool.sample import mix, sheets

    writers = {
        "sample": _write_images,
        "walk": walk.write_walk,
        "psi": sheets.write_psi_sweep,
        "mix": mix.write_mix,
        "noise": sheets.write_noise_variation,
        "attention": sheets.write_attention,
    }
    return writers[job.request.kind](job)


def _write_images(job: Job) -> dict[str, Path]:
    import torch

    from gtool.sample.loaded_generator import load

    source = load(job)
    indices = torch.tensor(job.numbers, dtype=torch.int64)
    if job.folder is not None:
        return {"folder": _write_folder(source, job.folder, indices)}
    return {"grid": _write_grid(source, indices)}


def _write_grid(source: Source, indices: Tensor) -> Path:
    from gtool.io.picture import grid, save_png

    job = source.job
    picture = grid(source.all_images(indices), columns=job.request.columns, scale=job.request.scale)
    save_png(job.picture, picture, source.text(job.numbers_as_text))
    return job.picture


def _write_folder(source: Source, folder: Path, indices: Tensor) -> Path:
    import torch

    from gtool.io.image_folder import open_folder

    request = source.job.request
    text = source.text("")
    remaining = torch.unique(indices)
    with open_folder(folder, overwrite=request.overwrite, scale=request.scale or 1) as files:
        for images in source.images(remaining):
            numbers, remaining = remaining[: len(images)].tolist(), remaining[len(images) :]
            files.add(numbers, images, [text | {"index": str(number)} for number in numbers])
    return folder
