"""`gtool eval --reconstruction`: how near a tokenizer's pictures are to the originals, as a table and a sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import CheckpointError, RecipeError
from gtool.models import registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gtool.data.pixel_cache import Stored
    from gtool.eval.options import Request
    from gtool.runtime.device import Compute

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


@dataclass(frozen=True)
class Subject:
    """A tokenizer, alone or with the prior over its codes, with the metadata of its file."""

    path: Path
    model: str
    tokenizer: Any
    meta: dict[str, Any]

    @property
    def resolution(self) -> int:
        """Pixels of a side, of the training."""
        return int(self.meta["config"]["resolution"])


def load_subject(path: Path, compute: Compute) -> Subject:
    """Load the tokenizer of a weights file.

    Raises:
        CheckpointError: damaged.
        RecipeError: weights of a model without a tokenizer.
    """
    from gtool.models.trained import open_trained

    trained = open_trained(path)
    if not registry.find_model(trained.model).reconstructs:
        raise RecipeError(
            f"{path}: --reconstruction: weights of {trained.model}, which has no tokenizer; "
            f"name a run of {' or '.join(registry.models_that(reconstructs=True))}"
        )
    network: Any = trained.network()
    tokenizer = getattr(network, "tokenizer", network)  # a prior's weights hold its tokenizer as well
    if tokenizer.image_channels != 3:
        raise RecipeError(
            f"{path}: --reconstruction: a tokenizer of maps with {tokenizer.image_channels} channels, and pictures "
            "have 3"
        )
    return Subject(
        path, trained.model, tokenizer.to(compute.device).eval().requires_grad_(False), trained.meta
    )


def score(path: Path, request: Request, compute: Compute) -> dict[str, Any]:
    """Score reconstructions, write the sheet and return the record.

    Raises:
        RecipeError: weights of a model without a tokenizer.
        DataError, CheckpointError: no images to compare with.
    """
    subject = load_subject(path, compute)
    images, chosen, name = open_real(request, subject.meta, path, compute)
    return _measure(subject, images, chosen, name, request, compute)


def open_real(
    request: Request, meta: dict[str, Any], path: Path, compute: Compute
) -> tuple[Stored, np.ndarray, str]:
    """Return images, the places of those that are compared, and their name in protocols.

    They are what the training has kept aside, unless the user names a data set or a split.

    Raises:
        CheckpointError: weights that do not say what they were trained on.
    """
    import numpy as np

    from gtool.config.recipe import recipe_of_weights
    from gtool.data.held_out import held_out_of
    from gtool.eval.image_sets import open_stored
    from gtool.eval.run import reference_of, refuse_resolution
    from gtool.runtime.random import derive_seed, permutation

    refuse_resolution(request, meta, path)
    num, recipe = request.num or NUM_IMAGES, recipe_of_weights(meta, path)
    if request.reference is not None or request.split is not None:
        stored = open_stored(reference_of(request, meta, path), num, request.seed)
        return stored.images, stored.chosen, stored.name
    if recipe is None:
        raise CheckpointError(
            f"{path}: does not say what it was trained on; name a data set with --reference"
        )
    images, kept = held_out_of(recipe, compute, "--reference NAME")
    if len(kept) > num:
        kept = np.sort(kept[permutation(len(kept), derive_seed("eval", request.seed))[:num]])
    return images.images, kept, f"{recipe.data.dataset.split('/')[-1]}-held-out"


def _measure(
    subject: Subject, images: Stored, chosen: np.ndarray, name: str, request: Request, compute: Compute
) -> dict[str, Any]:
    import numpy as np
    import torch

    from gtool.metrics.reconstruction import PROTOCOL, Nearness

    found, made = Nearness(subject.tokenizer.codebook_size), []
    with console.progress("reconstructing") as update:
        for start in range(0, len(chosen), request.batch_size):
            real = torch.from_numpy(np.array(images[chosen[start : start + request.batch_size]]))
            again, codes = reconstruct(subject.tokenizer, real, compute)
            found.add(again, real, codes)
            made.append(again)
            update(found.count, len(chosen), f"{found.count:,} of {len(chosen):,} images")
    everything = torch.cat(made)
    record: dict[str, Any] = {
        "protocol": f"{PROTOCOL}/{name}-n{len(chosen)}",
        "num_images": len(chosen),
        "codebook_size": subject.tokenizer.codebook_size,
        **found.scores(),
        **_rfd(images, chosen, everything, request, compute),
    }
    record["picture"] = str(_write_sheet(subject, images, chosen, everything, name))
    return record


def reconstruct(tokenizer: Any, real: Tensor, compute: Compute) -> tuple[Tensor, Tensor]:
    """Return reconstructions uint8 (n, 3, H, W) and codes (n, h, w), on the CPU, of images uint8."""
    import torch

    from gtool.nn.ranges import to_pm1, to_uint8

    with torch.no_grad(), compute.autocast():
        found = tokenizer(to_pm1(real.to(compute.device)))
    return to_uint8(found.reconstruction).cpu(), found.codes.cpu()


def _rfd(images: Any, chosen: np.ndarray, made: Tensor, request: Request, compute: Compute) -> dict[str, Any]:
    """Compare the reconstructions of one half with the originals of the other; the floor: its own originals do that.

    So the ratio says what reconstruction alone has changed.
    """
    import numpy as np

    from gtool.metrics.features.collector import Features
    from gtool.metrics.images import Subset
    from gtool.metrics.rfd import RandomFeatures, rfd
    from gtool.runtime.random import derive_seed, permutation

    half = len(chosen) // 2
    if half < 2 or made.shape[-1] < 16:
        return {}
    order = permutation(len(chosen), derive_seed("yardstick", request.seed))
    first, second = np.sort(order[:half]), np.sort(order[half : 2 * half])
    reference = Subset(images, chosen[first])
    extractor = RandomFeatures(reference, device=compute.device)
    real = Features.of(extractor(reference))
    value, floor = (
        rfd(Features.of(extractor(one)), real)["rfd"]
        for one in (made[second], Subset(images, chosen[second]))
    )
    return {"rfd": value, "rfd_floor": floor, "rfd_ratio": value / floor if floor else None, "rfd_num": half}


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


def _write_sheet(subject: Subject, images: Any, chosen: np.ndarray, made: Tensor, name: str) -> Path:
    """Draw originals, reconstructions and where they differ."""
    import numpy as np

    from gtool import __version__
    from gtool.io.pictures import Column, Row, fit, heat, image_cell, save_png, sheet

    real, again = np.array(images[chosen[:SHOWN]]), made[:SHOWN].numpy()
    change = np.abs(again.astype(np.float32) - real).mean(axis=1)  # (n, H, W)
    largest = max(1.0, float(change.max()))
    cell = image_cell(real.shape[-1], len(real))
    rows = [
        Row("original", [fit(image, cell) for image in real]),
        Row("reconstruction", [fit(image, cell) for image in again]),
        Row("difference", [fit(heat(one, largest), cell) for one in change]),
    ]
    note = f"black 0, white {largest:.0f} of 255"
    picture = sheet(rows, [Column(f"image {place}") for place in chosen[:SHOWN]], cell, name, note)
    run = subject.path.parent
    file = f"reconstruction-{subject.path.stem.removeprefix('weights-')}.png"
    path = run / "samples" / file if (run / "recipe.toml").is_file() else Path(file)
    save_png(path, picture, {"Software": f"gtool {__version__}", "images": name})
    return path
