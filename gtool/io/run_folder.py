"""Run folders, and which weights a name means; nothing here needs torch.

    runs/transgan-cifar10-000/
      recipe.toml                   the resolved recipe, usable as a recipe
      log.jsonl                     one line a tick
      samples/                      grids of the same latents over the run
      weights-000200.safetensors    averaged generator; its metadata holds everything needed to use it
      state-000200/                 everything needed to go on: named safetensors + state.json

Tensors are written and read by gtool/io/weights.py.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool.errors import CheckpointError, did_you_mean
from gtool.io import hub
from gtool.io.locks import take_lock
from gtool.reading import looks_like, parse_json, reading

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT = 1
METADATA_KEY = "gtool"
MOST_HEADER = 10_000_000  # bytes: a hundred times that of a network of 1,000 tensors
# Of the types of numbers in a safetensors file that are read.
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
ITEM_BYTES |= {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
RUNS = Path("runs")
SHIPPED_FOLDER = Path(__file__).parents[1] / "weights"
# Weights in that folder that `gtool sample` takes by these names.
GENERATORS = ("transgan", "transgan/cifar10", "gansformer", "prior", "image-gpt")
SHIPPED = "shipped"  # the name of the weights that come with the package
PICKLES = {".pt", ".pth", ".ckpt", ".pkl", ".bin", ".model"}
MODEL_FILE = "model.safetensors"  # of a hub repository whose file is not named
_HUB_FILE = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w.-][\w./-]*))?")  # owner/name:file


@dataclass(frozen=True)
class RunFolder:
    """One training run on disk."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    def weights(self) -> list[Path]:
        """Return the weights files, oldest first."""
        return sorted(self.path.glob("weights-*.safetensors"), key=lambda path: path.stem)

    def states(self) -> list[Path]:
        """Return the resume states, oldest first."""
        return sorted(path for path in self.path.glob("state-*") if (path / "state.json").is_file())

    def weights_path(self, nimg: int) -> Path:
        return self.path / f"weights-{_kimg(nimg)}.safetensors"

    def state_path(self, nimg: int) -> Path:
        return self.path / f"state-{_kimg(nimg)}"

    def lock(self) -> BaseFileLock:
        """Hold the run for this process, however it ends; CheckpointError where another trains in this folder."""

        try:
            return take_lock(self.path / ".lock", f"is training in this run folder: {self.path}")
        except OSError as bad:
            raise CheckpointError(f"{self.path}: cannot be written: {bad.strerror or bad}") from None

    def remove_leftovers(self) -> None:
        """Delete what an interrupted writer left behind; call while holding the lock."""
        # A state without state.json was being deleted.
        halves = [p for p in self.path.glob("state-*") if p.is_dir() and not (p / "state.json").exists()]
        for path in [*self.path.glob(".*.tmp*"), *self.samples.glob(".*.tmp*"), *halves]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove_after(self, nimg: int, *, weights: bool) -> list[Path]:
        """Delete states (and weights) of later moments, so that none is taken for the newest; return what was there."""
        later = [path for path in self.states() if path.name > self.state_path(nimg).name]
        if weights:
            later += [path for path in self.weights() if path.stem > self.weights_path(nimg).stem]
        for path in later:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return later

    def prune(self, keep: int, best: int | None) -> None:
        """Keep the last `keep` weights and states, and the weights of the best snapshot (`best`, in images)."""
        kept = self.weights_path(best) if best is not None else None
        for path in self.weights()[:-keep]:
            if path != kept:
                path.unlink()
        for path in self.states()[:-keep]:
            shutil.rmtree(path)


def _kimg(nimg: int) -> str:
    """Name a moment of a run by its kimg; a fraction appears only where there is one, so that names stay distinct."""
    whole, rest = divmod(nimg, 1000)
    return f"{whole:06d}" + (f".{rest:03d}" if rest else "")


def create_run(out: Path | None, name: str) -> RunFolder:
    """Make a new run folder: `out` itself, which has to be empty, or the next free `runs/<name>-NNN`."""
    if out is not None and out.exists() and not _is_unused(out):
        hint = f"go on with --resume {out}" if (out / "recipe.toml").exists() else "choose another --out"
        raise CheckpointError(f"{out}: exists and is not empty; {hint}")
    number = 0
    while True:
        path = out or RUNS / f"{name}-{number:03d}"
        try:
            path.mkdir(parents=True, exist_ok=out is not None)
            (path / "samples").mkdir(exist_ok=True)
        except FileExistsError:
            number += 1
            continue
        except OSError as bad:
            raise CheckpointError(f"{path}: cannot be made: {bad.strerror or bad}") from None
        return RunFolder(path)


def _is_unused(out: Path) -> bool:
    """Say whether a folder is empty, or holds no more than a run that was killed before it wrote its recipe."""
    begun = out / "samples"
    return out.is_dir() and all(
        path.name == ".lock"
        or path.name.startswith(".recipe.")
        or (path == begun and not any(begun.iterdir()))
        for path in out.iterdir()
    )


def is_state(spec: str | None) -> bool:
    """Say whether what was given to resume is a state in a run folder."""
    path = Path(spec or "").expanduser()
    return path.name.startswith("state-") and (path.parent / "recipe.toml").is_file()


def open_run(path: Path) -> RunFolder:
    """Return an existing run folder; CheckpointError where there is none."""
    run = RunFolder(path)
    if not run.recipe.is_file():
        why = "not a run folder (no recipe.toml in it)" if path.is_dir() else "no such run folder"
        raise CheckpointError(f"{path}: {why}")
    return run


