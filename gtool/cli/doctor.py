"""`gtool doctor`: what is installed, what this machine can do and what is missing, for a bug report."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gtool import __version__, console
from gtool.errors import GToolError
from gtool.io import hub
from gtool.io.files import cache_dir
from gtool.metrics.features.weights import NETWORKS, Network, WeightsFile, digest_of, local_weights

NEEDED = (
    "torch",
    "accelerate",
    "datasets",
    "huggingface-hub",
    "safetensors",
    "clean-fid",
    "numpy",
    "pillow",
    "pydantic",
    "typer",
    "rich",
    "filelock",
)
EXTRAS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "video": ("av",), "tensorboard": ("tensorboard",)}


def doctor(*, as_json: bool = False) -> None:
    """Print the report.

    Raises:
        GToolError: something is missing without which gtool does not work; the report has been printed.
    """
    report, problems = _examine()
    if as_json:
        console.result_json(report | {"problems": problems})
    else:
        for name, value in _lines(report):
            console.result(f"{name:<12} {value}")
    if problems:
        raise GToolError("; ".join(problems))


def _examine() -> tuple[dict[str, Any], list[str]]:
    packages = {name: _version(name) for name in NEEDED}
    problems = [f"{name} is not installed" for name, found in packages.items() if found is None]
    machine = {} if problems else _machine(problems)
    cache = _cache()
    if not cache["writable"]:
        problems.append(f"{cache['path']} cannot be written; set GTOOL_CACHE to a folder that can")
    report = {
        "gtool": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "extras": {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()},
        "machine": machine,
        "cache": cache,
        "data": _data_folders(),
        **{network.key: _weights(network) if machine else None for network in NETWORKS},
        "statistics": _statistics(),
        "hub": {"endpoint": hub.endpoint(), "status": _hub_status()},
    }
    return report, problems


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine(problems: list[str]) -> dict[str, Any]:
    """What training and sampling would use; a library that cannot even start is the first thing to know."""
    try:
        import torch

        from gtool.runtime.device import make_compute

        compute = make_compute()
        return {
            "device": compute.describe(),
            "precision": compute.precision,
            "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()),
        }
    except (ImportError, OSError, RuntimeError, GToolError) as broken:
        problems.append(f"torch does not start: {str(broken).splitlines()[0]}")
        return {}


def _cache() -> dict[str, Any]:
    path = cache_dir()
    files = [entry for entry in path.rglob("*") if entry.is_file()] if path.is_dir() else []
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    size = sum(entry.stat().st_size for entry in files)
    return {"path": str(path), "files": len(files), "bytes": size, "writable": os.access(parent, os.W_OK)}


def _data_folders() -> list[dict[str, Any]]:
    """The folders of $GTOOL_DATA and the data sets that lie in them."""
    folders = [Path(part).expanduser() for part in os.environ.get("GTOOL_DATA", "").split(os.pathsep) if part]
    return [{"path": str(folder), "exists": folder.is_dir(), "names": _inside(folder)} for folder in folders]


def _inside(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def _weights(network: Network) -> dict[str, Any]:
    """The weights of a network that `eval` would use, and why not others; nothing is downloaded."""
    if named := os.environ.get(network.variable):
        path = Path(named).expanduser()
        found = WeightsFile(network, path, digest_of(path)) if path.is_file() else None
        damaged = list[Path]()
    else:
        found, damaged = local_weights(network)
    return {
        "path": str(found.path) if found else None,
        "sha256": found.sha256 if found else None,
        "is_published": found is not None and found.is_published,
        "named": named,
        "damaged": [str(path) for path in damaged],
    }


def _statistics() -> dict[str, int]:
    """What is kept of references, so that it is not computed or downloaded again."""
    cache = cache_dir()
    features = list((cache / "stats").glob("*.safetensors"))
    published = list((cache / "published").glob("*.npz"))
    size = sum(path.stat().st_size for path in (*features, *published))
    return {"references": len(features), "published": len(published), "bytes": size}


def _hub_status() -> str:
    if hub.is_offline():
        return "switched off by the environment"
    return "reachable" if hub.is_reachable() else "unreachable"


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Arrange the report for reading: name and value of every line."""
    machine, cache = report["machine"], report["cache"]
    lines = [
        ("gtool", f"{report['gtool']}, Python {report['python']}, {report['platform']}"),
        ("packages", ", ".join(f"{name} {found or 'MISSING'}" for name, found in report["packages"].items())),
    ]
    for extra, names in report["extras"].items():
        missing = [name for name, found in names.items() if found is None]
        have = ", ".join(f"{name} {found}" for name, found in names.items() if found)
        lines.append((f"[{extra}]", f'not installed: pip install "gtool[{extra}]"' if missing else have))
    if machine:
        amx = "with" if machine["amx"] else "without"
        lines.append(("device", f"{machine['device']}; precision auto is {machine['precision']}"))
        lines.append(("processor", f"{machine['cores']} cores, {amx} AMX"))
    lines.append(("cache", f"{cache['path']}: {cache['files']} files, {cache['bytes'] / 1e9:.2f} GB"))
    for folder in report["data"]:
        inside = ", ".join(folder["names"]) or "no data sets"
        lines.append(("GTOOL_DATA", f"{folder['path']}: {inside if folder['exists'] else 'no such folder'}"))
    if not report["data"]:
        lines.append(("GTOOL_DATA", "not set"))
    lines += [(network.key, _weights_line(network, report[network.key])) for network in NETWORKS]
    kept = report["statistics"]
    lines.append(
        (
            "statistics",
            f"of {kept['references']} references, {kept['published']} published; {kept['bytes'] / 1e6:.1f} MB",
        )
    )
    lines.append(("hub", f"{report['hub']['endpoint']}: {report['hub']['status']}"))
    return lines


def _weights_line(network: Network, found: dict[str, Any] | None) -> str:
    found = found or {"path": None, "named": None, "damaged": []}
    if found["path"]:
        text = str(found["path"])
        text += "" if found["is_published"] else f": not the published weights ({found['sha256'][:8]})"
    elif found["named"]:
        text = f"{found['named']} (${network.variable}): no such file"
    else:
        text = f"not found; {network.needed_by} them, --rfd and --swd do not"
    wrong = ", ".join(found["damaged"])
    return f"{text}; not the published bytes: {wrong}" if wrong else text
