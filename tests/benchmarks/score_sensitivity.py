"""Which spoiled images rfd and swd notice, at how many images: the table, and whether its orders hold.

    python tests/benchmarks/score_sensitivity.py [--data scenes] [--num 500 2000]
    GTOOL_DATA=FOLDER python tests/benchmarks/score_sensitivity.py --data cifar10

Candidates are images of the test split (of scenes: other scenes), where there are labels also of fewer classes.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from gtool.data.sources import Source, open_source
from gtool.metrics.yardstick import Yardstick
from tests.distortions import CHANGES

# Each must score higher than the one before it, by the metric named.
ORDERS = {
    "rfd": (
        ("noise 5", "noise 10", "noise 20"),
        ("blur 0.3", "blur 0.6", "blur 1.0"),
        ("none", "noise 20", "upside down", "repeated", "uniform noise"),
        ("none", "noise 20", "blocks shuffled", "repeated", "uniform noise"),
        ("none", "blur 1.0", "gaussian pixels", "repeated"),
        ("8 classes", "1 class"),
        ("5 classes", "1 class"),
    ),
    "swd_32": (
        ("none", "noise 5", "noise 10", "noise 20", "uniform noise"),
        ("none", "blur 0.6", "blur 1.0", "uniform noise"),
        ("blur 0.3", "blur 0.6"),
        ("none", "blocks shuffled"),
        ("none", "repeated"),
        ("none", "gaussian pixels"),
    ),
    "swd_16": (
        ("none", "upside down", "uniform noise"),
        ("none", "blocks shuffled", "uniform noise"),
        ("none", "repeated"),
        ("none", "8 classes", "1 class"),
    ),
}


def read(source: Source, num: int) -> np.ndarray:
    places = np.linspace(0, len(source) - 1, num).astype(int)
    return np.stack(source.read_squares(places.tolist(), 32, "center"))


def candidates(source: Source, num: int) -> dict[str, np.ndarray]:
    images = read(source, num)
    found = {name: change(images) for name, change in CHANGES.items()}
    if source.labels is not None:
        for kept in (8, 5, 1):
            inside = np.flatnonzero(np.asarray(source.labels) < kept)[:num]
            squares = source.read_squares(inside.tolist(), 32, "center")
            found["1 class" if kept == 1 else f"{kept} classes"] = np.stack(squares)
    return found


def check(data: str, num: int) -> bool:
    real, fake = (open_source(data, split=split, resolution=32) for split in ("train", "test"))
    yardstick = Yardstick.build(torch.from_numpy(read(real, 2 * num)), num=num)
    scores = {
        name: yardstick.score(torch.from_numpy(images)) for name, images in candidates(fake, num).items()
    }
    floor = next(iter(scores.values()))
    print(f"{data}, n = {num}: {'candidate':18}" + "".join(f"{metric:>12}" for metric in ORDERS))
    print(f"{'other real images':>32}" + "".join(f"{floor[f'{metric}_floor']:12.3f}" for metric in ORDERS))
    for name, found in scores.items():
        print(f"{name:>32}" + "".join(f"{found[metric]:12.3f}" for metric in ORDERS))
    holds = True
    photographs = {"rfd": (("upside down", "blocks shuffled"),)} if fake.labels is not None else {}
    for metric, chains in ORDERS.items():
        for chain in chains + photographs.get(metric, ()):
            values = [scores[name][metric] for name in chain if name in scores]
            if any(after <= before for before, after in pairwise(values)):
                holds = False
                print(f"not in order by {metric}: {', '.join(chain)}")
    return holds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--num", type=int, nargs="+", default=[500, 2000])
    options = parser.parse_args()
    results = [check(options.data, num) for num in options.num]
    print("all orders hold" if all(results) else "some orders do not hold")
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
