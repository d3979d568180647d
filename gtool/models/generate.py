"""Images from trained weights: latents or codes, the same for every family that makes images.

Image i of a seed depends on (seed, i), its condition and the sampling parameters alone: latents, noise inputs and the
numbers that pick codes are functions of seed and image number.

Axis letters: N images, b of them in a batch, K latent components, d their width, L layers that take a w, R resolution.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from gtool.config.schema import Recipe
from gtool.errors import CheckpointError, RecipeError
from gtool.io.run_folder import find_weights
from gtool.models import registry
from gtool.models.prior.config import DEFAULT_TOP_K, SPATIAL, SamplingParams, drops_conditions
from gtool.models.prior.network import for_sampling
from gtool.models.prior.pipeline import decode
from gtool.models.prior.sampling import BATCH, UNKNOWN, sample_codes, uniform_numbers
from gtool.models.trained import open_trained
from gtool.nn.ranges import to_uint8
from gtool.runtime.device import Compute, make_compute
from gtool.runtime.torch_random import hashed_normal

WsOfRows = Callable[[Tensor], Tensor]  # rows (b,) of some image numbers -> ws (b, L, K, d) on the device
MEAN_LATENTS = 4096  # that the mean w is taken over
MEAN_CHUNK = 512


@dataclass(frozen=True)
class TrainedModel:
    """A trained generator, or a prior with its tokenizer, in eval mode on its device.

    network: a generator of latents, or a `PriorPipeline`.
    meta: of the weights file: model, config, recipe, nimg.
    batch_size: images per forward; None for what suits the model.
    chosen: classes that the images of a conditional generator take in turn, by their numbers; () for all.
    found: latents of photos, which images 0, 1, ... have in place of those of a seed: `z` (n, *z_shape) or `ws`
        (n, L, K, d), and noise inputs `noise.0`, ... (n, *shape).
    """

    path: Path
    network: Any
    meta: dict[str, Any]
    compute: Compute
    batch_size: int | None = None
    chosen: tuple[int, ...] = ()
    found: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def resolution(self) -> int:
        """Pixels of a side, of the training."""
        return int(self.meta["config"]["resolution"])

    @property
    def samples_from(self) -> str:
        """`latents` or `codes`."""
        return str(registry.find_model(self.meta["model"]).samples_from)

    def images_at_once(self, most: int = 256) -> int:
        """Return a batch size at which batches of any resolution have about as many pixels."""
        default = BATCH if self.samples_from == "codes" else max(4, min(most, 2**18 // self.resolution**2))
        return self.batch_size or default

    def sample(self, num: int = 1, seed: int = 0, **options: Any) -> np.ndarray:
        """Return images 0 to num - 1 of a seed as uint8 (num, R, R, 3); options as of `batches`."""
        images = torch.cat(list(self.batches(torch.arange(num), seed, **options)))
        return images.permute(0, 2, 3, 1).contiguous().numpy()

    def batches(
        self,
        indices: Tensor,
        seed: int = 0,
        *,
        psi: float = 1.0,
        condition: int | Callable[[Tensor], Tensor] | None = None,
        params: SamplingParams | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Tensor]:
        """Yield images uint8 (b, 3, R, R) on the CPU, batch after batch.

        Args:
            indices: int64 (N,) image numbers.
            seed: with its number, all that an image depends on.
            psi: truncation of w, 1 for none; of generators with a mapping network.
            condition: a class for all images, or a function from image numbers (b,) to the ids of these images:
                classes (b,) of a conditional generator, which without it takes all in turn; (b, 1) or (b, h, w) of a
                prior, None where it has no condition or was trained to do without.
            params: how a prior samples codes; None for temperature 1 and the 100 most likely codes. Guidance needs a
                prior that was trained without its condition at times.
            batch_size: images per forward, in place of the model's.

        Raises:
            RecipeError: an option that the model does not have, a condition that is missing.
            CheckpointError: the network makes values that are not finite.
        """
        batch_size = batch_size or self.images_at_once()
        if self.samples_from == "latents":
            count = self.network.num_classes
            if params is not None or (condition is not None and not count):
                what = (
                    "no params" if params is not None else "no condition, as it was trained without classes"
                )
                raise RecipeError(f"{self.meta['model']} samples from latents: {what}")
            if isinstance(condition, int):
                if not 0 <= condition < count:
                    raise RecipeError(f"condition {condition}: there are classes from 0 to {count - 1}")
                condition = partial(torch.full_like, fill_value=condition)
            classes = self.classes_of(indices) if condition is None else condition(indices)
            return self._from_latents(indices, seed, psi, batch_size, classes)
        if psi != 1:
            raise RecipeError(f"{self.meta['model']} samples from codes: no psi")
        if params is not None and params.guidance != 1 and not drops_conditions(self.meta):
            raise RecipeError(
                f"{self.path}: guidance needs a prior that was trained without its condition at times"
            )
        ids_of = condition if callable(condition) else self.no_condition
        if isinstance(condition, int):
            ids_of = partial(torch.full_like, fill_value=condition)
        return self._from_codes(indices, seed, ids_of, params or self.default_params, batch_size)

    def classes_of(self, numbers: Tensor) -> Tensor | None:
        """Return the classes of image numbers (N,), int64, those chosen in turn; None where there are no classes."""
        return classes_in_turn(self.network, numbers, self.chosen)

    def _from_latents(
        self, indices: Tensor, seed: int, psi: float, batch_size: int, classes: Tensor | None
    ) -> Iterator[Tensor]:
        ws = None if psi == 1 else self.ws(indices, seed, psi, classes)
        made = batches(
            self.network, seed, indices, self.compute, batch_size=batch_size, given=ws, classes=classes
        )
        done = 0
        for images, _ in made:
            self.require_finite(images, indices[done : done + len(images)])
            done += len(images)
            yield to_uint8(images).cpu()

    def require_finite(self, images: Tensor, numbers: Tensor) -> None:
        """Raise CheckpointError where images (b, 3, R, R), of these numbers (b,), have values that are not finite."""
        if not torch.isfinite(images).all():
            raise CheckpointError(
                f"{self.path}: the generator makes values that are not finite "
                f"(images {int(numbers[0])} to {int(numbers[-1])})"
            )

    def _from_codes(
        self,
        indices: Tensor,
        seed: int,
        ids_of: Callable[[Tensor], Tensor],
        params: SamplingParams,
        batch_size: int,
    ) -> Iterator[Tensor]:
        grid = self.network.config.prior.grid
        for start in range(0, len(indices), batch_size):
            part = indices[start : start + batch_size]
            codes, uniform = torch.full((len(part), *grid), UNKNOWN), uniform_numbers(seed, part, grid)
            ids = ids_of(part)
            ids = ids[:, None] if ids.ndim == 1 else ids
            codes = sample_codes(self.prior, ids, codes, uniform, params, batch_size=batch_size)
            yield decode(self.network, codes, self.compute)

    # Priors.

    @cached_property
    def prior(self) -> Any:
        """The prior with its matrices in the precision that it computes in."""
        return for_sampling(self.network.prior, torch.bfloat16 if self.compute.bf16 else torch.float32)

    @property
    def default_params(self) -> SamplingParams:
        """Temperature 1, the 100 most likely codes."""
        return SamplingParams(top_k=min(DEFAULT_TOP_K, self.network.config.prior.codebook_size))

    def no_condition(self, indices: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the ids of images without a condition, int64 (N, 1) or (N, *grid).

        Raises:
            RecipeError: the prior was always given one in training.
        """
        config = self.network.config.prior
        if config.condition != "none" and not drops_conditions(self.meta):
            raise RecipeError(f"{self.path}: this prior needs a condition: {config.condition}")
        cells = (grid or config.grid) if config.condition in SPATIAL else (1,)
        last = 0 if config.condition == "none" else config.condition_size - 1
        return torch.full((len(indices), *cells), last)

    # Generators with a mapping network.

    @cached_property
    @torch.no_grad()
    def mean_w(self) -> Tensor:
        """The mean w (K, d) of always the same latents, to which truncation pulls: it depends on the weights alone.

        Of a conditional generator one for each class, (C, K, d), of an eighth of the latents.
        """
        if not self.network.num_classes:
            return self._mean_w(MEAN_LATENTS, None)
        means = [self._mean_w(MEAN_CHUNK, torch.tensor([one])) for one in range(self.network.num_classes)]
        return torch.stack(means)

    def _mean_w(self, count: int, one: Tensor | None) -> Tensor:
        total, device = torch.zeros(self.network.z_shape, dtype=torch.float64), self.compute.device
        classes = () if one is None else (one.expand(MEAN_CHUNK).to(device),)
        for numbers in torch.arange(count).view(-1, MEAN_CHUNK):
            z = latents(self.network, 0, numbers, "mean-w").to(device)
            total += self.network.mapping(z, *classes).cpu().double().sum(0)
        return (total / count).float().to(device)

    def found_noise(self, indices: Tensor) -> list[Tensor]:
        """Return the noise inputs (N, *shape) that were found for photos, empty where there are none."""
        layers = range(len(self.network.noise_shapes) if self.found else 0)
        return [self.found[f"noise.{layer}"][indices] for layer in layers]

    def w(self, z: Tensor, psi: float | Tensor = 1.0, classes: Tensor | None = None) -> Tensor:
        """z (N, K, d) -> w (N, K, d) on the device, each component pulled to its own mean, that of its class.

        psi: truncation, a number or one for each image (N,); 1 leaves w as the mapping makes it.
        classes: int64 (N,) or (1,), of a conditional generator.
        """
        own = () if classes is None else (classes.expand(len(z)).to(self.compute.device),)
        w: Tensor = self.network.mapping(z.to(self.compute.device), *own)
        if not isinstance(psi, Tensor) and psi == 1:
            return w
        share = torch.as_tensor(psi, dtype=w.dtype, device=w.device).view(-1, 1, 1)
        mean = self.mean_w[own[0]] if own else self.mean_w
        return torch.lerp(mean.expand_as(w), w, share)  # exactly w at 1

    def ws(
        self, indices: Tensor, seed: int, psi: float | Tensor = 1.0, classes: Tensor | None = None
    ) -> WsOfRows:
        """Return what makes the truncated ws of image numbers (N,), batch after batch; their own classes by default."""
        classes = self.classes_of(indices) if classes is None else classes

        def ws(rows: Tensor) -> Tensor:
            own = psi[rows] if isinstance(psi, Tensor) else psi
            if "ws" in self.found:
                found = self.found["ws"][indices[rows]].to(self.compute.device)
                share = torch.as_tensor(own, dtype=found.dtype, device=found.device).view(-1, 1, 1, 1)
                mean = self.mean_w if classes is None else self.mean_w[classes[rows], None]
                return torch.lerp(mean.expand_as(found), found, share)
            z, of = latents(self.network, seed, indices[rows]), None if classes is None else classes[rows]
            return self.network.broadcast(self.w(z, own, of))

        return ws


