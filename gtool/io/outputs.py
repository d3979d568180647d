"""Whether results can be written where the user wants them, and which files are videos: found out before any work."""

import os
from importlib.util import find_spec
from pathlib import Path

from gtool.errors import CheckpointError, GToolError, RecipeError

ANIMATION_SUFFIXES = (".webp", ".gif", ".mp4")
VIDEO_FORMATS = (".mp4", ".webm")  # that are written
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .webm .mkv .avi .mpg .mpeg .ts .mts .m2ts .wmv .flv .ogv .3gp".split()  # noqa: SIM905
)
# First bytes.
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")  # of ISO media files
_VIDEOS = (b"\x1aE\xdf\xa3", b"FLV\x01", b"0&\xb2u", b"\0\0\x01\xba", b"\0\0\x01\xb3")


def require_utf8(path: Path | str) -> None:
    """Raise GToolError for a name that is no text: recipes, weights and exported files cannot be called so."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise GToolError(
            f"{path}: its name is not UTF-8, and recipes and weights can hold no other; rename it"
        ) from None


def is_folder(text: str) -> bool:
    """Say whether an output that is typed names a folder: by what is there, a separator at its end, or no suffix."""
    separators = tuple(filter(None, (os.sep, os.altsep)))
    return text.endswith(separators) or os.path.isdir(os.path.expanduser(text)) or Path(text).suffix == ""


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


def check_animation(path: Path) -> None:
    """Raise RecipeError for a suffix that `save_animation` does not know, GToolError for .mp4 without PyAV."""
    suffix = path.suffix.lower()
    if suffix not in ANIMATION_SUFFIXES:
        known = f"{', '.join(ANIMATION_SUFFIXES[:-1])} or {ANIMATION_SUFFIXES[-1]}"
        raise RecipeError(f"{path}: an animation ends in {known}")
    if suffix == ".mp4" and find_spec("av") is None:
        raise GToolError(f'{path}: .mp4 needs PyAV; run `pip install "gtool[video]"`, or write .webp or .gif')


def write_problem(path: Path) -> str:
    """Say why a file cannot be written; empty where it can, its folder made first if need be."""
    if os.path.isdir(path):
        return "is a folder"
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        return f"cannot be written: {folder} is not a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"cannot be written: {folder} is read-only"


def check_folder(path: Path, overwrite: bool | None) -> None:
    """Refuse a folder that cannot be filled.

    overwrite: whether it may have something in it; None where the command has no such flag.

    Raises:
        CheckpointError: a file of that name, or a folder with something in it and no `overwrite`.
    """
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path}: is a file; name a folder")
    if not overwrite and path.is_dir() and any(not entry.name.startswith(".") for entry in path.iterdir()):
        way_out = "" if overwrite is None else ", or add --overwrite"
        raise CheckpointError(f"{path}: exists and is not empty; choose another folder{way_out}")
