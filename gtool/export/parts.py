"""What is exported of each model: functions of tensors (N, ...), with examples and a description of both sides.

generator: latents, and classes of a conditional one, to images in [-1, 1], clamped as `gtool sample` does; noise inputs
are left out, which is their mean.
stroke predictor: patches of photo and canvas to strokes with their logits.
tokenizer: images to codes and codes to images, at the size of the training.
prior: the logits of a whole sequence at once, each given the codes before it; sampling calls it once a code.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gtool import __version__
from gtool.models.generate import latents
from gtool.runtime.random import hashed_uniform
from gtool.runtime.torch_random import hashed_normal

Tensors = tuple[Tensor, ...]
PIXELS = "round(127.5 * images + 127.5), 0 to 255"


class Function(nn.Module):
    """A function of a network and of tensors, as a network of its own."""

    def __init__(self, network: Any, function: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        """Call the function."""
        return self.function(self.network, *inputs)


@dataclass(frozen=True)
class Exportable:
    """A network in eval mode, on the CPU, float32, and what is to be known of it from outside."""

    module: nn.Module  # takes tensors (N, ...) in order; returns one, or several as a tuple
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: Callable[[int], Tensors]  # inputs of a batch
    description: dict[str, str]  # for a user of the file, as text
    note: str | None = None  # what is left out
    comparable: Callable[[Tensors], Tensors] = tuple  # outputs as what small errors change by little


def of_generator(generator: Any, meta: Mapping[str, Any]) -> dict[str, Exportable]:
    """Return a generator to export, in eval mode and on the CPU as all parts; meta: of its weights file."""
    resolution = meta["config"]["resolution"]
    z_shape = ", ".join(str(size) for size in generator.z_shape)
    given = f"z (N, {z_shape}) float32: independent normal numbers of mean 0 and variance 1"
    names = meta["config"].get("classes") or ()
    if names:
        given += f"; classes (N,) int64: {', '.join(f'{number} {name}' for number, name in enumerate(names))}"

    def example(batch: int) -> Tensors:
        z = latents(generator, batch, torch.arange(batch), "export")
        return (z, _integers(batch, 1, len(names), "classes")[:, 0]) if names else (z,)

    exportable = Exportable(
        Function(generator, lambda network, z, *classes: network(z, None, *classes).clamp(-1, 1)).eval(),
        inputs=("z", "classes") if names else ("z",),
        outputs=("images",),
        example=example,
        description=describe(
            meta,
            input=given,
            output=f"images (N, 3, {resolution}, {resolution}) float32: RGB in [-1, 1]",
            pixels=PIXELS,
        ),
        note="noise inputs are left out: an exported generator makes one image of one z"
        if generator.noise_shapes
        else None,
    )
    return {"generator": exportable}


def of_predictor(predictor: Any, meta: Mapping[str, Any]) -> dict[str, Exportable]:
    """Return a stroke predictor to export; arguments as of `of_generator`."""
    side = meta["config"]["resolution"]

    def example(batch: int) -> Tensors:
        return tuple(
            (0.5 + 0.25 * _normal(batch, 3, side, name)).clamp(0, 1) for name in ("target", "canvas")
        )

    exportable = Exportable(
        Function(predictor, lambda network, target, canvas: tuple(network(target, canvas))).eval(),
        inputs=("target", "canvas"),
        outputs=("shape_params", "logits"),
        example=example,
        description=describe(
            meta,
            input=f"target, canvas (N, 3, {side}, {side}) float32: RGB in [0, 1], a patch of the photo and of what is "
            "painted of it",
            output="shape_params (N, S, 5) float32: x, y, width, height in patches, theta in half turns; "
            "logits (N, S) float32: of being painted",
        ),
        comparable=without_turns,
    )
    return {"predictor": exportable}


def without_turns(outputs: Tensors) -> Tensors:
    """Put a direction in the place of theta, which jumps from 1 to 0."""
    shape_params, logits = outputs
    angle = 2 * torch.pi * shape_params[..., 4]
    return shape_params[..., :4], angle.cos(), angle.sin(), logits


def of_tokenizer(
    tokenizer: Any, meta: Mapping[str, Any], resolution: int | None = None
) -> dict[str, Exportable]:
    """Return `encoder` and `decoder` to export; resolution: pixels a side, None for that of the training."""
    resolution = resolution or tokenizer.resolution
    side, size, channels = resolution // tokenizer.down, tokenizer.codebook_size, tokenizer.image_channels
    images = f"images (N, {channels}, {resolution}, {resolution}) float32: in [-1, 1]"
    codes = f"codes (N, {side}, {side}) int64: 0 to {size - 1}"
    return {
        "encoder": Exportable(
            Function(tokenizer, lambda network, images: network.encode(images)).eval(),
            inputs=("images",),
            outputs=("codes",),
            example=lambda batch: ((0.5 * _normal(batch, channels, resolution, "images")).clamp(-1, 1),),
            description=describe(meta, input=images, output=codes),
        ),
        "decoder": Exportable(
            Function(tokenizer, lambda network, codes: network.decode(codes).clamp(-1, 1)).eval(),
            inputs=("codes",),
            outputs=("images",),
            example=lambda batch: (_integers(batch, side * side, size, "codes").view(batch, side, side),),
            description=describe(meta, input=codes, output=images, pixels=PIXELS),
        ),
    }


def of_prior(pipeline: Any, meta: Mapping[str, Any]) -> dict[str, Exportable]:
    """Return `prior`, `encoder` and `decoder` to export; a prior of any order takes the order as an input."""
    config = pipeline.prior.config
    (h, w), any_order = config.grid, config.orders == "any"
    tokens, size = config.condition_ids, config.codebook_size

    def example(batch: int) -> Tensors:
        condition = _integers(batch, tokens, config.condition_size, "condition")
        codes = _integers(batch, h * w, size, "codes").view(batch, h, w)
        hashed = hashed_uniform(batch, torch.arange(batch).numpy(), h * w, "order")
        return (condition, codes, torch.from_numpy(hashed).argsort(dim=1))[: 2 + any_order]

    prior = Exportable(
        Function(pipeline.prior, lambda network, *inputs: network(*inputs)).eval(),
        inputs=("condition", "codes", "order")[: 2 + any_order],
        outputs=("logits",),
        example=example,
        description=describe(
            meta,
            input=f"condition (N, {tokens}) int64: {config.condition}, 0 to {config.condition_size - 1}; "
            f"codes (N, {h}, {w}) int64: 0 to {size - 1}"
            + any_order
            * f"; order (N, {h * w}) int64: the cells i * {w} + j as they are predicted",
            output=f"logits (N, {h * w}, {size}) float32: of every code, in "
            + ("that order" if any_order else f"the order `{config.order}`")
            + ", given the condition and the codes before it",
        ),
    )
    return {"prior": prior} | of_tokenizer(pipeline.tokenizer, meta, pipeline.config.resolution)


def describe(meta: Mapping[str, Any], **more: str) -> dict[str, str]:
    """Return what a file says of itself: what it is of, and more."""
    return {
        "gtool": __version__,
        "model": str(meta["model"]),
        "kimg": f"{meta.get('nimg', 0) / 1000:g}",
        **more,
        "config": json.dumps(meta["config"], sort_keys=True),
    }


def _normal(batch: int, channels: int, side: int, stream: str) -> Tensor:
    """Return N(0, 1) images (batch, channels, side, side)."""
    drawn = hashed_normal(batch, torch.arange(batch), channels * side**2, stream)
    return drawn.view(batch, channels, side, side)


def _integers(batch: int, count: int, size: int, stream: str) -> Tensor:
    """Return int64 (batch, count) from 0 to size - 1."""
    drawn = torch.from_numpy(hashed_uniform(batch, torch.arange(batch).numpy(), count, stream))
    return (drawn * size).long().clamp(max=size - 1)
