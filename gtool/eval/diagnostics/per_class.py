"""`--per-class`: rfd and swd of the images of each class against the real ones of that class.

Scores of all images say little of one class: a generator may make good ships and no frogs. Every class is scored at the
same number of images, and its number here is the ratio to its floor, what other real images of the class get.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gtool import console
from gtool.errors import DataError, RecipeError
from gtool.eval.image_sets import StoredImages
from gtool.eval.sheets import save_sheet, sheet_path
from gtool.io.pictures import Column, Row, fit, image_cell, sheet
from gtool.metrics.images import Subset
from gtool.metrics.weight_free import WeightFreeScorer
from gtool.models.generate import TrainedModel, load_model
from gtool.models.prior.config import drops_conditions
from gtool.runtime.device import Compute

PROTOCOL = "per-class-v1"
NUM_IMAGES = 500  # of each class
SHOWN = 6  # images of each side in a row of the sheet
ROWS = 20  # of the sheet: the worst classes where there are more


def score(
    path: Path, real: StoredImages, compute: Compute, *, num: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Score `num` images of each class, fewer where a class has not twice as many; write the sheet.

    real: all images of the reference, with labels.

    Raises:
        RecipeError: the model takes no classes.
        DataError: the reference has none, or not four images of each.
    """
    model = load_model(path, compute=compute)
    classes = _classes(model, real)
    smallest = min(len(places) for places in classes.values())
    count = min(num or NUM_IMAGES, smallest // 2)
    if count < 2:
        raise DataError(f"{real.name}: --per-class needs 4 images of each class; one has {smallest}")
    found, rows = list[dict[str, Any]](), list[list[np.ndarray]]()
    with console.progress("scoring each class", "classes") as update:
        for number, (name, places) in enumerate(classes.items()):
            images = Subset(real.images, real.chosen[places])
            made = torch.cat(list(model.batches(torch.arange(count), seed, condition=number)))
            scores = WeightFreeScorer.build(images, num=count, seed=seed, device=compute.device).score(made)
            found.append({"class": name, "ratio": scores["rfd"] / scores["rfd_floor"], **scores})
            rows.append([*made[:SHOWN].numpy(), *np.array(images[:SHOWN])])
            update(number + 1, len(classes))
    ratios = [one["ratio"] for one in found]
    worst = np.argsort(ratios, kind="stable")[::-1][:ROWS]
    labels = [f"{found[i]['class']}\n{ratios[i]:.1f} times" for i in worst]
    return {
        "protocol": f"{PROTOCOL}/ref-{real.name}/n{count}",
        "num_images": count,
        "mean_ratio": float(np.mean(ratios)),
        "worst_ratio": max(ratios),
        "classes": found,
        "picture": str(_picture(labels, [rows[i] for i in worst], path)),
    }


def _classes(model: TrainedModel, real: StoredImages) -> dict[str, np.ndarray]:
    """Return the name of each class of the model -> its places in the reference, in the order of class numbers."""
    count = _num_classes(model)
    if real.dataset is None or real.dataset.labels is None:
        raise DataError(f"{real.name}: --per-class needs the class of each image, and there are none")
    labels = real.dataset.labels[real.places[real.chosen]]
    theirs = real.dataset.class_names or tuple(map(str, range(labels.max(initial=-1) + 1)))
    names = tuple(model.meta["config"].get("classes", theirs))  # a prior knows them by number alone
    if len(names) != count or not set(names) <= set(theirs):
        raise DataError(f"{real.name}: its classes are not those that {model.path} was trained on")
    return {name: np.flatnonzero(labels == theirs.index(name)) for name in names}


def _num_classes(model: TrainedModel) -> int:
    if model.samples_from == "latents":
        count = int(model.network.num_classes)
    else:
        prior = model.network.prior.config
        is_by_class = prior.condition == "class"
        count = prior.condition_size - drops_conditions(model.meta) if is_by_class else 0
    if not count:
        raise RecipeError(f"{model.path}: --per-class: trained without classes")
    return count


def _picture(labels: list[str], rows: list[list[np.ndarray]], path: Path) -> Path:
    columns = len(rows[0])
    half = columns // 2
    cell = image_cell(rows[0][0].shape[-1], columns)
    heads = [Column("generated" if place < half else "real") for place in range(columns)]
    title = f"{path.parent.name}/{path.name}: each class, rfd over its floor, worst first"
    lines = [Row(label, [fit(image, cell) for image in row]) for label, row in zip(labels, rows, strict=True)]
    return save_sheet(sheet(lines, heads, cell, title), sheet_path(path, "per-class"))


def print_tables(record: dict[str, Any], name: str) -> None:
    """Print a row for each class, the worst first."""
    ordered = sorted(record["classes"], key=lambda one: -one["ratio"])
    levels = [key for key in ordered[0] if key.startswith("swd_") and not key.endswith("_floor")]
    heads = ["class", "rfd", "times its floor", *(f"{level}, times" for level in levels)]
    rows = [
        [one["class"], f"{one['rfd']:.2f}", f"{one['ratio']:.1f}"]
        + [f"{one[level] / one[f'{level}_floor']:.1f}" for level in levels]
        for one in ordered
    ]
    console.table(heads, rows, f"{name}: {record['protocol']}")
    console.result(record["picture"])