def load_model(
    path: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    *,
    compute: Compute | None = None,
    batch_size: int | None = None,
) -> TrainedModel:
    """Load a run, a weights file or a hub id as a model that makes images; None for the newest run.

    Device and precision as of `make_compute`; `compute` takes their place where there is one already. batch_size:
    images per forward, None for what suits the model.

    Raises:
        CheckpointError: no such weights, damaged ones, or of a model that makes no images.
    """
    trained = open_trained(find_weights(None if path is None else str(path)))
    row = registry.find_model(trained.model)
    if row.samples_from is None:
        raise CheckpointError(
            f"{trained.path}: weights of {trained.model}, which makes no images by itself; "
            f"use `{row.next_command.format(path=trained.path)}`"
        )
    compute = compute or make_compute(device, precision)
    network = trained.network().to(compute.device).eval().requires_grad_(False)
    return TrainedModel(trained.path, network, trained.meta, compute, batch_size)


def sample_images(
    path: str | Path | None = None, *, num: int = 1, seed: int = 0, **options: Any
) -> np.ndarray:
    """Return images 0 to num - 1 of a seed from trained weights as uint8 (num, R, R, 3).

    Short for `load_model(path).sample(num, seed, **options)`: to sample more than once, load once.
    """
    return load_model(path).sample(num, seed, **options)


