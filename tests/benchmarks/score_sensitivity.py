"""Which spoiled images rfd and swd notice, at how many images: the table, and whether its orders hold.

    python tests/benchmarks/score_sensitivity.py [--data scenes] [--num 500 2000] [--draws 3]
    GTOOL_DATA=FOLDER python tests/benchmarks/score_sensitivity.py --data cifar10

Candidates are images of the test split (of scenes: other scenes), where there are labels also of fewer classes, every
class equally often. One draw has noise of its own: swd at 16 px of other real images varied between 13 and 37 over
five draws of 2,000, and 8 of 10 classes between 34 and 45. So orders are those of the mean of a few draws.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from gtool.data.dataset import ImageDataset
from gtool.data.open import open_dataset
from gtool.metrics.weight_free import WeightFreeScorer
from tests.helpers.distortions import CHANGES

# Each must score higher than the one before it, by the metric named.
ORDERS = {
    "rfd": (
        ("noise 5", "noise 10", "noise 20"),
        ("blur 0.3", "blur 0.6", "blur 1.0"),
        ("none", "noise 20", "upside down", "uniform noise"),
        ("none", "noise 20", "blocks shuffled", "uniform noise"),
        ("none", "noise 20", "repeated", "uniform noise"),
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


# Of scenes, which have the light above and the ground below, those on their heads are far worse.
PHOTOGRAPHS = ("noise 20", "upside down", "blocks shuffled", "repeated", "uniform noise")

Scores = dict[str, dict[str, float]]


def draw(
    source: ImageDataset, num: int, random: np.random.RandomState, classes: int | None = None
) -> np.ndarray:
    """Return squares of images drawn at random, of labelled sets equally many of each of the first classes."""
    if source.labels is None:
        places = random.permutation(len(source))[:num]
    else:
        labels = np.asarray(source.labels)
        count = classes or len(np.unique(labels))
        each = [random.permutation(np.flatnonzero(labels == label))[: num // count] for label in range(count)]
        places = random.permutation(np.concatenate(each))
    return np.stack(source.read_squares(places.tolist(), 32, "center"))


def score(real: ImageDataset, fake: ImageDataset, num: int, seed: int) -> Scores:
    """Score all candidates against one draw of the reference."""
    random = np.random.RandomState(seed)
    yardstick = WeightFreeScorer.build(torch.from_numpy(draw(real, 2 * num, random)), num=num, seed=seed)
    images = draw(fake, num, random)
    found = {name: change(images) for name, change in CHANGES.items()}
    if fake.labels is not None:
        for kept in (8, 5, 1):
            name = "1 class" if kept == 1 else f"{kept} classes"
            found[name] = draw(fake if kept > 1 else real, num, random, kept)  # a test split may have too few
    return {name: yardstick.score(torch.from_numpy(images)) for name, images in found.items()}


def check(data: str, num: int, draws: int) -> bool:
    real, fake = (open_dataset(data, split=split, resolution=32) for split in ("train", "test"))
    drawn = [score(real, fake, num, seed) for seed in range(draws)]
    scores = {
        name: {metric: float(np.mean([one[name][metric] for one in drawn])) for metric in found}
        for name, found in drawn[0].items()
    }
    floor = next(iter(scores.values()))
    print(
        f"{data}, n = {num}, mean of {draws}: {'candidate':18}"
        + "".join(f"{metric:>12}" for metric in ORDERS)
    )
    print(f"{'other real images':>32}" + "".join(f"{floor[f'{metric}_floor']:12.3f}" for metric in ORDERS))
    for name, found in scores.items():
        print(f"{name:>32}" + "".join(f"{found[metric]:12.3f}" for metric in ORDERS))
    photographs = {"rfd": (PHOTOGRAPHS,)} if fake.labels is not None else {}
    holds = True
    for metric, chains in ORDERS.items():
        for chain in chains + photographs.get(metric, ()):
            alone = sum(is_rising(one, metric, chain) for one in drawn)
            if alone < draws:
                print(f"by {metric}, {alone} of {draws} draws alone in order: {', '.join(chain)}")
            if not is_rising(scores, metric, chain):
                holds = False
                print(f"not in order by {metric}: {', '.join(chain)}")
    return holds


def is_rising(scores: Scores, metric: str, chain: tuple[str, ...]) -> bool:
    values = [scores[name][metric] for name in chain if name in scores]
    return all(before < after for before, after in pairwise(values))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--num", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    results = [check(options.data, num, options.draws) for num in options.num]
    print("all orders hold" if all(results) else "some orders do not hold")
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
