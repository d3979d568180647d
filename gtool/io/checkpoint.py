"""The only reader and writer of weights, resume states and run folders.

    runs/transgan-cifar10-000/
      recipe.toml                   the resolved recipe, usable as a recipe
      log.jsonl                     one line a tick
      samples/                      grids of the same latents over the run
      weights-000200.safetensors    averaged generator; its metadata holds everything needed to use it
      state-000200/                 everything needed to go on: named safetensors + state.json

Everything is written under a temporary name, flushed to the disk and renamed. Nothing is ever pickled; foreign
pickles pass through torch's weights-only reader and a short allow-list.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool.errors import CheckpointError, did_you_mean

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from torch import Tensor, nn

FORMAT = 1
METADATA_KEY = "gtool"
MOST_HEADER = 100_000_000  # bytes, as the format has it
RUNS = Path("runs")
SHIPPED = "shipped"  # the name of the weights that come with the package
PICKLES = {".pt", ".pth", ".ckpt", ".pkl", ".bin", ".model"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def cache_dir() -> Path:
    """Return the folder for everything that can be made again: $GTOOL_CACHE or the platform's cache / gtool."""
    if chosen := os.environ.get("GTOOL_CACHE"):
        return Path(chosen).expanduser()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "gtool"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and renamed, on failure removed.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as bad:
        raise CheckpointError(f"{path}: cannot be written: {bad.strerror or bad}") from None
    finally:
        with suppress(OSError):  # where there is no folder, there is nothing to remove
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Weights: one safetensors file with its own description.


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the metadata that says what they are."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save_weights(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and their description to one safetensors file, atomically.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    described = {METADATA_KEY: json.dumps({"format": FORMAT, **meta}, sort_keys=True, allow_nan=False)}
    with atomic_write(path) as temporary:
        try:
            save_file(_plain(tensors), temporary, metadata=described)
        except SafetensorError as bad:
            raise CheckpointError(f"{path}: cannot be written: {bad}") from None


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def load_weights(path: Path) -> Weights:
    """Read and check a weights file of gtool.

    Raises:
        CheckpointError: missing, a pickle, truncated, forged, without our metadata, of another format, not finite.
    """
    tensors, metadata = read_safetensors(path)
    return Weights(tensors, _described(metadata, path))


def read_meta(path: Path) -> dict[str, Any]:
    """Read the description of a weights file alone, without torch.

    Raises:
        CheckpointError: missing, no safetensors file, or without our metadata.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= MOST_HEADER:
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(stream.read(length))
    except OSError as bad:
        raise CheckpointError(f"{path}: cannot be read: {bad.strerror or bad}") from None
    except ValueError as bad:
        raise CheckpointError(f"{path}: not a readable safetensors file: {bad}") from None
    return _described(header.get("__metadata__") if isinstance(header, dict) else None, path)


def _described(metadata: Any, path: Path) -> dict[str, Any]:
    """Return what a weights file says of itself, checked to be ours."""
    try:
        meta = json.loads(metadata[METADATA_KEY])
        version = meta["format"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{path}: has no gtool description in its header; bring foreign weights in with `gtool export --from`"
        ) from None
    if version != FORMAT:
        raise CheckpointError(f"{path}: weights of format {version!r}, this gtool reads format {FORMAT}")
    return dict(meta)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of any safetensors file, and the texts of its header.

    Raises:
        CheckpointError: missing, damaged, not finite.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as bad:
        raise CheckpointError(f"{path}: not a readable safetensors file: {bad}") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: tensor `{name}` holds values that are not finite")
    return tensors, metadata


def restore(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy tensors into a module whose names and shapes must be exactly theirs.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape or kind of number differs.
    """
    require_fit(module, tensors, where)
    module.load_state_dict(dict(tensors))


