"""Videos and animations: frames one after the other, upright, each with its time; and writing them, sound copied.

Video files go through PyAV (the extra `video`), animated GIF, WebP, PNG and AVIF through Pillow. Never more than a
few frames are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gtool.errors import CheckpointError, DataError, GToolError
from gtool.io.files import atomic_write
from gtool.io.image import UnreadableImage, open_image, quiet_pillow
from gtool.io.outputs import check_animation, is_video, require_av
from gtool.io.photo import Photo, fitting, photo_of
from gtool.io.pictures import Pixels

# Demuxers that open nothing but the file itself: playlists of any kind could name others.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"
_ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {  # container, codec, its options
    ".mp4": ("mp4", "libx264", {"crf": "18"}),  # visually lossless
    ".webm": (
        "webm",
        "libvpx-vp9",
        {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    ),
}
WEBP_QUALITY = 85  # of animations
TICKS = 90_000  # a second: whole numbers for every usual frame rate
MIN_DELAY = Fraction(1, 50)  # seconds; browsers show frames of animations that ask for less for 1/10
USUAL_DELAY = Fraction(1, 10)
BT709, MPEG_RANGE = 1, 1  # ITU-T H.273
HDR_CURVES = (16, 18)  # PQ and HLG, ITU-T H.273


@dataclass(frozen=True)
class Frame:
    """A frame upright, and the seconds from the beginning of the video at which it is shown."""

    photo: Photo
    time: Fraction


@dataclass(frozen=True)
class VideoInfo:
    """What a look through a whole video found."""

    height: int  # of the upright frames
    width: int
    frames: int  # that can be read
    rate: Fraction  # frames a second, on average
    pixel_aspect: Fraction = Fraction(1)  # width over height of a pixel
    notes: tuple[str, ...] = ()  # what a user should know of how it is read


@contextmanager
def open_video(path: Path) -> Iterator[AVVideo | AnimatedImage]:
    """Open a video or an animated picture; what its decoder raises within the block becomes DataError.

    Raises:
        GToolError: missing, no video, damaged, without pictures; a video file, and PyAV is not installed.
    """
    if not is_video(path):
        with quiet_pillow(), open_image(path, str(path)) as image:
            if getattr(image, "n_frames", 1) < 2:
                raise UnreadableImage(str(path), "a single picture; it can be painted as .png, .jpg or .webp")
            yield AnimatedImage(image)
        return
    require_av(path)
    import av

    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: empty")
        options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
        # An open file instead of a name: no name is taken for an address.
        with path.open("rb") as file, av.open(file, options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                only = ", only sound" if container.streams.audio else ""
                raise DataError(f"{path}: holds no pictures{only}")
            yield AVVideo(path, container)
    except av.error.FFmpegError as bad:
        raise DataError(f"{path}: no video that can be read: {bad.strerror}") from None
    except OSError as bad:
        raise DataError(f"{path}: cannot be read: {bad.strerror}") from None


def inspect_video(path: Path) -> VideoInfo:
    """Decode every frame and keep none, so that damage is found before hours of work.

    Raises:
        GToolError: as of `open_video`; no frames, or damaged.
    """
    with open_video(path) as video:
        return video.inspect()


class AVVideo:
    """A video file that PyAV reads."""

    def __init__(self, path: Path, container: Any) -> None:
        self._path = path
        self._container = container
        self._video = container.streams.best("video") or container.streams.video[0]
        self._video.thread_type = "AUTO"
        self._refuse_size(self._video.width, self._video.height)

    @property
    def audio(self) -> list[Any]:
        """The sound tracks, as streams of PyAV."""
        # A track that the file only speaks of has no codec.
        return [stream for stream in self._container.streams.audio if stream.codec_context is not None]

    def inspect(self) -> VideoInfo:
        """As `inspect_video`."""
        first, count, last, sound_end = None, 0, Fraction(0), Fraction(0)

        def note_end(packet: Any) -> None:
            nonlocal sound_end
            ticks = Fraction((packet.dts or 0) + (packet.duration or 0))
            sound_end = max(sound_end, ticks * packet.time_base)

        for frame, time in self._decode(note_end):
            first, count, last = first or frame, count + 1, time
        if first is None:
            raise DataError(f"{self._path}: no frame can be read")
        end, declared = max(last, sound_end), self._video.frames
        if declared > 1.02 * count + 2:
            raise DataError(f"{self._path}: cut short: {count:,} of its {declared:,} frames are there")
        # Where frames are not counted by the file, its length tells.
        length = Fraction(self._container.duration or 0, 1_000_000)
        if not declared and length > Fraction(11, 10) * end + Fraction(1, 4):
            there = f"{float(end):.1f} of its {float(length):.1f} seconds are there"
            raise DataError(f"{self._path}: cut short: {there}")
        is_turned = first.rotation % 180 != 0
        height, width = (first.width, first.height) if is_turned else (first.height, first.width)
        aspect = self._video.sample_aspect_ratio or Fraction(1)
        is_hdr = first.color_trc in HDR_CURVES
        # Frames a second as the file says, unless the times of its frames say otherwise.
        said = Fraction(self._video.average_rate or 25)
        found = (count - 1) / last if last > 0 else said
        return VideoInfo(
            height=height,
            width=width,
            frames=count,
            rate=said if abs(found / said - 1) < 0.02 else found,
            pixel_aspect=1 / aspect if is_turned else aspect,
            notes=("its colours are of high dynamic range and come out pale",) if is_hdr else (),
        )

    def frames(self, at_most: int, sound: Callable[[Any], None]) -> Iterator[Frame]:
        """Yield the frames from the first on, all of the size of the first.

        Args:
            at_most: pixels of the longer side; frames that are larger are made smaller.
            sound: is given the packets of the sound tracks, with times from the beginning of the video.
        """
        size = None
        for frame, time in self._decode(sound):
            size = size or fitting(frame.width, frame.height, at_most)
            yield Frame(_to_photo(frame, *size), time)

    def _decode(self, sound: Callable[[Any], None]) -> Iterator[tuple[Any, Fraction]]:
        """Yield frames with their times; packets of sound are handed on as they come."""
        import av

        self._container.seek(0)
        start = Fraction(self._container.start_time or 0, 1_000_000)
        rate = self._video.average_rate or Fraction(25)
        time = None
        packets = self._container.demux(self._video, *self.audio)
        while (packet := self._next(packets)) is not None:
            if packet.stream is not self._video:
                if packet.dts is not None:
                    # Counted from the beginning of the video.
                    shift = round(start / packet.time_base)
                    packet.dts -= shift
                    packet.pts = packet.dts if packet.pts is None else packet.pts - shift
                    sound(packet)
                continue
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                if time is None:
                    continue  # a video cut out of another begins with what needs the frames before it
                place = f"{float(time):.1f} s from its beginning"
                raise DataError(f"{self._path}: damaged {place}") from None
            for frame in frames:
                self._refuse_size(frame.width, frame.height)
                begin = None if frame.pts is None else frame.pts * frame.time_base - start
                if time is None:
                    time = max(begin or Fraction(0), Fraction(0))
                else:  # files whose times stand still go on by their rate
                    time = begin if begin is not None and begin > time else time + 1 / rate
                yield frame, time

    def _next(self, packets: Iterator[Any]) -> Any:
        import av

        try:
            return next(packets, None)
        except av.error.FFmpegError as bad:
            raise DataError(f"{self._path}: damaged: {bad.strerror}") from None

    def _refuse_size(self, width: int, height: int) -> None:
        limit = Image.MAX_IMAGE_PIXELS or width * height
        if width * height > limit:
            raise DataError(f"{self._path}: more than {limit / 1e6:.3g} million pixels a frame")


def _to_photo(frame: Any, width: int, height: int) -> Photo:
    """A decoded frame, upright: width and height are those before it is turned."""
    has_alpha = any(component.is_alpha for component in frame.format.components)
    kind = "rgba" if has_alpha else "rgb24"
    pixels = frame.to_ndarray(format=kind, width=width, height=height, interpolation="AREA")
    # The angle is that by which the frame is to be turned against the clock.
    pixels = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
    if not has_alpha:
        return Photo(pixels)
    return Photo(np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3]))


class AnimatedImage:
    """A picture that moves, which Pillow reads; with the methods of `AVVideo`."""

    def __init__(self, image: Any) -> None:
        self.audio: list[Any] = []
        self._image = image

    def inspect(self) -> VideoInfo:
        """As `inspect_video`."""
        seconds = sum(self._delays(), Fraction(0))
        width, height = self._image.size
        count = self._image.n_frames
        return VideoInfo(height=height, width=width, frames=count, rate=count / seconds)

    def _delays(self) -> Iterator[Fraction]:
        """Go from frame to frame and yield how long each is shown."""
        for number in range(self._image.n_frames):
            self._image.seek(number)
            self._image.load()
            delay = Fraction(self._image.info.get("duration") or 0).limit_denominator(1000) / 1000
            yield delay if delay >= MIN_DELAY else USUAL_DELAY

    def frames(self, at_most: int, sound: Callable[[Any], None]) -> Iterator[Frame]:
        """As `AVVideo.frames`."""
        width, height = self._image.size
        size, time = fitting(width, height, at_most), Fraction(0)
        for delay in self._delays():
            layer = self._image.convert("RGBA")
            if layer.size != size:
                layer = layer.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
            yield Frame(photo_of(layer), time)
            time += delay


class VideoWriter:
    """A video that is being written; made by `write_video`."""

    def __init__(
        self, container: Any, suffix: str, size: tuple[int, int], rate: Fraction, pixel_aspect: Fraction
    ) -> None:
        _, codec, options = _ENCODERS[suffix]
        self._container = container
        self._tracks: dict[int, Any] = {}
        self._stream = container.add_stream(codec, rate=rate.limit_denominator(100_000), options=options)
        # x264 refuses odd sides in this pixel format: the last row and column are repeated.
        self._pad = [(0, side % 2 if codec == "libx264" else 0) for side in size]
        self._stream.height, self._stream.width = (s + p for s, (_, p) in zip(size, self._pad, strict=True))
        self._stream.pix_fmt = "yuv420p"  # what browsers play
        coding = self._stream.codec_context
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
        """Show a picture uint8 (H, W, 3), of the size of the video, from so many seconds on."""
        import av

        padded = np.ascontiguousarray(np.pad(picture, (*self._pad, (0, 0)), mode="edge"))
        frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def copy(self, packet: Any) -> None:
        """Copy a packet of a sound track, if there is room for that."""
        if packet.stream.index in self._tracks:
            packet.stream = self._tracks[packet.stream.index]
            self._container.mux(packet)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode(None))


@contextmanager
def write_video(
    path: Path, size: tuple[int, int], rate: Fraction, pixel_aspect: Fraction = Fraction(1)
) -> Iterator[VideoWriter]:
    """Yield a video of a height and width, .mp4 or .webm by its suffix; it gets its name when the block ends well.

    pixel_aspect: width over height of a pixel.

    Raises:
        CheckpointError: it cannot be written.
    """
    import av

    suffix = path.suffix.lower()
    try:
        with (
            atomic_write(path) as temporary,
            temporary.open("wb") as file,
            av.open(file, "w", format=_ENCODERS[suffix][0]) as container,
        ):
            video = VideoWriter(container, suffix, size, rate, pixel_aspect)
            yield video
            video.finish()
    except av.error.FFmpegError as bad:
        raise CheckpointError(f"{path}: cannot be written: {bad.strerror}") from None


def save_animation(path: Path, frames: Iterable[Pixels], fps: float, hold: float = 0.0) -> None:
    """Write pictures uint8 (H, W, 3) of one size as an endless loop (.gif, .webp) or a video (.mp4).

    hold: seconds that the last picture stays beyond its time, since loops begin again at once.

    Raises:
        GToolError: an unknown suffix, no frames, or .mp4 without PyAV.
        CheckpointError: the file cannot be written.
    """
    check_animation(path)
    remaining = _held(frames, round(hold * fps))
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


def _held(frames: Iterable[Pixels], times: int) -> Iterator[Pixels]:
    frame = None
    for frame in frames:
        yield frame
    if frame is not None:
        yield from repeat(frame, times)
