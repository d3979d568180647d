"""Speed of scores against clean-fid: same folders, same stand-in weights, whole commands, interleaved in one run.

    python tests/benchmarks/score_speed.py [--parts small large generator trace memory] [--num-small 2000]
        [--num-large 300] [--rounds 1]

small: folder to FID of images of 32 px. large: of 1024 px. generator: a run to FID without files, against writing
PNGs and clean-fid. trace: the trace term against scipy's sqrtm. memory: peak of the command at N and 4 N images.
dinov2: features against a plain forward of transformers.

Each line has wall and CPU seconds and the ratio to clean-fid; on a shared machine trust the CPU ratio. Bars: fp32 at
equal numbers 1.8x clean-fid's images/s, the bf16 preview 5x, the generator 2x, the trace term under half, DINOv2 within
1.3 times a plain forward. clean-fid's distance needs SciPy < 1.18; `features only` leaves the distance out on its side
and in on ours.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.helpers import dinov2_standin, inception_standin, pictures

ROOT = Path(__file__).parents[2]

CLEAN_FID = """
import sys, time, warnings
warnings.simplefilter("ignore")
import torch
from cleanfid import fid
from cleanfid.inception_torchscript import InceptionV3W
script, fake, real, with_distance = sys.argv[1:]
model = InceptionV3W(script, download=False, resize_inside=False).eval()
settings = dict(num_workers=2, batch_size=32, device=torch.device("cpu"), mode="clean", verbose=False)
features = [fid.get_folder_features(folder, model, **settings) for folder in (fake, real)]
print(fid.fid_from_feats(*features) if with_distance == "1" else 0)
"""
WRITE_PNGS = """
import sys, torch
from pathlib import Path
from PIL import Image
from gtool.runtime.device import make_compute
from gtool.models.generate import generate, load_model
run, folder, num = sys.argv[1:]
compute = make_compute("cpu", "auto")
network = load_model(next(Path(run).glob("weights-*.safetensors")), compute=compute).network
number = 0
for images in generate(network, 0, torch.arange(int(num)), compute, batch_size=32):
    for image in images.cpu().numpy():
        Image.fromarray(image.transpose(1, 2, 0)).save(Path(folder) / f"{number:06d}.png")
        number += 1
"""


@dataclass(frozen=True)
class Cost:
    """Of a command: seconds, the most memory of any child so far, what it printed."""

    wall: float
    cpu: float
    output: str


def cost_of(*command: object) -> Cost:
    before, started = os.times(), time.monotonic()
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(time.monotonic() - started, cpu, done.stdout)


def add(first: Cost, second: Cost) -> Cost:
    return Cost(first.wall + second.wall, first.cpu + second.cpu, second.output)


def gtool(*words: object) -> Cost:
    """A whole `gtool eval --fid --json` with nothing in its cache."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GTOOL_CACHE"] = cache
        return cost_of("-m", "gtool", "eval", *words, "--fid", "--device", "cpu", "--json")


def value(cost: Cost) -> float:
    return float(json.loads(cost.output)["metrics"]["fid"]["value"])


def save_folder(folder: Path, num: int, seed: int, side: int) -> Path:
    folder.mkdir()
    for number in range(num):
        image = pictures.draw(1, seed * 100_000 + number, side)[0]
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:05d}.png", compress_level=1)
    return folder


def show(name: str, cost: Cost, base: Cost | None = None) -> None:
    ratio = f", {base.wall / cost.wall:.2f}x by wall, {base.cpu / cost.cpu:.2f}x by CPU" if base else ""
    print(f"  {name}: {cost.wall:.1f} s, {cost.cpu:.1f} CPU-s{ratio}", flush=True)


def folders(where: Path, num: int, side: int, weights: tuple[Path, Path], rounds: int) -> None:
    """Compare whole commands from two folders to one number."""
    print(f"two folders of {num} images of {side} px", flush=True)
    fake, real = (save_folder(where / f"{side}-{seed}", num, seed, side) for seed in (1, 2))
    script = weights[1]
    for _ in range(rounds):
        ours = gtool(fake, real, "--weights", script)
        theirs = cost_of("-c", CLEAN_FID, script.parent, fake, real, 1)
        features = cost_of("-c", CLEAN_FID, script.parent, fake, real, 0)
        preview = gtool(fake, real, "--weights", script, "--preview")
        show("clean-fid", theirs)
        show("clean-fid, features only", features)
        show("gtool", ours, theirs)
        show("gtool, against features only", ours, features)
        show("gtool --preview", preview, theirs)
        show("gtool --preview, against features only", preview, features)
        off = abs(value(ours) / float(theirs.output) - 1)
        print(f"  fid {value(ours):.6g}, clean-fid off by {off:.1e}; bf16 {value(preview):.6g}", flush=True)


