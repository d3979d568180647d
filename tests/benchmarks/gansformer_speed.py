"""Training steps and images of GANsformer: ours against the released PyTorch port, interleaved in one run.

    python -m tests.benchmarks.gansformer_speed --reference PATH_TO_A_CHECKOUT_OF_gansformer
    [--case small|paper-64|forward-256] [--rounds 3] [--threads 1]

A step is the discriminator's update, the generator's and a sixteenth of R1's, each timed on its own: losses, Adam, no
augmentation. `small` has the sizes of recipes/gansformer/scenes.toml and its batch, and ours makes images once for
both updates, as that recipe does (train.share_fakes); the port makes them for each. `paper-64` has the published
widths at 64 px, batch 4; `forward-256` is the generator alone at 256 px, batch 4. The port runs in fp32, as released;
ours as trained here, under bf16 autocast where the machine is fast at that, with R1 as the recipe has it, and in fp32
beside. The port has no duplex attention: ours is given the port's centroids, and duplex beside.

Every contestant is a process of its own, so that its peak memory is its own; all are asked for one round in turn, so
that they meet the same load. Time is CPU time (wall time in brackets), the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.config.recipe import find_recipe, make_recipe, read_table
from gtool.models.gansformer.config import GANsformerConfig
from gtool.runtime.precision import has_fast_bf16
from tests.benchmarks.gansformer_reference import arguments as released_arguments
from tests.benchmarks.gansformer_reference import released, use_checkout

CONTESTANTS = ("released", "gtool centroid", "gtool duplex", "gtool centroid fp32")
CASES = {"small": 32, "paper-64": 4, "forward-256": 4}  # images
INTERVAL = 16
Forward = Callable[..., Tensor]
Times = dict[str, tuple[float, float]]  # of each part, CPU and wall seconds


def config_of(case: str, attention: str) -> GANsformerConfig:
    """Return our networks for a case."""
    if case == "small":
        recipe = make_recipe(read_table(find_recipe("scenes", "gansformer")), (), where="scenes")
        config = GANsformerConfig.model_validate(recipe.model)
    else:
        config = GANsformerConfig(resolution=64 if case == "paper-64" else 256)
    return GANsformerConfig.model_validate(config.model_dump() | {"attention": attention})


def port_of(case: str) -> tuple[nn.Module, nn.Module]:
    """Return the released networks nearest to ours: it has no other choices of positions and integration."""
    config = config_of(case, "centroid")
    settings = released_arguments(
        config.resolution,
        components=config.components,
        width=config.component_dim,
        channels=(config.synthesis.channel_base, config.synthesis.channel_max),
        start_res=config.synthesis.start.bit_length() - 1,
        mapping_num_layers=config.mapping.layers,
    )
    return released(settings)


class Contestant:
    """Networks, optimizers, and how they are called."""

    def __init__(self, name: str, case: str) -> None:
        torch.manual_seed(0)
        self.case = case
        self.is_port = name == "released"
        self.half = not self.is_port and not name.endswith("fp32") and has_fast_bf16(torch.device("cpu"))
        self.shares = self.is_port is False and case == "small"
        self.fakes: Tensor | None = None  # with their graph
        if self.is_port:
            self.generator, self.discriminator = port_of(case)
        else:
            from gtool.models.gansformer.network import build

            self.generator, self.discriminator = build(config_of(case, name.split()[1]))
        config = config_of(case, "centroid")
        self.z_shape, side = config.z_shape, config.resolution
        self.images = torch.randn(CASES[case], 3, side, side)
        training = case != "forward-256"
        for network in (self.generator, self.discriminator):
            network.train(training)
        options: dict[str, Any] = {"lr": 2e-3, "betas": (0.0, 0.99)}
        self.optimizers = [
            torch.optim.Adam(n.parameters(), **options) for n in (self.generator, self.discriminator)
        ]

    def autocast(self) -> torch.autocast:
        """Return what surrounds a forward pass."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.half)

    def generate(self) -> Tensor:
        """Return a batch of images."""
        z = torch.randn(len(self.images), *self.z_shape)
        with self.autocast():
            if self.is_port:
                return self.generator(z, None)[0]
            noise = [torch.randn(len(z), *shape) for shape in self.generator.noise_shapes]
            return self.generator(z, noise or None).float()

    def judge(self, images: Tensor) -> Tensor:
        """Return logits."""
        with self.autocast():
            return self.discriminator(images, None).view(len(images)).float()

    def update(self, loss: Tensor, number: int) -> None:
        """Move one network."""
        self.optimizers[number].zero_grad()
        loss.backward()
        self.optimizers[number].step()

    def generator_step(self) -> None:
        """Non-saturating loss, the discriminator frozen."""
        self.discriminator.requires_grad_(False)
        fakes = self.generate() if self.fakes is None else self.fakes
        self.update(F.softplus(-self.judge(fakes)).mean(), 0)
        self.fakes = None
        self.discriminator.requires_grad_(True)

    def discriminator_step(self) -> None:
        """Logistic loss of generated and real images."""
        with torch.set_grad_enabled(self.shares):
            fakes = self.generate()
        if self.shares:
            self.fakes, fakes = fakes, fakes.detach()
        self.update(F.softplus(self.judge(fakes)).mean() + F.softplus(-self.judge(self.images)).mean(), 1)

    def penalty_step(self) -> None:
        """R1 by its exact second derivative."""
        images = self.images.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.judge(images).sum(), images, create_graph=True)
        self.update(5 * slope.square().sum(dim=(1, 2, 3)).mean(), 1)

    @torch.no_grad()
    def forward(self) -> None:
        """Make images, for use."""
        self.generate()

    def round(self) -> Times:
        """Do every part once."""
        parts: dict[str, Callable[[], None]] = {"forward": self.forward}
        if self.case != "forward-256":
            parts |= {"D": self.discriminator_step, "G": self.generator_step, "R1": self.penalty_step}
        taken = {}
        for part, work in parts.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            taken[part] = time.process_time() - cpu, time.perf_counter() - wall
        return taken


