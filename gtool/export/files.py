"""Files for other programs, each checked by running it before it is there."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gtool.errors import GToolError
from gtool.export import onnx, pt2
from gtool.export.parts import Exportable
from gtool.io.files import atomic_write

TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 5)
FORMATS = {"onnx": onnx, "pt2": pt2}


def write_and_check(part: Exportable, path: Path, file_format: str) -> float:
    """Write a part as "onnx" or "pt2", replacing `path` when the file has proved right; return its largest error.

    Raises:
        GToolError: the file differs from the network by more than TOLERANCE, or its values are not finite.
        CheckpointError: the file cannot be written.
    """
    # Before tracing: networks keep constants that they compute at first use, and must not keep traced ones.
    given = [part.example(batch) for batch in CHECKED_BATCHES]
    with torch.inference_mode():
        expected = [pt2.as_tuple(part.module(*inputs)) for inputs in given]
    if not all(bool(output.isfinite().all()) for outputs in expected for output in outputs):
        raise GToolError("the network makes values that are not finite; nothing was written")
    with atomic_write(path) as temporary, _quiet_exporters():
        FORMATS[file_format].write(part, temporary)
        run = FORMATS[file_format].load(temporary)
        error = max(
            float((found - wanted).abs().max())
            for inputs, outputs in zip(given, expected, strict=True)
            for found, wanted in zip(part.comparable(run(inputs)), part.comparable(outputs), strict=True)
        )
        if not error <= TOLERANCE:
            raise GToolError(f"{path}: not written: the exported file differs from torch by {error:.2g}")
    return error


@contextmanager
def _quiet_exporters() -> Iterator[None]:
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
