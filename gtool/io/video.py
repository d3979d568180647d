"""Clips to paint: which files are clips, and their frames one after the other, upright, each with its time.

Films are read through PyAV (the extra `video`), animated GIF, WebP, PNG and AVIF through Pillow. Telling what is a
clip opens nothing and imports nothing heavy. Never more than a few frames are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gtool.errors import DataError, GToolError

if TYPE_CHECKING:
    from PIL import Image

    from gtool.io.photo import Photo

SUFFIXES = frozenset(
    ".mp4 .m4v .mov .webm .mkv .avi .mpg .mpeg .ts .mts .m2ts .wmv .flv .ogv .3gp".split()  # noqa: SIM905
)
FORMATS = (".mp4", ".webm")  # that are written
# Demuxers that open nothing but the file itself: playlists of any kind could name others.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_FILMS = (b"\x1aE\xdf\xa3", b"FLV\x01", b"0&\xb2u", b"\0\0\x01\xba", b"\0\0\x01\xb3")
SMALLEST_DELAY = Fraction(1, 50)  # seconds; browsers show frames of animations that ask for less for 1/10
USUAL_DELAY = Fraction(1, 10)
HDR_CURVES = (16, 18)  # PQ and HLG, ITU-T H.273


def is_clip(path: Path) -> bool:
    """Say whether a file is a film, by its first bytes, or by its name where they say nothing."""
    head = b""
    try:
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(16)
    except OSError:
        pass  # whoever reads it says why that cannot be done
    if head.startswith(_PICTURES) or head[8:12] == b"WEBP":
        return False
    if head[4:8] == b"ftyp":
        return head[8:12] not in _PICTURE_BRANDS
    if head.startswith(_FILMS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    return path.suffix.lower() in SUFFIXES


def require_av(path: Path) -> None:
    """Refuse a clip where nothing can read or write it.

    Raises:
        GToolError: PyAV is not installed.
    """
    if find_spec("av") is None:
        raise GToolError(f'{path}: clips need PyAV; run `pip install "gtool[video]"`')


class UnreadableClip(DataError):  # noqa: N818  (called as UnreadableImage is)
    """A clip that cannot be used: where it is and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True)
class Frame:
    """A frame upright, and the seconds from the beginning of the clip at which it is shown."""

    photo: Photo
    time: Fraction


@dataclass(frozen=True)
class Survey:
    """What a look through a whole clip found.

    height, width: of the upright frames.
    frames: how many can be read.
    rate: frames a second, on average.
    pixel_aspect: width over height of a pixel.
    """

    height: int
    width: int
    frames: int
    rate: Fraction
    pixel_aspect: Fraction = Fraction(1)
    notes: tuple[str, ...] = ()


class Clip(Protocol):
    """An open clip."""

    @property
    def audio(self) -> list[Any]:
        """The sound tracks, as streams of PyAV."""
        ...

    def survey(self) -> Survey:
        """Decode every frame and keep none, so that damage is found before hours of painting.

        Raises:
            UnreadableClip: no frames, or damaged.
        """
        ...

    def frames(self, at_most: int, sound: Callable[[Any], None]) -> Iterator[Frame]:
        """Yield the frames from the first on, all of the size of the first.

        Args:
            at_most: pixels of the longer side; frames that are larger are made smaller.
            sound: is given the packets of the sound tracks, with times from the beginning of the clip.
        """
        ...


