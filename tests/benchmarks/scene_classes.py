"""The network that reads semantic maps off pictures of scenes: how it was trained, and what it reaches.

    python -m tests.benchmarks.scene_classes train [--steps 4000] [--out FILE]
    python -m tests.benchmarks.scene_classes score [--weights FILE]

About 8 minutes on one core; the weights of the package come from this, 160,000 scenes.

Held out, 1,000 scenes, share of pixels / mean IoU, 32 and 64 px:
drawn                                  0.958 / 0.843   0.982 / 0.932
averaged over 2 x 2 pixels, enlarged   0.942 / 0.798   0.976 / 0.917   (26 and 30 dB, 500 scenes)
averaged over 4 x 4 pixels, enlarged   0.851 / 0.550   0.941 / 0.807   (22 and 25 dB)
noise of deviation 25                  0.935 / 0.771   0.954 / 0.826   (20 dB)
maps of other scenes                   0.425 / 0.131   0.424 / 0.131   (all ground: 0.523)
The hardest is the cylinder: 64 % of its pixels at 32 px, 88 % at 64.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.data.synthetic.scenes import CLASSES, draw_scenes
from gtool.io.weights import load_weights, save_weights
from gtool.metrics.map_agreement import NAME, PROTOCOL, compare_maps, others, read_maps
from gtool.metrics.segmenter import Segmenter
from tests.benchmarks.scene_masks import HELD_OUT_SEED, spoil

TRAINING_SEED = 1003
STEPS, RATE = 4000, 2e-3
SIZES = ((32, 64), (64, 16))  # resolution, images of a batch: equal numbers of pixels


def labelled(indices: np.ndarray, resolution: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, R, R) in [-1, 1] and their exact semantic maps (N, R, R) int64."""
    scenes = draw_scenes(indices, resolution, seed)
    return torch.from_numpy(scenes.images).float() / 127.5 - 1, torch.from_numpy(scenes.segmentation).long()


def reconstruct(images: Tensor) -> Tensor:
    """Lose detail as a small codebook does: some pictures are averaged over blocks of 2 or 4 and enlarged again."""
    side = images.shape[-1]
    for block in (2, 4):
        small = F.avg_pool2d(images, block)
        coarse = F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
        share = (torch.rand(len(images), 1, 1, 1) < 0.25).float() * torch.rand(len(images), 1, 1, 1)
        images = torch.lerp(images, coarse, share)
    return images


def train(steps: int, out: Path) -> None:
    """Train from seed 0 and write half-precision weights; equal steps give equal weights on one machine."""
    torch.manual_seed(0)
    start = time.monotonic()
    network = Segmenter(len(CLASSES)).to(memory_format=torch.channels_last)
    print(sum(p.numel() for p in network.parameters()), "parameters")
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-4)
    seen = 0
    for step in range(steps):
        resolution, batch = SIZES[step % len(SIZES)]
        images, classes = labelled(np.arange(seen, seen + batch), resolution, TRAINING_SEED)
        seen += batch
        images, classes = spoil(reconstruct(images), classes)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100, 2 * (1 - step / steps))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = network(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(scores.float(), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 199:
            print(f"{time.monotonic() - start:6.0f} s  step {step + 1}  loss {loss:.3f}", flush=True)
    tensors = {name: tensor.half() for name, tensor in network.state_dict().items()}
    save_weights(out, tensors, {"model": NAME, "protocol": PROTOCOL, "steps": steps, "images": seen})


def score(weights: Path | None) -> None:
    """Print how well maps are read off scenes that training never saw, whole and spoilt."""
    network = None
    if weights:
        network = Segmenter(len(CLASSES)).eval()
        network.load_state_dict(load_weights(weights).tensors)
    for resolution in (32, 64, 128):
        scenes = draw_scenes(np.arange(1000), resolution, HELD_OUT_SEED)
        for name, images in ways(scenes.images).items():
            show(f"{resolution} px, {name:8}", compare_maps(read_maps(images, network), scenes.segmentation))
        shuffled_maps = scenes.segmentation[others(len(scenes.images), 0)]
        shuffled = compare_maps(read_maps(scenes.images, network), shuffled_maps)
        show(f"{resolution} px, shuffled", shuffled)


def show(name: str, found: dict[str, Any]) -> None:
    """Print one line of percents."""
    each = zip(CLASSES, found["classes"], strict=True)
    parts = ", ".join(f"{one} {100 * share:.0f}" for one, share in each if share is not None)
    print(f"{name} {100 * found['pixels']:.1f} % of pixels, mean IoU {found['mean_iou']:.3f} ({parts})")


def ways(images: np.ndarray) -> dict[str, np.ndarray]:
    """The pictures as drawn, and with the detail lost that a small codebook loses."""
    torch.manual_seed(1)
    lost = reconstruct(torch.from_numpy(images).float())
    return {"drawn": images, "blurred": lost.round().clamp(0, 255).to(torch.uint8).numpy()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["train", "score"])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=Path(f"{NAME}.safetensors"))
    parser.add_argument("--weights", type=Path, help="instead of those of the package")
    arguments = parser.parse_args()
    if arguments.what == "train":
        train(arguments.steps, arguments.out)
    else:
        score(arguments.weights)


if __name__ == "__main__":
    main()
