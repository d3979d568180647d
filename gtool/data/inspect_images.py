"""What the images of a set are made of, found out before they are scored: formats, modes, sizes, what cannot be read.

Libraries of metrics read what they can and say nothing of the rest, and then two people with the same folder get
different scores. Here every image is looked at first, by all cores, and the answer is kept in the cache folder
under the fingerprint of the data set.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gtool.data.cache import CacheEntry
from gtool.data.dataset import ImageDataset
from gtool.data.threads import in_order
from gtool.io.image import MAX_BYTES, VERSION, Encoded, UnreadableImage, open_image, quiet_pillow, read_rgb

FORMAT = 2
BLOCK = 16  # images that a thread looks at before it hands over what it saw
# What is changed on the way to 8-bit RGB, and how.
BACKGROUND = "alpha composed on white"
SCALED = "16 bits scaled to 8 by 1/257"
SHOWN = 3  # names in an error


@dataclass
class Inspection:
    """What was found.

    content: a hash of names and bytes; unlike a fingerprint the same on every machine that has these files.
    converted: how many images lost something on the way to 8-bit RGB, by what was done.
    oblong: names and sizes of the first images that are not square; unread: place, name and reason.
    """

    content: str = ""
    count: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    converted: dict[str, int] = field(default_factory=dict)
    oblong: list[str] = field(default_factory=list)
    num_oblong: int = 0
    unread: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Header:
    digest: bytes
    format: str = ""
    mode: str = ""
    change: str | None = None
    size: tuple[int, int] = (0, 0)  # width and height as stored, before a noted orientation
    failure: UnreadableImage | None = None


def inspect_images(
    dataset: ImageDataset,
    chosen: np.ndarray,
    *,
    decode: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Look at the images `chosen` (n,) of a data set.

    decode: also decode each, which finds those with damaged pixels; else only headers are read.

    Raises:
        DataError: the cache folder cannot be written.
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

    return entry.get(read, lambda: entry.write_notes(asdict(_inspect(dataset, chosen, decode, progress))))


def repeated_stems(names: Sequence[str]) -> list[list[str]]:
    """Return the groups of names that differ in their suffix alone, as the same picture saved twice does."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _inspect(
    dataset: ImageDataset,
    chosen: np.ndarray,
    decode: bool,
    progress: Callable[[int, int], None] | None,
) -> Inspection:
    formats, modes, converted = Counter[str](), Counter[str](), Counter[str]()
    found = Inspection(count=len(chosen))
    content = hashlib.sha256(f"pixels {VERSION}\n".encode())

    def look(block: list[int]) -> list[tuple[str, _Header]]:
        names = [dataset.name_of(place) for place in block]
        return [
            (name, _read_header(encoded, name, decode))
            for name, encoded in zip(names, dataset.files.load(block), strict=True)
        ]

    done = 0
    with quiet_pillow():
        blocks = (chosen[start : start + BLOCK].tolist() for start in range(0, len(chosen), BLOCK))
        for headers in in_order(look, blocks):
            for name, header in headers:
                place = int(chosen[done])
                done += 1
                if progress:
                    progress(done, len(chosen))
                content.update(name.encode("utf-8", "surrogateescape") + b"\0" + header.digest)
                if header.failure is not None:
                    found.unread.append((place, header.failure.name, header.failure.reason))
                    continue
                formats[header.format] += 1
                modes[header.mode] += 1
                if header.change:
                    converted[header.change] += 1
                width, height = header.size
                found.num_oblong += width != height
                if width != height and len(found.oblong) < SHOWN:
                    found.oblong.append(f"{name} ({width}x{height})")
    found.content = content.hexdigest()[:24]
    found.formats, found.modes = dict(formats.most_common()), dict(modes.most_common())
    found.converted = dict(converted.most_common())
    return found


def _read_header(encoded: Encoded, name: str, decode: bool) -> _Header:
    digest = b""
    try:
        data = _read_bytes(encoded, name)
        if data is not None:
            digest = hashlib.blake2b(data, digest_size=16).digest()
        with open_image(data, name) as image:
            kind, mode, size = image.format or "", image.mode, image.size
            deep = mode == "I" or mode.startswith("I;16")
            change = BACKGROUND if image.has_transparency_data else SCALED if deep else None
        if decode:
            read_rgb(data, name)
        return _Header(digest, kind, mode, change, size)
    except UnreadableImage as failure:
        return _Header(digest, failure=failure)


def _read_bytes(encoded: Encoded, name: str) -> Any:
    """Return the bytes of a file, and everything else as it is."""
    if not isinstance(encoded, Path):
        return encoded
    try:
        if encoded.stat().st_size > MAX_BYTES:
            raise UnreadableImage(name, f"larger than {MAX_BYTES >> 20} MB")
        return encoded.read_bytes()
    except OSError as bad:
        raise UnreadableImage(name, f"cannot be read: {bad.strerror or bad}") from None
