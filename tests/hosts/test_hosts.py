"""Training on two hosts: as on one, and to a clear end when one is lost or has other files."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import torch

from gtool.cli import run
from gtool.data.synthetic.scenes import draw_scenes
from gtool.io.pictures import save_png
from tests.helpers.runs import final_state, train, wait_for


def error_of(process: subprocess.Popen) -> tuple[int, str]:
    """Return the exit status of a process, and the only error that it has printed."""
    _, errors = process.communicate(timeout=120)
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, errors
    assert "unexpected" not in errors
    return process.returncode, lines[0]


def distance(first: str, second: str) -> float:
    """Return how far apart the states of two runs are, the largest of all networks and relative to their size."""
    one, two = final_state(first), final_state(second)
    assert one.keys() == two.keys()
    found = []
    for network in ("generator", "discriminator", "ema"):
        a, b = (
            torch.cat([v.flatten() for k, v in s.items() if k.startswith(f"{network}/")]) for s in (one, two)
        )
        found.append(float((a - b).norm() / a.norm()))
    return max(found)


def test_a_cut_link_ends_both_and_one_host_goes_on(hosts, recipe):
    """Two hosts train, the cable is pulled, one process ends the run: as if one process had done all of it."""
    arguments = ["train", "transgan", "--recipe", recipe, "--out", str(Path("out").absolute())]
    arguments += ["--device", "cpu", "--timeout", "5", "--kimg", "20"]
    processes = [hosts.start(number, *arguments) for number in (0, 1)]
    wait_for(Path("out"), "state-*", processes[0])
    hosts.cut()
    cut = time.monotonic()
    (status, first), (other_status, second) = map(error_of, processes)
    assert time.monotonic() - cut < 60
    assert (status, other_status) == (1, 1)
    assert "lost process 1 on host-b: silent for 5 s; the last snapshot is kept" in first
    assert "lost process 0 on host-a: silent for 5 s; the last snapshot is kept" in second
    done = float(sorted(Path("out").glob("state-*"))[-1].name.removeprefix("state-"))
    kimg = f"{done + 0.048:g}"
    more = ["--device", "cpu", "--kimg", kimg]
    assert run(["train", "transgan", "--resume", "out", *more]) == 0
    assert train("transgan", recipe, "one", "--kimg", kimg) == 0
    assert distance("one", "out") < 1e-5


def save_scenes(folder: Path, seed: int) -> None:
    for number, image in enumerate(draw_scenes(range(8), 16, seed).images):
        save_png(folder / f"{number}.png", image.transpose(1, 2, 0), {})


@pytest.mark.parametrize("what", ["data", "run"])
def test_hosts_with_other_files_do_not_begin(hosts, recipe, monkeypatch, what):
    """Each has folders of its own: pictures of the same names, or a run to resume that the other lacks."""
    folders = [Path("a").absolute(), Path("b").absolute()]
    for number, folder in enumerate(folders):
        (folder / "photos").mkdir(parents=True)
        save_scenes(folder / "photos", seed=number if what == "data" else 0)
    if what == "run":
        monkeypatch.chdir(folders[0])
        out = "runs/transgan-photos-000"
        assert train("transgan", recipe, out, "--dataset", "photos", "--kimg", "0.016") == 0
    arguments = ["train", "transgan", "--recipe", recipe, "--dataset", "photos", "--device", "cpu"]
    arguments += ["--resume", "auto", "--timeout", "60"]
    processes = [hosts.start_alone(n, *arguments, folder=folder) for n, folder in enumerate(folders)]
    for status, line in map(error_of, processes):
        assert status == 1
        assert "process 1 on host-b differs in the " + {"data": "data", "run": "run to resume"}[what] in line
        assert "process 0 on host-a" in line
    assert not (folders[1] / "runs").exists()
