"""Pictures of a trained prior: from a weights file and a condition to pixels, whole or code by code.

Image i of a seed depends on (seed, i), its condition and the settings alone.

Axis letters: N images, b of them at once, H W grid of codes, P Q pixels, D pixels of a cell's side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.data.conditions import ids_of_depth, ids_of_maps
from gtool.errors import CheckpointError
from gtool.io.run_folder import newest_run
from gtool.models.prior.autoregressive import Known, Request, composing
from gtool.models.trained import open_trained
from gtool.nn.ranges import to_pm1, to_uint8
from gtool.runtime.device import Compute

MODEL = "prior"
PIXELS_AT_ONCE = 2**18  # that are decoded or encoded
UNDECIDED = 128  # grey


def load_composer(path: Path, compute: Compute) -> tuple[Any, dict[str, Any]]:
    """Build the prior and the tokenizer that a weights file holds, in eval mode on the device, with its metadata.

    Raises:
        CheckpointError: the file is damaged or of another model.
    """
    trained = open_trained(path)
    if trained.model != MODEL:
        newest = newest_run(MODEL)
        there = f"the newest is {newest.path}" if newest else "`gtool train prior` trains one"
        raise CheckpointError(f"{path}: weights of {trained.model}, not of a prior; {there}")
    composer = trained.network()
    return composer.to(compute.device).eval().requires_grad_(False), trained.meta


# Conditions.


@torch.no_grad()
def codes_of_labels(composer: Any, labels: np.ndarray, compute: Compute) -> Tensor:
    """Return the condition int64 (N, H, W) of label maps (N, P, Q), by majority or by the tokenizer of maps."""
    down = composer.tokenizer.down
    if composer.condition_tokenizer is None:
        return ids_of_maps(labels, (labels.shape[1] // down, labels.shape[2] // down))
    channels = composer.condition_tokenizer.image_channels

    def one_hot(part: Tensor) -> Tensor:
        # What has no label is one more than the last, and none of the channels.
        return F.one_hot(part.long(), channels + 1)[..., :channels].movedim(-1, 1).float()

    maps = torch.from_numpy(labels.astype(np.int64))
    return _encoded(composer.condition_tokenizer, maps, one_hot, compute)


@torch.no_grad()
def codes_of_depth(composer: Any, depth: Tensor, compute: Compute) -> Tensor:
    """Return the condition int64 (N, H, W) of depth (N, 1, P, Q) in [-1, 1], by means or by the tokenizer of depth."""
    down = composer.tokenizer.down
    if composer.condition_tokenizer is None:
        return ids_of_depth(depth, (depth.shape[2] // down, depth.shape[3] // down))
    return _encoded(composer.condition_tokenizer, depth, lambda part: part, compute)


@torch.no_grad()
def codes_of_images(composer: Any, images: Tensor, compute: Compute) -> Tensor:
    """Return the codes int64 (N, H, W), on the CPU, of images uint8 (N, 3, P, Q)."""
    return _encoded(composer.tokenizer, images, to_pm1, compute)


def _encoded(tokenizer: Any, pixels: Tensor, prepared: Any, compute: Compute) -> Tensor:
    made = []
    for part, count in _equal_parts(pixels, pixels.shape[-1] * pixels.shape[-2]):
        with compute.autocast():
            made.append(tokenizer.encode(prepared(part).to(compute.device))[:count].cpu())
    return torch.cat(made)


def upper_part(codes: Tensor, rows: int) -> Known:
    """Return codes (N, H, W) of which the first rows are kept."""
    kept = torch.zeros(codes.shape[1:], dtype=torch.bool)
    kept[:rows] = True
    return Known(codes, kept)


# Pictures.


class Step(NamedTuple):
    """How far the pictures of a request are.

    done, total: codes, of all images together.
    pictures: uint8 (b, 3, P, Q) on the CPU when a batch is finished, else None.
    """

    done: int
    total: int
    pictures: Tensor | None


def compose_pictures(composer: Any, request: Request, compute: Compute, batch_size: int) -> Iterator[Step]:
    """Yield after every code; the pictures come batch after batch.

    Raises:
        RecipeError: the request means nothing for this prior; at the first step.
    """
    done, total = 0, 0
    for progress in composing(composer.prior, request, compute, batch_size):
        count, cells = len(progress.codes), progress.decided.numel()
        total = len(request.indices) * cells
        done = progress.first * cells + count * int(progress.decided.sum())
        yield Step(done, total, decode(composer, progress.codes, compute) if progress.done else None)


class Frame(NamedTuple):
    """All pictures at one moment: uint8 (N, 3, P, Q), grey where nothing is decided; which codes are, of how many."""

    pictures: Tensor
    done: int
    total: int


def unfold(composer: Any, request: Request, compute: Compute, batch_size: int, most: int) -> Iterator[Frame]:
    """Yield all pictures of a request as they grow, `most` times at most; the last time they are finished."""
    places = torch.arange(len(request.indices)).chunk(-(-len(request.indices) // batch_size))
    batches = [composing(composer.prior, _part(request, rows), compute, batch_size) for rows in places]
    wanted: set[int] = set()
    for states in zip(*batches, strict=True):
        decided = states[0].decided
        done, total = int(decided.sum()), decided.numel()
        if not wanted:
            count = min(most, total - done + 1)
            wanted = {round(place) for place in np.linspace(done, total, count)} | {total}
        if done not in wanted:
            continue
        codes = torch.cat([state.codes.cpu() for state in states])
        pictures = decode(composer, codes, compute)
        down = composer.tokenizer.down
        seen = decided.repeat_interleave(down, 0).repeat_interleave(down, 1)
        yield Frame(torch.where(seen, pictures, torch.tensor(UNDECIDED, dtype=torch.uint8)), done, total)


def _part(request: Request, rows: Tensor) -> Request:
    known = None if request.known is None else Known(request.known.codes[rows], request.known.kept)
    return replace(request, condition=request.condition[rows], indices=request.indices[rows], known=known)


@torch.no_grad()
def decode(composer: Any, codes: Tensor, compute: Compute) -> Tensor:
    """Return pictures uint8 (N, 3, P, Q), on the CPU, of codes (N, H, W)."""
    made = []
    for part, count in _equal_parts(codes, codes[0].numel() * composer.tokenizer.down**2):
        with compute.autocast():
            made.append(to_uint8(composer.tokenizer.decode(part.to(compute.device))[:count]).cpu())
    return torch.cat(made)


def _equal_parts(tensor: Tensor, pixels: int) -> Iterator[tuple[Tensor, int]]:
    """Yield parts of one size, the last filled up, with how many rows of each count.

    Kernels of other sizes round otherwise, and a picture would depend on how many are made with it.
    """
    size = max(1, min(64, PIXELS_AT_ONCE // pixels))
    for start in range(0, len(tensor), size):
        rows = torch.arange(start, start + size).clamp(max=len(tensor) - 1)
        yield tensor[rows.to(tensor.device)], min(size, len(tensor) - start)
