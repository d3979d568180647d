"""Damage files of all kinds and read them as the command line does.

    python -m tests.benchmarks.fuzz_readers [FILES] [SEED] [READER]

Every file must be read, or refused by an error of gtool in one line, in seconds, in bounded memory, executing nothing
and reading nothing outside of its data set. Printed: a row for each reader.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gtool.config.recipe import make_recipe, read_table, to_toml
from gtool.data.open import open_dataset
from gtool.errors import GToolError
from gtool.io.image import quiet_pillow
from gtool.io.photo import read_photo
from gtool.io.run_folder import RunFolder, find_weights
from gtool.io.weights import load_state, save_state
from gtool.metrics.features.inception import read_tensors
from gtool.metrics.statistics import read_statistics
from gtool.models.released_files import read_released
from gtool.models.trained import open_trained
from gtool.strokes.stroke_file import load_strokes
from gtool.train.reports import read_log
from gtool.train.state import Counters
from tests.helpers.tiny import save_prior, save_tokenizer, tiny_recipe

MOST_SECONDS, MOST_KB = 5.0, 1 << 20
ODD = [None, True, -1, 0, 2**63, 10**400, 1e308, float("inf"), float("nan")]
ODD += ["", "x", "../x", "é\n::", [], {}, [[1]], {"a": 1}]
DEEP = "@deep"  # becomes 100,000 lists in each other


class Planted:
    """Makes a folder called `executed` when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


@dataclass
class Reader:
    """A way to read files: its samples, by the names that the damaged ones get, and what is called with a file."""

    read: Callable[[Path], Any]
    samples: list[tuple[str, bytes]]
    done: int = 0
    read_well: int = 0
    slowest: float = 0.0
    most_kb: int = 0
    wrong: list[str] = field(default_factory=list)


