"""Which files are videos and which can be written. Imports nothing heavy."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from gtool.errors import GToolError

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .webm .mkv .avi .mpg .mpeg .ts .mts .m2ts .wmv .flv .ogv .3gp".split()  # noqa: SIM905
)
VIDEO_FORMATS = (".mp4", ".webm")  # that are written
# First bytes.
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")  # of ISO media files
_VIDEOS = (b"\x1aE\xdf\xa3", b"FLV\x01", b"0&\xb2u", b"\0\0\x01\xba", b"\0\0\x01\xb3")


def is_video(path: Path) -> bool:
    """Say whether a file is a video, by its first bytes, or by its name where they say nothing."""
    head = b""
    try:
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(16)
    except OSError:
        pass  # whoever reads it says why that cannot be done
    if head.startswith(_IMAGES) or head[8:12] == b"WEBP":
        return False
    if head[4:8] == b"ftyp":
        return head[8:12] not in _IMAGE_BRANDS
    if head.startswith(_VIDEOS) or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    return path.suffix.lower() in VIDEO_SUFFIXES


def require_av(path: Path) -> None:
    """Raise GToolError where PyAV, which reads and writes videos, is not installed."""
    if find_spec("av") is None:
        raise GToolError(f'{path}: videos need PyAV; run `pip install "gtool[video]"`')
