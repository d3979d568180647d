"""Pictures of a prior as they are composed, code by code."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gtool import console
from gtool.io.animation import save_animation
from gtool.io.picture import Pixels, comfortable_scale, default_columns, grid
from gtool.models.prior.conditional_generator import unfold

if TYPE_CHECKING:
    from gtool.data.conditions_for_sampling import Given
    from gtool.sample.prior import Source

MOST_FRAMES = 96
HOLD_SECONDS = 1.5  # that the finished pictures stay
FRAME_WIDTH = 512  # pixels that a frame comes near to


def write_film(source: Source, given: Given, path: Path) -> np.ndarray:
    """Write the animation; returns the finished pictures, uint8 (n, 3, H, W).

    What is given for all images comes first, what is given for each beside it; undecided parts are grey.
    """
    numbers, finished = source.job.numbers, list[np.ndarray]()
    frames = unfold(
        source.composer, source.request(numbers, given), source.compute, source.batch_size, MOST_FRAMES
    )
    fps = source.job.request.fps
    with console.progress("composing") as update:

        def drawn() -> Iterator[Pixels]:
            last: Pixels | None = None
            for frame in frames:
                update(frame.done, frame.total, f"{frame.done:,} of {frame.total:,} codes")
                finished[:] = [frame.pictures.numpy()]
                last = _frame(source, finished[0], given)
                yield last
            if last is not None:
                yield from repeat(last, round(HOLD_SECONDS * fps))

        save_animation(path, drawn(), fps)
    return finished[0]


def _frame(source: Source, pictures: np.ndarray, given: Given) -> Pixels:
    request = source.job.request
    tiles: Any = np.stack([*source.shared, *pictures])
    columns = request.columns or default_columns(len(tiles))
    if given.maps is not None:
        tiles = np.stack([given.maps, pictures], axis=1).reshape(-1, *pictures.shape[1:])
        columns = 2 * (request.columns or default_columns(max(1, len(pictures) // 2)))
    scale = request.scale or comfortable_scale(min(columns, len(tiles)) * pictures.shape[-1], FRAME_WIDTH)
    return grid(tiles, columns=columns, scale=scale)