def readers(folder: Path) -> dict[str, Reader]:
    """Write good files of all kinds and return what reads each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, prior = save_tokenizer(folder / "t.safetensors"), folder / "p.safetensors"
    save_prior(prior)
    weights = [(path.name, path.read_bytes()) for path in (tokenizer, prior)]
    save_state(
        folder / "s",
        {"ema": {"w": torch.zeros(3)}},
        {
            **{"nimg": 320, "steps": 20, "seconds": 17.9, "progress": 0.5, "position": 320},
            **{"numbers": {"augment_p": 1.0}, "best": {"nimg": 48, "rfd": 6.0}},
        },
    )
    state = [("state.json", (folder / "s" / "state.json").read_bytes())]
    line = {"nimg": 16, "kimg": 0.016, "steps": 1, "seconds": 1.5, "rfd": 3.0, "rfd_floor": 1.0}
    log = [("log.jsonl", "\n".join(json.dumps(line | {"nimg": n}) for n in range(5)).encode())]
    return {
        "weights": Reader(lambda path: open_trained(find_weights(str(path))).network(), weights),
        "states": Reader(_read_state, state),
        "logs": Reader(lambda path: read_log(RunFolder(path.parent)), log),
        "statistics": Reader(
            read_statistics,
            [("s.npz", _npz(mu=np.zeros(2048), sigma=np.eye(2048, dtype="f4"), count=np.array("5")))],
        ),
        "pickles": Reader(_read_pickles, [(f"{n}.pth", one) for n, one in enumerate(_pickles())]),
        "recipes": Reader(
            lambda path: make_recipe(read_table(path), where=str(path)),
            [("r.toml", to_toml(tiny_recipe()).encode())],
        ),
        "zips": Reader(_read_set, [("z.zip", _zip(method)) for method in (0, 8, 12, 14)]),
        "parquet": Reader(_read_set, [("t.parquet", one) for one in _tables()]),
        "images": Reader(_read_image, _images()),
        "strokes": Reader(load_strokes, [("s.json", _strokes())]),
        "cards": Reader(_read_folder, [("README.md", _card())]),
        "labels": Reader(_read_folder, _labels()),
    }


def _read_state(path: Path) -> None:
    _, info = load_state(path.parent)
    try:
        Counters.model_validate(info)
    except ValueError as bad:  # as gtool.train.state does
        raise GToolError(str(bad).splitlines()[0]) from None


def _read_pickles(path: Path) -> None:
    failed = None
    for read in (
        lambda: read_tensors(path),
        *(lambda m=m: read_released(path, m) for m in ("transgan", "gansformer", "taming")),
    ):
        try:
            read()
        except GToolError as bad:
            failed = bad
    if failed:
        raise failed


def _read_set(path: Path) -> None:
    dataset = open_dataset(str(path))
    with quiet_pillow():
        dataset.read_squares(list(range(len(dataset)))[:16], 16, "center")


def _read_folder(path: Path) -> None:
    """A data set in which this file describes or labels images that are sound."""
    if path.name == "README.md":
        (path.parent / "t.parquet").write_bytes(_tables()[0])
    else:
        for number in range(3):
            (path.parent / f"{number}.png").write_bytes(_image("PNG"))
    _read_set(path.parent)


def _read_image(path: Path) -> None:
    read_photo(path, 64)


# Good files.


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _pickles() -> list[bytes]:
    content = {
        "gen_state_dict": {"l1.weight": torch.zeros(8, 4), "x": torch.arange(6).view(2, 3).T},
        "planted": Planted(),
    }
    made = [pickle.dumps(content, protocol) for protocol in (0, 2, 4)]
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
        made.append(stream.getvalue())
    return made


def _image(kind: str, side: int = 12, **options: Any) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def _images() -> list[tuple[str, bytes]]:
    kinds = {
        "PNG": "png",
        "JPEG": "jpg",
        "GIF": "gif",
        "TIFF": "tif",
        "WEBP": "webp",
        "BMP": "bmp",
        "PPM": "ppm",
        "AVIF": "avif",
    }
    made = [(f"i.{suffix}", _image(kind)) for kind, suffix in kinds.items() if kind in Image.SAVE]
    frames = [Image.new("P", (9, 9), n) for n in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, suffix in (("GIF", "gif"), ("TIFF", "tif"), ("WEBP", "webp")):
        stream = io.BytesIO()
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
        made.append((f"m.{suffix}", stream.getvalue()))
    array = io.BytesIO()
    np.save(array, np.full((8, 8, 3), 7.0))
    return [
        *made,
        ("e.jpg", _image("JPEG", exif=exif)),
        ("a.npy", array.getvalue()),
        ("c.tif", _image("TIFF", compression="tiff_lzw")),
    ]


def _zip(method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for number in range(4):
            archive.writestr(f"{'ab'[number % 2]}/{number}.png", _image("PNG"))
    return stream.getvalue()


def _tables() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": _image("PNG"), "path": "x.png"}, {"bytes": None, "path": "/etc/passwd"}] * 3
    tables = [
        pa.table({"image": pa.array(rows, record), "label": [0, 1] * 3}),
        pa.table({"img": [_image("JPEG")] * 6, "label": ["a", "b"] * 3, "depth": [_image("PNG")] * 6}),
    ]
    made = []
    for table in tables:
        for compression in ("NONE", "zstd"):
            stream = io.BytesIO()
            pq.write_table(table, stream, compression=compression)
            made.append(stream.getvalue())
    return made


def _strokes() -> bytes:
    columns = ["x", "y", "width", "height", "theta", "red", "green", "blue", "level"]
    head = {
        "format": "gtool-strokes",
        "version": 1,
        "aspect": 1.5,
        "ground": [0.4, 0.4, 0.3],
        "brush": "flat",
        "opacity": 1.0,
    }
    return json.dumps(
        head | {"columns": columns, "strokes": [[0.5, 0.3, 0.4, 0.2, 0.25, 0.8, 0.1, 0.1, 0]] * 4}
    ).encode()


def _card() -> bytes:
    listed = "config_name: default\n  data_files:\n  - split: train\n    path: t.parquet"
    return f"---\nconfigs:\n- {listed}\n---\n# A set\n".encode()


def _labels() -> list[tuple[str, bytes]]:
    listed = {"labels": [[f"{n}.png", n % 2] for n in range(3)]}
    lines = "\n".join(json.dumps({"file_name": f"{n}.png", "label": n % 2}) for n in range(3))
    table = "file_name,label\n" + "\n".join(f"{n}.png,{n % 2}" for n in range(3))
    names = json.dumps({"names": ["a", "b"]})
    return [
        ("dataset.json", json.dumps(listed).encode()),
        ("metadata.jsonl", lines.encode()),
        ("metadata.csv", table.encode()),
        ("classes.json", names.encode()),
    ]


# Damage.


def damaged(content: bytes, name: str, random: np.random.Generator) -> bytes:
    """Return a file with bytes or, where it holds JSON, values changed."""
    how = random.integers(10)
    if how < 4 and name.endswith((".json", ".jsonl", ".safetensors")):
        return _odd_json(content, name, random)
    changed = bytearray(content)
    if how == 9:
        return bytes(changed[: random.integers(len(changed) + 1)])
    if how == 8:
        start, end = sorted(random.integers(0, len(changed), 2))
        return bytes(changed[:start] + changed[start:end] * int(random.integers(0, 4)) + changed[end:])
    for _ in range(random.integers(1, 9)):
        # Headers and directories are where it hurts.
        near = min(len(changed), 400)
        place = int(
            random.choice(
                [
                    random.integers(near),
                    len(changed) - 1 - random.integers(near),
                    random.integers(len(changed)),
                ]
            )
        )
        changed[place] = int(
            random.choice(
                [0, 1, 127, 128, 255, random.integers(256), changed[place] ^ (1 << random.integers(8))]
            )
        )
    return bytes(changed)


def _odd_json(content: bytes, name: str, random: np.random.Generator) -> bytes:
    if not name.endswith(".safetensors"):
        lines = content.decode().split("\n") if name.endswith("l") else [content.decode()]
        place = int(random.integers(len(lines)))
        lines[place] = _odd(lines[place], random)
        return "\n".join(lines).encode()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if random.integers(3):
        header["__metadata__"]["gtool"] = _odd(header["__metadata__"]["gtool"], random)
        text = json.dumps(header).encode()
    else:
        text = _odd(json.dumps(header), random).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _odd(text: str, random: np.random.Generator) -> str:
    """Return JSON with a value, anywhere in it, replaced by an odd one."""
    root = [json.loads(text)]
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [root]
    while waiting:
        here = waiting.pop()
        for key, value in list(here.items() if isinstance(here, dict) else enumerate(here)):
            places.append((here, key))
            if isinstance(value, dict | list):
                waiting.append(value)
    for _ in range(random.integers(1, 3)):
        here, key = places[random.integers(len(places))]
        chosen = random.integers(len(ODD) + 2)
        if chosen == len(ODD) and isinstance(here, dict) and key in here:
            del here[key]
        elif isinstance(here, dict) or key < len(here):
            here[key] = DEEP if chosen > len(ODD) else ODD[min(chosen, len(ODD) - 1)]
    return json.dumps(root[0]).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)


# The run.


def fuzz(files: int, seed: int, chosen: str = "") -> dict[str, Reader]:
    """Read so many damaged files in the current folder, as many of each reader."""
    home = Path.cwd()
    os.environ["GTOOL_CACHE"] = str(home / "cache")
    found = {name: reader for name, reader in readers(home / "good").items() if chosen in name}
    sys.addaudithook(_watch)
    for name, reader in found.items():
        random = np.random.default_rng([seed, *name.encode()])
        sample, content = reader.samples[0]
        (home / "good" / name).mkdir()
        (home / "good" / name / sample).write_bytes(content)
        with suppress(GToolError):  # of pickles: some readers know their own networks alone
            reader.read(home / "good" / name / sample)
        for number in range(files // len(found)):
            sample, content = reader.samples[number % len(reader.samples)]
            path = home / "work" / f"{name}-{number}" / sample
            path.parent.mkdir(parents=True)
            path.write_bytes(damaged(content, sample, random))
            _try(reader, path, home)
            for one in sorted(path.parent.rglob("*"), reverse=True):
                one.unlink() if not one.is_dir() else one.rmdir()
            path.parent.rmdir()
    return found


_outside: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note files that a card or a row could lead to."""
    if event == "open" and str(arguments[0]).startswith("/etc/passwd"):
        _outside.append(str(arguments[0]))


