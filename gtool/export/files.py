"""Files for other programs, each checked by running it before it is there.

onnx: written by torch's exporter, run by onnxruntime (extra `onnx`). pt2: files of torch.export, which torch alone can
run, from Python or C++.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtool.errors import GToolError
from gtool.export.parts import Exportable, Tensors
from gtool.io.files import atomic_write

TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 5)
TRACED_BATCH = 3  # 0 and 1 would be taken for constants
OPSET = 18
DESCRIPTION = "gtool.json"  # a file inside of a pt2 file

Runner = Callable[[Tensors], Tensors]


def write_and_check(part: Exportable, path: Path, file_format: str) -> float:
    """Write a part as "onnx" or "pt2", replacing `path` when the file has proved right; return its largest error.

    GToolError where the file differs from the network by more than TOLERANCE, or its values are not finite.
    """
    serialize, load = (to_onnx, load_onnx) if file_format == "onnx" else (to_pt2, load_pt2)
    # Before tracing: networks keep constants that they compute at first use, and must not keep traced ones.
    given = [part.example(batch) for batch in CHECKED_BATCHES]
    with torch.inference_mode():
        expected = [_as_tuple(part.module(*inputs)) for inputs in given]
    if not all(bool(output.isfinite().all()) for outputs in expected for output in outputs):
        raise GToolError("the network makes values that are not finite; nothing was written")
    batch = torch.export.Dim("batch")
    dynamic = (tuple({0: batch} for _ in part.inputs),)  # which sizes of the inputs stay free
    with atomic_write(path) as temporary, _quiet_exporters():
        # By way of memory: on a full disk the exporters' own writers abort the process.
        try:
            temporary.write_bytes(serialize(part, dynamic))
        except Exception as failed:
            if _is_interrupted(failed):  # torch's exporter wraps what comes out of it
                raise KeyboardInterrupt from None
            raise
        run = load(temporary)
        error = max(
            float((found - wanted).abs().max())
            for inputs, outputs in zip(given, expected, strict=True)
            for found, wanted in zip(part.comparable(run(inputs)), part.comparable(outputs), strict=True)
        )
        if not error <= TOLERANCE:
            raise GToolError(f"{path}: not written: the exported file differs from torch by {error:.2g}")
    return error


def to_onnx(part: Exportable, dynamic: Any) -> bytes:
    """Return a file whose metadata are the part's description."""
    program = torch.onnx.export(
        part.module,
        part.example(TRACED_BATCH),
        dynamic_shapes=dynamic,
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(part.description)
    return program.model_proto.SerializeToString()


def load_onnx(path: Path) -> Runner:
    """Return a function that runs a file."""
    import onnxruntime  # optional

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Tensors) -> Tensors:
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(value) for value in session.run(None, given))

    return run


def to_pt2(part: Exportable, dynamic: Any) -> bytes:
    """Return a file that holds the part's description as `gtool.json`."""
    program = torch.export.export(part.module, part.example(TRACED_BATCH), dynamic_shapes=dynamic)
    file = BytesIO()
    torch.export.save(program, file, extra_files={DESCRIPTION: json.dumps(part.description)})
    return file.getvalue()


def load_pt2(path: Path) -> Runner:
    """Return a function that runs a file."""
    module = torch.export.load(path).module()
    return lambda inputs: tuple(value.detach() for value in _as_tuple(module(*inputs)))


def _is_interrupted(failed: BaseException | None) -> bool:
    """Say whether Ctrl-C is what an error began with."""
    while failed is not None and not isinstance(failed, KeyboardInterrupt):
        failed = failed.__cause__ or failed.__context__
    return failed is not None


def _as_tuple(outputs: Tensor | Tensors) -> Tensors:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


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
