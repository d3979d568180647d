"""Clips of a disc over still ground, and files of them."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from tests.helpers.pictures import draw

HEIGHT, WIDTH, DISC = 96, 128, 10


def ground(height=HEIGHT, width=WIDTH) -> np.ndarray:
    """A textured picture, uint8 (H, W, 3)."""
    picture = Image.fromarray(draw(1, 5, 64)[0].transpose(1, 2, 0)).resize((width, height), 3)
    grain = np.random.default_rng(0).normal(0, 25, (height // 4, width // 4))
    grain = np.asarray(Image.fromarray(grain.astype(np.float32)).resize((width, height), 3))
    return (np.asarray(picture) + grain[..., None]).clip(0, 255).astype(np.uint8)


def moving(number: int, noise: float = 0.0) -> np.ndarray:
    """A disc on its way over still ground, in the upper half, with noise of its own in each frame."""
    frame = ground().astype(float)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = (y - 20) ** 2 + (x - 20 - 8 * number) ** 2 < DISC**2
    frame[disc] = (250, 240, 20)
    frame += noise * np.random.default_rng(number).normal(size=frame.shape)
    return frame.clip(0, 255).astype(np.uint8)


def as_tensor(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame.transpose(2, 0, 1).copy()).float() / 255


def through_a_codec(frames: list[np.ndarray], crf: int = 28) -> list[np.ndarray]:
    file = io.BytesIO()
    write_video_file(file, frames, options={"crf": str(crf), "g": "4"})
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def write_video_file(
    place, frames, *, codec="libx264", rate=12, sound=None, options=None, header=None, pix_fmt="yuv420p"
) -> None:
    """Write frames, and a tone as long as they are, to a path or an open file."""
    named = isinstance(place, Path)
    with av.open(
        str(place) if named else place, "w", format=None if named else "mp4", options=header or {}
    ) as container:
        video = container.add_stream(codec, rate=rate, options=options or {})
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pix_fmt
        audio = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            tone = 0.2 * np.sin(np.arange(48000 * len(frames) // rate) / 20).astype(np.float32)
            for start in range(0, len(tone), 960):
                piece = av.AudioFrame.from_ndarray(tone[None, start : start + 960], "flt", "mono")
                piece.sample_rate, piece.pts = 48000, start
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
