"""A trained generator as a file for other programs: ONNX and torch.export, each checked by running it.

What is exported takes z and returns images in [-1, 1]: the clamp that `gtool sample` applies when it makes pixels
is part of it. Noise inputs, where a model has them, are left out, which is their mean.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gtool import __version__
from gtool.checkpoint import atomic_write
from gtool.device import hashed_normal
from gtool.errors import GToolError

TOLERANCE = 1e-4
TRACED_BATCH = 3  # 0 and 1 would be taken for constants
CHECKED_BATCHES = (1, 5)
OPSET = 18
_EXTRA_FILE = "gtool.json"

Runner = Callable[[Tensor], Tensor]


class BoundedGenerator(nn.Module):
    """z (N, z_dim) -> images (N, 3, R, R) in [-1, 1]."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.z_dim = int(generator.z_dim)  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> Tensor:
        """Generate without noise inputs."""
        return self.generator(z).clamp(-1, 1)


def describe(generator: nn.Module, meta: Mapping[str, Any]) -> dict[str, str]:
    """Return what a user of the exported file has to know, as text."""
    resolution = meta["config"]["resolution"]
    return {
        "gtool": __version__,
        "model": str(meta["model"]),
        "kimg": f"{meta.get('nimg', 0) / 1000:g}",
        "input": f"z (N, {generator.z_dim}) float32: independent normal numbers of mean 0 and variance 1",
        "output": f"images (N, 3, {resolution}, {resolution}) float32: RGB in [-1, 1]",
        "pixels": "round(127.5 * images + 127.5), 0 to 255",
        "config": json.dumps(meta["config"], sort_keys=True),
    }


def export(generator: nn.Module, path: Path, kind: str, description: Mapping[str, str]) -> float:
    """Write a generator as `onnx` or `pt2` and return the largest error of the written file.

    Args:
        generator: in eval mode, on the CPU, float32.
        path: replaced when the file has proved right.
        kind: "onnx" or "pt2".
        description: text for the file's metadata.

    Raises:
        GToolError: the file differs from the generator by more than TOLERANCE, or its values are not finite.
        CheckpointError: the file cannot be written.
    """
    bounded = BoundedGenerator(generator).eval()
    write, load = {"onnx": (_write_onnx, _load_onnx), "pt2": (_write_pt2, _load_pt2)}[kind]
    # Before tracing: networks keep constants that they compute at first use, and must not keep traced ones.
    expected = [_reference(bounded, batch) for batch in CHECKED_BATCHES]
    with atomic_write(path) as temporary, _silence():
        write(bounded, temporary, description)
        run = load(temporary)
        error = max(float((run(z) - images).abs().max()) for z, images in expected)
        if not error <= TOLERANCE:
            raise GToolError(f"{path}: not written: the exported file differs from torch by {error:.2g}")
    return error


def check_finite(generator: nn.Module) -> None:
    """Make an image and look at it.

    Raises:
        GToolError: values that are not finite.
    """
    _reference(BoundedGenerator(generator).eval(), 1)


def _reference(bounded: BoundedGenerator, batch: int) -> tuple[Tensor, Tensor]:
    z = hashed_normal(batch, torch.arange(batch), bounded.z_dim, "export")
    with torch.inference_mode():
        images = bounded(z)
    if not bool(torch.isfinite(images).all()):
        raise GToolError("the generator makes values that are not finite; nothing was written")
    return z, images


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


def _trace_arguments(bounded: BoundedGenerator) -> tuple[tuple[Tensor], dict[str, Any]]:
    """An example input, and which of its sizes stays free."""
    return (torch.zeros(TRACED_BATCH, bounded.z_dim),), {"z": {0: torch.export.Dim("batch")}}


def _write_onnx(bounded: BoundedGenerator, path: Path, description: Mapping[str, str]) -> None:
    example, dynamic = _trace_arguments(bounded)
    program = torch.onnx.export(
        bounded,
        example,
        dynamic_shapes=dynamic,
        input_names=["z"],
        output_names=["images"],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(description)
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda z: torch.from_numpy(session.run(["images"], {"z": z.numpy()})[0])


def _write_pt2(bounded: BoundedGenerator, path: Path, description: Mapping[str, str]) -> None:
    example, dynamic = _trace_arguments(bounded)
    program = torch.export.export(bounded, example, dynamic_shapes=dynamic)
    torch.export.save(program, path, extra_files={_EXTRA_FILE: json.dumps(description)})


def _load_pt2(path: Path) -> Runner:
    module = torch.export.load(path).module()
    return lambda z: module(z).detach()
