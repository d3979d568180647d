"""What priors add to `gtool train`: a tokenizer, the codes of all images, pictures that are composed of codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.data.held_out import hold_out, load_images, open_images
from gtool.errors import CheckpointError, RecipeError
from gtool.train.prior_tokenizer import PREFIX

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gtool.config.recipe import Recipe
    from gtool.data.pixel_cache import ImageSet
    from gtool.io.run_folder import RunFolder
    from gtool.runtime.device import Compute


@dataclass(frozen=True)
class Inputs:
    """What a prior learns from, found without torch."""

    source: Any
    tokenizer: Path


def open_inputs(recipe: Recipe) -> Inputs:
    """Find the images and the tokenizer.

    Raises:
        DataError: no such data, or none that can be used.
        CheckpointError: the tokenizer is not there.
    """
    path = Path(str(recipe.prior.tokenizer))
    if not path.is_file():
        raise CheckpointError(f"{path}: the tokenizer is not there; name it by --tokenizer")
    return Inputs(open_images(recipe), path)


def check(recipe: Recipe, config: Any, processes: int) -> None:
    """Find out, before any data is read, whether the recipe can be trained.

    Raises:
        RecipeError: it cannot.
    """
    if recipe.data.flip:
        raise RecipeError("data.flip: codes are computed before training; set prior.flips = true")


def step_flops(recipe: Recipe, forward: dict[str, float]) -> float:
    """Return the floating-point operations of training for each image: a forward and a backward of the prior."""
    return 3.0 * forward["prior"]


class Trainer:
    """A prior over the codes of a tokenizer that stays as it is."""

    ranked_by = "nll"

    def __init__(self, recipe: Recipe, config: Any, inputs: Inputs, compute: Compute) -> None:
        from gtool.train.prior import init_state, step

        check(recipe, config, compute.world_size)
        self.compute = compute
        resolution = recipe.data.resolution
        self.images = load_images(inputs.source, recipe, resolution, compute)
        self.recipe, self.config = _with_labels(recipe, config, self.images)
        tensors, hash_ = tokenizer_tensors(inputs.tokenizer, self.config.tokenizer)
        self.state = init_state(self.recipe, self.config, tensors, compute)
        self._read_sequences(hash_)
        self.step = step

    def _read_sequences(self, tokenizer_hash: str) -> None:
        """Have the codes of all images, and keep some aside."""
        import numpy as np
        import torch

        from gtool.data.conditions import CodeBatches, read_ids
        from gtool.data.loader import read_images
        from gtool.train.prior import HeldOut

        recipe, images, grid = self.recipe, self.images, self.config.prior.grid
        batches, kept = hold_out(images, recipe, self.compute, flip=recipe.prior.flips)
        codes = self._codes(tokenizer_hash)
        everything, none = np.arange(len(images)), np.zeros(len(images), bool)
        versions = [none, ~none] if recipe.prior.flips else [none]
        ids = torch.cat([read_ids(images, everything, grid, flipped) for flipped in versions])
        self.state.batches = CodeBatches(batches, codes, ids)
        kept = kept[: recipe.train.metric_images]
        maps = images.segmentations
        self.held_out = HeldOut(
            codes=torch.from_numpy(codes[kept].astype(np.int64)),
            conditions=ids[torch.from_numpy(kept)],
            images=read_images(images, kept[: recipe.sample.num]),
            maps=None if maps is None else np.asarray(maps[kept[: recipe.sample.num]]),
        )

    def _codes(self, tokenizer_hash: str) -> np.ndarray:
        from gtool.data.token_cache import load_codes
        from gtool.train.prior import encode_all

        recipe, tokenizer = self.recipe, self.state.ema.tokenizer
        # Codes follow the precision that they were made in, where two entries are about as near.
        made_by = f"{tokenizer_hash} {self.compute.precision}"
        with console.progress("encoding the images") as update:
            return load_codes(
                self.images,
                made_by,
                self.config.prior.grid,
                tokenizer.codebook_size,
                lambda: encode_all(tokenizer, self.images, self.compute, flips=recipe.prior.flips),
                flip=recipe.prior.flips,
                progress=lambda done, total: update(done, total, f"{done:,} of {total:,} images"),
            )

    def describe_data(self) -> str:
        """Return the data set with its size, and what images are generated from."""
        data = self.recipe.data
        told = "" if data.condition == "none" else f", each with its {data.condition}"
        kept = f", {len(self.held_out.codes):,} of them kept aside to measure on"
        return f"{data.dataset}, {len(self.images):,} images at {data.resolution} px{told}{kept}"

    def open_reports(self, run: RunFolder) -> None:
        """Show the images of whose conditions the previews are, beside these and their reconstructions."""
        from gtool.train.prior import decode
        from gtool.train.reports import save_grid

        shown = self.held_out.images.numpy()
        again = decode(self.state.ema, self.held_out.codes[: len(shown)], self.compute).numpy()
        tiles = self._beside([shown, again])
        save_grid(run, "real", tiles, self._columns(2), {"dataset": self.recipe.data.dataset})

    def preview(self) -> np.ndarray:
        """Compose pictures of the same conditions as ever, each beside its map where there is one."""
        from gtool.train.prior import preview

        return self._beside([preview(self.state, self.held_out).numpy()])

    @property
    def preview_columns(self) -> int | None:
        """Pictures a row of a preview."""
        return self._columns(1)

    def _beside(self, pictures: list[np.ndarray]) -> np.ndarray:
        """Return label maps and pictures (N, 3, R, R) in turn: (k N, 3, R, R)."""
        import numpy as np

        if self.held_out.maps is not None:
            from gtool.data.label_colours import colour_maps, colours_of

            colours = colours_of(self.recipe.data.dataset, self.images.num_labels)
            pictures = [colour_maps(self.held_out.maps, colours), *pictures]
        return np.stack(pictures, axis=1).reshape(-1, *pictures[0].shape[1:])

    def _columns(self, pictures: int) -> int | None:
        each = pictures + (self.held_out.maps is not None)
        return None if each == 1 else each * max(1, round((len(self.held_out.images) / each) ** 0.5))

    def measure(self) -> dict[str, float]:
        """Return nats a code of images that training does not see."""
        from gtool.train.prior import measure

        return measure(self.state, self.held_out)

    def next_command(self, run: RunFolder) -> str:
        """Return how to sample."""
        return f"gtool sample {run.path} --num 16"


def _with_labels(recipe: Recipe, config: Any, images: ImageSet) -> tuple[Recipe, Any]:
    """Fill in how many labels the data have.

    Raises:
        RecipeError: the run that is resumed was of data with another number of labels.
    """
    from gtool.data.conditions import condition_size

    found, told = condition_size(images), config.prior.condition_size
    if told not in (1, found):
        raise RecipeError(
            f"data: {found} labels, with that for none; this prior is of {told} (model.prior.condition_size)"
        )
    prior = config.prior.model_copy(update={"condition_size": found})
    config = type(config).model_validate(config.model_dump() | {"prior": prior.model_dump()})
    return recipe.model_copy(update={"model": config.model_dump(mode="json", exclude_none=True)}), config


def tokenizer_tensors(path: Path, config: Any) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a tokenizer, from its own file or a prior's that holds it, and a hash of them.

    Raises:
        CheckpointError: damaged.
    """
    import hashlib

    from gtool.io.weights import load_weights

    tensors = load_weights(path).tensors
    if any(name.startswith(PREFIX) for name in tensors):
        tensors = {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}
    digest = hashlib.blake2b(config.model_dump_json().encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return tensors, digest.hexdigest()
