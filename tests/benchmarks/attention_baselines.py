"""What attention is measured against: the scores of partitions without attention, on drawn scenes.

    python -m tests.benchmarks.attention_baselines [--num 500] [--components 8]

Prints, against exact masks and against those of the segmenter, the scores of maps that are the masks
themselves at the size of a layer (the most that a layer of that size can reach, with its permuted score
below), of the fixed grid and of k-means.

Measured with 500 scenes and k = 8 against exact masks, 32 / 64 px: grid ARI 0.051 / 0.052, foreground ARI 0.471 /
0.472, mean best overlap 0.315 / 0.314; k-means 0.170 / 0.175, 0.695 / 0.705 and 0.635 / 0.648 (the segmenter's masks
change these by 0.003 at most). Masks at 8 x 8 reach ARI 0.84, foreground ARI 0.76 and mean best overlap 0.78, at
16 x 16 0.95, 0.93 and 0.93; permuted they still have 0.25, 0.24 and 0.26.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.data.synthetic.scenes import draw_scenes
from gtool.metrics.attention import layer_table, score_attention
from gtool.metrics.segmenter import find_objects

SEED = 2002


def perfect_maps(masks: np.ndarray, components: int, side: int) -> Tensor:
    """Return maps (N, 1, k, side, side) that give ground to component 0 and object j to component j mod k."""
    labels = torch.from_numpy(masks.astype(np.int64)) % components
    one_hot = F.one_hot(labels, components).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(one_hot, side)[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--components", type=int, default=8)
    arguments = parser.parse_args()
    for resolution in (32, 64):
        scenes = draw_scenes(np.arange(arguments.num), resolution, SEED)
        sides = [side for side in (8, 16, 32, 64) if side <= resolution]
        maps = {f"masks at {side}": perfect_maps(scenes.masks, arguments.components, side) for side in sides}
        for name, masks in {"exact": scenes.masks, "the segmenter's": find_objects(scenes.images)}.items():
            print(f"\n{resolution} px, {arguments.num} scenes, {name} masks")
            for row in layer_table(score_attention(scenes.images, masks, maps, untrained=maps, changed=maps)):
                print(f"{row[0]:14}" + "".join(f"{cell:>15}" for cell in row[1:7]))


if __name__ == "__main__":
    main()
