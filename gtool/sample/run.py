"""`gtool sample`: from options to pictures."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtool import __version__, console
from gtool.data.held_out import open_images
from gtool.data.label_colours import colours_of
from gtool.errors import GToolError, RecipeError
from gtool.io.curves import save_curves
from gtool.io.files import digest_of
from gtool.io.photo import read_cropped, read_mask
from gtool.io.pictures import Pixels, grid, open_folder, save_png
from gtool.io.video import save_animation
from gtool.io.weights import save_weights
from gtool.models.generate import TrainedModel, latents, load_model
from gtool.nn.ranges import to_pm1, to_uint8
from gtool.runtime.device import make_compute
from gtool.runtime.random import derive_seed, permutation
from gtool.sample import codes, legend, pictures
from gtool.sample.checks import DEFAULT_FPS, LATENT, Sampling
from gtool.sample.conditions import Conditions, label_names, num_labels, open_conditions
from gtool.sample.latents import interpolate, interpolated_ws
from gtool.sample.parse import Size, parse_components, parse_layers, parse_mix, parse_psis
from gtool.sample.projection import MOST_STEPS, project, read_latents, short_search

INTERPOLATION_STEPS = 16
COMPARED, MOST_FRAMES = 8, 96  # images of the training set, and frames of the animation of a projection
FOLDER_BLOCK = 256  # images whose conditions are held at a time
Drawn = tuple[Sequence[int], Pixels, Sequence[dict[str, str]]]  # numbers, images (n, 3, H, W), what each says


def run(options: Sampling) -> None:
    """Sample images by checked options and write them where the user expects them."""
    if options.legend:
        return legend.show(options)
    start = time.perf_counter()
    scores: dict[str, float] = {}
    if options.project is not None:
        written, scores = _project(options, options.project)
    else:
        written = _from_latents(options) if options.samples_from == "latents" else _from_codes(options)
    if options.as_json:
        made = {"weights": str(options.weights), "seed": options.seed, "images": len(options.numbers)}
        places = {kind: str(path) for kind, path in written.items()}
        return console.result_json(
            made | places | scores | {"seconds": round(time.perf_counter() - start, 2)}
        )
    for path in written.values():
        console.result(str(path))


def _introduce(model: TrainedModel, more: str = "") -> None:
    meta, compute = model.meta, model.compute
    trained = f"from {meta['source']}" if "source" in meta else f"after {_kimg(meta)} kimg"
    console.notice(
        f"{model.path}: {meta['model']} at {model.resolution} px, {trained}; {more}"
        f"{compute.describe()}, {compute.precision}"
    )


def _kimg(meta: dict[str, Any]) -> str:
    return f"{meta.get('nimg', 0) / 1000:g}"


def _png_text(options: Sampling, index: str | int, more: dict[str, str]) -> dict[str, str]:
    """Return text chunks that say how a picture was made, so that it can be made again."""
    weights = options.weights
    return {
        "Software": f"gtool {__version__}",
        "model": str(options.meta["model"]),
        "weights": f"{weights.resolve().parent.name}/{weights.name}",
        "kimg": _kimg(options.meta),
        "seed": str(options.seed),
        "index": str(index),
        **more,
    }


# Latents.


def _from_latents(options: Sampling) -> dict[str, Path]:
    o, seed, numbers = options, options.seed, options.numbers
    model = _load(o)
    network, resolution = model.network, model.resolution
    _check_network(o, network)
    _introduce(model)
    text = {"psi": f"{o.psi:g}"} if hasattr(network, "mapping") else {}
    if o.latents is not None:
        found = read_latents(o.latent_files, network)
        model = replace(model, found=found, chosen=tuple(found["class"].tolist()) if "class" in found else ())
        text["latents"] = ", ".join(path.name for path in o.latent_files)
    if o.of_class is not None:
        text["class"] = ", ".join(o.classes[number] for number in o.chosen)
    if o.folder is not None:
        return _write_folder(o, o.folder, _draw_latents(o, model, text))
    written = {o.kind if o.kind in ("mix", "attention") else "grid": o.picture}
    if o.kind == "interpolation":
        picture = _interpolate(o, model, text)
        written |= {} if o.animate is None else {"animation": o.animate}
    elif o.kind == "psi":
        picture = pictures.psi_sheet(model, numbers, parse_psis(o.psi_sweep), seed, scale=o.scale)
        text["psi"] = o.psi_sweep or ""
    elif o.kind == "mix":
        picture = _mix(o, model, text)
    elif o.kind == "noise":
        picture = pictures.noise_sheet(model, numbers, seed, psi=o.psi, scale=o.scale)
        text["draws"] = str(pictures.NOISE_DRAWS)
    elif o.kind == "attention":
        rows = len(numbers) * model.meta["config"]["synthesis"]["heads"] * len(network.attention_layers)
        pictures.check_pixels(rows, resolution, resolution)
        picture = np.concatenate(list(pictures.attention_sheets(model, numbers, seed, o.psi)))
    else:
        pictures.check_pixels(len(numbers), resolution, resolution, o.scale)
        numbers, columns = pictures.by_class(numbers, len(o.chosen)) if o.seeds is None else (numbers, None)
        images = np.concatenate(list(pictures.draw(model, numbers, seed, psi=o.psi)))
        picture = grid(images, columns=o.columns or columns, scale=o.scale)
    save_png(o.picture, picture, _png_text(o, o.numbers_as_text, text))
    return written


def _load(options: Sampling) -> TrainedModel:
    """Return the generator, its images of the chosen classes."""
    o = options
    return replace(load_model(o.weights, o.device, o.precision, batch_size=o.batch_size), chosen=o.chosen)


def _check_network(options: Sampling, network: Any) -> None:
    """Refuse what this network cannot do, by the flag that asks for it."""
    path = options.weights
    if options.components is not None:
        parse_components(options.components, network.z_shape[0] - 1)
    if options.layers is not None:
        parse_layers(options.layers, network.num_ws)
    if options.kind == "attention" and not network.attention_layers:
        raise RecipeError(f"--attention: {path}: attention = none has no attention to latent components")
    if options.kind == "noise" and not network.noise_shapes:
        raise RecipeError(f"--noise-variation: {path}: this model has no noise inputs")


def _write_folder(options: Sampling, folder: Path, made: Iterator[Drawn]) -> dict[str, Path]:
    """Write a file for each image."""
    with open_folder(folder, overwrite=options.overwrite, scale=options.scale or 1) as add:
        for numbers, images, texts in made:
            add(numbers, images, [_png_text(options, *one) for one in zip(numbers, texts, strict=True)])
    return {"folder": folder}


def _draw_latents(options: Sampling, model: TrainedModel, text: dict[str, str]) -> Iterator[Drawn]:
    """Draw each image, or the attention of each."""
    o, numbers, done = options, sorted(set(options.numbers)), 0
    images: Iterator[Pixels] = pictures.draw(model, numbers, o.seed, psi=o.psi)
    if o.kind == "attention":
        sheets = pictures.attention_sheets(model, numbers, o.seed, o.psi)
        images = (sheet.transpose(2, 0, 1)[None] for sheet in sheets)
    for batch in images:
        shown = numbers[done : done + len(batch)]
        own = model.classes_of(torch.tensor(shown))
        named = (
            [{}] * len(shown) if own is None else [{"class": o.classes[number]} for number in own.tolist()]
        )
        yield shown, batch, [text | one for one in named]
        done += len(batch)


def _interpolate(options: Sampling, model: TrainedModel, text: dict[str, str]) -> Pixels:
    """Return the sheet, a row from each image to the next; write the animation where one is asked for."""
    o, keys, steps = options, torch.tensor(options.numbers), options.interpolate or INTERPOLATION_STEPS
    space = o.space or "z"
    given: Any = None
    moving = None
    if o.components is not None:
        moving = parse_components(o.components, model.network.z_shape[0] - 1)
        text["components"] = o.components
    if o.psi == 1 and moving is None and space == "z" and "ws" not in model.found:
        found = model.found.get("z")
        given = interpolate(latents(model.network, o.seed, keys) if found is None else found[keys], steps)
    else:
        given = interpolated_ws(model, keys, steps, o.seed, psi=o.psi, moving=moving, space=space)
    # The noise inputs stay those of the first image, since they would flicker.
    drawn = pictures.draw(model, keys[:1].expand(len(keys) * steps), o.seed, given=given)
    images = pictures.animate(drawn, steps, o.animate, o.fps or DEFAULT_FPS, o.scale)
    text |= {"interpolate": str(steps), "space": space}
    if o.components is None:
        return grid(images, columns=len(images) // len(keys), scale=o.scale)
    return pictures.interpolation_sheet(images, o.numbers, o.components, psi=o.psi, scale=o.scale)


def _mix(options: Sampling, model: TrainedModel, text: dict[str, str]) -> Pixels:
    """Draw the sheet of two images, or the table of many."""
    o, network, (sources, targets) = options, model.network, parse_mix(options.mix)
    layers = parse_layers(o.layers, network.num_ws)
    components = parse_components(o.components, network.z_shape[0] - 1)
    named = {"components": o.components, "layers": o.layers}
    name = ", ".join(f"{kind} {value}" for kind, value in named.items() if value is not None)
    text |= {"swapped": name} if name else {}
    if targets is None and len(sources) == 2:
        chosen = [pictures.Swap(o.components or name, components, layers)] if name else []
        swaps, pair = chosen + pictures.single_swaps(network, layers), (sources[0], sources[1])
        return pictures.swap_sheet(model, pair, swaps, o.seed, psi=o.psi, scale=o.scale)
    swap = pictures.Swap(name, components, layers)
    return pictures.mix_table(model, sources, targets or sources, swap, o.seed, psi=o.psi, scale=o.scale)


# Photos.


def _project(options: Sampling, photo: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Find the latent of a photo; returns the files and the scores."""
    o, files = options, options.projected
    resolution = int(o.meta["config"]["resolution"])
    wanted = read_cropped(photo, (resolution, resolution))
    model = _load(o)
    _introduce(model)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    frames: list[Pixels] = []
    with console.progress("projecting", "steps") as update:

        def watch(image: Tensor, loss: float, of: str) -> None:
            steps, losses = curves.setdefault(of, ([], []))
            if o.animate is not None and loss <= min(losses, default=loss):
                frames.append(to_uint8(image).cpu().numpy())
            steps.append(1 + sum(len(xs) for xs, _ in curves.values()))
            losses.append(loss)
            update(steps[-1], MOST_STEPS)

        found = project(model, to_pm1(torch.from_numpy(wanted)), o.seed, watch)
    image = to_uint8(found.image).numpy()
    scores = {"psnr": round(found.psnr, 2), "distance": round(found.distance, 4)}
    note = f"{found.psnr:.1f} dB PSNR, perceptual distance {found.distance:.3f}"
    scores |= _beside_training(o, model, wanted)
    about = {"of": o.meta["model"], "weights": o.weights.name, "weights_sha256": digest_of(o.weights)}
    about |= {"model": LATENT, "photo": photo.name, "seed": o.seed}
    save_weights(files["latent"], found.tensors, about | scores)
    picture = pictures.projection_sheet(wanted, image, photo.stem, note, scale=o.scale)
    save_png(files["picture"], picture, _png_text(o, photo.name, {"projection": note}))
    title = "loss of the best start"
    save_curves(files["curve"], {title: curves}, log=(title,), axis="step")
    if o.animate is not None:
        thinned = [*frames[:: -(-len(frames) // MOST_FRAMES)], image]
        shown = (grid([wanted, frame], columns=2, scale=o.scale) for frame in thinned)
        save_animation(o.animate, shown, o.fps or DEFAULT_FPS, codes.HOLD_SECONDS)
    console.notice(f"{photo}: {note}")
    return files, scores


def _beside_training(options: Sampling, model: TrainedModel, photo: Pixels) -> dict[str, float]:
    """Say how near a short search comes to the photo and to images of the training set, where that is here."""
    try:
        recipe = options.recipe
        if recipe is None:
            return {}
        images = open_images(recipe)
        places = permutation(len(images), derive_seed("projection", options.seed))[:COMPARED].tolist()
        known = images.read_squares(places, model.resolution, recipe.data.crop)
    except GToolError as bad:
        console.notice(f"no median of the training set: {bad}")
        return {}
    squares = [photo, *(square for square in known if isinstance(square, np.ndarray))]
    own, *others = short_search(model, to_pm1(torch.from_numpy(np.stack(squares))), options.seed).tolist()
    median = float(np.median(others))
    console.notice(
        f"a short search comes to {own:.1f} dB for this photo, to {median:.1f} dB for the median of {len(others)} "
        f"images that the model was trained on ({recipe.data.dataset})"
    )
    return {"short_psnr": round(own, 2), "training_short_psnr": round(median, 2)}


# Codes.


def _from_codes(options: Sampling) -> dict[str, Path]:
    o, compute = options, make_compute(options.device, options.precision)
    conditions = open_conditions(o, compute)
    if o.steps is not None and set(conditions.size) != {o.config.resolution}:
        raise RecipeError(f"--steps {o.steps}: larger images are sampled code by code; leave --steps out")
    pictures.check_pixels(len(o.numbers) if o.folder is None else 1, *conditions.size, o.scale)
    completion = _completion(o, conditions.size)
    model = load_model(o.weights, compute=compute, batch_size=o.batch_size)
    _introduce(model, f"from {conditions.text}; ")
    start = codes.start_codes(model, conditions.size, completion)
    shared = {} if conditions.picture is None else {"map": conditions.picture}
    if completion is not None:
        flag = f"--keep {o.kept_share:g}" if o.mask is None else f"--mask {o.mask}"
        console.notice(f"{flag}: {int((start >= 0).sum())} of {start.numel()} codes are kept")
        shared["kept"] = completion.picture
    if o.folder is not None:
        return _write_folder(o, o.folder, _draw_codes(o, model, conditions, completion))
    given = conditions.of(o.numbers, model)
    sampled, steps = codes.sample_numbers(model, o.numbers, given.ids, start, o.seed, o.params)
    look = {"columns": o.columns, "scale": o.scale}
    written = {"grid": o.picture}
    if o.animate is not None:
        written["animation"] = o.animate
        frames = codes.frames(
            model,
            sampled,
            steps,
            shared=list(shared.values()),
            maps=given.maps,
            completion=completion,
            **look,
        )
        save_animation(written["animation"], frames, o.fps or DEFAULT_FPS, codes.HOLD_SECONDS)
    images = codes.images_of(model, sampled, completion)
    picture = codes.lay_out(images, o.numbers, given, shared, conditions.text, **look)
    labels = conditions.labels if given.photos is None else given.labels
    if labels is not None:
        colours = colours_of(o.recipe.data.dataset if o.recipe else "", num_labels(o.config))
        picture = codes.with_legend(picture, labels, colours, label_names(o.recipe))
    save_png(o.picture, picture, _png_text(o, o.numbers_as_text, _code_text(o, conditions, conditions.text)))
    return written


def _completion(options: Sampling, size: Size) -> codes.Completion | None:
    """Read the photo that is completed, brought to a size in pixels."""
    if options.complete is None:
        return None
    path, down = options.complete, options.config.tokenizer.down
    photo = read_cropped(path, size)
    if options.mask is not None:
        return codes.Completion(photo, read_mask(options.mask, path, size), is_pasted=True)
    hole = np.zeros(size, bool)
    hole[down * round(options.kept_share * (size[0] // down)) :] = True
    return codes.Completion(photo, hole, is_pasted=False)


def _draw_codes(
    options: Sampling, model: TrainedModel, conditions: Conditions, completion: codes.Completion | None
) -> Iterator[Drawn]:
    o, numbers = options, sorted(set(options.numbers))
    start = codes.start_codes(model, conditions.size, completion)
    for first in range(0, len(numbers), FOLDER_BLOCK):
        block = numbers[first : first + FOLDER_BLOCK]
        given = conditions.of(block, model)
        sampled, _ = codes.sample_numbers(model, block, given.ids, start, o.seed, o.params)
        texts = [_code_text(o, conditions, text) for text in given.texts]
        yield block, codes.images_of(model, sampled, completion), texts


def _code_text(options: Sampling, conditions: Conditions, condition: str) -> dict[str, str]:
    """Text chunks that say how images were sampled."""
    params, (height, width) = options.params, conditions.size
    text = {"temperature": f"{params.temperature:g}", "top_k": str(params.top_k)}
    text |= {"top_p": f"{1 if params.top_p is None else params.top_p:g}", "condition": condition}
    text |= {"size": f"{width}x{height}"}
    if options.guidance is not None:
        text["guidance"] = f"{options.guidance:g}"
    if options.steps is not None:
        text["steps"] = str(options.steps)
    if options.complete:
        part = {"keep": f"{options.kept_share:g}"} if options.mask is None else {"mask": options.mask.name}
        text |= {"complete": options.complete.name, **part}
    return text