@contextmanager
def open_clip(path: Path) -> Iterator[Clip]:
    """Open a film or an animated picture; what its decoder raises within the block becomes UnreadableClip.

    Raises:
        UnreadableClip: missing, no clip, damaged, without pictures.
        GToolError: a film, and PyAV is not installed.
    """
    if not is_clip(path):
        from gtool.io.image import open_image, quiet_pillow

        with quiet_pillow(), open_image(path, str(path)) as image:
            if getattr(image, "n_frames", 1) < 2:
                raise UnreadableClip(path, "a single picture; it can be painted as .png, .jpg or .webp")
            yield _Animation(path, image)
        return
    require_av(path)
    import av

    try:
        if path.stat().st_size == 0:
            raise UnreadableClip(path, "empty")
        options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
        # A file of ours instead of a name: no name is taken for an address.
        with path.open("rb") as file, av.open(file, options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise UnreadableClip(
                    path, "holds no pictures" + (", only sound" * bool(container.streams.audio))
                )
            yield _Film(path, container)
    except av.error.FFmpegError as bad:
        raise UnreadableClip(path, f"no clip that can be read: {bad.strerror}") from None
    except OSError as bad:
        raise UnreadableClip(path, f"cannot be read: {bad.strerror}") from None


def survey(path: Path) -> Survey:
    """Look through a whole clip; the errors are those of `open_clip` and `Clip.survey`."""
    with open_clip(path) as clip:
        return clip.survey()


class _Film:
    """A film that PyAV reads."""

    def __init__(self, path: Path, container: Any) -> None:
        self._path = path
        self._container = container
        self._video = container.streams.best("video") or container.streams.video[0]
        self._video.thread_type = "AUTO"
        self._refuse_size(self._video.width, self._video.height)

    @property
    def audio(self) -> list[Any]:
        # A track that the file only speaks of has no codec.
        return [stream for stream in self._container.streams.audio if stream.codec_context is not None]

    def survey(self) -> Survey:
        first, count, last, end = None, 0, Fraction(0), Fraction(0)

        def heard(packet: Any) -> None:
            nonlocal end
            end = max(end, _end(packet))

        for frame, time in self._decode(heard):
            first, count, last = first or frame, count + 1, time
        if first is None:
            raise UnreadableClip(self._path, "no frame can be read")
        declared = self._video.frames
        if declared > 1.02 * count + 2:
            raise UnreadableClip(self._path, f"cut short: {count:,} of its {declared:,} frames are there")
        # Where frames are not counted by the file, its length tells.
        length = Fraction(self._container.duration or 0, 1_000_000)
        if not declared and length > Fraction(11, 10) * max(last, end) + Fraction(1, 4):
            there = f"{float(max(last, end)):.1f} of its {float(length):.1f} seconds are there"
            raise UnreadableClip(self._path, f"cut short: {there}")
        turned = first.rotation % 180 != 0
        height, width = (first.width, first.height) if turned else (first.height, first.width)
        aspect = self._video.sample_aspect_ratio or Fraction(1)
        return Survey(
            height=height,
            width=width,
            frames=count,
            rate=self._rate(count, last),
            pixel_aspect=1 / aspect if turned else aspect,
            notes=("its colours are of high dynamic range and come out pale",)
            if first.color_trc in HDR_CURVES
            else (),
        )

    def _rate(self, count: int, last: Fraction) -> Fraction:
        """Frames a second: as the file says, unless the times of its frames say otherwise."""
        said = Fraction(self._video.average_rate or 25)
        found = (count - 1) / last if last > 0 else said
        return said if abs(found / said - 1) < 0.02 else found

    def frames(self, at_most: int, sound: Callable[[Any], None]) -> Iterator[Frame]:
        from gtool.io.photo import fitting

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
        for packet in self._packets():
            if packet.stream is not self._video:
                if packet.dts is not None:
                    _shift(packet, start)
                    sound(packet)
                continue
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                if time is None:
                    continue  # a film cut out of another begins with what needs the frames before it
                raise UnreadableClip(self._path, f"damaged {float(time):.1f} s from its beginning") from None
            for frame in frames:
                self._refuse_size(frame.width, frame.height)
                begin = None if frame.pts is None else frame.pts * frame.time_base - start
                if time is None:
                    time = max(begin or Fraction(0), Fraction(0))
                else:  # files whose times stand still go on by their rate
                    time = begin if begin is not None and begin > time else time + 1 / rate
                yield frame, time

    def _packets(self) -> Iterator[Any]:
        import av

        try:
            yield from self._container.demux(self._video, *self.audio)
        except av.error.FFmpegError as bad:
            raise UnreadableClip(self._path, f"damaged: {bad.strerror}") from None

    def _refuse_size(self, width: int, height: int) -> None:
        from PIL import Image

        limit = Image.MAX_IMAGE_PIXELS or width * height
        if width * height > limit:
            raise UnreadableClip(self._path, f"more than {limit / 1e6:.3g} million pixels a frame")


def _end(packet: Any) -> Fraction:
    return Fraction((packet.dts or 0) + (packet.duration or 0)) * packet.time_base


def _shift(packet: Any, start: Fraction) -> None:
    """Count the times of a packet from the beginning of the clip."""
    by = round(start / packet.time_base)
    packet.dts -= by
    packet.pts = packet.dts if packet.pts is None else packet.pts - by


def _to_photo(frame: Any, width: int, height: int) -> Photo:
    """A decoded frame, upright: width and height are those before it is turned."""
    import numpy as np

    from gtool.io.photo import Photo

    has_alpha = any(component.is_alpha for component in frame.format.components)
    kind = "rgba" if has_alpha else "rgb24"
    pixels = frame.to_ndarray(format=kind, width=width, height=height, interpolation="AREA")
    # The angle is that by which the frame is to be turned against the clock.
    pixels = np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
    if not has_alpha:
        return Photo(pixels)
    return Photo(np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3]))


class _Animation:
    """A picture that moves, which Pillow reads."""

    audio: list[Any] = []  # noqa: RUF012  (never filled)

    def __init__(self, path: Path, image: Image.Image) -> None:
        self._path = path
        self._image = image

    def survey(self) -> Survey:
        seconds = sum(self._delays(), Fraction(0))
        width, height = self._image.size
        count = self._image.n_frames  # type: ignore[attr-defined]
        return Survey(height=height, width=width, frames=count, rate=count / seconds)

    def _delays(self) -> Iterator[Fraction]:
        """Go from frame to frame and yield how long each is shown."""
        for number in range(self._image.n_frames):  # type: ignore[attr-defined]
            self._image.seek(number)
            self._image.load()
            delay = Fraction(self._image.info.get("duration") or 0).limit_denominator(1000) / 1000
            yield delay if delay >= SMALLEST_DELAY else USUAL_DELAY

    def frames(self, at_most: int, sound: Callable[[Any], None]) -> Iterator[Frame]:
        import numpy as np
        from PIL import Image

        from gtool.io.photo import Photo, fitting

        size, time = fitting(*self._image.size, at_most), Fraction(0)
        for delay in self._delays():
            layer = self._image.convert("RGBA")
            if layer.size != size:
                layer = layer.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
            alpha = np.array(layer.getchannel("A"))
            yield Frame(Photo(np.array(layer.convert("RGB")), None if alpha.min() == 255 else alpha), time)
            time += delay