def require_fit(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Compare names, shapes and kinds of number, for a module that may have no memory yet.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape or kind of number differs.
    """
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        counts = (
            f"{len(missing)} tensors missing, {len(unknown)} unknown, the first `{(missing + unknown)[0]}`"
        )
        raise CheckpointError(f"{where}: not the weights of this model: {counts}")
    for name, tensor in own.items():
        given = tensors[name]
        if given.shape != tensor.shape or given.is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(
                f"{where}: tensor `{name}` is {given.dtype} {tuple(given.shape)}, this model has "
                f"{tensor.dtype} {tuple(tensor.shape)}"
            )


def load_pickled(path: Path) -> dict[str, Any]:
    """Read a foreign torch file without executing anything it says.

    Raises:
        CheckpointError: missing, unreadable, or holding anything but tensors, numbers, text and containers.
    """
    import pickle

    import torch

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_inert_globals()):
            warnings.simplefilter("ignore", UserWarning)  # of the pickle's protocol: it is read or refused
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as refused:
        named = re.search(r"GLOBAL ([\w.]+)", str(refused))
        what = f"`{named.group(1)}`" if named else "something that is no tensor"
        raise CheckpointError(
            f"{path}: refused: the file wants to build {what}, and only tensors, numbers and text are read"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, AttributeError) as bad:
        why = (str(bad) or type(bad).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: not a readable torch file: {why}") from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not named tensors")
    return loaded


def _inert_globals() -> list[Any]:
    """What released checkpoints hold beside tensors: numpy scalars (scores) and argparse namespaces (options)."""
    import argparse

    import numpy as np
    from numpy._core import multiarray

    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    # Old files name the module by its former path; the object is the same.
    return [
        argparse.Namespace,
        np.dtype,
        multiarray.scalar,
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        *dtypes,
    ]


# Run folders.


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
        return sorted(self.path.glob("weights-*.safetensors"))

    def states(self) -> list[Path]:
        """Return the resume states, oldest first."""
        return sorted(path for path in self.path.glob("state-*") if (path / "state.json").is_file())

    def weights_path(self, nimg: int) -> Path:
        return self.path / f"weights-{_kimg(nimg)}.safetensors"

    def state_path(self, nimg: int) -> Path:
        return self.path / f"state-{_kimg(nimg)}"

    def lock(self) -> BaseFileLock:
        """Hold the run for this process; the system lets go of it when the process ends, however it ends.

        Raises:
            CheckpointError: another process trains in this folder.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(f"{self.path}: another process is training in this run folder") from None
        except OSError as bad:
            raise CheckpointError(f"{self.path}: cannot be written: {bad.strerror or bad}") from None
        return lock

    def remove_leftovers(self) -> None:
        """Delete what an interrupted writer left behind; call while holding the lock."""
        for path in [*self.path.glob(".*.tmp*"), *self.samples.glob(".*.tmp*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

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
    """Make a new run folder: `out` itself, or the next free `runs/<name>-NNN`.

    Raises:
        CheckpointError: `out` exists and is not empty, or cannot be made.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
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


def open_run(path: Path) -> RunFolder:
    """Return an existing run folder.

    Raises:
        CheckpointError: not there, or not a run.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such run folder")
    run = RunFolder(path)
    if not run.recipe.is_file():
        raise CheckpointError(f"{path}: not a run folder (no recipe.toml in it)")
    return run


def newest_run(model: str | None = None, *, with_weights: bool = True) -> RunFolder | None:
    """Return the run in ./runs that was worked on last, or None; arguments as of `runs_of`."""
    return next(iter(runs_of(model, with_weights=with_weights)), None)


def runs_of(model: str | None = None, *, with_weights: bool = True) -> list[RunFolder]:
    """Return the runs in ./runs, the one that was worked on last first.

    Args:
        model: only runs of this model.
        with_weights: only runs that can already be sampled from.
    """
    runs = [RunFolder(path.parent) for path in RUNS.glob("*/recipe.toml")]
    if model is not None:
        runs = [run for run in runs if run.path.name.startswith(f"{model}-")]
    if with_weights:
        runs = [run for run in runs if run.weights()]
    return sorted(runs, key=_last_worked_on, reverse=True)


def _last_worked_on(run: RunFolder) -> float:
    return max(path.stat().st_mtime_ns for path in [run.recipe, *run.weights(), *run.states()])


def find_weights(spec: str | None) -> Path:
    """Return the weights file meant by a run folder, a file, a hub id, or None for the newest run.

    Raises:
        CheckpointError: nothing there, or something else; says what would be right.
    """
    if spec is None:
        run = newest_run()
        if run is None:
            raise CheckpointError(
                "no trained run in ./runs; start with `gtool train transgan`, or name a run or weights"
            )
        return run.weights()[-1]
    path = Path(spec).expanduser()
    if path.is_dir():
        weights = RunFolder(path).weights()
        if not weights:
            raise CheckpointError(
                f"{path}: holds no weights-*.safetensors; is it a run folder that has saved once?"
            )
        return weights[-1]
    if path.is_file():
        if path.suffix.lower() in PICKLES:
            raise CheckpointError(
                f"{path}: a torch pickle; convert it once with `gtool export {path} --from MODEL`"
            )
        return path
    named = RUNS / spec
    if named.is_dir():
        return find_weights(str(named))
    if path.suffix == "" and _HUB_ID.fullmatch(spec) and not spec.startswith("runs/"):
        return _from_hub(spec)
    known = [entry.name for entry in RUNS.glob("*") if entry.is_dir()]
    raise CheckpointError(f"{spec}: no such run or file{did_you_mean(path.name, known) if known else ''}")


def find_start(spec: str, model: str) -> Path:
    """Return the weights that training begins with: those of the package for `shipped`, else as `find_weights`.

    Raises:
        CheckpointError: nothing there; says what would be right.
    """
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
    path = Path(__file__).parents[1] / "weights" / f"{model}.safetensors"
    return path if path.is_file() else None


def _from_hub(repository: str) -> Path:
    from gtool.io.hub import download

    return download(repository, "model.safetensors")


# Resume states.


def save_state(path: Path, tensors: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> None:
    """Write a resume state: `<name>.safetensors` for each group of tensors and state.json, as one renamed folder.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, group in tensors.items():
            save_file(_plain(group), temporary / f"{name}.safetensors")
        (temporary / "state.json").write_text(
            json.dumps({"format": FORMAT, **info}, indent=1), encoding="utf-8"
        )
        for written in temporary.iterdir():
            _flush(written)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        _flush(path.parent)
    except (OSError, SafetensorError) as bad:
        raise CheckpointError(f"{path}: cannot be written: {bad}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_state(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a resume state.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    try:
        info = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as bad:
        raise CheckpointError(f"{path}: no readable state: {bad}") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a state of format {FORMAT}")
    tensors = {file.stem: read_safetensors(file)[0] for file in sorted(path.glob("*.safetensors"))}
    return tensors, info
