"""`gtool sample`: from options to pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gtool import console
from gtool.config.recipe import recipe_of_weights
from gtool.data.held_out import open_images
from gtool.data.label_colours import colours_of
from gtool.errors import GToolError, RecipeError
from gtool.io.photo import read_cropped
from gtool.io.pictures import Pixels, grid, open_folder, save_png
from gtool.models.generate import TrainedModel, latents, load_model
from gtool.models.prior.pipeline import decode
from gtool.runtime.device import make_compute
from gtool.sample import codes, pictures
from gtool.sample.conditions import ConditionBatch, Conditions, num_labels, open_conditions
from gtool.sample.latents import interpolate, interpolated_ws
from gtool.sample.options import (
    SampleOptions,
    kimg_of,
    parse_components,
    parse_layers,
    parse_mix,
    parse_psis,
)

INTERPOLATION_STEPS = 16
FOLDER_BLOCK = 256  # images whose conditions are held at a time


def run(options: SampleOptions) -> None:
    """Generate images and write them where the user expects them.

    Raises:
        RecipeError: flags that mean nothing, or nothing together, or nothing to this model.
        GToolError: no such weights, damaged weights, a place that cannot be written.
    """
    options.check()
    start = time.perf_counter()
    written = _from_latents(options) if options.samples_from == "latents" else _from_codes(options)
    if options.as_json:
        made = {"weights": str(options.weights), "seed": options.seed, "images": len(options.numbers)}
        places = {kind: str(path) for kind, path in written.items()}
        return console.result_json(made | places | {"seconds": round(time.perf_counter() - start, 2)})
    for path in written.values():
        console.result(str(path))


def _introduce(model: TrainedModel, more: str = "") -> None:
    meta = model.meta
    trained = f"from {meta['source']}" if "source" in meta else f"after {kimg_of(meta)} kimg"
    console.notice(
        f"{model.path}: {meta['model']} at {model.resolution} px, {trained}; {more}"
        f"{model.compute.describe()}, {model.compute.precision}"
    )


# Latents.


def _from_latents(options: SampleOptions) -> dict[str, Path]:
    model = load_model(options.weights, options.device, options.precision)
    _check_network(options, model)
    _introduce(model)
    seed, numbers, size = options.seed, options.numbers, options.batch_size
    look = {"psi": options.psi, "batch_size": size}
    text = {"psi": f"{options.psi:g}"} if hasattr(model.network, "mapping") else {}
    if options.kind == "interpolation":
        return _write_interpolation(options, model, text)
    if options.folder is not None:
        return _write_folder(options, model, text)
    if options.kind == "psi":
        psis = parse_psis(options.psi_sweep or "")
        picture = pictures.psi_sheet(model, numbers, psis, seed, scale=options.scale, batch_size=size)
        text["psi"] = options.psi_sweep or ""
    elif options.kind == "mix":
        picture = _mix(options, model, text)
    elif options.kind == "noise":
        picture = pictures.noise_sheet(model, numbers, seed, scale=options.scale, **look)
        text["draws"] = str(pictures.NOISE_DRAWS)
    elif options.kind == "attention":
        rows = len(numbers) * model.meta["config"]["synthesis"]["heads"] * len(model.network.attention_layers)
        pictures.check_pixels(rows, model.resolution, model.resolution, None)
        picture = np.concatenate(list(pictures.attention_sheets(model, numbers, seed, **look)))
    else:
        pictures.check_pixels(len(numbers), model.resolution, model.resolution, options.scale)
        images = np.stack(list(_draw(options, model, numbers)))
        picture = grid(images, columns=options.columns, scale=options.scale)
    save_png(options.picture, picture, options.png_text(options.numbers_as_text, **text))
    name = {"mix": "mix", "attention": "attention"}.get(options.kind, "grid")
    return {name: options.picture}


def _check_network(options: SampleOptions, model: TrainedModel) -> None:
    """Refuse what this network cannot do, by the flag that asks for it."""
    network, path = model.network, options.weights
    if options.components is not None:
        parse_components(options.components, network.z_shape[0] - 1)
    if options.layers is not None:
        parse_layers(options.layers, network.num_ws)
    if options.kind == "attention" and not network.attention_layers:
        raise RecipeError(f"--attention: {path}: attention = none has no attention to latent components")
    if options.kind == "noise" and not network.noise_shapes:
        raise RecipeError(
            f"--noise-variation: {path}: this model has no noise inputs, so an image has no variations"
        )


def _draw(options: SampleOptions, model: TrainedModel, numbers: Sequence[int]) -> codes.Iterator[Pixels]:
    indices, psi, seed = torch.tensor(numbers), options.psi, options.seed
    ws = None if psi == 1 else model.ws(indices, seed, psi)
    return pictures.draw(model, indices, seed, ws=ws, batch_size=options.batch_size)


def _write_folder(options: SampleOptions, model: TrainedModel, text: dict[str, str]) -> dict[str, Path]:
    """Write a file for each image, or for the attention of each."""
    assert options.folder is not None
    numbers = np.unique(np.asarray(options.numbers, np.int64)).tolist()
    if options.kind == "attention":
        sheets = pictures.attention_sheets(
            model, numbers, options.seed, psi=options.psi, batch_size=options.batch_size
        )
        images = (sheet.transpose(2, 0, 1) for sheet in sheets)
    else:
        images = _draw(options, model, numbers)
    with open_folder(options.folder, overwrite=options.overwrite, scale=options.scale or 1) as add:
        for number, image in zip(numbers, images, strict=True):
            add([number], [image], [options.png_text(str(number), **text)])
    return {"folder": options.folder}


def _write_interpolation(
    options: SampleOptions, model: TrainedModel, text: dict[str, str]
) -> dict[str, Path]:
    """Write the sheet, a row from each image to the next, and the animation where one is asked for."""
    keys, seed = torch.tensor(options.numbers), options.seed
    steps = options.interpolate or INTERPOLATION_STEPS
    z = ws = None
    if options.psi == 1 and options.components is None and options.space == "z":
        z = interpolate(latents(model.network, seed, keys), steps)
    else:
        moving = None
        if options.components is not None:
            moving = parse_components(options.components, model.network.z_shape[0] - 1)
            text["components"] = options.components
        ws = interpolated_ws(model, keys, steps, seed, psi=options.psi, moving=moving, space=options.space)
    # The noise inputs stay those of the first image, since they would flicker.
    same = keys[:1].expand(len(keys) * steps)
    frames = pictures.draw(model, same, seed, z=z, ws=ws, batch_size=options.batch_size)
    path = None if options.animate is None else options.animate.expanduser()
    images = pictures.animate(frames, steps, path, options.fps, options.scale)
    if options.components is None:
        picture = grid(images, columns=len(images) // len(keys), scale=options.scale)
    else:
        picture = pictures.interpolation_sheet(
            images, options.numbers, options.components, psi=options.psi, scale=options.scale
        )
    text |= {"interpolate": str(steps), "space": options.space}
    save_png(options.picture, picture, options.png_text(options.numbers_as_text, **text))
    return {"grid": options.picture} | ({} if path is None else {"animation": path})


def _mix(options: SampleOptions, model: TrainedModel, text: dict[str, str]) -> Pixels:
    """Draw the sheet of two images, or the table of many."""
    mix, network = parse_mix(options.mix or ""), model.network
    layers = parse_layers(options.layers, network.num_ws)
    components = parse_components(options.components, network.z_shape[0] - 1)
    named = {"components": options.components, "layers": options.layers}
    name = ", ".join(f"{kind} {value}" for kind, value in named.items() if value is not None)
    if name:
        text["swapped"] = name
    look = {"psi": options.psi, "scale": options.scale, "batch_size": options.batch_size}
    if mix.is_pair:
        chosen = [pictures.Swap(options.components or name, components, layers)] if name else []
        swaps = chosen + pictures.single_swaps(network, layers)
        return pictures.swap_sheet(model, (mix.sources[0], mix.sources[1]), swaps, options.seed, **look)
    swap = pictures.Swap(name, components, layers)
    return pictures.mix_table(model, mix.sources, mix.targets, swap, options.seed, **look)


# Codes.


def _from_codes(options: SampleOptions) -> dict[str, Path]:
    compute = make_compute(options.device, options.precision)
    conditions = open_conditions(options, compute)
    count = len(options.numbers) if options.folder is None else 1
    pictures.check_pixels(count, *conditions.size, options.scale)
    photo = None
    if options.complete is not None:
        photo = read_cropped(options.complete.expanduser(), conditions.size)
    model = load_model(options.weights, compute=compute)
    _introduce(model, f"from {conditions.text}; ")
    if options.params.temperature == 0:
        console.notice("--temperature 0: nothing is random, and images of one condition are the same")
    start = codes.start_codes(model, conditions.size, photo, options.kept_share)
    shared = [] if conditions.picture is None else [conditions.picture]
    if photo is not None:
        rows = int((start[0, :, 0] >= 0).sum())
        console.notice(f"--keep {options.kept_share:g}: {rows} of {start.shape[1]} rows of codes are kept")
        photo = photo.copy()
        photo[:, rows * model.network.tokenizer.down :] = codes.GREY
        shared.append(photo)
    if options.folder is not None:
        return _write_code_folder(options, model, conditions, start)
    given = conditions.of(options.numbers, model)
    sampled, steps = _sample(options, model, options.numbers, given, start)
    images = decode(model.network, sampled, compute).numpy()
    written = {"grid": options.picture}
    if options.animate is not None:
        written["animation"] = options.animate.expanduser()
        layout = (options.columns, options.scale)
        codes.animate(
            model,
            sampled,
            steps,
            written["animation"],
            shared=shared,
            maps=given.maps,
            fps=options.fps,
            layout=layout,
        )
    picture = codes.lay_out(
        images, options.numbers, given, shared, conditions.text, columns=options.columns, scale=options.scale
    )
    labels = conditions.labels if given.photos is None else given.labels
    if labels is not None:
        colours = colours_of(options.dataset, num_labels(options.config))
        picture = codes.with_legend(picture, labels, colours, _label_names(options))
    text = _code_text(options, conditions, conditions.text)
    save_png(options.picture, picture, options.png_text(options.numbers_as_text, **text))
    return written


def _sample(
    options: SampleOptions,
    model: TrainedModel,
    numbers: Sequence[int],
    given: ConditionBatch,
    start: torch.Tensor,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return codes.sample_numbers(
        model, numbers, given.ids, start, options.seed, options.params, options.batch_size
    )


def _write_code_folder(
    options: SampleOptions, model: TrainedModel, conditions: Conditions, start: torch.Tensor
) -> dict[str, Path]:
    assert options.folder is not None
    numbers = np.unique(np.asarray(options.numbers, np.int64)).tolist()
    with open_folder(options.folder, overwrite=options.overwrite, scale=options.scale or 1) as add:
        for first in range(0, len(numbers), FOLDER_BLOCK):
            block = numbers[first : first + FOLDER_BLOCK]
            given = conditions.of(block, model)
            sampled, _ = _sample(options, model, block, given, start)
            texts = [
                options.png_text(str(number), **_code_text(options, conditions, text))
                for number, text in zip(block, given.texts, strict=True)
            ]
            add(block, decode(model.network, sampled, model.compute).numpy(), texts)
    return {"folder": options.folder}


def _code_text(options: SampleOptions, conditions: Conditions, condition: str) -> dict[str, str]:
    """Text chunks that say how images were sampled."""
    params, (height, width) = options.params, conditions.size
    text = {"temperature": f"{params.temperature:g}", "top_k": str(params.top_k)}
    text |= {"top_p": f"{1 if params.top_p is None else params.top_p:g}", "condition": condition}
    text |= {"size": f"{width}x{height}"}
    if options.complete:
        text |= {"complete": options.complete.name, "keep": f"{options.kept_share:g}"}
    return text


def _label_names(options: SampleOptions) -> Sequence[str] | None:
    """Return the names of labels where the data set is here and has any."""
    recipe = recipe_of_weights(options.meta, options.weights)
    try:
        return None if recipe is None else open_images(recipe).maps_of("segmentation").label_names
    except GToolError:
        return None
