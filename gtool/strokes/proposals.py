"""Stroke proposals for patches of an image: a predictor's, chosen by gain or decision; greedy search; or chance.

Axis letters: N patches, S proposals of a patch, K strokes chosen of them, P pixels of a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.losses.strokes import mean_color, select_by_gain
from gtool.runtime.random import hashed_uniform
from gtool.strokes.brush import Brush
from gtool.strokes.renderer import render_on_patches
from gtool.strokes.settings import PaintSettings

CHUNK = 64  # patches that are looked at in one forward
SELECTION_SIZE = 16  # pixels a side at which the proposals of a patch are compared
CANDIDATES = 64  # random strokes that greedy search tries for each that it paints


class Predictor(Protocol):
    """A network that looks at patches of the image and of the canvas, (N, 3, R, R) in [0, 1] each.

    It returns strokes (N, S, 5) in units of the patch, theta in units of pi, and logits (N, S) of being painted.
    """

    def __call__(self, target: Tensor, canvas: Tensor, /) -> tuple[Tensor, Tensor]: ...


def propose(
    settings: PaintSettings,
    brush: Brush,
    predictor: Predictor | None,
    level: int,
    targets: Tensor,
    canvases: Tensor,
    numbers: Tensor,
) -> tuple[Tensor, Tensor]:
    """Propose strokes for patches (N, 3, R, R) of the image and of the canvas, numbered (N,) within their level.

    Returns:
        strokes (N, K, 5) in units of the patch, in painting order, and their gains (N, K); 0 is no gain.
    """
    found = []
    for start in range(0, len(targets), CHUNK):
        chunk = slice(start, start + CHUNK)
        target, canvas = targets[chunk], canvases[chunk]
        draw = partial(_random_strokes, settings.seed, level, numbers[chunk])
        if settings.method == "random":
            strokes = draw(0, settings.strokes_per_patch)
            found.append((strokes, torch.ones(strokes.shape[:2], device=target.device)))
        elif settings.method == "greedy":
            found.append(_greedy(brush, target, canvas, settings.strokes_per_patch, draw))
        elif predictor is None:
            raise ValueError("the method `predictor` needs a predictor")
        else:
            strokes, logits = predictor(target, canvas)
            count = min(settings.strokes_per_patch, logits.shape[1])
            if settings.select == "decision":
                found.append(_select_by_decision(strokes, logits, count))
            else:
                mask, _ = render_on_patches(brush, strokes, SELECTION_SIZE)
                chosen, gain = select_by_gain(mask, _reduced(target), _reduced(canvas), count)
                found.append((_gather(strokes, chosen), gain))
    return torch.cat([strokes for strokes, _ in found]), torch.cat([gains for _, gains in found])


def _select_by_decision(strokes: Tensor, logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Take the strokes of the highest logits, the most certain on top; their probability stands for the gain."""
    decided, chosen = logits.topk(count, dim=1)
    # Where no more are proposed than can be painted, the decision also says how many (the paper's network).
    painted = decided > 0 if logits.shape[1] == count else torch.ones_like(decided, dtype=torch.bool)
    return _gather(strokes, chosen.flip(1)), (painted * decided.sigmoid()).flip(1)


def _reduced(patches: Tensor) -> Tensor:
    """(N, 3, R, R) -> (N, 3, P) at SELECTION_SIZE."""
    return F.avg_pool2d(patches, patches.shape[-1] // SELECTION_SIZE).flatten(2)


def _gather(strokes: Tensor, chosen: Tensor) -> Tensor:
    return strokes.gather(1, chosen[..., None].expand(-1, -1, 5))


def _random_strokes(seed: int, level: int, patches: Tensor, turn: int, count: int) -> Tensor:
    """Strokes anywhere in patches, sides 0.1 to 0.8 evenly in their logarithm, any angle: (N, K, 5).

    Those of a patch do not depend on the other patches.
    """
    numbers = hashed_uniform(seed, patches.cpu().numpy(), 5 * count, f"{level} {turn}")
    uniform = torch.from_numpy(numbers).to(patches.device, torch.float32).view(-1, count, 5)
    sides = torch.exp(-2.3 + 2.1 * uniform[..., 2:4])
    return torch.cat([uniform[..., :2], sides, uniform[..., 4:]], dim=-1)


def _greedy(
    brush: Brush, target: Tensor, canvas: Tensor, count: int, draw: Callable[[int, int], Tensor]
) -> tuple[Tensor, Tensor]:
    """For every stroke try CANDIDATES fresh random ones (`draw(turn, count)`) and take the best."""
    target, canvas = _reduced(target), _reduced(canvas)
    found, gains = [], []
    for turn in range(count):
        strokes = draw(turn, CANDIDATES)
        mask, _ = render_on_patches(brush, strokes, SELECTION_SIZE)
        chosen, gain = select_by_gain(mask, target, canvas, 1)
        found.append(_gather(strokes, chosen))
        gains.append(gain)
        best = mask.gather(1, chosen[..., None].expand(-1, -1, mask.shape[-1]))
        alpha = best * (gain > 0)[..., None]
        canvas = canvas + alpha * (mean_color(best, target)[..., 0, :, None] - canvas)
    return torch.cat(found, 1), torch.cat(gains, 1)
