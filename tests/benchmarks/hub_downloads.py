"""The 50,000 pictures of CIFAR-10 from a slow hub: how long a log without a terminal is silent.

    python -m tests.benchmarks.hub_downloads FOLDER [SECONDS]

FOLDER holds the data set as the hub has it (README.md, plain_text/*.parquet). A server on this machine sends it over
SECONDS (120), breaks off in the last file at first, and `gtool train transgan --dataset cifar10` runs twice, in a
process of its own, with empty caches. Prints the longest time between two lines, and what was fetched again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.hub_server import Fault, hub_server

TRAIN = "train transgan --dataset cifar10 --kimg 0.1 --device cpu --out run --set train.metrics=[]"


def main(folder: Path, seconds: float = 120.0) -> None:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    size = sum(map(len, files.values()))
    with hub_server() as hub, tempfile.TemporaryDirectory() as place:
        hub.repositories["dataset/uoft-cs/cifar10"] = files
        pause = seconds / (size / (1 << 16))
        hub.faults = [
            Fault("GET .*/test-", sends=size // 50, pause=pause),
            Fault("GET .*parquet", pause=pause),
        ]
        given = {"HF_HOME": f"{place}/hf", "GTOOL_CACHE": f"{place}/cache", "HF_ENDPOINT": hub.address}
        environment = os.environ | given | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        environment["PYTHONPATH"] = str(Path.cwd())
        environment.pop("GTOOL_DATA", None)
        for attempt in ("dying", "whole"):
            before, silence = len(hub.gets()), 0.0
            command = [sys.executable, "-m", "gtool", *TRAIN.split()]
            process = subprocess.Popen(command, env=environment, cwd=place, stderr=subprocess.PIPE, text=True)
            start = last = time.monotonic()
            assert process.stderr is not None
            for line in process.stderr:
                now = time.monotonic()
                # Before the first line libraries are imported, which takes as long as other programs let it.
                silence, last = 0.0 if last == start else max(silence, now - last), now
                print(f"{now - start:6.1f} s  {line.rstrip()}")
            fetched = [name for name in hub.gets()[before:] if name.endswith(".parquet")]
            print(
                f"{attempt}: status {process.wait()}, silent for {silence:.1f} s at most, fetched {fetched}"
            )
            hub.faults = hub.faults[1:]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
