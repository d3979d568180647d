"""Kill commands at random moments, start them again, and compare with the same commands left alone.

    python -m tests.benchmarks.kills [KILLS] [SEED] [KIND ...]

Trainings of five families, cached statistics of a reference, exports, a folder of paintings and a clip. A kill is
SIGKILL, or SIGSTOP and SIGCONT, after a random share of the time that the command takes alone; a training is killed up
to three times and goes on by `--resume auto`. Meanwhile the wall clock jumps by days, and files are made older or
newer. Wanted: the same bits, and no file that was not there without kills. Printed: what went wrong, then a row for
each kind.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import gtool.eval.scores
from gtool.cli import run
from gtool.metrics.features.weights import INCEPTION
from tests.golden.commands import FAMILIES, RECIPES, save_pictures
from tests.helpers.small_inception import Small

OF_TIME = ("seconds", "images_per_second", "made by")


@dataclass
class Kind:
    """A command: its arguments, what it writes, and how it is started again."""

    arguments: list[str]
    again: list[str]
    kills: int = 0
    stops: int = 0
    seconds: float = 0.0  # that it takes alone
    wanted: dict[str, str] = field(default_factory=dict)  # digests of files, without kills
    wrong: list[str] = field(default_factory=list)


def kinds(home: Path) -> dict[str, Kind]:
    """Return the commands; what they read is made beside."""
    pictures, others = save_pictures(home / "pictures", 6, 48), save_pictures(home / "others", 6, 48, first=9)
    _child(
        home, ["train", "vqgan", "--recipe", str(RECIPES / "vqgan.toml"), "--out", str(home / "tokenizer")]
    )
    _child(
        home, ["train", "transgan", "--recipe", str(RECIPES / "transgan.toml"), "--out", str(home / "gan")]
    )
    found = {}
    for family in FAMILIES:
        command = ["train", family, "--recipe", str(RECIPES / f"{family}.toml"), "--out", "out"]
        command += ["--tokenizer", str(home / "tokenizer")] if family == "prior" else []
        found[family] = Kind(command, [*command, "--resume", "auto"])
    painting = ["--method", "random", "--max-strokes", "60"]
    for name, command in {
        "statistics": ["eval", str(pictures), str(others), "--fid", "--num", "6", "-o", "scores.json"],
        "pt2": ["export", str(home / "gan"), "-o", "g.pt2"],
        "onnx": ["export", str(home / "gan"), "-o", "g.onnx"],
        "weights": ["export", str(home / "gan"), "-o", "g.safetensors"],
        "pictures": ["paint", str(pictures), "-o", "painted", *painting],
        "clip": ["paint", _clip(home / "clip.mp4"), "-o", "painted.mp4", *painting],
    }.items():
        found[name] = Kind(command, [*command, "--force"] if command[0] == "paint" else command)
    return found


def _clip(path: Path) -> str:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(8):
            frame = np.full((32, 48, 3), 40, np.uint8)
            frame[8:16, 4 * number : 4 * number + 8] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


# Processes.


def _start(folder: Path, arguments: list[str], *, jumps: int | None = None) -> int:
    """Begin a command in a process of its own, which has torch already; returns its number."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    os.chdir(folder)
    log = os.open("../log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["gtool", *arguments]
    os.environ |= {"GTOOL_CACHE": str(folder / "cache"), INCEPTION.variable: str(folder.parent / "small.pth")}
    gtool.eval.scores.load_inception = lambda *_, **__: Small()  # type: ignore[assignment]
    if jumps is not None:
        clock, days = time.time, random.Random(jumps)
        time.time = lambda: clock() + 86400 * days.choice([-400, -1, 0, 0, 1, 400])  # type: ignore[assignment]
    signal.signal(signal.SIGTERM, lambda signum, _frame: sys.exit(128 + signum))
    status = 3
    try:
        status = run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _child(folder: Path, arguments: list[str]) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    _, status = os.waitpid(_start(folder, [*arguments]), 0)
    return os.waitstatus_to_exitcode(status)


def _hit(process: int, after: float, dice: random.Random) -> tuple[bool, bool]:
    """Stop a process for a moment, or kill it; return whether it was killed, and whether it was hit at all."""
    time.sleep(after)
    if os.waitpid(process, os.WNOHANG)[0]:
        return False, False
    if dice.random() < 0.15:
        os.kill(process, signal.SIGSTOP)
        time.sleep(dice.uniform(0.05, 1.0))
        os.kill(process, signal.SIGCONT)
        os.waitpid(process, 0)
        return False, True
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True, True


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file; logs and tables without what is a matter of time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name.endswith(".lock") or path.name in ("training.webp", "curves.png"):
            continue
        data = path.read_bytes()
        if path.name in ("log.jsonl", "state.json", "scores.json"):
            data = json.dumps([_timeless(json.loads(text)) for text in _records(path)]).encode()
        if path.name == "recipe.toml":
            data = b"\n".join(line for line in data.splitlines() if not line.startswith(b"#"))
        if path.suffix == ".pt2":
            data = b""  # its archive holds names of temporary files
        if path.suffix == ".mp4":
            data = _frames(path)
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()[:12]
    return found


def _frames(path: Path) -> bytes:
    """Return the number and sizes of frames: x264 does not repeat its bytes, of equal frames and with one thread."""
    import av

    with av.open(str(path)) as container:
        return str([(frame.width, frame.height) for frame in container.decode(video=0)]).encode()


def _records(path: Path) -> list[str]:
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in OF_TIME}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def attempt(kind: Kind, folder: Path, dice: random.Random) -> None:
    """Run a command with kills, to its end, and compare."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    arguments, moments = kind.arguments, []
    for _ in range(dice.choice([1, 1, 2, 3])):
        moments.append(dice.uniform(0, kind.seconds))
        was_killed, was_hit = _hit(_start(folder, arguments, jumps=dice.getrandbits(30)), moments[-1], dice)
        kind.kills, kind.stops = kind.kills + was_killed, kind.stops + (was_hit and not was_killed)
        arguments = kind.again
        for path in folder.rglob("*"):
            if dice.random() < 0.3:
                os.utime(path, (0, time.time() + dice.uniform(-1e7, 1e7)))
        if not was_killed:
            break
    if was_killed and (status := _child(folder, arguments)):
        return kind.wrong.append(f"killed after {moments}: status {status} of {' '.join(arguments)}")
    found = contents(folder)
    if odd := sorted(
        {name for name in found.keys() | kind.wanted.keys() if found.get(name) != kind.wanted.get(name)}
    ):
        kind.wrong.append(f"after {[round(one, 3) for one in moments]}: {', '.join(odd)}")


def main(kills: int, seed: int, *only: str, report: Callable[[str], None] = print) -> None:
    """Kill so many times, the kinds in turn."""
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    (home / "small.pth").write_bytes(b"weights of the small network")
    chosen = {name: kind for name, kind in kinds(home).items() if not only or name in only}
    for name, kind in chosen.items():
        folder = home / f"alone-{name}"
        assert _child(folder, kind.arguments) == 0, (home / "log").read_text()[-2000:]
        kind.wanted = contents(folder)
        shutil.rmtree(folder)
        began = time.monotonic()
        assert _child(folder, kind.arguments) == 0
        kind.seconds = time.monotonic() - began
        if (again := contents(folder)) != kind.wanted:
            report(f"{name}: not the same twice: {[k for k in again if again[k] != kind.wanted.get(k)]}")
    number = 0
    while sum(kind.kills + kind.stops for kind in chosen.values()) < kills:
        name = list(chosen)[number % len(chosen)]
        known = len(chosen[name].wrong)
        attempt(chosen[name], home / "work", random.Random(f"{seed} {number}"))
        for problem in chosen[name].wrong[known:]:
            report(f"{name}: {problem}")
        number += 1
        if number % 20 == 0:
            report(f"{number} commands, {sum(kind.kills for kind in chosen.values())} kills, in {home}")
    report(f"{'kind':20}{'seconds':>8}{'kills':>8}{'stops':>8}{'wrong':>8}")
    for name, kind in chosen.items():
        report(f"{name:20}{kind.seconds:8.1f}{kind.kills:8}{kind.stops:8}{len(kind.wrong):8}")


if __name__ == "__main__":
    main(*(int(number) for number in (*sys.argv[1:3], *("200", "0")[len(sys.argv) - 1 :])[:2]), *sys.argv[3:])