def newest_run(model: str | None = None, *, with_weights: bool = True) -> RunFolder | None:
    """Return the run in ./runs that was worked on last, or None; arguments as of `runs_of`."""
    return next(iter(runs_of(model, with_weights=with_weights)), None)


def runs_of(model: str | None = None, *, with_weights: bool = True) -> list[RunFolder]:
    """Return the runs in ./runs, of one model or all, the one that was worked on last first.

    with_weights: only runs that can already be sampled from.
    """
    runs = [RunFolder(path.parent) for path in RUNS.glob("*/recipe.toml")]
    runs = [run for run in runs if model is None or run.path.name.startswith(f"{model}-")]
    times = {
        run: max(path.stat().st_mtime_ns for path in [run.recipe, *run.weights(), *run.states()])
        for run in runs
        if run.weights() or not with_weights
    }
    return sorted(times, key=lambda run: times[run], reverse=True)


def find_weights(spec: str | None) -> Path:
    """Return the weights file meant by a run folder, a file, a model with weights in the package, or a hub id.

    A hub id is `owner/name`, for its model.safetensors, or `owner/name:file`. None stands for the newest run.

    Raises:
        CheckpointError: nothing there, or something else; says what would be right.
    """
    if spec is None:
        run = newest_run()
        if run is None:
            raise CheckpointError(
                "no trained run in ./runs; start with `gtool train transgan`, name a run or weights, or use those "
                f"that come with gtool: {', '.join(GENERATORS)}"
            )
        return run.weights()[-1]
    path, named = Path(spec).expanduser(), RUNS / spec
    if path.is_file():
        return _require_weights(path)
    for folder in (path, named):
        if folder.is_dir():
            if weights := RunFolder(folder).weights():
                return weights[-1]
            raise CheckpointError(
                f"{folder}: holds no weights-*.safetensors; is it a run folder that has saved once?"
            )
    if (shipped := shipped_weights(spec)) is not None:
        return shipped
    if (named_on_hub := _HUB_FILE.fullmatch(spec)) and not spec.startswith("runs/"):
        repository, file = named_on_hub.groups()
        if file or not re.match(r"\.[A-Za-z]", path.suffix):  # not for a file that was here once
            return _require_weights(hub.download(repository, file or MODEL_FILE))
    known = [*GENERATORS, *(entry.name for entry in RUNS.glob("*") if entry.is_dir())]
    raise CheckpointError(f"{spec}: no such run or file{did_you_mean(path.name, known)}")


def _require_weights(path: Path) -> Path:
    """Return a file that can be one of weights; CheckpointError for a pickle, a picture, and the like."""
    if path.suffix.lower() in PICKLES:
        raise CheckpointError(
            f"{path}: a torch pickle; convert it once with `gtool export {path} --from MODEL`"
        )
    if (found := looks_like(path)) and "safetensors" not in found:
        raise CheckpointError(
            f"{path}: {found}; weights are .safetensors files, and images folders, zips or parquet files"
        )
    return path


def find_start(spec: str, model: str) -> Path:
    """Return the weights that training begins with: those of the package for `shipped`, else as `find_weights`."""
    if spec != SHIPPED:
        return find_weights(spec)
    path = shipped_weights(model)
    if path is None:
        raise CheckpointError(
            "no trained weights come with this gtool; name a run or a weights file to begin with by --weights"
        )
    return path


def shipped_weights(model: str) -> Path | None:
    """Return the weights of a model that come with the package, or None where none do."""
    path = SHIPPED_FOLDER / f"{model}.safetensors"
    return path if path.is_file() else None


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file, without torch: `dtype`, `shape` and `data_offsets` by name.

    Raises:
        CheckpointError: missing, another kind of file, cut short, or a header that the file does not bear out.
    """
    with reading(path, "safetensors file", CheckpointError), path.open("rb") as stream:
        size = path.stat().st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 10 or not 2 <= length <= min(MOST_HEADER, size - 8):
            raise ValueError("it is cut short" if 2 <= length <= MOST_HEADER else "it has no header")
        header: dict[str, Any] = parse_json(stream.read(length))
        if not all(isinstance(text, str) for text in header.setdefault("__metadata__", {}).values()):
            raise ValueError("its metadata are no text")
        ends = [8 + length]
        for name in header.keys() - {"__metadata__"}:
            about = header[name]
            if about["dtype"] not in ITEM_BYTES:
                raise ValueError(f"tensor `{name}` is of type {about['dtype']}, which is not read")
            first, last = about["data_offsets"]
            if (
                min(0, first, *about["shape"]) < 0
                or last - first != prod(about["shape"]) * ITEM_BYTES[about["dtype"]]
            ):
                raise ValueError(
                    f"tensor `{name}` has {last - first:,} bytes, which is not its shape {about['shape']}"
                )
            ends.append(8 + length + last)
        if max(ends) > size:
            raise ValueError(f"it is cut short: {size:,} bytes, and its header speaks of {max(ends):,}")
        return header


def read_meta(path: Path) -> dict[str, Any]:
    """Read the description of a weights file from its header, without torch; CheckpointError where it has none."""
    text = read_header(path)["__metadata__"].get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{path}: has no gtool description in its header; bring foreign weights in with `gtool export --from`"
        )
    with reading(str(path), "description of weights", CheckpointError):
        meta = dict[str, Any](parse_json(text))
        version = meta["format"]
    if version != FORMAT:
        raise CheckpointError(f"{path}: weights of format {version!r}, this gtool reads format {FORMAT}")
    return meta
