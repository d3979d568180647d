"""Pictures one after the other: GIF and WebP through Pillow, MP4 through PyAV (the extra `video`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gtool.errors import GToolError
from gtool.io.files import atomic_write
from gtool.io.outputs import check_animation
from gtool.io.pictures import Pixels

WEBP_QUALITY = 85
X264_CRF = "18"  # visually lossless


def save_animation(path: Path, frames: Iterable[Pixels], fps: float) -> None:
    """Write pictures uint8 (H, W, 3) of one size as an endless loop (.gif, .webp) or a film (.mp4).

    Raises:
        GToolError: an unknown suffix, no frames, or .mp4 without PyAV.
        CheckpointError: the file cannot be written.
    """
    check_animation(path)
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise GToolError(f"{path}: no frames to write")
    write = _write_mp4 if path.suffix.lower() == ".mp4" else _write_with_pillow
    with atomic_write(path) as temporary:
        write(temporary, chain([first], remaining), fps)


def _write_with_pillow(path: Path, frames: Iterator[Pixels], fps: float) -> None:
    pictures = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    options: dict[str, Any] = {"save_all": True, "duration": round(1000 / fps), "loop": 0}
    if path.suffix.lower() == ".webp":
        options |= {"quality": WEBP_QUALITY, "method": 1}
    first = next(pictures)
    first.save(path, append_images=pictures, **options)


def _write_mp4(path: Path, frames: Iterator[Pixels], fps: float) -> None:
    import av

    with av.open(str(path), "w") as container:
        first = even(next(frames))
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"  # what browsers play
        stream.options = {"crf": X264_CRF}
        for picture in chain([first], map(even, frames)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def even(picture: Pixels) -> Pixels:
    """Repeat the last row and column where a side is odd, since yuv420p halves both."""
    height, width = picture.shape[:2]
    return np.ascontiguousarray(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
