"""Small files that unpack to gigabytes: refused in one line, in little memory."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.helpers.odd_files import padded_png
from tests.helpers.odd_images import encode

PNG = encode(Image.new("RGB", (12, 12), (255, 0, 0)))
# What a process of its own says of a data set: images that cannot be read, why, and the memory that it took.
PROGRAM = """
import resource, sys
from gtool.data.open import open_dataset
from gtool.data.threads import in_order
from gtool.errors import GToolError
from gtool.io.image import UnreadableImage, quiet_pillow
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
try:
    found = open_dataset(sys.argv[1])
    with quiet_pillow():
        blocks = in_order(lambda i: found.read_squares([i], 16, "center"), range(len(found)))
        print(*{str(one.reason) for block in blocks for one in block if isinstance(one, UnreadableImage)})
except GToolError as bad:
    print(bad)
print(peak() - before)
"""


def shared_value(path: Path) -> None:
    """A column whose 3,400 rows are one value of 1 MB, once in the file."""
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 3400, pa.int32()), pa.array([PNG + bytes(1 << 20)]))
    options = {"dictionary_pagesize_limit": 1 << 30, "row_group_size": 3400, "store_schema": False}
    pq.write_table(pa.table({"image": rows}), path, compression="zstd", **options)


def zeros_in_a_zip(path: Path) -> None:
    bomb = padded_png(PNG, 60 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(4):
            archive.writestr(f"{number}.png", bomb)


def zeros_by_lzma(path: Path) -> None:
    """Entries whose sizes are declared too small, by a method that the library unpacks whole."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for number in range(2):
            archive.writestr(f"{number}.png", padded_png(PNG, 1 << 20))


def padded(path: Path) -> None:
    path.mkdir()
    for number in range(2):
        (path / f"{number}.png").write_bytes(padded_png(PNG, 60 << 20))


BOMBS = {
    "table.parquet": (shared_value, "unpacked, it is far larger than a file of its size may be"),
    "set.zip": (zeros_in_a_zip, "60 MB for 12 x 12 pixels"),
    "lzma.zip": (zeros_by_lzma, "packed by another method than deflate"),
    "padded": (padded, "60 MB for 12 x 12 pixels"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound the memory of a process")
@pytest.mark.parametrize("name", BOMBS)
def test_what_unpacks_to_gigabytes_is_refused_in_little_memory(tmp_path, name):
    make, said = BOMBS[name]
    make(tmp_path / name)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / name)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    why, peak = ran.stdout.splitlines()
    assert said in why
    assert int(peak) < 1000