def _try(reader: Reader, path: Path, home: Path) -> None:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = ""
    try:
        reader.read(path)
        reader.read_well += 1
    except GToolError as bad:
        if "\n" in str(bad) or len(str(bad)) > 1000:
            problem = f"not one line: {str(bad)[:80]!r}"
    except BaseException as bad:
        if isinstance(bad, KeyboardInterrupt):
            raise
        place = next(
            (f for f in reversed(traceback.extract_tb(bad.__traceback__)) if "gtool/" in f.filename), None
        )
        problem = (
            f"{type(bad).__name__}: {str(bad)[:80]} at {place.filename.rpartition('gtool/')[2]}:{place.lineno}"
            if place
            else repr(bad)
        )
    took = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    reader.done, reader.slowest, reader.most_kb = (
        reader.done + 1,
        max(reader.slowest, took),
        max(reader.most_kb, grown),
    )
    problem = problem or (f"{took:.1f} s" if took > MOST_SECONDS else "")
    problem = problem or (f"{grown >> 10} MB" if grown > MOST_KB else "")
    problem = (
        problem
        or ("executed" if (home / "executed").exists() else "")
        or (f"opened {_outside[0]}" if _outside else "")
    )
    if problem:
        kept = home / "wrong" / f"{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}-{path.name}"
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(path.read_bytes())
        reader.wrong.append(f"{problem} ({kept})")
        _outside.clear()


def main() -> None:
    """Print a row for each reader, then what went wrong."""
    files, seed = (int(number) for number in (*sys.argv[1:3], *("20000", "0")[len(sys.argv) - 1 :])[:2])
    os.chdir(tempfile.mkdtemp(prefix="fuzz-"))
    began = time.perf_counter()
    found = fuzz(files, seed, sys.argv[3] if len(sys.argv) > 3 else "")
    print(f"{'reader':12}{'files':>8}{'read':>8}{'wrong':>8}{'most CPU s':>12}{'most, MB':>10}")
    for name, one in found.items():
        print(
            f"{name:12}{one.done:8,}{one.read_well:8,}{len(one.wrong):8,}{one.slowest:12.2f}{one.most_kb >> 10:10,}"
        )
    print(f"seed {seed}, {time.perf_counter() - began:.0f} s, in {Path.cwd()}")
    for name, one in found.items():
        for problem in one.wrong[:40]:
            print(f"{name}: {problem}")


if __name__ == "__main__":
    main()
