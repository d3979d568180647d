"""Logits of our prior against those of the released transformer with the same weights.

    python -m tests.benchmarks.prior_fidelity --reference PATH_TO_A_CHECKOUT_OF_taming-transformers

Weights are random, positions, biases and norms too. Ours get them through the importer. Printed for each case: the
parameters of both, and the largest error relative to the largest logit, of a whole forward pass and of one code after
the other with the cache.

Measured on a CPU, torch 2.15, fp32: 6e-7 at most, 2e-6 with 24 layers of width 1024 (304,932,864 parameters in both).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tests.benchmarks.prior_reference import load_module, ours, released

CASES = {
    "none": {"block_size": 64},
    "class": {"block_size": 64, "classes": 20},
    "map": {"block_size": 128, "channels": 5},
    "map, prefix unmasked": {"block_size": 128, "channels": 5, "n_unmasked": 64},
    "depth, 8192 codes": {"block_size": 128, "channels": 1, "vocab_size": 8192},
}
FULL = {"n_layer": 24, "n_head": 16, "n_embd": 1024, "vocab_size": 1024, "block_size": 512, "channels": 1}
SMALL = {"n_layer": 4, "n_head": 4, "n_embd": 64, "vocab_size": 128}


def compare(module: object, settings: dict[str, int], side: int) -> str:
    """Return the figures of a case."""
    settings = dict(settings)
    channels, classes = settings.pop("channels", None), settings.pop("classes", 0)
    network = released(module, **settings)
    prior = ours(network, settings["n_head"], side, channels, classes)
    generator = torch.Generator().manual_seed(1)
    config = prior.config
    condition = torch.randint(config.condition_size, (2, config.condition_length), generator=generator)
    codes = torch.randint(config.codebook_size, (2, config.length), generator=generator)
    tokens = torch.cat([condition, codes], dim=1)[:, :-1]
    with torch.no_grad():
        expected = network(tokens)[0][:, config.condition_length - 1 :]
        full = prior(condition, codes)
        cache, logits = prior.start(condition)
        cached = [logits[:, 0]]
        for place in range(min(config.length - 1, 32)):
            cached.append(prior.extend(cache, codes[:, place : place + 1])[:, 0])
    scale = expected.abs().max()
    error = (full - expected).abs().max() / scale
    step = (torch.stack(cached, 1) - expected[:, : len(cached)]).abs().max() / scale
    counts = [sum(p.numel() for p in net.parameters()) for net in (network, prior)]
    return f"parameters {counts[0]:,} / {counts[1]:,}  full {error:.1e}  cached {step:.1e}"


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--full", action="store_true", help="also 24 x 1024, which needs 4 GB")
    options = parser.parse_args()
    module = load_module(options.reference)
    for name, changes in CASES.items():
        print(f"{name:22s} {compare(module, SMALL | changes, 8)}", flush=True)
    if options.full:
        print(f"{'24 x 1024, depth':22s} {compare(module, FULL, 16)}", flush=True)


if __name__ == "__main__":
    main()
