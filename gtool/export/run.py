"""`gtool export`: a trained network for other programs, and original checkpoints for this one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.errors import CheckpointError, GToolError, RecipeError, did_you_mean
from gtool.io import checkpoint
from gtool.io.files import atomic_write
from gtool.io.run_folder import find_weights
from gtool.models import registry

if TYPE_CHECKING:
    from torch import Tensor

    from gtool.export.onnx import Exportable

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "pt2": ".pt2"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line of `gtool export`, as typed."""

    target: str | None = (
        None  # a run, weights, a hub id; None for the newest run; with `source` a foreign file
    )
    kind: str | None = None  # --format; None follows the suffix of `out`
    out: Path | None = None
    source: str | None = None  # --from: the model that a foreign checkpoint is of
    as_json: bool = False


def export(request: Request) -> None:
    """Write a file, or one for each part of a model, check them by using them, and say where they are.

    Raises:
        RecipeError: flags that mean nothing, or nothing together.
        GToolError: no such weights, missing packages, an exported file that proves wrong.
    """
    kind = _kind(request)
    if request.source is not None:
        path, facts = _import_released(request, request.source)
    else:
        _refuse_missing_packages(kind)
        weights = find_weights(request.target)
        path = _destination(request, weights, kind)
        paths, facts = _export(weights, path, kind)
        if len(paths) > 1:
            return _report_parts(request, kind, paths, facts)
    if request.as_json:
        return console.result_json({"path": str(path), "format": kind, "bytes": path.stat().st_size, **facts})
    console.result(str(path))


def _report_parts(request: Request, kind: str, paths: dict[str, Path], facts: dict[str, Any]) -> None:
    if request.as_json:
        places = {name: str(path) for name, path in paths.items()}
        size = sum(path.stat().st_size for path in paths.values())
        return console.result_json({"paths": places, "format": kind, "bytes": size, **facts})
    for path in paths.values():
        console.result(str(path))


def _kind(request: Request) -> str:
    """Return the format that --format or the suffix of -o names."""
    by_suffix = {suffix: kind for kind, suffix in SUFFIXES.items()}
    suffix = request.out.suffix.lower() if request.out else ""
    kind = request.kind or by_suffix.get(suffix, "safetensors")
    if kind not in SUFFIXES:
        raise RecipeError(f"--format {kind}: does not exist{did_you_mean(kind, list(SUFFIXES))}")
    if request.out and not request.out.is_dir() and suffix != SUFFIXES[kind]:
        raise RecipeError(f"-o {request.out}: a file of the format {kind} ends in {SUFFIXES[kind]}")
    if request.source and kind != "safetensors":
        raise RecipeError(
            f"--from {request.source}: makes a .safetensors file; export that as {kind} afterwards"
        )
    return kind


def _refuse_missing_packages(kind: str) -> None:
    if kind == "onnx" and any(find_spec(name) is None for name in ONNX_PACKAGES):
        raise GToolError(f'--format onnx needs {", ".join(ONNX_PACKAGES)}; run `pip install "gtool[onnx]"`')


def _destination(request: Request, weights: Path, kind: str) -> Path:
    """Return -o, or a name in the run folder, or here: for weights that stand alone or are copied out."""
    in_run = (weights.parent / "recipe.toml").is_file()
    stem = weights.stem
    if in_run and kind == "safetensors":
        stem = f"{weights.resolve().parent.name}-{stem.removeprefix('weights-')}"
    name = f"{stem}{SUFFIXES[kind]}"
    if request.out is None:
        path = weights.parent / name if in_run and kind != "safetensors" else Path(name)
    else:
        path = request.out.expanduser()
        path = path / name if path.is_dir() else path
    if path.resolve() == weights.resolve():
        raise CheckpointError(f"{path}: is the weights file itself; name another with -o")
    return path


