"""Training steps of the CIFAR-10 configuration: ours against the released classes, interleaved in one run.

    python -m tests.benchmarks.transgan_speed --reference PATH_TO_A_CHECKOUT_OF_TransGAN [--batch 16]
    [--rounds 5]

A step is one discriminator and one generator update: gradient penalty, drift, augmentation, clipping, Adam,
moving average. Ours is `gtool.train.gan.step` with the recipe `cifar10`; theirs the released
training function written out for a CPU, in fp32 and under bf16 autocast. Every contestant is a process of
its own, so that its peak memory is its own; all are asked for one step in turn, so that they meet the same
load. Time is CPU time of the process (wall time in brackets): the median of the rounds.

Measured with --threads 2 on two free cores with bf16 matrix instructions, batch 16, wall time of a step:
released fp32 12.3 s, released bf16 8.5 s, ours 2.4 s (5.1x and 3.5x), with the penalty in fp32 3.1 s (4.0x
and 2.8x); CPU time 4.4x and 2.9x, with the penalty in fp32 3.5x and 2.3x; memory 6.4, 5.6, 4.2 and 4.7 GiB;
ours at 17 to 24 % of the measured bf16 peak. On one thread of a busy machine the CPU time of ours was 3.8
to 4.5 and 2.7 to 2.9 times less. On another machine with AMX, two quiet cores: CPU time of a step 25.9 s, 17.2 s and
6.96 s (3.7x and 2.5x), with the penalty in fp32 9.54 s.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from gtool.config.recipe import find_recipe, make_recipe, read_table
from gtool.runtime.precision import has_fast_bf16
from tests.benchmarks.race import race
from tests.benchmarks.race import serve as serve_steps

CONTESTANTS = ("released fp32", "released bf16", "gtool", "gtool, penalty in fp32")
Step = Callable[[], None]


class RandomImages:
    """Endless uint8 noise in place of a data set."""

    position = 0

    def next(self, batch_size: int) -> Tensor:
        self.position += batch_size
        return torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8)


def our_step(batch: int, penalty_precision: str) -> Step:
    """Return the engine's step for the shipped recipe at another batch size."""
    from gtool.models import registry
    from gtool.runtime.device import make_compute
    from gtool.train import gan as adversarial

    sizes = {"batch_size": batch, "generator_batch_size": batch, "n_critic": 1}
    settings = [f"train.{key}={value}" for key, value in sizes.items()]
    settings.append(f"train.penalty_precision={penalty_precision}")
    recipe = make_recipe(read_table(find_recipe("cifar10", "transgan")), settings, where="cifar10")
    config = registry.config_class("transgan")(**recipe.model)
    state = adversarial.init_state(recipe, config, RandomImages(), make_compute("cpu", "auto"))

    def step() -> None:
        stats = adversarial.step(state)
        if not all(torch.isfinite(value).all() for value in stats.values()):
            raise SystemExit(f"not finite: {stats}")

    return step


def their_step(batch: int, reference: Path, bf16: bool) -> Step:
    """Return one iteration of the released training function, on a CPU."""
    from tests.benchmarks.transgan_reference import released, use_checkout

    use_checkout(reference)
    generator, discriminator = released("cifar10", diff_aug="translation,cutout,color")
    options = {"lr": 1e-4, "betas": (0.0, 0.99)}
    for_generator = torch.optim.Adam(generator.parameters(), **options)
    for_discriminator = torch.optim.Adam(discriminator.parameters(), **options)
    average = [parameter.detach().clone() for parameter in generator.parameters()]
    images = RandomImages()

    def autocast() -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=bf16)

    def penalty(real: Tensor, fake: Tensor) -> Tensor:
        alpha = torch.rand(batch, 1, 1, 1)
        mixed = (alpha * real + (1 - alpha) * fake).requires_grad_()
        logits = discriminator(mixed)
        (gradient,) = torch.autograd.grad(logits, mixed, torch.ones_like(logits), create_graph=True)
        return (gradient.reshape(batch, -1).norm(2, dim=1) - 1).square().mean()

    def step() -> None:
        real = images.next(batch).float() / 127.5 - 1
        with autocast():
            of_real = discriminator(real)
            fake = generator(torch.randn(batch, 256), 0).detach().float()
            of_fake = discriminator(fake)
            loss = of_fake.mean() - of_real.mean() + 10 * penalty(real, fake) + 1e-3 * of_real.mean() ** 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(discriminator.parameters(), 5.0)
        for_discriminator.step()
        for_discriminator.zero_grad()
        with autocast():
            loss = -discriminator(generator(torch.randn(batch, 256), 0)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 5.0)
        for_generator.step()
        for_generator.zero_grad()
        with torch.no_grad():
            for parameter, averaged in zip(generator.parameters(), average, strict=True):
                averaged.mul_(0.999).add_(deepcopy(parameter).cpu(), alpha=0.001)

    return step


def serve(name: str, arguments: argparse.Namespace) -> None:
    """Make one step whenever asked."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if name.startswith("gtool"):
        step = our_step(arguments.batch, "fp32" if "penalty" in name else "auto")
    else:
        step = their_step(arguments.batch, arguments.reference, bf16=name.endswith("bf16"))
    serve_steps(step)


def matmul_peak(dtype: torch.dtype, threads: int) -> float:
    """Return the FLOP/s of the best of some products of 2048 x 2048, per CPU second of all threads."""
    torch.set_num_threads(threads)
    left = torch.randn(2048, 2048).to(dtype)
    best = 0.0
    for _ in range(6):
        start = time.process_time()
        left @ left
        best = max(best, 2 * 2048**3 / (time.process_time() - start))
    return best


def report(results: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    """Print times, ratios, memory and the share of the measured peak."""
    from gtool.models.flops import forward_flops
    from gtool.models.transgan.config import TransGANConfig
    from gtool.models.transgan.network import build

    generator, discriminator = map(forward_flops, build(TransGANConfig()))
    # Two forwards and a backward of the generator; real, fake, penalty (6.3 forwards) and generated ones.
    work = arguments.batch * (4 * generator + (6 + 6.3 + 2) * discriminator)
    precision = "bf16" if has_fast_bf16(torch.device("cpu")) else "fp32"
    peak = matmul_peak(torch.bfloat16 if precision == "bf16" else torch.float32, arguments.threads)
    seconds = {name: median(entry["cpu"] for entry in rounds) for name, rounds in results.items()}
    for name, rounds in results.items():
        wall = median(entry["wall"] for entry in rounds)
        text = f"{name:24s} {seconds[name]:6.2f} s ({wall:.2f})  peak {rounds[-1]['peak_gib']:.2f} GiB"
        text += f"  {work / seconds[name] / peak:5.1%} of the {precision} peak of {peak / 1e9:.0f} GFLOP/s"
        for other in ("released fp32", "released bf16"):
            if other in seconds and name.startswith("gtool"):
                text += f"  {seconds[other] / seconds[name]:.2f}x {other}"
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="checkout of VITA-Group/TransGAN")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments)
    else:
        results = race(__spec__.name, arguments.only or CONTESTANTS, arguments.rounds)
        report({name: rounds[1:] for name, rounds in results.items()}, arguments)


if __name__ == "__main__":
    main()
