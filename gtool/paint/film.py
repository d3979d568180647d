"""Films: pictures with their times, and sound that is copied, as MP4 or WebM through PyAV (the extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from gtool.errors import CheckpointError
from gtool.io.animation import X264_CRF, even
from gtool.io.files import atomic_write
from gtool.io.pictures import Pixels

TICKS = 90_000  # a second: whole numbers for every usual frame rate
_CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("mp4", "libx264", {"crf": X264_CRF}),
    ".webm": (
        "webm",
        "libvpx-vp9",
        {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    ),
}
BT709, MPEG_RANGE = 1, 1  # ITU-T H.273


class Film:
    """A film that is being written."""

    def __init__(
        self, container: Any, suffix: str, size: tuple[int, int], rate: Fraction, pixel_aspect: Fraction
    ) -> None:
        self._container = container
        self._tracks: dict[int, Any] = {}
        _, codec, options = _CODECS[suffix]
        self._video = container.add_stream(codec, rate=rate, options=options)
        height, width = size
        # x264 refuses odd sides in this pixel format.
        self._even = codec == "libx264"
        self._video.height = height + height % 2 * self._even
        self._video.width = width + width % 2 * self._even
        self._video.pix_fmt = "yuv420p"  # what browsers play
        coding = self._video.codec_context
        coding.time_base = Fraction(1, TICKS)
        coding.sample_aspect_ratio = pixel_aspect
        coding.color_primaries = coding.color_trc = coding.colorspace = BT709
        coding.color_range = MPEG_RANGE

    def add_tracks(self, tracks: Sequence[Any]) -> list[str]:
        """Make room for sound tracks, streams of PyAV; returns the codecs of those that cannot be held."""
        held = self._container.supported_codecs
        for track in tracks:
            if track.codec_context.name in held:
                self._tracks[track.index] = self._container.add_stream_from_template(track)
        return [track.codec_context.name for track in tracks if track.index not in self._tracks]

    def add(self, picture: Pixels, time: Fraction) -> None:
        """Show a picture uint8 (H, W, 3), of the size of the film, from so many seconds on."""
        import av

        picture = even(picture) if self._even else picture
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
        self._container.mux(self._video.encode(frame))

    def copy(self, packet: Any) -> None:
        """Copy a packet of a sound track, if there is room for that."""
        if packet.stream.index in self._tracks:
            packet.stream = self._tracks[packet.stream.index]
            self._container.mux(packet)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._video.encode(None))


@contextmanager
def write_film(
    path: Path, size: tuple[int, int], rate: Fraction, pixel_aspect: Fraction = Fraction(1)
) -> Iterator[Film]:
    """Yield a film of a height and width, .mp4 or .webm by its suffix; it gets its name when the block ends well.

    Raises:
        CheckpointError: it cannot be written.
    """
    import av

    suffix = path.suffix.lower()
    try:
        with (
            atomic_write(path) as temporary,
            temporary.open("wb") as file,
            av.open(file, "w", format=_CODECS[suffix][0]) as container,
        ):
            film = Film(container, suffix, size, rate.limit_denominator(100_000), pixel_aspect)
            yield film
            film.finish()
    except av.error.FFmpegError as bad:
        raise CheckpointError(f"{path}: cannot be written: {bad.strerror}") from None
