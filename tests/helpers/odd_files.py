"""Files as strangers make them to be a nuisance: bombs of all kinds, each a few kB."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping


def nested_zip(names: list[str], innermost: bytes, around: Mapping[str, bytes] | None = None) -> bytes:
    """Return a zip of stored entries each of which holds all entries after it, `around` beside them.

    So the entries together are longer than the file by the square of their number.
    """
    local, directory, sizes = innermost, b"", {}
    for name in reversed(names):
        sizes[name] = len(local)
        local = _header(name, local) + local
    content = {name: local[len(local) - sizes[name] :] for name in names}
    offsets = {name: len(local) - sizes[name] - 30 - len(name) for name in names}
    for name, data in (around or {}).items():
        offsets[name], content[name] = len(local), data
        local += _header(name, data) + data
    for name, data in content.items():
        directory += struct.pack(
            "<4s6H3L5H2L",
            b"PK\1\2",
            20,
            20,
            0,
            0,
            0,
            0,
            *_sizes(data),
            len(name),
            0,
            0,
            0,
            0,
            0,
            offsets[name],
        )
        directory += name.encode()
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(content), len(content), len(directory), len(local), 0)
    return local + directory + end


def _header(name: str, data: bytes) -> bytes:
    return struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, *_sizes(data), len(name), 0) + name.encode()


def _sizes(data: bytes) -> tuple[int, int, int]:
    return zlib.crc32(data), len(data), len(data)


def padded_png(png: bytes, padding: int) -> bytes:
    """Return a PNG with so many bytes in a chunk that nobody reads, behind its header."""
    chunk = b"paDd" + bytes(padding)
    return png[:33] + struct.pack(">I", padding) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]
