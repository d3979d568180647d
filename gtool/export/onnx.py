"""ONNX files, written by torch's exporter and run by onnxruntime (extra `onnx`)."""

from __future__ import annotations

from pathlib import Path

import torch

from gtool.export.parts import Exportable, Tensors
from gtool.export.pt2 import Runner, trace_arguments

OPSET = 18


def write(part: Exportable, path: Path) -> None:
    """Write a file whose metadata are the part's description."""
    example, dynamic = trace_arguments(part)
    program = torch.onnx.export(
        part.module,
        example,
        dynamic_shapes=dynamic,
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(part.description)
    program.save(path, external_data=False)


def load(path: Path) -> Runner:
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
