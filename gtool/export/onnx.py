"""A trained network as a file for other programs: ONNX and torch.export, each checked by running it.

Of a generator, what is exported takes z and returns images in [-1, 1]: the clamp that `gtool sample` applies when it
makes pixels is part of it. Noise inputs, where a model has them, are left out, which is their mean. Of a stroke
predictor, it takes patches of photo and canvas and returns strokes with their logits.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gtool import __version__
from gtool.errors import GToolError
from gtool.io.files import atomic_write
from gtool.models.generate import latents
from gtool.runtime.torch_random import hashed_normal

TOLERANCE = 1e-4
TRACED_BATCH = 3  # 0 and 1 would be taken for constants
CHECKED_BATCHES = (1, 5)
OPSET = 18
_EXTRA_FILE = "gtool.json"

Tensors = tuple[Tensor, ...]
Runner = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Exportable:
    """A network in eval mode, on the CPU, float32, and what is to be known of it from outside."""

    module: nn.Module  # takes tensors (N, ...); returns one, or several as a tuple
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: Callable[[int], Tensors]  # inputs of a batch
    description: dict[str, str]  # for a user of the file, as text
    note: str | None = None  # what is left out
    comparable: Callable[[Tensors], Tensors] = tuple  # outputs as what small errors change by little


class BoundedGenerator(nn.Module):
    """z (N, *z_shape) -> images (N, 3, R, R) in [-1, 1]."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Tensor:
        """Generate without noise inputs."""
        return self.generator(z).clamp(-1, 1)


class PlainPredictor(nn.Module):
    """Target and canvas (N, 3, 32, 32) in [0, 1] -> shape_params (N, S, 5) and logits (N, S)."""

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, target: Tensor, canvas: Tensor) -> Tensors:
        """Propose strokes."""
        return tuple(self.predictor(target, canvas))


def of_generator(generator: nn.Module, meta: Mapping[str, Any]) -> Exportable:
    """Return a generator to export; `meta` is that of its weights file."""
    resolution = meta["config"]["resolution"]
    z_shape = ", ".join(str(size) for size in generator.z_shape)  # type: ignore[union-attr]
    return Exportable(
        BoundedGenerator(generator).eval(),
        inputs=("z",),
        outputs=("images",),
        example=lambda batch: (latents(generator, batch, torch.arange(batch), "export"),),
        description=describe(
            meta,
            input=f"z (N, {z_shape}) float32: independent normal numbers of mean 0 and variance 1",
            output=f"images (N, 3, {resolution}, {resolution}) float32: RGB in [-1, 1]",
            pixels="round(127.5 * images + 127.5), 0 to 255",
        ),
        note="noise inputs are left out: an exported generator makes one image of one z"
        if generator.noise_shapes
        else None,
    )


def of_predictor(predictor: nn.Module, meta: Mapping[str, Any]) -> Exportable:
    """Return a stroke predictor to export; `meta` is that of its weights file."""
    side = meta["config"]["resolution"]

    def example(batch: int) -> Tensors:
        numbers = (
            hashed_normal(batch, torch.arange(batch), 3 * side * side, name) for name in ("target", "canvas")
        )
        return tuple((0.5 + 0.25 * x).clamp(0, 1).view(batch, 3, side, side) for x in numbers)

    patch = f"(N, 3, {side}, {side}) float32: RGB in [0, 1]"
    return Exportable(
        PlainPredictor(predictor).eval(),
        inputs=("target", "canvas"),
        outputs=("shape_params", "logits"),
        example=example,
        description=describe(
            meta,
            input=f"target, canvas {patch}, a patch of the photo and of what is painted of it",
            output="shape_params (N, S, 5) float32: x, y, width, height in patches, theta in half turns; "
            "logits (N, S) float32: of being painted",
        ),
        comparable=_without_turns,
    )


def _without_turns(outputs: Tensors) -> Tensors:
    """Put a direction in the place of theta, which jumps from 1 to 0."""
    shape_params, logits = outputs
    angle = 2 * torch.pi * shape_params[..., 4]
    return shape_params[..., :4], angle.cos(), angle.sin(), logits


def describe(meta: Mapping[str, Any], **about: str) -> dict[str, str]:
    """Return what a file says of itself: what it is of, and `about`."""
    return {
        "gtool": __version__,
        "model": str(meta["model"]),
        "kimg": f"{meta.get('nimg', 0) / 1000:g}",
        **about,
        "config": json.dumps(meta["config"], sort_keys=True),
    }


def export(network: Exportable, path: Path, kind: str) -> float:
    """Write a network as `onnx` or `pt2` and return the largest error of the written file.

    Args:
        network: what to write.
        path: replaced when the file has proved right.
        kind: "onnx" or "pt2".

    Raises:
        GToolError: the file differs from the network by more than TOLERANCE, or its values are not finite.
        CheckpointError: the file cannot be written.
    """
    write, load = {"onnx": (_write_onnx, _load_onnx), "pt2": (_write_pt2, _load_pt2)}[kind]
    # Before tracing: networks keep constants that they compute at first use, and must not keep traced ones.
    expected = [_reference(network, batch) for batch in CHECKED_BATCHES]
    with atomic_write(path) as temporary, _silence():
        write(network, temporary)
        run = load(temporary)
        error = max(
            float((found - wanted).abs().max())
            for inputs, outputs in expected
            for found, wanted in zip(
                network.comparable(run(inputs)), network.comparable(outputs), strict=True
            )
        )
        if not error <= TOLERANCE:
            raise GToolError(f"{path}: not written: the exported file differs from torch by {error:.2g}")
    return error


def check_finite(network: nn.Module) -> None:
    """Make an image and look at it.

    Raises:
        GToolError: values that are not finite.
    """
    generator = BoundedGenerator(network).eval()
    with torch.inference_mode():
        _require_finite((generator(latents(network, 1, torch.arange(1), "export")),))


def _reference(network: Exportable, batch: int) -> tuple[Tensors, Tensors]:
    inputs = network.example(batch)
    with torch.inference_mode():
        outputs = _as_tuple(network.module(*inputs))
    _require_finite(outputs)
    return inputs, outputs


def _as_tuple(outputs: Tensor | Tensors) -> Tensors:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _require_finite(outputs: Tensors) -> None:
    if not all(bool(torch.isfinite(x).all()) for x in outputs):
        raise GToolError("the network makes values that are not finite; nothing was written")


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporters' warnings about their own insides from users; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _trace_arguments(network: Exportable) -> tuple[Tensors, dict[str, Any]]:
    """Example inputs, and which of their sizes stays free."""
    batch = torch.export.Dim("batch")
    return network.example(TRACED_BATCH), {name: {0: batch} for name in network.inputs}


def _write_onnx(network: Exportable, path: Path) -> None:
    example, dynamic = _trace_arguments(network)
    program = torch.onnx.export(
        network.module,
        example,
        dynamic_shapes=dynamic,
        input_names=list(network.inputs),
        output_names=list(network.outputs),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(network.description)
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Tensors) -> Tensors:
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(value) for value in session.run(None, given))

    return run


def _write_pt2(network: Exportable, path: Path) -> None:
    example, dynamic = _trace_arguments(network)
    program = torch.export.export(network.module, example, dynamic_shapes=dynamic)
    torch.export.save(program, path, extra_files={_EXTRA_FILE: json.dumps(network.description)})


def _load_pt2(path: Path) -> Runner:
    module = torch.export.load(path).module()
    return lambda inputs: tuple(x.detach() for x in _as_tuple(module(*inputs)))
