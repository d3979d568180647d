"""Files of torch.export, which torch alone can run, from Python or C++."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtool.export.parts import Exportable, Tensors

TRACED_BATCH = 3  # 0 and 1 would be taken for constants
DESCRIPTION = "gtool.json"  # a file inside of the file

Runner = Callable[[Tensors], Tensors]


def write(part: Exportable, path: Path) -> None:
    """Write a file that holds the part's description as `gtool.json`."""
    example, dynamic = trace_arguments(part)
    program = torch.export.export(part.module, example, dynamic_shapes=dynamic)
    torch.export.save(program, path, extra_files={DESCRIPTION: json.dumps(part.description)})


def load(path: Path) -> Runner:
    """Return a function that runs a file."""
    module = torch.export.load(path).module()
    return lambda inputs: tuple(value.detach() for value in as_tuple(module(*inputs)))


def trace_arguments(part: Exportable) -> tuple[Tensors, Any]:
    """Return example inputs, and which of their sizes stays free."""
    batch = torch.export.Dim("batch")
    return part.example(TRACED_BATCH), (tuple({0: batch} for _ in part.inputs),)


def as_tuple(outputs: Tensor | Tensors) -> Tensors:
    """Return one output or several as several."""
    return (outputs,) if isinstance(outputs, Tensor) else outputs
