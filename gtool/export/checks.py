"""What a `gtool export` command line asks for, checked before torch is imported."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gtool.errors import CheckpointError, GToolError, RecipeError, did_you_mean
from gtool.export.options import FORMATS, HUB, ExportOptions
from gtool.flags import flag_name
from gtool.io.outputs import check_folder, require_utf8
from gtool.io.run_folder import find_weights
from gtool.models import registry
from gtool.reading import file_problem

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Files:
    """What is read, what is written, and how."""

    options: ExportOptions
    source: Path
    out: Path | None  # None: a folder that is sent and removed
    file_format: str


def check(options: ExportOptions) -> Files:
    """Return the file to read and the one to write.

    Raises:
        RecipeError: flags that mean nothing, or nothing together.
        GToolError: no such weights, missing packages.
    """
    file_format = _format(options)
    if options.half and (file_format not in ("safetensors", HUB) or options.source is not None):
        raise RecipeError(
            "--half stores weights of gtool as safetensors; it goes with no other format and no --from"
        )
    if file_format == HUB:
        return _for_hub(options)
    if named := next((flag for flag in ("repo", "private", "dry_run") if getattr(options, flag)), None):
        raise RecipeError(f"{flag_name(named)} is of --format hub")
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


def _for_hub(options: ExportOptions) -> Files:
    """Return what goes to the hub; `out` is the folder for it, a temporary one unless somebody is to see it."""
    if options.repo is None or not _REPOSITORY.fullmatch(options.repo):
        given = "" if options.repo is None else f" {options.repo}"
        raise RecipeError(f"--repo{given}: --format hub needs the repository, as --repo me/my-model")
    if options.out is None and not options.dry_run:
        return Files(options, find_weights(options.target), None, HUB)
    out = options.out or Path(options.repo.partition("/")[2])
    check_folder(out, overwrite=None)
    return Files(options, find_weights(options.target), out, HUB)


def _format(options: ExportOptions) -> str:
    """Return what --format or the suffix of -o names."""
    suffix = options.out.suffix.lower().removeprefix(".") if options.out else ""
    file_format = options.file_format or (suffix if suffix in FORMATS else "safetensors")
    if file_format not in (*FORMATS, HUB):
        raise RecipeError(f"--format {file_format}: unknown{did_you_mean(file_format, (*FORMATS, HUB))}")
    if file_format != HUB and options.out and not options.out.is_dir() and suffix != file_format:
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
    path = Path(name) if out is None else out
    return path / name if path.is_dir() else path
