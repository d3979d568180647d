"""Stroke proposals of a trained predictor, from its weights file."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gtool.errors import CheckpointError
from gtool.io.run_folder import shipped_weights
from gtool.models import registry
from gtool.models.paint_transformer.network import Proposals
from gtool.models.trained import open_trained
from gtool.runtime.device import Compute, use_threads

(MODEL,) = registry.models_that(paints=True)
Predict = Callable[[Tensor, Tensor], Proposals]


def predictor_of(network: torch.nn.Module, compute: Compute) -> Predict:
    """Return a network as a function of targets and canvases (N, 3, 32, 32), in the precision of the run."""

    @torch.no_grad()
    def predict(target: Tensor, canvas: Tensor) -> Proposals:
        # Products of matrices are rounded otherwise by another number of threads, and strokes are chosen by what is
        # nearly equal. The network is a quarter of the work.
        with use_threads(1), compute.autocast():
            proposals: Proposals = network(target, canvas)
        return proposals

    return predict


def load_predictor(path: Path | None, compute: Compute) -> Predict:
    """Return the predictor that a weights file describes, on the device; None for the one that comes with gtool.

    Raises:
        CheckpointError: there is none, or the file is damaged, of another model, or does not fit what it says.
    """
    path = path or shipped_weights(MODEL)
    if path is None:
        raise CheckpointError(
            "no trained weights come with this gtool; name some with --weights, or use --method greedy"
        )
    trained = open_trained(path)
    if trained.model != MODEL:
        raise CheckpointError(f"{path}: weights of {trained.model!r}; painting needs those of {MODEL}")
    return predictor_of(trained.network().to(compute.device).eval().requires_grad_(False), compute)
