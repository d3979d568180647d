"""Whether results can be written where the user wants them: found out before any work, without numpy."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from gtool.errors import CheckpointError, GToolError

ANIMATION_SUFFIXES = (".gif", ".webp", ".mp4")


def check_animation(path: Path) -> None:
    """Refuse what `save_animation` could not write.

    Raises:
        GToolError: an unknown suffix, or .mp4 without PyAV.
    """
    suffix = path.suffix.lower()
    if suffix not in ANIMATION_SUFFIXES:
        known = f"{', '.join(ANIMATION_SUFFIXES[:-1])} or {ANIMATION_SUFFIXES[-1]}"
        raise GToolError(f"{path}: an animation ends in {known}")
    if suffix == ".mp4" and find_spec("av") is None:
        raise GToolError(f'{path}: .mp4 needs PyAV; run `pip install "gtool[video]"`, or write .webp or .gif')


def check_folder(path: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot be filled with numbered files.

    Raises:
        CheckpointError: a file of that name, or a folder with something in it and no `overwrite`.
    """
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path}: is a file; name a folder")
    if not overwrite and path.is_dir() and any(not entry.name.startswith(".") for entry in path.iterdir()):
        raise CheckpointError(f"{path}: exists and is not empty; choose another folder, or add --overwrite")