def weights_meta(recipe: Recipe, config: Any, nimg: int) -> dict[str, Any]:
    """Describe a weights file so that it can be used alone."""
    return {
        "model": recipe.model_name,
        "config": config.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json", by_alias=True, exclude_none=True),
        "nimg": nimg,
    }


def classes_in_turn(generator: Any, numbers: Tensor, chosen: Sequence[int] = ()) -> Tensor | None:
    """Return classes int64 (N,) of image numbers, those chosen, or all, in turn; None of a generator without any."""
    if not generator.num_classes:
        return None
    among = torch.tensor(chosen or range(generator.num_classes))
    return among[numbers % len(among)]


def latents(generator: Any, seed: int, indices: Tensor, stream: str = "z") -> Tensor:
    """Return z (n, *z_shape) for image numbers; row i depends on (seed, stream, indices[i]) alone."""
    return _normal(seed, indices, generator.z_shape, stream)


def noise_inputs(generator: Any, seed: int, indices: Tensor) -> list[Tensor]:
    """Return the noise inputs (n, *shape) of image numbers, one for each of `noise_shapes`."""
    shapes = enumerate(generator.noise_shapes)
    return [_normal(seed, indices, shape, f"noise-{layer}") for layer, shape in shapes]


def generate(
    generator: Any,
    seed: int,
    indices: Tensor,
    compute: Compute,
    *,
    batch_size: int = 64,
    classes: Tensor | None = None,
) -> Iterator[Tensor]:
    """Yield uint8 (b, 3, R, R) on the CPU for the image numbers in `indices`; arguments as of `batches`."""
    for images, _ in batches(generator, seed, indices, compute, batch_size=batch_size, classes=classes):
        yield to_uint8(images).cpu()


