"""How near the reconstructions of a tokenizer are to the originals, and how many of its codes it uses."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gtool import console
from gtool.config.recipe import require_recipe
from gtool.data.held_out import held_out_of
from gtool.errors import RecipeError
from gtool.eval.image_sets import ImageSpec, open_stored
from gtool.eval.sheets import save_differences, sheet_path
from gtool.metrics.features.collector import Features
from gtool.metrics.frechet import frechet
from gtool.metrics.images import Subset
from gtool.metrics.paired import pixel_scores
from gtool.metrics.rfd import RandomFeatures
from gtool.models import registry
from gtool.models.trained import open_trained
from gtool.nn.quantizers import codebook_usage, count_codes
from gtool.nn.ranges import to_pm1, to_uint8
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed, permutation

PROTOCOL = "reconstruction-v1"
NUM_IMAGES = 2000
SHOWN = 8  # images on the sheet
UNITS = {
    "psnr": "dB, higher is nearer",
    "ssim": "1 is equal",
    "l1": "of 255, 0 is equal",
    "rfd": "",
    "codes_used": "share of the codebook",
    "perplexity": "codes as many, if all were as frequent",
}


def score(
    path: Path,
    compute: Compute,
    spec: ImageSpec | None = None,
    *,
    num: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Reconstruct images, compare them with the originals, write the sheet and return the record.

    spec: the images; None for those that training has kept aside.

    Raises:
        RecipeError: weights of a model without a tokenizer of images.
        DataError, CheckpointError: no images to compare with.
    """
    tokenizer, meta = load_tokenizer(path, compute)
    images, chosen, name = _open_images(path, meta, compute, spec, num or NUM_IMAGES, seed)
    values: dict[str, list[Tensor]] = {}
    counts, made = torch.zeros(tokenizer.codebook_size, dtype=torch.int64), []
    with console.progress("reconstructing") as update:
        for start in range(0, len(chosen), batch_size):
            real = torch.from_numpy(np.array(images[chosen[start : start + batch_size]]))
            with torch.no_grad(), compute.autocast():
                found = tokenizer(to_pm1(real.to(compute.device)))
            again = to_uint8(found.reconstruction).cpu()
            for key, of_images in pixel_scores(again, real).items():
                values.setdefault(key, []).append(of_images)
            counts += count_codes(found.codes.cpu(), len(counts))
            made.append(again)
            update(start + len(real), len(chosen))
    everything = torch.cat(made)
    record: dict[str, Any] = {
        "protocol": f"{PROTOCOL}/{name}-n{len(chosen)}",
        "num_images": len(chosen),
        "codebook_size": tokenizer.codebook_size,
        **{key: float(torch.cat(of_images).mean()) for key, of_images in values.items()},
        **codebook_usage(counts),
        **_rfd(images, chosen, everything, seed, compute),
    }
    shown = chosen[:SHOWN]
    rows = {"original": [*np.array(images[shown])], "reconstruction": [*everything[:SHOWN].numpy()]}
    target, labels = sheet_path(path, "reconstruction"), [f"image {place}" for place in shown]
    record["picture"] = str(save_differences(rows, labels, name, target, {"images": name}))
    return record


def load_tokenizer(path: Path, compute: Compute) -> tuple[Any, dict[str, Any]]:
    """Load the tokenizer of a weights file, alone or of a prior, with the metadata; raises what `score` does."""
    trained = open_trained(path)
    if not registry.find_model(trained.model).reconstructs:
        raise RecipeError(
            f"{path}: --reconstruction: weights of {trained.model}, which has no tokenizer; "
            f"name a run of {' or '.join(registry.models_that(reconstructs=True))}"
        )
    network: Any = trained.network()
    tokenizer = getattr(network, "tokenizer", network)
    if tokenizer.image_channels != 3:
        raise RecipeError(
            f"{path}: --reconstruction: a tokenizer of maps with {tokenizer.image_channels} channels, and images "
            "have 3"
        )
    return tokenizer.to(compute.device).eval().requires_grad_(False), trained.meta


def _open_images(
    path: Path, meta: dict[str, Any], compute: Compute, spec: ImageSpec | None, num: int, seed: int
) -> tuple[Any, np.ndarray, str]:
    """Return images, the places of those that are compared, and their name in protocols."""
    if spec is not None:
        stored = open_stored(spec, num, seed)
        return stored.images, stored.chosen, stored.name
    recipe = require_recipe(meta, path, "; name a data set with --reference")
    images, kept = held_out_of(recipe, compute, "--reference NAME")
    if len(kept) > num:
        kept = np.sort(kept[permutation(len(kept), derive_seed("eval", seed))[:num]])
    return images.images, kept, f"{recipe.data.dataset.split('/')[-1]}-held-out"


def _rfd(images: Any, chosen: np.ndarray, made: Tensor, seed: int, compute: Compute) -> dict[str, Any]:
    """Compare the reconstructions of one half with the originals of the other; the floor: its own originals.

    So the ratio says what reconstruction alone has changed.
    """
    half = len(chosen) // 2
    if half < 2 or made.shape[-1] < 16:
        return {}
    order = permutation(len(chosen), derive_seed("yardstick", seed))
    first, second = np.sort(order[:half]), np.sort(order[half : 2 * half])
    extractor = RandomFeatures(Subset(images, chosen[first]), device=compute.device)
    real, fake, floor = (
        Features.of(extractor(one))
        for one in (Subset(images, chosen[first]), made[second], Subset(images, chosen[second]))
    )
    found = [frechet(real.gaussian, one.gaussian) for one in (fake, floor)]
    ratio = found[0] / found[1] if found[1] else None
    return {"rfd": found[0], "rfd_floor": found[1], "rfd_ratio": ratio, "rfd_num": half}


def print_tables(record: dict[str, Any], name: str) -> None:
    """Print what was measured."""
    rows = [[key, f"{record[key]:.4g}", unit] for key, unit in UNITS.items() if key in record]
    for row in rows:
        if row[0] == "rfd":
            row[2] = f"real v real {record['rfd_floor']:.4g}, halves of {record['rfd_num']}"
        if row[0] == "codes_used":
            row[2] = f"of {record['codebook_size']:,} codes"
    console.table(["measure", "value", ""], rows, f"{name}: {record['protocol']}")
    console.result(record["picture"])
