"""Codes drawn from a prior, one after the other: new pictures, the rest of a picture, pictures larger than the grid.

Image i of a seed depends on (seed, i), its condition and the settings alone: every code is chosen by a number that is
hashed from the seed, the image and the cell.

Larger pictures follow the released rule (taming-transformers, scripts/make_samples.py): a cell is predicted in the
window of the trained size that has it in its middle, or as near to it as the border allows. The release goes through
the cells one after the other. But a cell waits only for those that its window shows: when the row above is w cells
ahead, cells of all rows are predicted at once, and every lane of a batch has work even for one picture.

Axis letters: N images, b of them at once, h w trained grid, H W grid of the picture in codes, K codebook size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gtool.errors import RecipeError
from gtool.models.prior.config import SPATIAL, PriorConfig
from gtool.models.prior.network import Prior, for_sampling
from gtool.runtime.device import Compute
from gtool.runtime.random import hashed_uniform

LEAST_TEMPERATURE = 1e-30  # less is 0: logits divided by it would be infinite, and chances no numbers
BATCH = 16  # images, or windows, at once; on a CPU a step of 16 takes twice the time of a step of one


@dataclass(frozen=True)
class Choice:
    """How a code is drawn from logits.

    temperature: logits are divided by it; 0 takes the likeliest code every time, so that nothing is left to chance
        and all images of a condition are the same.
    top_k: only the k likeliest codes can be drawn.
    top_p: only the fewest likeliest codes whose probabilities, after top_k, sum to p or more.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def check(self, codebook_size: int) -> None:
        """Find out whether codes can be drawn like this.

        Raises:
            RecipeError: a value that means nothing, or more codes than there are.
        """
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise RecipeError(
                f"temperature {self.temperature:g} means nothing; use 0 for the likeliest code, 1 for the prior's own"
            )
        if self.top_k is not None and not 1 <= self.top_k <= codebook_size:
            raise RecipeError(
                f"top-k {self.top_k}: the codebook has {codebook_size} codes; use 1 to {codebook_size}"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RecipeError(
                f"top-p {self.top_p:g} is no share of probability; use more than 0 and at most 1"
            )


class Known(NamedTuple):
    """Codes that are given: codes int64 (N, H, W), kept bool (H, W), the same cells in every image."""

    codes: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Request:
    """What is to be drawn; all tensors on the CPU.

    condition: int64 (N, 1), or (N, H, W) codes of maps.
    indices: int64 (N,) image numbers.
    seed: with the image number, all that chance depends on.
    known: codes that are kept; those later in the order than a cell have no influence on it.
    size: (H, W) in codes, none for the trained grid.
    """

    condition: Tensor
    indices: Tensor
    seed: int = 0
    choice: Choice = Choice()
    known: Known | None = None
    size: tuple[int, int] | None = None

    def check(self, config: PriorConfig) -> None:
        """Find out whether a prior can draw this.

        Raises:
            RecipeError: it cannot.
        """
        self.choice.check(config.codebook_size)
        (h, w), (height, width) = config.grid, self.size or config.grid
        if height < h or width < w:
            raise RecipeError(
                f"{height} x {width} codes are fewer than the {h} x {w} that the prior was trained on"
            )
        if (height, width) != (h, w) and config.order != "raster":
            raise RecipeError(
                f"the prior predicts codes in the order `{config.order}`, which only fits {h} x {w} codes; "
                "larger pictures need the order `raster`"
            )
        shape = (len(self.indices), height, width)
        ids, expected = self.condition, shape if config.condition in SPATIAL else (shape[0], 1)
        if tuple(ids.shape) != expected:
            raise RecipeError(
                f"condition `{config.condition}` needs ids of shape {expected}, not {tuple(ids.shape)}"
            )
        if bool(((ids < 0) | (ids >= config.condition_size)).any()):
            raise RecipeError(
                f"condition `{config.condition}` has ids from 0 to {config.condition_size - 1}; "
                f"{int(ids.min())} to {int(ids.max())} were given"
            )
        self._check_known(shape, config.codebook_size)

    def _check_known(self, shape: tuple[int, int, int], codebook_size: int) -> None:
        if self.known is None:
            return
        codes, kept = self.known
        if tuple(codes.shape) != shape or tuple(kept.shape) != shape[1:]:
            raise RecipeError(f"known codes need the shape {shape} of the picture, not {tuple(codes.shape)}")
        if bool(((codes < 0) | (codes >= codebook_size)).any()):
            raise RecipeError(
                f"known codes have to be of this codebook of {codebook_size}, 0 to {codebook_size - 1}"
            )


class Progress(NamedTuple):
    """The state of some images; the tensors are written on, so copy what is to stay.

    first: row of `indices` that the first of them belongs to.
    codes: int64 (b, H, W), 0 where nothing is decided.
    decided: bool (H, W).
    """

    first: int
    codes: Tensor
    decided: Tensor

    @property
    def done(self) -> bool:
        """Whether every cell is decided."""
        return bool(self.decided.all())


def compose(prior: Prior, request: Request, compute: Compute, batch_size: int = BATCH) -> Tensor:
    """Return codes int64 (N, H, W) on the CPU; arguments and errors as of `composing`."""
    steps = composing(prior, request, compute, batch_size)
    return torch.cat([progress.codes.cpu() for progress in steps if progress.done])


def composing(
    prior: Prior, request: Request, compute: Compute, batch_size: int = BATCH
) -> Iterator[Progress]:
    """Yield after every code, or every wave of a larger picture, batch after batch; the last of a batch is `done`.

    Args:
        prior: on the device of `compute`; its matrices are used in bf16 where `compute` says so.
        request: what is to be drawn.
        compute: device and precision.
        batch_size: images, or windows, at once. A last batch is filled up: matrix kernels of other sizes round
            otherwise, and an image would depend on how many are made with it.

    Raises:
        RecipeError: the request means nothing for this prior; before anything is drawn.
    """
    request.check(prior.config)
    return _batches(prior, request, compute, batch_size)


@torch.no_grad()
def _batches(prior: Prior, request: Request, compute: Compute, batch_size: int) -> Iterator[Progress]:
    sampler = for_sampling(prior, torch.bfloat16 if compute.bf16 else torch.float32)
    size = request.size or prior.config.grid
    predict = _predict if size == prior.config.grid else _predict_large
    for start in range(0, len(request.indices), batch_size):
        count = min(batch_size, len(request.indices) - start)
        # Larger pictures fill their batches with windows.
        filled = batch_size if predict is _predict else count
        rows = torch.arange(start, start + filled).clamp(max=len(request.indices) - 1)
        board = _board(request, rows, size, compute)
        if board.is_full():
            yield Progress(start, board.codes[:count], board.decided)
        for _ in predict(sampler, board, request.choice, batch_size):
            yield Progress(start, board.codes[:count], board.decided)


@dataclass(frozen=True)
class _Board:
    """What is decided of a batch, and what decides the rest."""

    codes: Tensor  # (b, H, W)
    decided: Tensor  # (H, W), on the CPU
    condition: Tensor  # (b, 1) or (b, H, W)
    chances: Tensor  # fp32 (b, H, W) in (0, 1]

    def is_full(self) -> bool:
        return bool(self.decided.all())


def _board(request: Request, rows: Tensor, size: tuple[int, int], compute: Compute) -> _Board:
    """Set up some rows of the request, with what is known."""
    uniform = hashed_uniform(request.seed, request.indices[rows].numpy(), size[0] * size[1], "codes")
    chances = torch.from_numpy(uniform).float().view(len(rows), *size)
    codes = torch.zeros(len(rows), *size, dtype=torch.int64)
    decided = torch.zeros(size, dtype=torch.bool)
    if request.known is not None:
        decided |= request.known.kept
        codes += request.known.codes[rows] * request.known.kept
    device = compute.device
    return _Board(codes.to(device), decided, request.condition[rows].to(device), chances.to(device))


def _predict(prior: Prior, board: _Board, choice: Choice, _lanes: int) -> Iterator[None]:
    """Decide the cells of a picture of the trained size, in order with one cache, and yield after each."""
    cells = [divmod(cell, prior.config.grid[1]) for cell in prior.cells.tolist()]
    waiting = [n for n, cell in enumerate(cells) if not board.decided[cell]]
    if not waiting:
        return
    first, last = waiting[0], waiting[-1]
    condition = board.condition.flatten(1)
    cache, logits = prior.start(condition, prior.in_order(board.codes)[:, :first], last - first)
    for n in range(first, last + 1):
        i, j = cells[n]
        if not board.decided[i, j]:
            board.codes[:, i, j] = draw(logits, board.chances[:, i, j], choice)
            board.decided[i, j] = True
            yield
        if n < last:
            logits = prior.extend(cache, board.codes[:, i, j])


def _predict_large(prior: Prior, board: _Board, choice: Choice, lanes: int) -> Iterator[None]:
    """Decide the cells of a larger picture, wave after wave, and yield after each wave."""
    (h, w), (height, width) = prior.config.grid, board.decided.shape
    for wave in waves(height, width, w):
        waiting = [cell for cell in wave if not board.decided[cell]]
        # Windows of one batch show as many rows of codes; how many depends on the cell alone, and so does rounding.
        depths = [i - window_start(i, height, h) for i, _ in waiting]
        for depth in sorted(set(depths)):
            cells = [cell for cell, own in zip(waiting, depths, strict=True) if own == depth]
            logits = _look(prior, board, torch.tensor(cells), depth, lanes)  # (b, n, K)
            for n, (i, j) in enumerate(cells):
                board.codes[:, i, j] = draw(logits[:, n], board.chances[:, i, j], choice)
                board.decided[i, j] = True
        if waiting:
            yield


def waves(height: int, width: int, across: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the cells (row, column) that can be predicted at the same time, in windows of so many columns.

    A window shows at most across - 1 columns to the right of its cell: there the row above is done.
    """
    for time in range(width + across * (height - 1)):
        rows = range(max(0, -(-(time - width + 1) // across)), min(height, time // across + 1))
        yield [(i, time - across * i) for i in rows]


def _look(prior: Prior, board: _Board, cells: Tensor, depth: int, lanes: int) -> Tensor:
    """Return logits fp32 (b, n, K) of cells (n, 2), each in its own window, as many windows at once as there are lanes.

    depth: rows of the windows above the cells.
    """
    h, w = prior.config.grid
    left = torch.tensor([window_start(j, board.decided.shape[1], w) for j in cells[:, 1].tolist()])
    rows = (cells[:, :1] - depth + torch.arange(h)).to(board.codes.device)  # (n, h)
    columns = (left[:, None] + torch.arange(w)).to(board.codes.device)  # (n, w)
    places = (depth * w + cells[:, 1] - left).to(board.codes.device)  # (n,)

    def windows(grid: Tensor) -> Tensor:
        """(b, H, W) -> (b n, h w)."""
        return grid[:, rows[:, :, None], columns[:, None, :]].flatten(2).flatten(0, 1)

    images, count = len(board.codes), len(cells)
    seen = windows(board.codes)[:, : min((depth + 1) * w, h * w - 1)]
    each = board.condition
    condition = windows(each) if each.ndim == 3 else each.repeat_interleave(count, dim=0)
    places = places.repeat(images)
    found = []
    for start in range(0, images * count, lanes):
        lane = torch.arange(start, start + lanes, device=seen.device).clamp(max=images * count - 1)
        found.append(prior.predict(condition[lane], seen[lane], places[lane]))
    return torch.cat(found)[: images * count].view(images, count, -1)


def window_start(place: int, length: int, trained: int) -> int:
    """Return where the window begins, along one axis, that has a cell in its middle or as near as the border allows."""
    return min(max(place - trained // 2, 0), length - trained)


def draw(logits: Tensor, chance: Tensor, choice: Choice) -> Tensor:
    """Return a code for every row: the first at which the sum of probabilities reaches the row's number.

    Args:
        logits: fp32 (N, K).
        chance: fp32 (N,) in (0, 1].
        choice: what can be drawn.

    Returns:
        int64 (N,).
    """
    if choice.temperature < LEAST_TEMPERATURE:
        return logits.argmax(dim=-1)
    logits = logits / choice.temperature
    codes = None
    if choice.top_k is not None and choice.top_k < logits.shape[-1]:
        logits, codes = logits.topk(choice.top_k, dim=-1)  # the likeliest first
    elif choice.top_p is not None and choice.top_p < 1:
        logits, codes = logits.sort(dim=-1, descending=True, stable=True)
    sums = logits.softmax(dim=-1).cumsum(dim=-1)  # (N, k)
    total, end = sums[:, -1:], torch.full_like(sums[:, -1:], sums.shape[-1] - 1, dtype=torch.int64)
    if choice.top_p is not None and choice.top_p < 1:
        # The first sum that reaches p belongs to the last code that can be drawn.
        end = (sums < choice.top_p * total).sum(dim=-1, keepdim=True).minimum(end)
        total = sums.gather(-1, end)
    # Chances are above 0 and may be 1: the first sum that reaches one never belongs to a code of probability 0.
    place = (sums < chance.unsqueeze(-1) * total).sum(dim=-1, keepdim=True).minimum(end)
    drawn = place if codes is None else codes.gather(-1, place)
    return drawn.squeeze(-1)
