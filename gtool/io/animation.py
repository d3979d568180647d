"""Pictures one after the other: GIF and WebP through Pillow, MP4 through PyAV (the extra `video`)."""

from __future__ import annotations

from collections.abc import Iterable
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
from gtool.io.video import write_video

WEBP_QUALITY = 85


def save_animation(path: Path, frames: Iterable[Pixels], fps: float) -> None:
    """Write pictures uint8 (H, W, 3) of one size as an endless loop (.gif, .webp) or a video (.mp4).

    Raises:
        GToolError: an unknown suffix, no frames, or .mp4 without PyAV.
        CheckpointError: the file cannot be written.
    """
    check_animation(path)
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise GToolError(f"{path}: no frames to write")
    if path.suffix.lower() == ".mp4":
        rate = Fraction(fps).limit_denominator(1000)
        with write_video(path, first.shape[:2], rate) as video:
            for number, frame in enumerate(chain([first], remaining)):
                video.add(frame, number / rate)
    else:
        options: dict[str, Any] = {"save_all": True, "duration": round(1000 / fps), "loop": 0}
        if path.suffix.lower() == ".webp":
            options |= {"quality": WEBP_QUALITY, "method": 1}
        pictures = (Image.fromarray(np.ascontiguousarray(frame)) for frame in remaining)
        with atomic_write(path) as temporary:
            Image.fromarray(np.ascontiguousarray(first)).save(temporary, append_images=pictures, **options)
