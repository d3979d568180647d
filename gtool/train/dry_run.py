"""`--dry-run`: what would run, how big it is, how long it would take; and the estimate that every run begins with."""

import time
from typing import Any

import torch

from gtool import console
from gtool.config.recipe import to_toml
from gtool.config.schema import Recipe
from gtool.models import registry
from gtool.models.flops import forward_flops
from gtool.models.outline import outline
from gtool.runtime.device import Compute
from gtool.train.memory import peak_memory
from gtool.train.optim import averages

BESIDE = ", scoring before and after not counted"  # what an estimate, and --minutes, leave out
# Shares of the measured matrix-product rate that whole steps reached on two cores and are assumed elsewhere.
UTILISATION = {"fp32": 0.35, "bf16": 0.10}


def dry_run(
    recipe: Recipe, config: Any, name: str, compute: Compute, *, processes: int, as_json: bool
) -> None:
    """Print a resolved recipe on stdout and its costs on stderr; nothing is written."""
    model = recipe.model_name
    with outline():
        built = registry.network_module(model).build(config)
    networks = dict(zip(registry.find_model(model).networks, built, strict=False))  # a palette is alone
    forward = {key: forward_flops(network.to("meta")) for key, network in networks.items()}
    counts = {key: sum(p.numel() for p in network.parameters()) for key, network in networks.items()}
    # fp32 parameters, gradients and two Adam moments of all networks, and the average of the first.
    averaged = next(iter(counts.values())) if averages(recipe) else 0
    state_gib = 4 * (4 * sum(counts.values()) + averaged) / 2**30
    peak = peak_memory(recipe, config, compute, processes)
    peak_gib = None if peak is None else round(peak / 2**30, 3)
    step_gflop = registry.trainer(model).step_flops(recipe, forward) / 1e9
    seconds = estimate_seconds(recipe, forward, compute)
    if as_json:
        record = {
            "recipe": name,
            **{f"{key}_parameters": count for key, count in counts.items()},
            **{f"{key}_gflop_per_image": round(flop / 1e9, 3) for key, flop in forward.items()},
            "step_gflop_per_image": round(step_gflop, 3),
            "state_gib": round(state_gib, 3),
            "peak_gib": peak_gib,
            "device": compute.describe(),
            "precision": compute.precision,
            "seconds": round(seconds),
            "resolved": recipe.model_dump(mode="json", by_alias=True),
        }
        return console.result_json(record)
    for line in to_toml(recipe, leave_out=registry.foreign_keys(model)).split("\n"):
        console.result(line)
    sizes = ", ".join(f"{key} {count / 1e6:.2f}M" for key, count in counts.items())
    forwards = " + ".join(f"{flop / 1e9:.2f}" for flop in forward.values())
    for line in (
        f"{name}: {sizes} parameters",
        f"forward {forwards} GFLOP an image, {step_gflop:.1f} GFLOP for each image trained on",
        f"weights, gradients, averages and optimizer state {state_gib:.2f} GiB, "
        + ("activations on top" if peak_gib is None else f"at the peak of a step {peak_gib:.2f} GiB"),
        f"about {console.duration(seconds)} on {compute.describe()} in {compute.precision}{BESIDE}",
        "nothing was written",
    ):
        console.notice(line)


def estimate_seconds(recipe: Recipe, forward: dict[str, float], compute: Compute) -> float:
    """Estimate the time of a whole run from its arithmetic and a tenth of a second of matrix products.

    forward: floating-point operations of one image through each network.
    """
    flop_per_image = registry.trainer(recipe.model_name).step_flops(recipe, forward)
    rate = _matmul_rate(compute) * UTILISATION[compute.precision] * compute.world_size
    seconds = flop_per_image * 1000 * recipe.train.kimg / rate
    return min(seconds, 60 * recipe.train.minutes) if recipe.train.minutes is not None else seconds


def _matmul_rate(compute: Compute) -> float:
    """Measure matrix products of 1024 x 1024 in the run's precision, in FLOP/s."""
    side = 1024
    left = torch.randn(side, side, device=compute.device)
    left = left.to(torch.bfloat16 if compute.bf16 else torch.float32)
    left @ left
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < 0.1:
        left @ left
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        rounds += 1
    return rounds * 2.0 * side**3 / (time.perf_counter() - start)