def generator(where: Path, num: int, weights: tuple[Path, Path], rounds: int) -> None:
    """Compare a run to FID with PNGs written and clean-fid; the reference is a folder for both."""
    from gtool.config.recipe import to_toml
    from gtool.io.weights import save_weights
    from gtool.models.generate import weights_meta
    from gtool.models.registry import config_class, network_module
    from tests.helpers.tiny import tiny_recipe

    recipe = tiny_recipe()
    config = config_class("transgan").model_validate(recipe.model)
    run = where / "run"
    run.mkdir()
    (run / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    network = network_module("transgan").Generator(config)
    save_weights(run / "weights-000001.safetensors", network.state_dict(), weights_meta(recipe, config, 1000))
    real = save_folder(where / "reference", num, 3, config.resolution)
    print(f"a generator of {config.resolution} px, {num} images", flush=True)
    for number in range(rounds):
        ours = gtool(run, "--reference", real, "--num", num, "--weights", weights[1])
        folder = where / f"made-{number}"
        folder.mkdir()
        written = cost_of("-c", WRITE_PNGS, run, folder, num)
        theirs = add(written, cost_of("-c", CLEAN_FID, weights[1].parent, folder, real, 1))
        show("PNGs and clean-fid", theirs)
        show("gtool", ours, theirs)


def trace() -> None:
    """Compare distances of 2048 dimensions, spectra that decay."""
    from cleanfid import fid

    from gtool.metrics.frechet import Moments, frechet

    random = np.random.RandomState(0)
    scales = np.arange(1, 2049) ** -0.5
    rows = [torch.from_numpy(random.randn(4000, 2048) * scales + shift) for shift in (0, 0.01)]
    first, second = (Moments.of(one).gaussian() for one in rows)
    started, cpu = time.monotonic(), time.process_time()
    ours = frechet(first, second)
    our_cost = Cost(time.monotonic() - started, time.process_time() - cpu, "")
    started, cpu = time.monotonic(), time.process_time()
    theirs = fid.frechet_distance(
        first.mean.numpy(), first.covariance.numpy(), second.mean.numpy(), second.covariance.numpy()
    )
    their_cost = Cost(time.monotonic() - started, time.process_time() - cpu, "")
    print(f"distance of 2048 dimensions: {ours:.9g} and sqrtm's {theirs:.9g}")
    show("sqrtm", their_cost)
    show("gtool", our_cost, their_cost)


def dinov2(where: Path, rounds: int) -> None:
    """Compare FD-DINOv2's features of 16 images of 32 px, resizing included, with a plain forward of transformers."""
    from transformers import Dinov2Config, Dinov2Model

    from gtool.metrics.features.dinov2 import Dinov2Extractor, load_dinov2

    path = dinov2_standin.save(dinov2_standin.build(768), where / "dinov2.safetensors")
    extractor = Dinov2Extractor(load_dinov2(path, "vit-b-14"))
    sizes = {"image_size": 518, "patch_size": 14}  # as in the published configuration
    plain = Dinov2Model(Dinov2Config(**sizes)).eval().requires_grad_(False)
    images, inputs = torch.from_numpy(pictures.draw(16, 1, 32)), torch.randn(16, 3, 224, 224)
    for _ in range(rounds + 1):  # the first warms up
        costs = []
        for call in (lambda: extractor(images), lambda: plain(inputs)):
            started, cpu = time.monotonic(), time.process_time()
            with torch.no_grad():
                call()
            costs.append(Cost(time.monotonic() - started, time.process_time() - cpu, ""))
        show("transformers", costs[1])
        show("gtool", costs[0], costs[1])


def memory(where: Path, num: int, weights: tuple[Path, Path]) -> None:
    """Show the peak of whole commands on more and more images; its rows are kept, 8 kB an image."""
    for count in (num, 4 * num):
        fake, real = (save_folder(where / f"memory-{count}-{seed}", count, seed, 32) for seed in (4, 5))
        gtool(fake, real, "--weights", weights[1], "--preview")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"peak memory at {count} images a side: {peak:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = ["memory", "small", "large", "generator", "trace", "dinov2"]
    parser.add_argument("--parts", nargs="+", default=everything, choices=everything)
    parser.add_argument("--num-small", type=int, default=2000)
    parser.add_argument("--num-large", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        weights = inception_standin.make(where)
        if "memory" in options.parts:  # first: the peak is of all children so far
            memory(where, options.num_small, weights)
        if "small" in options.parts:
            folders(where, options.num_small, 32, weights, options.rounds)
        if "large" in options.parts:
            folders(where, options.num_large, 1024, weights, options.rounds)
        if "generator" in options.parts:
            generator(where, options.num_small, weights, options.rounds)
        if "trace" in options.parts:
            trace()
        if "dinov2" in options.parts:
            dinov2(where, options.rounds)


if __name__ == "__main__":
    main()
