"""What is asked of a set of images before it is scored, and what is said of it; nothing is left out silently.

Decisions where libraries differ, or say nothing:
- files that are no images are counted and named; `--strict` refuses them;
- images that cannot be read are named and refused; `--skip-bad N` leaves out N of them at most. The data that a run
  was trained on are taken as training took them: what cannot be read is named and left out;
- transparent images are composed on white and 16-bit ones scaled by 1/257, and it is said of how many;
- images that are not square are refused, because every protocol would squeeze them; `--fit` agrees to that, and
  `--resolution` crops the largest centred square;
- one picture under two suffixes (a.png, a.jpg) counts twice, and it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gtool import console
from gtool.data.dataset import ImageDataset
from gtool.data.folders import count_suffixes, list_ignored
from gtool.data.inspect_images import BACKGROUND, inspect_images, repeated_stems
from gtool.data.names import find_dataset
from gtool.errors import DataError

SHOWN = 3  # names in a line
KEPT = 20  # names in the record


def counted(update: Callable[..., None]) -> Callable[[int, int], None]:
    """Return what moves a progress bar by images."""
    return lambda done, total: update(done, total, f"{done:,} of {total:,} images")


def check_files(dataset: ImageDataset, spec: str, *, strict: bool) -> dict[str, Any]:
    """Say what else lies in a folder or zip that `spec` names; returns the beginnings of its part of the record."""
    if dataset.kind not in ("folder", "zip"):
        return {}
    if twins := repeated_stems([dataset.name_of(index) for index in range(len(dataset))]):
        pair = " and ".join(twins[0][:2])
        console.warning(
            f"{dataset.name}: {len(twins):,} names appear with several suffixes ({pair}); every file counts"
        )
    ignored = list_ignored(find_dataset(spec), arrays=True)
    if not ignored:
        return {}
    count = "1 file is" if len(ignored) == 1 else f"{len(ignored):,} files are"
    text = f"{dataset.name}: {count} no images: {count_suffixes(ignored)} ({_some(ignored, len(ignored))})"
    if strict:
        raise DataError(f"{text}; move them away, or leave out --strict")
    console.notice(f"{text}; left out")
    return {"ignored": {"count": len(ignored), "names": ignored[:KEPT]}}


def check_images(
    dataset: ImageDataset, places: np.ndarray, summary: dict[str, Any], *, square: bool = False
) -> str:
    """Look at the images that will be scored, complete `summary` and return a hash of their content.

    Pixels are not decoded: scoring does that, and `find_damaged` says more when it fails. DataError for files that are
    no images, or some that are not square, where they have to be.
    """
    if dataset.is_drawn:
        summary["formats"] = {"drawn": len(places)}
        return dataset.fingerprint
    with console.progress(f"looking at {dataset.name}") as update:
        seen = inspect_images(dataset, places, decode=False, progress=counted(update))
    if seen.unread:
        find_damaged(dataset, places, 0, {})  # raises, and names those with sound headers too
    if square and seen.oblong:
        raise DataError(
            f"{dataset.name}: {seen.num_oblong:,} images are not square ({_some(seen.oblong, seen.num_oblong)}); "
            "--resolution R crops them, --fit squeezes them as every protocol would"
        )
    summary |= {"formats": seen.formats, "modes": seen.modes}
    if seen.converted:
        summary["converted"] = seen.converted
    if BACKGROUND in seen.converted:
        summary["background"] = "white"
    for change, count in seen.converted.items():
        console.notice(f"{dataset.name}: {count:,} images: {change}")
    return seen.content


def find_damaged(
    dataset: ImageDataset, places: np.ndarray, allowed: int | None, summary: dict[str, Any]
) -> list[int]:
    """Decode images, name those that cannot be and return their places; DataError for more of them than allowed."""
    if dataset.is_drawn:
        return []
    with console.progress(f"looking for damaged images in {dataset.name}") as update:
        unread = inspect_images(dataset, places, decode=True, progress=counted(update)).unread
    tolerate([(name, reason) for _, name, reason in unread], dataset.name, allowed, summary)
    return [place for place, _, _ in unread]


def tolerate(
    unread: Sequence[tuple[str, str]], where: str, allowed: int | None, summary: dict[str, Any]
) -> None:
    """Name the images (name, reason) that cannot be read; DataError for more than allowed over all calls of a set."""
    total = summary.get("num_skipped", 0) + len(unread)
    if allowed is not None and total > allowed:
        first = "; ".join(f"{name}: {reason}" for name, reason in unread[:SHOWN])
        more = f" and {len(unread) - SHOWN:,} more" if len(unread) > SHOWN else ""
        raise DataError(
            f"{where}: {total:,} images cannot be read: {first}{more}; "
            f"mend or remove them, or tolerate so many with --skip-bad {total}"
        )
    for name, reason in unread:
        console.warning(f"{where}: {name}: left out: {reason}")
    if unread:
        kept = summary.setdefault("skipped", [])
        kept += [{"name": name, "reason": reason} for name, reason in unread][: KEPT - len(kept)]
        summary["num_skipped"] = total


def _some(names: Sequence[str], total: int) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {total - SHOWN:,} more" if total > SHOWN else "")