def serve(name: str, options: argparse.Namespace) -> None:
    """Do a round for every line of input and answer with its times and the peak memory so far."""
    torch.set_num_threads(options.threads)
    use_checkout(options.reference)
    contestant = Contestant(name, options.case)
    for _ in sys.stdin:
        parts = contestant.round()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"parts": parts, "peak_gib": peak}), flush=True)


def race(names: list[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run every contestant as a process, round by round; the first round warms up and is left out."""
    command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--serve"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = {name: subprocess.Popen([*command, name], **pipes) for name in names}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds + 1):
        for name, process in running.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            results[name].append(json.loads(process.stdout.readline()))
    for process in running.values():
        process.communicate()
    return {name: entries[1:] for name, entries in results.items()}


def amortised(parts: dict[str, float]) -> float:
    """Return the seconds of a step, or of the forward pass where that is all."""
    return parts["G"] + parts["D"] + parts["R1"] / INTERVAL if "G" in parts else parts["forward"]


def report(results: dict[str, list[dict[str, Any]]], images: int) -> None:
    """Print times, images a second, memory, and ratios to the port."""
    totals = {}
    for name, rounds in results.items():
        cpu, wall = (
            {part: median(entry["parts"][part][which] for entry in rounds) for part in rounds[0]["parts"]}
            for which in (0, 1)
        )
        totals[name] = amortised(cpu)
        text = "  ".join(f"{part} {cpu[part]:.2f} ({wall[part]:.2f})" for part in cpu)
        text += f"  whole {totals[name]:.2f} s, {images / totals[name]:.1f} images/s"
        ratio = f"  {totals['released'] / totals[name]:.2f}x" if "released" in totals else ""
        print(f"{name:20s} {text}  peak {rounds[-1]['peak_gib']:.2f} GiB{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="checkout of dorarad/gansformer")
    parser.add_argument("--case", choices=sorted(CASES), default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options)
    report(race(options.only, options.rounds), CASES[options.case])


if __name__ == "__main__":
    main()
