"""Values that were stored once, and how a result is compared with them.

Where the machine and the libraries are those that the values were made on, a result must be equal to the last bit
(`digest`). Elsewhere kernels round differently and the first steps of Adam turn that into other signs, so only
summaries are compared, within tolerances.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

PATH = Path(__file__).parent / "values.json"
IS_UPDATE = os.environ.get("GTOOL_UPDATE_GOLDEN") == "1"
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
KERNEL_CHOICES = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA")
NUM_SAMPLES = 8


def machine() -> dict[str, Any]:
    """What the last bits of a result depend on."""
    cpu: dict[str, str] = {}
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = cpu.get("flags", "").split()
    return {
        "cpu": " ".join(
            [cpu.get("vendor_id", platform.machine()), cpu.get("cpu family", ""), cpu.get("model", "")]
        ),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "kernels": {name: os.environ.get(name, "") for name in KERNEL_CHOICES},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def spaced(values: np.ndarray) -> list[float]:
    """Evenly spaced values, from the first to the last."""
    chosen = np.linspace(0, values.size - 1, NUM_SAMPLES).astype(int)
    return [shortened(value) for value in values.ravel()[chosen]]


def shortened(value: float) -> float:
    return float(f"{float(value):.6g}")


def summary(values: np.ndarray) -> dict[str, Any]:
    """Digest, shape and moments of an array."""
    exact = values.astype(np.float64)
    return {
        "sha256": digest(str(values.dtype).encode() + np.ascontiguousarray(values).tobytes()),
        "shape": list(values.shape),
        "mean": shortened(exact.mean()),
        "std": shortened(exact.std()),
    }


class Frozen:
    """Compares results with the stored ones, or stores them where GTOOL_UPDATE_GOLDEN is 1."""

    def __init__(self) -> None:
        self.stored = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {"values": {}}
        self.is_same_machine = self.stored.get("made_on") == machine()

    def weights(self, name: str, tensors: Mapping[str, torch.Tensor], within: float) -> None:
        """Tensors of a trained network; elsewhere means and deviations of each within so much, and 5 %."""
        made = {key: summary(tensors[key].numpy()) for key in sorted(tensors)}
        for entry in made.values():
            entry["sha256"] = entry["sha256"][:16]
        wanted = self._wanted(name, made)
        assert made.keys() == wanted.keys()
        if self.is_same_machine:
            assert [key for key in made if made[key] != wanted[key]] == []
        for key, entry in made.items():
            assert entry["shape"] == wanted[key]["shape"], key
            for moment in ("mean", "std"):
                far = abs(entry[moment] - wanted[key][moment])
                assert far <= within + 0.05 * abs(wanted[key][moment]), (key, moment)

    def pixels(self, name: str, image: np.ndarray, within: float = 3.0) -> None:
        """A picture; elsewhere its moments, and evenly spaced pixels on average, within so much of 255."""
        made = summary(image) | {"spaced": spaced(image)}
        wanted = self._wanted(name, made)
        if self.is_same_machine:
            assert made == wanted
        assert made["shape"] == wanted["shape"]
        assert abs(made["mean"] - wanted["mean"]) <= within
        assert abs(made["std"] - wanted["std"]) <= within
        assert np.abs(np.subtract(made["spaced"], wanted["spaced"])).mean() <= within

    def rows(self, name: str, table: np.ndarray, within: float) -> None:
        """Rows whose number may change a little elsewhere, by a tenth, and the means of columns within so much."""
        made = summary(table) | {"columns": [shortened(mean) for mean in table.mean(axis=0)]}
        wanted = self._wanted(name, made)
        if self.is_same_machine:
            assert made == wanted
        assert abs(made["shape"][0] - wanted["shape"][0]) <= 0.1 * wanted["shape"][0]
        assert made["shape"][1:] == wanted["shape"][1:]
        assert np.abs(np.subtract(made["columns"], wanted["columns"])).max() <= within

    def text(self, name: str, text: str) -> None:
        """A text; elsewhere as long, to a tenth."""
        made = {"sha256": digest(text.encode()), "length": len(text)}
        wanted = self._wanted(name, made)
        if self.is_same_machine:
            assert made == wanted
        assert abs(made["length"] - wanted["length"]) <= 0.1 * wanted["length"]

    def numbers(
        self, name: str, numbers: Mapping[str, float], *, share: float = 0.01, within: float = 1e-4
    ) -> None:
        """Named numbers, equal to nine digits (sums of another library may round otherwise); on another machine
        each within this share of it and so much besides.
        """
        made = {key: float(number) for key, number in numbers.items()}
        wanted = self._wanted(name, made)
        assert made.keys() == wanted.keys()
        if self.is_same_machine:
            share, within = 1e-9, 1e-12
        far = {
            key: (made[key], wanted[key]) for key in made if _is_far(made[key], wanted[key], share, within)
        }
        assert far == {}

    def _wanted(self, name: str, made: dict[str, Any]) -> dict[str, Any]:
        if IS_UPDATE:
            self.stored["made_on"] = machine()
            self.stored["values"][name] = made
            self.is_same_machine = True
            order = {"made_on": machine(), "values": dict(sorted(self.stored["values"].items()))}
            PATH.write_text(_to_lines(order), encoding="utf-8")
        assert name in self.stored["values"], f"{name} was never stored"
        return self.stored["values"][name]


def _is_far(made: float, wanted: float, share: float, within: float) -> bool:
    return not abs(made - wanted) <= share * abs(wanted) + within


def _to_lines(stored: dict[str, Any]) -> str:
    """JSON with a line for each value, so that a change is read line by line."""
    lines = []
    for name, value in stored["values"].items():
        inner = ",\n".join(f"   {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items())
        lines.append(f"  {json.dumps(name)}: {{\n{inner}\n  }}")
    made_on = json.dumps(stored["made_on"])
    return f'{{\n "made_on": {made_on},\n "values": {{\n' + ",\n".join(lines) + "\n }\n}\n"