@torch.no_grad()
def batches(
    generator: Any,
    seed: int | Sequence[Tensor],
    indices: Tensor,
    compute: Compute,
    *,
    batch_size: int = 64,
    given: Tensor | WsOfRows | None = None,
    classes: Tensor | None = None,
    with_maps: bool = False,
) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield images (b, 3, R, R) as the generator makes them, on the device, and their attention.

    Args:
        generator: a network with `z_shape` and `noise_shapes`, in eval mode, on the device of `compute`.
        seed: with the image number, all that an image depends on; or noise inputs (n, *shape) each, beside `given`.
        indices: int64 (n,); they also choose the noise inputs.
        batch_size: images per forward.
        given: in place of the seeded latents others (n, *z_shape), or what makes ws (b, L, K, d) from rows (b,) of
            `indices`.
        classes: int64 (n,), of a conditional generator; ws have theirs in them.
        with_maps: also yield a tensor (b, heads, k, h, w) for each of the generator's attention layers, else ().
    """
    for start in range(0, len(indices), batch_size):
        compute.follow_load()
        count = min(batch_size, len(indices) - start)
        # Every forward has the same size: matrix kernels of other sizes round differently, and an image would depend
        # on how many are made with it.
        rows = torch.arange(start, start + batch_size).clamp(max=len(indices) - 1)
        chosen = indices[rows]
        drawn = noise_inputs(generator, seed, chosen) if isinstance(seed, int) else [x[rows] for x in seed]
        noise = [x.to(compute.device) for x in drawn] or None
        with compute.autocast():
            if callable(given) and not isinstance(given, Tensor):
                images, maps = generator.synthesis(given(rows), noise, with_maps=with_maps)
            else:
                chunk = given[rows] if given is not None else latents(generator, cast(int, seed), chosen)
                own = () if classes is None else (classes[rows].to(compute.device),)
                images, maps = generator(chunk.to(compute.device), noise, *own), ()
        yield images[:count], tuple(layer[:count] for layer in maps)


def _normal(seed: int, indices: Tensor, shape: Sequence[int], stream: str) -> Tensor:
    """Return N(0, 1) numbers (n, *shape)."""
    return hashed_normal(seed, indices, math.prod(shape), stream).view(len(indices), *shape)
