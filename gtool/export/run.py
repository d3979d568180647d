"""`gtool export`: a trained network for other programs, and original checkpoints for this one."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from gtool import console
from gtool.errors import GToolError
from gtool.export.checks import Files
from gtool.export.files import CHECKED_BATCHES, write_and_check
from gtool.export.hub import write_folder
from gtool.export.options import HUB
from gtool.export.parts import Exportable
from gtool.io import hub
from gtool.io.files import atomic_write
from gtool.io.weights import save_weights
from gtool.models import registry
from gtool.models.released_files import check_finite, read_released
from gtool.models.trained import open_trained


def run(files: Files) -> None:
    """Write a file, or one for each part of a model, check them by using them, and say where they are.

    Raises:
        GToolError: weights that cannot be used, an exported file that proves wrong.
    """
    options, facts = files.options, dict[str, object]()
    if files.out is None or files.file_format == HUB:
        return _to_hub(files)
    paths = {"": files.out}
    if options.source is not None:
        facts = import_released(files.source, options.source, files.out)
    elif files.file_format == "safetensors":
        copy_weights(files.source, files.out, half=options.half)
    else:
        paths, error = export_parts(files.source, files.out, files.file_format)
        facts = {"max_error": error}
    if not options.as_json:
        for path in paths.values():
            console.result(str(path))
        return
    size = sum(path.stat().st_size for path in paths.values())
    listed = {name: str(path) for name, path in paths.items()}
    where = {"path": str(files.out)} if len(paths) == 1 else {"paths": listed}
    console.result_json({**where, "format": files.file_format, "bytes": size, **facts})


def _to_hub(files: Files) -> None:
    """Write the folder, and send it unless that is not wanted."""
    options, repository = files.options, str(files.options.repo)
    with TemporaryDirectory(prefix="gtool-") as temporary:
        folder = files.out or Path(temporary)
        write_folder(files.source, folder, repository, half=options.half)
        if options.dry_run:
            console.notice(f"{folder}: look at it; without --dry-run it is sent to {repository}")
        place = str(folder) if options.dry_run else hub.upload(folder, repository, private=options.private)
        size = sum(path.stat().st_size for path in folder.iterdir())
    if not options.as_json:
        return console.result(place)
    key = "path" if options.dry_run else "url"
    console.result_json({key: place, "repository": repository, "format": HUB, "bytes": size})


def copy_weights(weights: Path, out: Path, *, half: bool = False) -> None:
    """Copy weights that have proved to fit their network, with `half` in fp16.

    Raises:
        CheckpointError: they do not fit, or are too large for fp16.
    """
    trained = open_trained(weights)
    trained.network()
    if half:
        save_weights(out, trained.halved(), trained.meta)
    else:
        with atomic_write(out) as temporary:
            shutil.copyfile(weights, temporary)
    use = registry.find_model(trained.model).next_command.format(path=out)
    console.notice(f"{'stored in fp16' if half else 'copied'}; `{use}` needs nothing else")


def export_parts(weights: Path, out: Path, file_format: str) -> tuple[dict[str, Path], float]:
    """Write all parts of a network or none, as "onnx" or "pt2".

    Returns the files by the names of the parts, `out` itself where there is one, and the largest error of any.
    """
    trained = open_trained(weights)
    network = trained.network().eval().requires_grad_(False)
    parts: dict[str, Exportable] = registry.exports(trained.model)(network, trained.meta)
    error, paths = 0.0, dict[str, Path]()
    try:
        for name, part in parts.items():
            path = out.with_name(f"{out.stem}-{name}{out.suffix}") if len(parts) > 1 else out
            if part.note:
                console.notice(part.note)
            error = max(error, write_and_check(part, path, file_format))
            paths[name] = path
    except GToolError:
        for path in paths.values():
            path.unlink()
        raise
    batches = " and ".join(map(str, CHECKED_BATCHES))
    console.notice(f"checked: largest error {error:.1e} against torch, at batches of {batches}")
    return paths, error


def import_released(source: Path, model: str, out: Path) -> dict[str, object]:
    """Turn a checkpoint of the original code into a weights file, executing nothing of it; say what it holds."""
    trained, chosen = read_released(source, model)
    network, config = trained.network().eval(), trained.config
    check_finite(network)
    meta = {"model": trained.model, "config": config.model_dump(mode="json"), "nimg": 0}
    meta["source"] = source.name
    save_weights(out, network.state_dict(), meta)
    count = sum(parameter.numel() for parameter in network.parameters())
    use = registry.find_model(trained.model).next_command.format(path=out)
    console.notice(
        f"read `{chosen}`: {trained.model} at {config.resolution} px, {count / 1e6:.1f}M parameters; "
        f"checked by using it; next: {use}"
    )
    return {"tensors": chosen, "resolution": config.resolution, "parameters": count}
