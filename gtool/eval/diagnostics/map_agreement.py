"""`gtool eval --map-agreement`: do pictures of a prior show what their label maps say; with ceiling and baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    import numpy as np

    from gtool.eval.options import Request
    from gtool.metrics.map_agreement import Agreement
    from gtool.models.generate import TrainedModel
    from gtool.runtime.device import Compute

NUM_IMAGES = 256
KNOWN = "scenes"  # the data set whose classes the segmenter of the package tells
ROWS = {
    "samples": "pictures of these maps",
    "reconstructions": "ceiling: the tokenizer's reconstructions of the originals",
    "real": "ceiling: the originals",
    "shuffled": "baseline: the samples against maps of others",
}


def score(path: Path, request: Request, compute: Compute) -> dict[str, Any]:
    """Compose pictures of held-out maps and compare what they show with these; returns the record.

    Raises:
        RecipeError: a prior that composes from no label maps, or of another data set than the built-in scenes.
        CheckpointError: damaged weights, or of no prior.
    """
    import numpy as np

    from gtool.data.label_colours import colours_of
    from gtool.data.synthetic.scenes import CLASSES
    from gtool.metrics.map_agreement import NAME, NUM_CLASSES, PROTOCOL, compare_maps, others, read_maps
    from gtool.metrics.segmenter import shipped_segmenter
    from gtool.models.generate import load_model
    from gtool.models.prior.pipeline import decode, encode_images

    shipped_segmenter(NAME, NUM_CLASSES)  # before the work, should it not be there
    model = load_model(path, compute=compute)
    _require_maps(model)
    images, kept = _held_out(model, request)
    maps, real = np.asarray(images.segmentations[kept]), np.asarray(images.images[kept])
    made = _sample(model, maps, request.seed)
    with console.progress("reading maps off pictures") as update:
        update(0, 3)
        import torch

        codes = encode_images(model.network, torch.from_numpy(real), compute)
        again = decode(model.network, codes, compute).numpy()
        seen = {}
        for done, (name, pictures) in enumerate(
            (("samples", made), ("reconstructions", again), ("real", real)), start=1
        ):
            seen[name] = read_maps(pictures)
            update(done, 3)
    found = {name: compare_maps(one, maps) for name, one in seen.items()}
    if len(kept) > 1:
        found["shuffled"] = compare_maps(seen["samples"], maps[others(len(maps), request.seed)])
    record: dict[str, Any] = {
        "protocol": f"{PROTOCOL}/{KNOWN}-held-out-n{len(kept)}/{sampling_text()}",
        "num_images": len(kept),
        "seed": request.seed,
        "classes": list(CLASSES),
    }
    record |= {name: _as_record(one) for name, one in found.items()}
    colours = colours_of(KNOWN, len(CLASSES))
    record["picture"] = str(_write_sheet(path, maps, made, seen["samples"], colours, real))
    return record


def sampling_text() -> str:
    """Return how codes are drawn for scores."""
    from gtool.models.prior.config import DEFAULT_TOP_K

    return f"top-k {DEFAULT_TOP_K}"


def _require_maps(model: TrainedModel) -> None:
    if model.samples_from != "codes":
        raise CheckpointError(f"{model.path}: weights of {model.meta['model']}, not of a prior")
    kind = model.network.prior.config.condition
    if kind != "segmentation":
        raise RecipeError(
            f"{model.path}: --map-agreement: this prior is conditioned on {kind}, not on label maps"
        )
    dataset = model.meta.get("recipe", {}).get("data", {}).get("dataset")
    if dataset != KNOWN:
        raise RecipeError(
            f"{model.path}: --map-agreement: the segmenter of the package knows the built-in scenes alone, and this "
            f"prior was trained on {dataset or 'something that its file does not name'}"
        )


def _held_out(model: TrainedModel, request: Request) -> tuple[Any, np.ndarray]:
    import numpy as np

    from gtool.config.recipe import recipe_of_weights
    from gtool.data.held_out import held_out_of
    from gtool.runtime.random import derive_seed, permutation

    recipe = recipe_of_weights(model.meta, model.path)
    assert recipe is not None  # _require_maps has seen its data set
    images, kept = held_out_of(recipe, model.compute, "another run")
    num = min(len(kept), request.num or NUM_IMAGES)
    return images, np.sort(kept[permutation(len(kept), derive_seed("eval", request.seed))[:num]])


def _sample(model: TrainedModel, maps: np.ndarray, seed: int) -> np.ndarray:
    """Return an image uint8 (n, 3, H, W) of each map."""
    import numpy as np
    import torch

    from gtool.data.conditions import ids_of_maps
    from gtool.models.prior.pipeline import encode_condition

    labels = torch.from_numpy(maps.astype(np.int64))
    condition = encode_condition(model.network, labels, model.compute, ids_of_maps)
    made: list[np.ndarray] = []
    with console.progress("sampling") as update:
        for images in model.batches(torch.arange(len(maps)), seed, condition=condition):
            made.append(images.numpy())
            done = sum(map(len, made))
            update(done, len(maps), f"{done:,} of {len(maps):,} images")
    return np.concatenate(made)


def _as_record(found: Agreement) -> dict[str, Any]:
    """Return shares as plain numbers; None for classes that are in no map."""
    import math

    def plain(values: Any) -> list[float | None]:
        return [None if math.isnan(value) else float(value) for value in values]

    return {
        "pixels": found.pixels,
        "mean_iou": found.mean_iou,
        "classes": plain(found.classes),
        "ious": plain(found.ious),
    }


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


def _write_sheet(
    path: Path, maps: np.ndarray, made: np.ndarray, seen: np.ndarray, colours: np.ndarray, real: np.ndarray
) -> Path:
    """Draw maps, pictures of them, what these show, and the originals."""
    from gtool import __version__
    from gtool.data.label_colours import colour_maps
    from gtool.io.pictures import Column, Row, fit, image_cell, save_png, sheet

    count = min(8, len(maps))
    shown = {
        "map": colour_maps(maps[:count], colours),
        "sample": made[:count],
        "seen in it": colour_maps(seen[:count], colours),
        "original": real[:count],
    }
    cell = image_cell(made.shape[-1], count)
    rows = [Row(name, [fit(image, cell) for image in images]) for name, images in shown.items()]
    picture = sheet(rows, [Column("")] * count, cell, "label maps and pictures of them")
    run = path.parent
    file = f"map-agreement-{path.stem.removeprefix('weights-')}.png"
    where = run / "samples" / file if (run / "recipe.toml").is_file() else Path(file)
    save_png(where, picture, {"Software": f"gtool {__version__}"})
    return where
