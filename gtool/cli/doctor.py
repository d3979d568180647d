"""`gtool doctor`: what is installed, what this machine can do and what is missing, for a bug report."""

import os
import platform
from pathlib import Path
from typing import Any

from gtool import __version__, console
from gtool.cli.options import Json
from gtool.errors import GToolError
from gtool.io import hub
from gtool.io.files import cache_dir, digest_of

NEEDED = (
    "torch accelerate datasets huggingface-hub safetensors clean-fid numpy pillow pydantic typer rich filelock "
    "torchmetrics matplotlib contourpy jinja2 tomli-w psutil"
)
EXTRAS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "video": ("av",),
    "features": ("transformers",),
    "tensorboard": ("tensorboard",),
}


def doctor(as_json: Json = False) -> None:
    """Say what is installed and what this machine can do: for bug reports."""
    problems: list[str] = []
    report = _examine(problems)
    if as_json:
        console.result_json(report | {"problems": problems})
    else:
        for name, value in _lines(report):
            console.result(f"{name:<12} {value}")
    if problems:
        raise GToolError("; ".join(problems))


def _examine(problems: list[str]) -> dict[str, Any]:
    """Return the report; what keeps gtool from working is added to `problems`."""
    packages = {name: _version(name) for name in NEEDED.split()}
    problems += [f"{name} is not installed" for name, found in packages.items() if found is None]
    machine = {} if problems else _machine(problems)
    cache = cache_dir()
    parent = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        problems.append(f"{cache} cannot be written; set GTOOL_CACHE to a folder that can")
    folders = [Path(part).expanduser() for part in os.environ.get("GTOOL_DATA", "").split(os.pathsep) if part]
    references, published = (list(cache.glob(name)) for name in ("stats/*.safetensors", "published/*.npz"))
    hub_status = "switched off by the environment"
    if not hub.is_offline():
        hub_status = "reachable" if hub.is_reachable() else "unreachable"
    return {
        "gtool": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "extras": {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()},
        "machine": machine,
        "cache": {"path": str(cache), **_measure(cache.rglob("*")), "writable": os.access(parent, os.W_OK)},
        "data": [
            {
                "path": str(folder),
                "exists": folder.is_dir(),
                "names": sorted(x.name for x in folder.glob("*") if x.is_dir()),
            }
            for folder in folders
        ],
        **(_weights() if machine else {}),
        "statistics": {
            "references": len(references),
            "published": len(published),
            "bytes": _measure([*references, *published])["bytes"],
        },
        "hub": {"endpoint": hub.endpoint(), "status": hub_status},
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # a tenth of the start of every command

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _measure(paths: Any) -> dict[str, int]:
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}


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


def _weights() -> dict[str, dict[str, Any]]:
    """The weights of the feature networks that `eval` would use, and why not others; nothing is downloaded."""
    from gtool.metrics.features.weights import NETWORKS, WeightsFile, local_weights

    report = {}
    for network in NETWORKS:
        damaged: list[Path] = []
        if named := os.environ.get(network.variable):
            path = Path(named).expanduser()
            found = WeightsFile(network, path, digest_of(path)) if path.is_file() else None
            text = f"{named} (${network.variable}): no such file"
        else:
            found, damaged = local_weights(network)
            text = f"not found; {network.needed_by} them, --rfd and --swd do not"
        if found:
            is_other = "" if found.is_published else f": not the published weights ({found.sha256[:8]})"
            text = f"{found.path}{is_other}"
        wrong = ", ".join(str(path) for path in damaged)
        report[network.key] = {
            "path": str(found.path) if found else None,
            "sha256": found.sha256 if found else None,
            "is_published": found is not None and found.is_published,
            "named": named,
            "damaged": [str(path) for path in damaged],
            "summary": f"{text}; not the published bytes: {wrong}" if wrong else text,
        }
    return report


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Arrange the report for reading: name and value of every line."""
    machine, cache, kept = report["machine"], report["cache"], report["statistics"]
    packages = ", ".join(f"{name} {found or 'MISSING'}" for name, found in report["packages"].items())
    lines = [
        ("gtool", f"{report['gtool']}, Python {report['python']}, {report['platform']}"),
        ("packages", packages),
    ]
    for extra, names in report["extras"].items():
        have = ", ".join(f"{name} {found}" for name, found in names.items() if found)
        missing = f'not installed: pip install "gtool[{extra}]"'
        lines.append((f"[{extra}]", have if all(names.values()) else missing))
    if machine:
        amx = "with" if machine["amx"] else "without"
        lines.append(("device", f"{machine['device']}; precision auto is {machine['precision']}"))
        lines.append(("processor", f"{machine['cores']} cores, {amx} AMX"))
    lines.append(("cache", f"{cache['path']}: {cache['files']} files, {cache['bytes'] / 1e9:.2f} GB"))
    for folder in report["data"]:
        inside = ", ".join(folder["names"]) or "no data sets"
        lines.append(("GTOOL_DATA", f"{folder['path']}: {inside if folder['exists'] else 'no such folder'}"))
    lines += [] if report["data"] else [("GTOOL_DATA", "not set")]
    lines += [(key, value["summary"]) for key, value in report.items() if "is_published" in (value or ())]
    size = f"{kept['bytes'] / 1e6:.1f} MB"
    lines.append(("statistics", f"of {kept['references']} references, {kept['published']} published; {size}"))
    lines.append(("hub", f"{report['hub']['endpoint']}: {report['hub']['status']}"))
    return lines
