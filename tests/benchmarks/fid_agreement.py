"""`gtool eval A B --fid --kid` against clean-fid, same folders, same weights: values and CPU time.

    python tests/benchmarks/fid_agreement.py [--num 64] [--side 32] [--folders A B] [--modes clean ...]

A network of the same shape with random weights takes Inception's place, as TorchScript for the first two
modes and as a state dict for legacy_pytorch. clean-fid's own distance needs SciPy < 1.18 and takes a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import inception_standin, pictures

BAR = 1e-4


def save_folder(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:05d}.png")
    return folder


def by_gtool(folders: list[Path], weights: Path, mode: str) -> tuple[dict[str, float], float]:
    before = os.times()
    command = [
        sys.executable,
        "-m",
        "gtool",
        "eval",
        *map(str, folders),
        "--fid",
        "--kid",
        "--json",
        "--mode",
        mode,
    ]
    done = subprocess.run(
        [*command, "--weights", str(weights), "--device", "cpu"], capture_output=True, check=True
    )
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {name: found["value"] for name, found in json.loads(done.stdout)["metrics"].items()}, cpu


def by_clean_fid(folders: list[Path], script: Path, plain: Path, mode: str) -> tuple[dict[str, float], float]:
    from cleanfid import fid, inception_pytorch
    from cleanfid.inception_torchscript import InceptionV3W

    if mode == "legacy_pytorch":
        inception_pytorch.load_state_dict_from_url = lambda *_, **__: torch.load(plain)
        network = inception_pytorch.InceptionV3(resize_input=False).eval()
        model = lambda batch: network(batch / 255)[0].flatten(1)  # noqa: E731
    else:
        model = InceptionV3W(
            str(script.parent), download=False, resize_inside=mode == "legacy_tensorflow"
        ).eval()
    started = time.process_time()
    settings = {
        "num_workers": 0,
        "batch_size": 8,
        "device": torch.device("cpu"),
        "mode": mode,
        "verbose": False,
    }
    features = [fid.get_folder_features(str(folder), model, **settings) for folder in folders]
    extraction = time.process_time() - started
    np.random.seed(0)
    kid = fid.kernel_distance(*features)
    return {"fid": fid.fid_from_feats(*features), "kid": kid}, extraction


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num", type=int, default=64)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--folders", nargs=2, type=Path)
    parser.add_argument("--modes", nargs="+", default=["clean", "legacy_tensorflow", "legacy_pytorch"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["GTOOL_CACHE"] = str(Path(temporary) / "cache")
        plain, script = inception_standin.make(Path(temporary))
        folders = options.folders or [
            save_folder(
                Path(temporary) / "fake", pictures.noisy(pictures.draw(options.num, 1, options.side), 10)
            ),
            save_folder(Path(temporary) / "real", pictures.draw(options.num, 2, options.side)),
        ]
        worst = 0.0
        for mode in options.modes:
            weights = plain if mode == "legacy_pytorch" else script
            ours, our_cpu = by_gtool(folders, weights, mode)
            theirs, their_cpu = by_clean_fid(folders, script, plain, mode)
            for name, value in ours.items():
                difference = abs(value / theirs[name] - 1)
                worst = max(worst, difference)
                print(f"{mode} {name}: {value:.8g}, clean-fid {theirs[name]:.8g}, off by {difference:.1e}")
            print(f"{mode} CPU-seconds: whole command {our_cpu:.1f}, clean-fid's extraction {their_cpu:.1f}")
        print(f"largest relative difference {worst:.1e}, bar {BAR:.0e}")
        sys.exit(worst > BAR)


if __name__ == "__main__":
    main()
