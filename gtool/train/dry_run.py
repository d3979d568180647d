"""`--dry-run`: what would run, how big it is, how long it would take; and the estimate that every run begins with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gtool import console
from gtool.config.recipe import to_toml
from gtool.models import registry
from gtool.train.options import Plan, Request

if TYPE_CHECKING:
    from gtool.runtime.device import Compute

# Shares of the measured matrix-product rate that whole steps reached on two cores and are assumed elsewhere.
UTILISATION = {"fp32": 0.35, "bf16": 0.10}


def dry_run(plan: Plan, request: Request) -> None:
    """Print the resolved recipe on stdout and its costs on stderr; nothing is written.

    Raises:
        RecipeError: it could not be trained.
    """
    import torch

    from gtool.runtime.device import make_compute

    registry.trainer(plan.recipe.model_name).check(plan.recipe, plan.config, request.num_processes or 1)
    compute = make_compute(request.device, plan.recipe.train.precision)
    with torch.device("meta"):
        networks = registry.networks(plan.recipe.model_name).build(plan.config)
    forward = registry.flops(plan.recipe.model_name, plan.config)
    counts = {
        name: sum(p.numel() for p in network.parameters())
        for name, network in zip(forward, networks, strict=True)
    }
    each_step = registry.trainer(plan.recipe.model_name).step_flops(plan.recipe, forward)
    seconds = estimate_seconds(plan, compute)
    record = {
        "recipe": plan.name,
        **{f"{name}_parameters": count for name, count in counts.items()},
        **{f"{name}_gflop_per_image": round(flop / 1e9, 3) for name, flop in forward.items()},
        "step_gflop_per_image": round(each_step / 1e9, 3),
        "state_gib": round(_state_bytes(list(counts.values())) / 2**30, 3),
        "device": compute.describe(),
        "precision": compute.precision,
        "seconds": round(seconds),
    }
    if request.as_json:
        return console.result_json(record | {"resolved": plan.recipe.model_dump(mode="json", by_alias=True)})
    console.result(to_toml(plan.recipe))
    sizes = ", ".join(f"{name} {count / 1e6:.2f}M" for name, count in counts.items())
    console.notice(f"{plan.name}: {sizes} parameters")
    console.notice(
        f"forward {' + '.join(f'{flop / 1e9:.2f}' for flop in forward.values())} GFLOP an image, "
        f"{record['step_gflop_per_image']:.1f} GFLOP for each image trained on"
    )
    console.notice(
        f"weights, gradients, averages and optimizer state {record['state_gib']:.2f} GiB, activations on top"
    )
    console.notice(
        f"about {console.duration(seconds)} on {compute.describe()} in {compute.precision}; nothing was written"
    )


def _state_bytes(counts: list[int]) -> int:
    """fp32 bytes of parameters, gradients and two Adam moments of all networks, and the average of the first."""
    return 4 * (4 * sum(counts) + counts[0])


def estimate_seconds(plan: Plan, compute: Compute) -> float:
    """Estimate the time of a whole run from its arithmetic and a tenth of a second of matrix products."""
    recipe = plan.recipe
    forward = registry.flops(recipe.model_name, plan.config)
    work = registry.trainer(recipe.model_name).step_flops(recipe, forward) * 1000 * recipe.train.kimg
    rate = _matmul_rate(compute) * UTILISATION[compute.precision] * compute.world_size
    seconds = work / rate
    return min(seconds, 60 * recipe.train.minutes) if recipe.train.minutes is not None else seconds


def _matmul_rate(compute: Compute) -> float:
    """Measure matrix products of 1024 x 1024 in the run's precision, in FLOP/s."""
    import torch

    dtype = torch.bfloat16 if compute.bf16 else torch.float32
    side = 1024
    left: Any = torch.randn(side, side, device=compute.device).to(dtype)
    left @ left
    start, rounds = time.perf_counter(), 0
    while time.perf_counter() - start < 0.1:
        left @ left
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        rounds += 1
    return rounds * 2.0 * side**3 / (time.perf_counter() - start)
