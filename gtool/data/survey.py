"""What images are made of, found out before they are scored: formats, modes, sizes, and what cannot be read.

Libraries of metrics read what they can and say nothing of the rest, and then two people with the same folder get
different scores. Here every image is looked at first, by all cores, and the answer is kept in the cache folder
under the fingerprint of the source.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from gtool.data.entries import Entry
from gtool.data.lazy import in_order
from gtool.data.open import ImageSource
from gtool.io.image import MAX_BYTES, VERSION, Encoded, UnreadableImage, open_image, quiet_pillow, read_rgb

FORMAT = 2
BLOCK = 16  # images that a thread looks at before it hands over what it saw
# Modes of which something is changed on the way to 8-bit RGB, and how.
BACKGROUND = "alpha composed on white"
SCALED = "16 bits scaled to 8 by 1/257"
SHOWN = 3  # names in an error

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Survey:
    """What was seen.

    content: a hash of names and bytes; unlike a fingerprint the same on every machine that has these files.
    converted: how many images lost something on the way to 8-bit RGB, by what was done.
    oblong: names and sizes of the first images that are not square; unread: place, name and reason.
    """

    content: str
    count: int
    formats: dict[str, int]
    modes: dict[str, int]
    converted: dict[str, int]
    oblong: list[str] = field(default_factory=list)
    num_oblong: int = 0
    unread: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Look:
    digest: bytes
    format: str = ""
    mode: str = ""
    change: str | None = None
    size: tuple[int, int] = (0, 0)  # width and height as stored, before a noted orientation
    failure: UnreadableImage | None = None


def survey(
    source: ImageSource, chosen: np.ndarray, *, decode: bool, progress: Progress | None = None
) -> Survey:
    """Look at the images `chosen` (n,) of a source.

    decode: also decode each, which finds those with damaged pixels; else only headers are read.

    Raises:
        DataError: the cache folder cannot be written.
    """
    picked = hashlib.blake2b(np.ascontiguousarray(chosen, np.int64).tobytes(), digest_size=12).hexdigest()
    depends_on = (source.fingerprint, picked, f"survey {FORMAT}", f"pixels {VERSION}", f"decoded {decode}")
    entry = Entry("surveys", source.name, str(len(chosen)), depends_on)
    found = _read(entry)
    if found is None:
        with entry.locked():
            found = _read(entry)
            if found is None:
                found = _look_at_all(source, chosen, decode, progress)
                entry.write_notes(asdict(found))
    return found


def repeated_stems(names: Sequence[str]) -> list[list[str]]:
    """Return the groups of names that differ in their suffix alone, as the same picture saved twice does."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _read(entry: Entry) -> Survey | None:
    try:
        values = entry.read_notes()
        return Survey(**{**values, "unread": [(int(i), str(n), str(r)) for i, n, r in values["unread"]]})
    except (TypeError, ValueError, KeyError):  # missing, damaged, or of an earlier form: made again
        return None


def _look_at_all(source: ImageSource, chosen: np.ndarray, decode: bool, progress: Progress | None) -> Survey:
    formats, modes, converted = Counter[str](), Counter[str](), Counter[str]()
    oblong, num_oblong, unread = list[str](), 0, list[tuple[int, str, str]]()
    content = hashlib.sha256(f"pixels {VERSION}\n".encode())
    for done, (place, look) in enumerate(_looks(source, chosen, decode), 1):
        name = source.name_of(place)
        content.update(name.encode("utf-8", "surrogateescape") + b"\0" + look.digest)
        if progress:
            progress(done, len(chosen))
        if look.failure is not None:
            unread.append((place, look.failure.name, look.failure.reason))
            continue
        formats[look.format] += 1
        modes[look.mode] += 1
        if look.change:
            converted[look.change] += 1
        width, height = look.size
        if width != height:
            num_oblong += 1
            if len(oblong) < SHOWN:
                oblong.append(f"{name} ({width}x{height})")
    return Survey(
        content=content.hexdigest()[:24],
        count=len(chosen),
        formats=dict(formats.most_common()),
        modes=dict(modes.most_common()),
        converted=dict(converted.most_common()),
        oblong=oblong,
        num_oblong=num_oblong,
        unread=unread,
    )


def _looks(source: ImageSource, chosen: np.ndarray, decode: bool) -> Iterator[tuple[int, _Look]]:
    def work(block: list[int]) -> list[tuple[int, _Look]]:
        encoded = source.load(block)
        return [
            (place, _look(one, source.name_of(place), decode))
            for place, one in zip(block, encoded, strict=True)
        ]

    blocks = (chosen[start : start + BLOCK].tolist() for start in range(0, len(chosen), BLOCK))
    with quiet_pillow():
        for looks in in_order(work, blocks):
            yield from looks


def _look(encoded: Encoded, name: str, decode: bool) -> _Look:
    digest = b""
    try:
        data = _bytes(encoded, name)
        if data is not None:
            digest = hashlib.blake2b(data, digest_size=16).digest()
        with open_image(data, name) as image:
            kind, mode, size = image.format or "", image.mode, image.size
            deep = mode == "I" or mode.startswith("I;16")
            change = BACKGROUND if image.has_transparency_data else SCALED if deep else None
        if decode:
            read_rgb(data, name)
        return _Look(digest, kind, mode, change, size)
    except UnreadableImage as failure:
        return _Look(digest, failure=failure)


def _bytes(encoded: Encoded, name: str) -> Any:
    """Return the bytes of a file, and everything else as it is."""
    if not isinstance(encoded, Path):
        return encoded
    try:
        if encoded.stat().st_size > MAX_BYTES:
            raise UnreadableImage(name, f"larger than {MAX_BYTES >> 20} MB")
        return encoded.read_bytes()
    except OSError as bad:
        raise UnreadableImage(name, f"cannot be read: {bad.strerror or bad}") from None
