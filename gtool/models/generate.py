"""A trained generator at work: from a weights file to images; the same for every adversarial family.

Image i of a seed depends on (seed, i) alone: latents and noise inputs are functions of these two numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gtool.config.schema import Recipe
from gtool.errors import CheckpointError
from gtool.models import registry
from gtool.models.trained import open_trained
from gtool.nn.ranges import to_uint8
from gtool.runtime.device import Compute
from gtool.runtime.torch_random import hashed_normal

WsOfRows = Callable[[Tensor], Tensor]


def weights_meta(recipe: Recipe, config: Any, nimg: int) -> dict[str, Any]:
    """Describe a weights file so that it can be used alone."""
    return {
        "model": recipe.model_name,
        "config": config.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json", by_alias=True, exclude_none=True),
        "nimg": nimg,
    }


def load_generator(path: Path, compute: Compute) -> tuple[nn.Module, dict[str, Any]]:
    """Build the generator that a weights file describes, in eval mode on the device, with the file's metadata.

    Raises:
        CheckpointError: the file is damaged, of another kind, or does not fit the model it names.
    """
    trained = open_trained(path)
    if registry.find_model(trained.model).samples_from != "latents":
        use = registry.find_model(trained.model).next_command.format(path=path)
        raise CheckpointError(
            f"{path}: weights of {trained.model}, which makes no images by itself; use `{use}`"
        )
    generator = trained.network()
    return generator.to(compute.device).eval().requires_grad_(False), trained.meta


def latents(generator: Any, seed: int, indices: Tensor, stream: str = "z") -> Tensor:
    """Return z (n, *z_shape) for image numbers; row i depends on (seed, stream, indices[i]) alone."""
    return _hashed(seed, indices, generator.z_shape, stream)


def generate(
    generator: Any,
    seed: int,
    indices: Tensor,
    compute: Compute,
    *,
    batch_size: int = 64,
    z: Tensor | None = None,
    ws: WsOfRows | None = None,
) -> Iterator[Tensor]:
    """Yield uint8 (b, 3, R, R) on the CPU for the image numbers in `indices`; arguments as of `batches`."""
    for images, _ in batches(generator, seed, indices, compute, batch_size=batch_size, z=z, ws=ws):
        yield to_uint8(images).cpu()


@torch.no_grad()
def batches(
    generator: Any,
    seed: int,
    indices: Tensor,
    compute: Compute,
    *,
    batch_size: int = 64,
    z: Tensor | None = None,
    ws: WsOfRows | None = None,
    with_maps: bool = False,
) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield images (b, 3, R, R) as the generator makes them, on the device, and their attention.

    Args:
        generator: a network with `z_shape` and `noise_shapes`, in eval mode, on the device of `compute`.
        seed: with the image number, all that an image depends on.
        indices: int64 (n,); they also choose the noise inputs.
        batch_size: images per forward.
        z: (n, *z_shape) latents to use in place of the seeded ones.
        ws: from rows (b,) of `indices` to the ws (b, L, K, d) of these images, in place of any latents.
        with_maps: also yield a tensor (b, heads, k, h, w) for each of the generator's attention layers, else ().
    """
    for start in range(0, len(indices), batch_size):
        count = min(batch_size, len(indices) - start)
        # Every forward has the same size: matrix kernels of other sizes round otherwise, and an image would depend on
        # how many are made with it.
        rows = torch.arange(start, start + batch_size).clamp(max=len(indices) - 1)
        chosen = indices[rows]
        drawn = [
            _hashed(seed, chosen, shape, f"noise-{layer}").to(compute.device)  # (b, *shape)
            for layer, shape in enumerate(generator.noise_shapes)
        ]
        noise = drawn or None
        with compute.autocast():
            if ws is not None:
                images, maps = generator.synthesis(ws(rows), noise, with_maps=with_maps)
            else:
                chunk = latents(generator, seed, chosen) if z is None else z[rows]
                images, maps = generator(chunk.to(compute.device), noise), ()
        yield images[:count], tuple(layer[:count] for layer in maps)


def _hashed(seed: int, indices: Tensor, shape: Sequence[int], stream: str) -> Tensor:
    """Return N(0, 1) numbers (n, *shape)."""
    return hashed_normal(seed, indices, math.prod(shape), stream).view(len(indices), *shape)
