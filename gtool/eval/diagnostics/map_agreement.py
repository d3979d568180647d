"""Do images of a prior show what their label maps say? Read off by a segmenter, with ceilings and a baseline."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtool import console
from gtool.config.recipe import require_recipe
from gtool.data.held_out import held_out_of
from gtool.data.label_colours import colour_maps, colours_of
from gtool.data.loader import ids_of_maps
from gtool.data.synthetic.scenes import CLASSES
from gtool.errors import CheckpointError, RecipeError
from gtool.eval.sheets import save_sheet, sheet_path
from gtool.io.pictures import Column, Row, fit, image_cell, sheet
from gtool.metrics.map_agreement import NAME, NUM_CLASSES, PROTOCOL, compare_maps, others, read_maps
from gtool.metrics.segmenter import SCENES, require_scenes, shipped_segmenter
from gtool.models.generate import TrainedModel, load_model
from gtool.models.prior.config import DEFAULT_TOP_K
from gtool.models.prior.pipeline import decode, encode_condition, encode_images
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed, permutation

NUM_IMAGES = 256
SHOWN = 8  # images on the sheet
ROWS = {
    "samples": "images of these maps",
    "reconstructions": "ceiling: the tokenizer's reconstructions of the originals",
    "real": "ceiling: the originals",
    "shuffled": "baseline: the samples against maps of others",
}


def score(path: Path, compute: Compute, *, num: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Sample images of held-out maps, compare what they show with these, write the sheet and return the record.

    RecipeError for a prior that is not conditioned on label maps, or of other images than the built-in scenes.
    """
    shipped_segmenter(NAME, NUM_CLASSES)  # before the work, should it not be there
    model = load_model(path, compute=compute)
    _require_maps(model)
    recipe = require_recipe(model.meta, path, "")
    images, kept = held_out_of(recipe, compute, "another run")
    kept = np.sort(kept[permutation(len(kept), derive_seed("eval", seed))[: num or NUM_IMAGES]])
    assert images.segmentations is not None
    maps, real = np.asarray(images.segmentations[kept]), np.asarray(images.images[kept])
    pictures = {"samples": _sample(model, maps, seed)}
    codes = encode_images(model.network, torch.from_numpy(real), compute)
    pictures |= {"reconstructions": decode(model.network, codes, compute).numpy(), "real": real}
    seen = {}
    with console.progress("reading maps off images") as update:
        for done, (name, made) in enumerate(pictures.items(), 1):
            seen[name] = read_maps(made)
            update(done, len(pictures))
    found = {name: compare_maps(one, maps) for name, one in seen.items()}
    if len(kept) > 1:
        found["shuffled"] = compare_maps(seen["samples"], maps[others(len(maps), seed)])
    record: dict[str, Any] = {
        "protocol": f"{PROTOCOL}/{SCENES}-held-out-n{len(kept)}/top-k {DEFAULT_TOP_K}",
        "num_images": len(kept),
        "seed": seed,
        "classes": list(CLASSES),
    }
    record |= found
    colours = colours_of(SCENES, len(CLASSES))
    rows = {
        "map": colour_maps(maps[:SHOWN], colours),
        "sample": pictures["samples"][:SHOWN],
        "seen in it": colour_maps(seen["samples"][:SHOWN], colours),
        "original": real[:SHOWN],
    }
    cell = image_cell(real.shape[-1], len(rows["map"]))
    cells = [Row(name, [fit(image, cell) for image in row]) for name, row in rows.items()]
    picture = sheet(cells, [Column("")] * len(rows["map"]), cell, "label maps and images of them")
    record["picture"] = str(save_sheet(picture, sheet_path(path, "map-agreement")))
    return record


def _require_maps(model: TrainedModel) -> None:
    if model.samples_from != "codes":
        raise CheckpointError(f"{model.path}: weights of {model.meta['model']}, not of a prior")
    kind = model.network.prior.config.condition
    if kind != "segmentation":
        raise RecipeError(f"{model.path}: --map-agreement: a prior conditioned on {kind}, not on label maps")
    require_scenes(model.meta, model.path, "--map-agreement")


def _sample(model: TrainedModel, maps: np.ndarray, seed: int) -> np.ndarray:
    """Return an image uint8 (n, 3, H, W) of each map."""
    labels = torch.from_numpy(maps.astype(np.int64))
    ids = encode_condition(model.network, labels, model.compute, ids_of_maps)
    made: list[np.ndarray] = []
    with console.progress("sampling") as update:
        for images in model.batches(torch.arange(len(maps)), seed, condition=ids.__getitem__):
            made.append(images.numpy())
            update(sum(map(len, made)), len(maps))
    return np.concatenate(made)


def print_tables(record: dict[str, Any], name: str) -> None:
    """Print the agreement of samples beside its ceilings and its baseline, of each class too."""
    rows = []
    for kind in (kind for kind in ROWS if kind in record):
        found = record[kind]
        shares = [found["pixels"], *found["classes"]]
        cells = ["" if share is None else f"{100 * share:.1f}" for share in shares]
        rows.append([ROWS[kind], cells[0], f"{found['mean_iou']:.3f}", *cells[1:]])
    title = f"{name}: percent of pixels of the wanted class, {record['protocol']}"
    console.table(["", "pixels", "mean IoU", *record["classes"]], rows, title)
    console.result(record["picture"])
