"""What a `gtool export` command line asks for, checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gtool.errors import CheckpointError, GToolError, RecipeError, did_you_mean
from gtool.export.options import FORMATS, ExportOptions
from gtool.io.outputs import require_utf8
from gtool.io.run_folder import find_weights
from gtool.models import registry
from gtool.reading import file_problem

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Files:
    """What is read, what is written, and how."""

    options: ExportOptions
    source: Path
    out: Path
    file_format: str


def check(options: ExportOptions) -> Files:
    """Return the file to read and the one to write.

    Raises:
        RecipeError: flags that mean nothing, or nothing together.
        GToolError: no such weights, missing packages.
    """
    file_format = _format(options)
    if options.half and (file_format != "safetensors" or options.source is not None):
        raise RecipeError(
            "--half stores weights of gtool as safetensors; it goes with no other format and no --from"
        )
    if options.source is not None:
        source = _foreign_file(options.target, options.source)
        return Files(options, source, _in_folder(options.out, f"{source.stem}.safetensors"), file_format)
    if file_format == "onnx" and any(find_spec(name) is None for name in ONNX_PACKAGES):
        raise GToolError(f'--format onnx needs {", ".join(ONNX_PACKAGES)}; run `pip install "gtool[onnx]"`')
    weights = find_weights(options.target)
    in_run, stem = (weights.parent / "recipe.toml").is_file(), weights.stem
    if in_run and file_format == "safetensors":  # copied out of the run, whose name goes with it
        stem = f"{weights.resolve().parent.name}-{stem.removeprefix('weights-')}"
    name = f"{stem}.{file_format}"
    stays = in_run and file_format != "safetensors" and options.out is None
    out = weights.parent / name if stays else _in_folder(options.out, name)
    if file_format != "safetensors":
        require_utf8(out)
    if out.resolve() == weights.resolve():
        raise CheckpointError(f"{out}: is the weights file itself; name another with -o")
    return Files(options, weights, out, file_format)


def _format(options: ExportOptions) -> str:
    """Return what --format or the suffix of -o names."""
    suffix = options.out.suffix.lower().removeprefix(".") if options.out else ""
    file_format = options.file_format or (suffix if suffix in FORMATS else "safetensors")
    if file_format not in FORMATS:
        raise RecipeError(f"--format {file_format}: does not exist{did_you_mean(file_format, FORMATS)}")
    if options.out and not options.out.is_dir() and suffix != file_format:
        raise RecipeError(f"-o {options.out}: a file of the format {file_format} ends in .{file_format}")
    if options.source and file_format != "safetensors":
        raise RecipeError(
            f"--from {options.source}: makes a .safetensors file; export that as {file_format} afterwards"
        )
    return file_format


def _foreign_file(target: str | None, model: str) -> Path:
    if model not in registry.PROJECTS:
        registry.find_model(model)
    if target is None:
        raise RecipeError(f"--from {model}: name the checkpoint to read")
    source = Path(target).expanduser()
    if not source.is_file():
        raise CheckpointError(f"{source}: {file_problem(source)}")
    return source


def _in_folder(out: Path | None, name: str) -> Path:
    """Return -o, a file of this name in the folder -o, or here."""
    path = Path(name) if out is None else out.expanduser()
    return path / name if path.is_dir() else path
