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
from itertools import chain
from pathlib import PurePosixPath

import numpy as np

from gtool.data.dataset import ImageDataset
from gtool.data.threads import in_order
from gtool.io.cache import CacheEntry
from gtool.io.image import VERSION, Encoded, UnreadableImage, bytes_of, open_image, quiet_pillow, read_rgb

FORMAT = 3
BLOCK = 16  # images that a thread looks at before it hands over what it saw
# What is changed on the way to 8-bit RGB, and how.
BACKGROUND = "alpha composed on white"
SCALED = "16 bits scaled to 8 by 1/257"
SHOWN = 3  # names in an error

# Format, mode, width and height as stored (before a noted orientation), and what is changed on the way to RGB.
_Header = tuple[str, str, tuple[int, int], str | None]
Progress = Callable[[int, int], None]


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


def inspect_images(
    dataset: ImageDataset, chosen: np.ndarray, *, decode: bool, progress: Progress | None = None
) -> Inspection:
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

    return entry.get(read, lambda: entry.write_notes(asdict(_inspect(dataset, chosen, decode, progress))))


def repeated_stems(names: Sequence[str]) -> list[list[str]]:
    """Return the groups of names that differ in their suffix alone, as the same picture saved twice does."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _inspect(
    dataset: ImageDataset, chosen: np.ndarray, decode: bool, progress: Progress | None
) -> Inspection:
    formats, modes, converted = Counter[str](), Counter[str](), Counter[str]()
    found = Inspection()
    content = hashlib.sha256(f"pixels {VERSION}\n".encode())

    def look(block: list[int]) -> list[tuple[int, str, bytes, _Header | UnreadableImage]]:
        names = [dataset.name_of(place) for place in block]
        loaded = dataset.files.load(block)
        return [(p, n, *_look(e, n, decode)) for p, n, e in zip(block, names, loaded, strict=True)]

    blocks = (chosen[start : start + BLOCK].tolist() for start in range(0, len(chosen), BLOCK))
    with quiet_pillow():
        for done, (place, name, digest, header) in enumerate(chain.from_iterable(in_order(look, blocks)), 1):
            content.update(name.encode("utf-8", "surrogateescape") + b"\0" + digest)
            if progress:
                progress(done, len(chosen))
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