def _export(weights: Path, path: Path, kind: str) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write the parts of a network; returns where they are, by name, and what the check found."""
    networks, use = _open(weights)
    if kind == "safetensors":
        with atomic_write(path) as temporary:
            shutil.copyfile(weights, temporary)
        console.notice(f"copied; `{use.format(path=path)}` needs nothing else")
        return {"weights": path}, {}
    paths = {
        name: path.with_name(f"{path.stem}-{name}{path.suffix}") if len(networks) > 1 else path
        for name in networks
    }
    return paths, {"max_error": _export_parts(networks, paths, kind)}


def _export_parts(networks: dict[str, Exportable], paths: dict[str, Path], kind: str) -> float:
    """Write all parts or none; returns the largest error of any."""
    from gtool.export import onnx as exporting

    error, written = 0.0, list[Path]()
    try:
        for name, network in networks.items():
            if network.note:
                console.notice(network.note)
            error = max(error, exporting.export(network, paths[name], kind))
            written.append(paths[name])
    except GToolError:
        for path in written:
            path.unlink()
        raise
    batches = " and ".join(map(str, exporting.CHECKED_BATCHES))
    console.notice(f"checked: largest error {error:.1e} against torch, at batches of {batches}")
    return error


def _open(weights: Path) -> tuple[dict[str, Exportable], str]:
    """Return the network of a weights file, by parts, and what a user types with such a file.

    Raises:
        CheckpointError: the file cannot be used.
    """
    from gtool.models.trained import open_trained

    trained = open_trained(weights)
    network = trained.network().eval().requires_grad_(False)
    use = registry.find_model(trained.model).next_command
    made = registry.exports(trained.model)(network, trained.meta)
    return made if isinstance(made, dict) else {"network": made}, use


# Original checkpoints.


def _import_released(request: Request, model: str) -> tuple[Path, dict[str, Any]]:
    """Turn a checkpoint of the original code into a weights file, reading it without executing anything."""
    if model not in registry.PROJECTS:
        registry.find_model(model)
    if request.target is None:
        raise RecipeError(f"--from {model}: name the checkpoint to read")
    source = Path(request.target).expanduser()
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file")
    from gtool.export import onnx as exporting
    from gtool.models.trained import Trained

    if model in registry.PROJECTS:
        model, chosen, config, renamed = _read_taming(source)
        importer = registry.released(model)
    else:
        importer = registry.released(model)
        # Models whose files hold more than tensors have a reader of their own.
        chosen, config, renamed = getattr(importer, "read_file", partial(_read_tensors, importer))(source)
    network = Trained(source, model, config, renamed, {}).network().eval()
    getattr(importer, "check", exporting.check_finite)(network)
    path = request.out or Path(f"{source.stem}.safetensors")
    path = path / f"{source.stem}.safetensors" if path.is_dir() else path
    meta = {"model": model, "config": config.model_dump(mode="json"), "nimg": 0, "source": source.name}
    checkpoint.save_weights(path, network.state_dict(), meta)
    count = sum(parameter.numel() for parameter in network.parameters())
    use = registry.find_model(model).next_command.format(path=path)
    console.notice(
        f"read `{chosen}`: {model} at {config.resolution} px, {count / 1e6:.1f}M parameters; "
        f"checked by using it; next: {use}"
    )
    return path, {"tensors": chosen, "resolution": config.resolution, "parameters": count}


def _read_taming(source: Path) -> tuple[str, str, Any, dict[str, Tensor]]:
    """Read a checkpoint of a tokenizer or of a prior: which of the two, and the rest as `_read_tensors`."""
    from gtool.models.vqgan.released import is_tokenizer, read_state

    chosen, tensors = read_state(source)
    model = "vqgan" if is_tokenizer(tensors) else "prior"
    if model not in registry.MODELS:
        raise CheckpointError(f"{source}: no tokenizer, and this gtool reads nothing else of that project")
    try:
        return model, chosen, *registry.released(model).rename_released(tensors)
    except CheckpointError as bad:
        raise CheckpointError(f"{source}: {bad}") from None


def _read_tensors(importer: ModuleType, source: Path) -> tuple[str, Any, dict[str, Tensor]]:
    """Read a checkpoint of named tensors: which of its networks, its config, its tensors by our names."""
    chosen, tensors = _choose_network(checkpoint.load_pickled(source), source)
    try:
        return chosen, *importer.rename_released(tensors)
    except CheckpointError as bad:
        raise CheckpointError(f"{source}: {bad}") from None


# As the original training script names them, the best first.
NETWORKS = ("avg_gen_state_dict", "gen_state_dict")


def _choose_network(loaded: dict[str, Any], source: Path) -> tuple[str, dict[str, Tensor]]:
    """Find the network in a checkpoint: the averaged generator, the trained one, or the file itself."""
    import torch

    chosen = next((name for name in NETWORKS if name in loaded), "the whole file")
    tensors = loaded.get(chosen, loaded)
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise CheckpointError(f"{source}: holds no network; looked for {' and '.join(NETWORKS)}")
    # The original code saves the wrapper that torch puts around a network for several GPUs.
    return chosen, {str(name).removeprefix("module."): value for name, value in tensors.items()}
