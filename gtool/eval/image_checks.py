"""What is asked of a set of images before it is scored, and what is said of it; nothing is left out silently.

Decisions where libraries differ, or say nothing:
- files that are no images are counted and named; `--strict` refuses them;
- images that cannot be read are named and refused; `--skip-bad N` leaves out N of them at most. The data that a run
  was trained on are taken as training took them: what cannot be read is named and left out;
- transparent images are composed on white and 16-bit ones scaled by 1/257, and it is said of how many;
- images that are not square are refused, because every protocol would squeeze them; `--fit` agrees to that, and
  `--resolution` crops the largest centred square;
- one picture under two suffixes (a.png, a.jpg) counts twice, and it is said.

Libraries of metrics read what they can and say nothing of the rest, and then two people with the same folder get
different scores. Here every image is looked at first, by all cores, and the answer is kept in the cache folder
under the fingerprint of the data set.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from gtool import console
from gtool.data.dataset import ImageDataset
from gtool.data.folders import count_suffixes, list_ignored
from gtool.data.names import find_dataset
from gtool.data.threads import in_order
from gtool.errors import DataError
from gtool.io.cache import CacheEntry
from gtool.io.image import VERSION, Encoded, UnreadableImage, bytes_of, open_image, quiet_pillow, read_rgb

SHOWN = 3  # names in a line
KEPT = 20  # names in the record
FORMAT = 3
BLOCK = 16  # images that a thread looks at before it hands over what it saw
# What is changed on the way to 8-bit RGB, and how.
BACKGROUND = "alpha composed on white"
SCALED = "16 bits scaled to 8 by 1/257"

# Format, mode, width and height as stored (before a noted orientation), and what is changed on the way to RGB.
_Header = tuple[str, str, tuple[int, int], str | None]


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
    seen = inspect_images(dataset, places, decode=False)
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
    unread = inspect_images(dataset, places, decode=True).unread
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


# What an image is made of.


@dataclass
class Inspection:
    """What was found.

    content: a hash of names and bytes; unlike a fingerprint the same on every machine that has these files.
    converted: how many images lost something on the way to 8-bit RGB, by what was done.
    oblong: names and sizes of the first images that are not square; unread: place, name and reason.
    """

    content: str = ""
    formats: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    converted: dict[str, int] = field(default_factory=dict)
    oblong: list[str] = field(default_factory=list)
    num_oblong: int = 0
    unread: list[tuple[int, str, str]] = field(default_factory=list)


def inspect_images(dataset: ImageDataset, chosen: np.ndarray, *, decode: bool) -> Inspection:
    """Look at the images `chosen` (n,) of a data set.

    decode: also decode each, which finds those with damaged pixels; else only headers are read.
    """
    picked = hashlib.blake2b(np.ascontiguousarray(chosen, np.int64).tobytes(), digest_size=12).hexdigest()
    depends_on = (dataset.fingerprint, picked, f"survey {FORMAT}", f"pixels {VERSION}", f"decoded {decode}")
    entry = CacheEntry("inspections", dataset.name, str(len(chosen)), depends_on)

    def read() -> Inspection | None:
        try:
            values = entry.read_notes()
            unread = [(int(i), str(n), str(r)) for i, n, r in values["unread"]]
            return Inspection(**{**values, "unread": unread})
        except (TypeError, ValueError, KeyError):  # missing, damaged, or of an earlier form: made again
            return None

    return entry.get(read, lambda: entry.write_notes(asdict(_inspect(dataset, chosen, decode))))


def repeated_stems(names: Sequence[str]) -> list[list[str]]:
    """Return the groups of names that differ in their suffix alone, as the same picture saved twice does."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _inspect(dataset: ImageDataset, chosen: np.ndarray, decode: bool) -> Inspection:
    formats, modes, converted = Counter[str](), Counter[str](), Counter[str]()
    found = Inspection()
    content = hashlib.sha256(f"pixels {VERSION}\n".encode())

    def look(block: list[int]) -> list[tuple[int, str, bytes, _Header | UnreadableImage]]:
        names = [dataset.name_of(place) for place in block]
        loaded = dataset.files.load(block)
        return [(p, n, *_look(e, n, decode)) for p, n, e in zip(block, names, loaded, strict=True)]

    blocks = (chosen[start : start + BLOCK].tolist() for start in range(0, len(chosen), BLOCK))
    title = "looking for damaged images in" if decode else "looking at"
    with quiet_pillow(), console.progress(f"{title} {dataset.name}") as update:
        for done, (place, name, digest, header) in enumerate(chain.from_iterable(in_order(look, blocks)), 1):
            content.update(name.encode("utf-8", "surrogateescape") + b"\0" + digest)
            update(done, len(chosen))
            if isinstance(header, UnreadableImage):
                found.unread.append((place, header.name, header.reason))
                continue
            kind, mode, (width, height), change = header
            formats[kind] += 1
            modes[mode] += 1
            if change:
                converted[change] += 1
            found.num_oblong += width != height
            if width != height and len(found.oblong) < SHOWN:
                found.oblong.append(f"{name} ({width}x{height})")
    found.content = content.hexdigest()[:24]
    found.formats, found.modes = dict(formats.most_common()), dict(modes.most_common())
    found.converted = dict(converted.most_common())
    return found


def _look(encoded: Encoded, name: str, decode: bool) -> tuple[bytes, _Header | UnreadableImage]:
    """Return a hash of the bytes of an image, and its header or why it cannot be read."""
    digest = b""
    try:
        with bytes_of(encoded, name) as content:
            digest = hashlib.blake2b(content, digest_size=16).digest()
            with open_image(content, name) as image:
                kind, mode, size = image.format or "", image.mode, image.size
                deep = mode == "I" or mode.startswith("I;16")
                change = BACKGROUND if image.has_transparency_data else SCALED if deep else None
            if decode:
                read_rgb(content, name)
        return digest, (kind, mode, size, change)
    except UnreadableImage as failure:
        return digest, failure
