"""What finds strokes for patches of a photo: a trained network, the best of random strokes, or mere chance.

Axis letters: N patches, S proposals, K strokes chosen of a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.errors import CheckpointError
from gtool.io.run_folder import shipped_weights
from gtool.losses.strokes import mean_color, select_by_gain
from gtool.models.paint_transformer.config import PATCH, num_parameters
from gtool.models.paint_transformer.network import Proposals
from gtool.models.trained import open_trained
from gtool.runtime.device import Compute
from gtool.runtime.random import hashed_uniform
from gtool.strokes.brush import Brush
from gtool.train.stroke_targets import masks

MODEL = "paint-transformer"
Method = Literal["predictor", "greedy", "random"]
Select = Literal["gain", "decision"]
CHUNK = 64  # patches looked at in one forward
CHOOSING = 16  # pixels a side at which the proposals of a patch are tried
CANDIDATES = 64  # random strokes that greedy painting tries for each that it paints
Predict = Callable[[Tensor, Tensor], Proposals]


@dataclass(frozen=True)
class Proposer:
    """How strokes are found.

    strokes: K, chosen of a patch.
    predict: targets and canvases (n, 3, 32, 32) to proposals; unused by the methods without a network.
    """

    method: Method
    select: Select
    strokes: int
    seed: int
    brush: Brush
    predict: Predict | None


def propose(
    proposer: Proposer, level: int, targets: Tensor, canvases: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Find strokes for patches of a level.

    Args:
        proposer: how.
        level: number of the pass.
        targets: (N, 3, 32, 32) in [0, 1].
        canvases: (N, 3, 32, 32) in [0, 1].
        numbers: (N,) of the patches in their level; what is drawn at random depends on them.

    Returns:
        strokes (N, K, 5) in patches, in painting order, and what each promises to gain (N, K).
    """
    found, gains = [], []
    for start in range(0, len(targets), CHUNK):
        chunk = slice(start, start + CHUNK)
        draw = partial(_random_shapes, proposer.seed, level, numbers[chunk])
        shapes, gain = _propose_for_patches(proposer, targets[chunk], canvases[chunk], draw)
        found.append(shapes)
        gains.append(gain)
    return torch.cat(found), torch.cat(gains)


def _propose_for_patches(
    proposer: Proposer, target: Tensor, canvas: Tensor, draw: Callable[[int, int], Tensor]
) -> tuple[Tensor, Tensor]:
    """Strokes (N, K, 5) in patches, in painting order, and their gains (N, K); `draw` is `_random_shapes`."""
    brush, count = proposer.brush, proposer.strokes
    near = [F.avg_pool2d(x, PATCH // CHOOSING).flatten(2) for x in (target, canvas)]
    if proposer.method == "random":
        shapes = draw(0, count)
        return shapes, torch.ones(shapes.shape[:2], device=target.device)
    if proposer.method == "greedy":
        return _greedy(brush, near[0], near[1], count, draw)
    if proposer.predict is None:
        raise ValueError("the method `predictor` needs a predictor")
    shapes, logits = proposer.predict(target, canvas)
    count = min(count, logits.shape[1])
    if proposer.select == "decision":
        decided, chosen = logits.topk(count, dim=1)
        # The most certain on top, as it was trained; a probability stands for the gain. Where no more strokes are
        # proposed than can be painted, the decision also says how many.
        paintable = decided > 0 if logits.shape[1] == count else torch.ones_like(decided, dtype=torch.bool)
        return _pick(shapes, chosen.flip(1)), (paintable * decided.sigmoid()).flip(1)
    mask, _ = masks(brush, shapes, CHOOSING)
    chosen, gains = select_by_gain(mask, near[0], near[1], count)
    return _pick(shapes, chosen), gains


def _pick(shapes: Tensor, chosen: Tensor) -> Tensor:
    return shapes.gather(1, chosen[..., None].expand(-1, -1, 5))


def _random_shapes(seed: int, level: int, patches: Tensor, turn: int, count: int) -> Tensor:
    """Strokes anywhere in patches, sides 0.1 to 0.8 evenly in their logarithm, any angle: (N, K, 5).

    Those of a patch do not depend on the others, so that what is new in one place changes no other.
    """
    numbers = hashed_uniform(seed, patches.cpu().numpy(), 5 * count, f"{level} {turn}")
    uniform = torch.from_numpy(numbers).to(patches.device, torch.float32).view(-1, count, 5)
    sides = torch.exp(-2.3 + 2.1 * uniform[..., 2:4])
    return torch.cat([uniform[..., :2], sides, uniform[..., 4:]], dim=-1)


def _greedy(
    brush: Brush, target: Tensor, canvas: Tensor, count: int, draw: Callable[[int, int], Tensor]
) -> tuple[Tensor, Tensor]:
    """For every stroke try CANDIDATES fresh random ones and take the best: the baseline without a network."""
    found, gains = [], []
    for turn in range(count):
        shapes = draw(turn, CANDIDATES)
        mask, _ = masks(brush, shapes, CHOOSING)
        chosen, gain = select_by_gain(mask, target, canvas, 1)
        found.append(_pick(shapes, chosen))
        gains.append(gain)
        best = mask.gather(1, chosen[..., None].expand(-1, -1, mask.shape[-1]))
        alpha = best * (gain > 0)[..., None]
        canvas = canvas + alpha * (mean_color(best, target)[..., 0, :, None] - canvas)
    return torch.cat(found, 1), torch.cat(gains, 1)


def predictor_of(network: torch.nn.Module, compute: Compute) -> Predict:
    """Return a network as what `paint` asks for its proposals."""

    @torch.no_grad()
    def predict(target: Tensor, canvas: Tensor) -> Proposals:
        with compute.autocast():
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
            "no trained weights come with this gtool; name some, or paint by --method greedy"
        )
    trained = open_trained(path)
    if trained.model != MODEL:
        raise CheckpointError(f"{path}: weights of {trained.model!r}; painting needs those of {MODEL}")
    network = trained.network(num_parameters(trained.config))
    return predictor_of(network.to(compute.device).eval().requires_grad_(False), compute)
