"""Two hosts in one: network namespaces joined by a cable, each with a name, in which one process is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import gtool
from gtool.config.recipe import to_toml
from tests.helpers.tiny import tiny_recipe

ENTER = 'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"'


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@dataclass
class Hosts:
    """host-a and host-b, and what runs on them."""

    folder: Path
    names: tuple[str, str] = ("host-a", "host-b")
    running: list[subprocess.Popen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spaces = [f"gtool-{os.getpid()}-{name}" for name in self.names]
        self.cables = [f"gt{os.getpid() % 10**6}{name[-1]}" for name in self.names]
        lines = [f"10.77.0.{number} {name}" for number, name in enumerate(self.names, 1)]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]), encoding="utf-8")

    def open(self) -> None:
        for space in self.spaces:
            _ip("netns", "add", space)
        first, second = self.spaces
        ends = ["peer", "name", self.cables[1], "netns", second]
        _ip("link", "add", self.cables[0], "netns", first, "type", "veth", *ends)
        for number, (space, cable) in enumerate(zip(self.spaces, self.cables, strict=True), 1):
            _ip("-n", space, "address", "add", f"10.77.0.{number}/24", "dev", cable)
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "link", "set", cable, "up")
        probe = self._enter(0, ["true"])
        subprocess.run(probe, check=True, capture_output=True, timeout=20)

    def _enter(self, number: int, command: list[str]) -> list[str]:
        inside = [
            "ip",
            "netns",
            "exec",
            self.spaces[number],
            "unshare",
            "--uts",
            "--mount",
            "sh",
            "-ec",
            ENTER,
        ]
        return [*inside, "sh", self.names[number], str(self.folder / "hosts"), *command]

    def start(self, number: int, *arguments: str) -> subprocess.Popen:
        """Begin `gtool ARGUMENTS` on a host, under torchrun."""
        torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        meet = ["--node-rank", str(number), "--master-addr", self.names[0], "--master-port", "29500"]
        return self._start(number, *torchrun, *meet, "-m", "gtool", *arguments)

    def start_alone(self, number: int, *arguments: str, folder: Path) -> subprocess.Popen:
        """Begin `gtool ARGUMENTS` on a host, with the variables that a launcher sets."""
        places = {"RANK": str(number), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
        places |= {"MASTER_ADDR": self.names[0], "MASTER_PORT": "29500"}
        return self._start(number, "-m", "gtool", *arguments, cwd=folder, env=os.environ | places)

    def _start(self, number: int, *words: str, **more: Any) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = self._enter(number, [sys.executable, *words])
        process = subprocess.Popen(command, text=True, **pipes, **more)
        self.running.append(process)
        return process

    def cut(self) -> None:
        """Pull the cable out of the second host."""
        _ip("-n", self.spaces[1], "link", "set", self.cables[1], "down")

    def close(self) -> None:
        for process in self.running:
            process.terminate()  # torchrun ends what it has started
        for process in self.running:
            try:
                process.communicate(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
        for space in self.spaces:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if not (shutil.which("ip") and shutil.which("unshare")):
        pytest.skip("needs `ip` (iproute2) and `unshare`")
    made = Hosts(tmp_path)
    try:
        made.open()
    except (OSError, subprocess.SubprocessError) as bad:
        made.close()
        pytest.skip(f"network namespaces cannot be made here: {bad}")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _import_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(gtool.__file__).parents[1]))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A tiny GAN at the rate of the paper: Adam amplifies the rounding of sums, faster at higher rates."""
    path = tmp_path / "tiny.toml"
    text = to_toml(tiny_recipe("train.metrics=[]", "optim.learning_rate=1e-4"))
    path.write_text(text, encoding="utf-8")
    return str(path)
