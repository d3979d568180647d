"""Sampling of 256 codes from 24 layers of width 1024: ours against the released sampler without a cache.

    python -m tests.benchmarks.prior_speed --reference PATH_TO_A_CHECKOUT_OF_taming-transformers
    [--rounds 2] [--threads 1] [--batches 1 32] [--most 4] [--precision auto]

One process, the same random weights, in turn, CPU time (wall time in brackets), the best of the rounds. Ours draws all
256 codes. The released code (`sample` of mingpt.py, as Net2NetTransformer.sample) reads everything again for every
code; one such forward pass is timed at several lengths and summed up between them (straight lines). For a batch of
more than `--most` images the released cost of an image is that of a batch of `--most`: nothing of it is shared.

Beside: the seconds in which the weights could be read 256 times, at the speed at which a large tensor is summed up.
That is the floor for one image; a batch shares it, and is bound by arithmetic.

Measured on one thread of a Zen 4 core with AVX512-BF16, torch 2.15, beside other programs, CPU seconds a picture: one
image 282 s released, 18.8 s ours (15.0x; 9.8x in wall time), reading the weights 5.8 s; of 32 images 276 s and 2.18 s
(127x; 116x in wall time). A step of one image took 66 ms, 47 of them in matrix products, which read weights at 13 GB/s
where a sum reads 18; a step of 32 images 262 ms, 164 of them in matrix products and 92 in attention to the cache.
With AMX, one image: 178 s and 15.2 to 16.4 s (10.9 to 11.8x), 19.4 s before one row was a product of matrix and vector;
reading the weights 10 s.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gtool.models.flops import forward_flops
from gtool.models.prior.config import MLP_RATIO, PriorConfig
from gtool.models.prior.network import Prior, for_sampling
from gtool.models.prior.sampling import UNKNOWN, SamplingParams, sample_codes, uniform_numbers
from gtool.runtime.precision import use_bf16
from tests.benchmarks.prior_reference import load_module, ours, released

LENGTHS = (1, 64, 128, 192, 256)
TOP_K = 100
Seconds = tuple[float, float]  # of the CPU, of the wall


def step_bytes(config: PriorConfig, bytes_each: int = 2) -> float:
    """Return the bytes of weights that one step of sampling reads, whatever the batch: every matrix once.

    bytes_each: of the blocks' weights; those of the head stay fp32.
    """
    blocks = config.layers * (4 + 2 * MLP_RATIO) * config.width**2
    return float(blocks * bytes_each + config.width * config.codebook_size * 4)


def timed(work: Callable[[], Any]) -> Seconds:
    """Return how long it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def best(*times: Seconds) -> Seconds:
    """Return the smallest of each."""
    return min(cpu for cpu, _ in times), min(wall for _, wall in times)


def forward(network: nn.Module, batch: int, length: int) -> Seconds:
    """Time one step of the released sampler at a length."""
    tokens = torch.zeros(batch, length, dtype=torch.int64)

    def work() -> None:
        logits = network(tokens)[0][:, -1]
        values, _ = torch.topk(logits, TOP_K)
        logits[logits < values[:, [-1]]] = -float("inf")
        torch.multinomial(logits.softmax(-1), 1)

    return timed(work)


def summed(at: dict[int, Seconds]) -> Seconds:
    """Return the cost of all lengths from those measured."""
    total = [0.0, 0.0]
    for which in (0, 1):
        for before, after in pairwise(LENGTHS):
            for length in range(before, after):
                share = (length - before) / (after - before)
                total[which] += at[before][which] * (1 - share) + at[after][which] * share
        total[which] += at[LENGTHS[-1]][which]
    return total[0], total[1]


def draw(prior: Prior, batch: int) -> Seconds:
    """Time ours."""
    condition = torch.zeros(batch, 1, dtype=torch.int64)
    codes = torch.full((batch, *prior.config.grid), UNKNOWN)
    uniform = uniform_numbers(0, torch.arange(batch), prior.config.grid)
    params = SamplingParams(top_k=TOP_K)
    return timed(lambda: sample_codes(prior, condition, codes, uniform, params, batch_size=batch))


def read_speed() -> float:
    """Return bytes a second."""
    numbers = torch.ones(100_000_000)
    return 4e8 / best(*(timed(numbers.sum) for _ in range(3)))[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sizes = {"n_layer": 24, "n_head": 16, "n_embd": 1024, "vocab_size": 1024, "block_size": 256}
    network = released(load_module(options.reference), **sizes)
    half = use_bf16(options.precision, torch.device("cpu"))
    prior = for_sampling(ours(network, 16, 16, None), torch.bfloat16 if half else torch.float32)
    with torch.no_grad():
        for batch in options.batches:
            race(network, prior, batch, options, half)


def race(network: nn.Module, prior: Prior, batch: int, options: argparse.Namespace, half: bool) -> None:
    """Compare for a batch, round by round, and print."""
    most = min(batch, options.most)
    mine: list[Seconds] = []
    theirs: list[Seconds] = []
    floors = []
    for _ in range(options.rounds):
        at = {length: forward(network, most, length) for length in LENGTHS}
        theirs.append(tuple(seconds / most for seconds in summed(at)))  # type: ignore[arg-type]
        mine.append(tuple(seconds / batch for seconds in draw(prior, batch)))  # type: ignore[arg-type]
        floors.append(256 * step_bytes(prior.config, 2 if half else 4) / read_speed() / batch)
        (cpu, wall), (their_cpu, their_wall) = mine[-1], theirs[-1]
        rate = forward_flops(prior) / cpu / 1e9
        print(
            f"batch {batch}, a picture: released {their_cpu:.1f} s ({their_wall:.1f}), ours {cpu:.2f} s ({wall:.2f}), "
            f"{their_cpu / cpu:.1f}x ({their_wall / wall:.1f}x); reading the weights {floors[-1]:.2f} s, "
            f"{rate:.0f} GFLOP/s",
            flush=True,
        )
    cpu, their_cpu = best(*mine)[0], best(*theirs)[0]
    print(
        f"batch {batch}: best {their_cpu:.1f} s / {cpu:.2f} s = {their_cpu / cpu:.1f}x, {options.precision}",
        flush=True,
    )


if __name__ == "__main__":
    main()
