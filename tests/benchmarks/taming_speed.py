"""Tokenizers and priors in training and in use: ours against the released code, interleaved in one run.

    python -m tests.benchmarks.taming_speed --reference PATH_TO_A_CHECKOUT_OF_taming-transformers --case step
    [--side 256] [--rounds 3] [--threads 1]

`step` is a training step of the released tokenizer (72 M parameters) on one image: autoencoder, LPIPS with random
weights, PatchGAN, adaptive weight, two updates of Adam. The release runs in fp32 and, as under Lightning, with the
parameters of the other optimizer frozen; ours as it is trained here, under bf16 autocast where the machine is fast at
that, and in fp32 beside.

Every contestant is a process of its own. Time is CPU time (wall time in brackets), the median of the rounds after one
to warm up.

Measured for `step` at 256 px, torch 2.15, one thread of a shared machine with AVX512-BF16 and without AMX: the release
28.0 s (133.7) and 4.47 GiB, ours 10.3 s (58.4) and 3.16 GiB, 2.7 times as fast; before doublings were transposed.
With AMX, beside a training: 16.9 s, 3.73 s in bf16 (4.5 times as fast) and 12.1 s in fp32; before maps had channels
last 18.8, 5.9 and 13.1 s.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from gtool.losses.adversarial import discriminator_loss, generator_loss
from gtool.losses.perceptual import LPIPS
from gtool.losses.reconstruction import adaptive_weight, l1
from gtool.runtime.precision import has_fast_bf16
from tests.benchmarks.race import Times, race, serve
from tests.benchmarks.taming_reference import tokenizer, use_checkout
from tests.helpers.vqgans import pictures

ADAM: dict[str, Any] = {"lr": 5.4e-5, "betas": (0.5, 0.9)}
CASES = {"step": ("released", "gtool", "gtool fp32")}


def released_step(options: argparse.Namespace) -> Callable[[], None]:
    """Return a training step of the released code."""
    model = tokenizer(loss={"disc_start": 0, "disc_weight": 0.8}).train()
    judge = list(model.loss.discriminator.parameters())
    own = [p for name, p in model.named_parameters() if not name.startswith("loss.")]
    optimizers = [torch.optim.Adam(own, **ADAM), torch.optim.Adam(judge, **ADAM)]
    batch = {"image": pictures(options.batch, options.side).permute(0, 2, 3, 1)}

    def step() -> None:
        for number, optimizer in enumerate(optimizers):
            for place, parameters in enumerate((own, judge)):
                for parameter in parameters:
                    parameter.requires_grad_(place == number)
            loss = model.training_step(batch, 0, number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return step


def our_step(options: argparse.Namespace, half: bool) -> Callable[[], None]:
    """Return the same step of ours: one pass of the autoencoder, and of each loss, forwards and backwards."""
    from gtool.models.vqgan.config import VQGANConfig
    from gtool.models.vqgan.network import build

    ours, judge = build(VQGANConfig())
    lpips = LPIPS()
    for head in lpips.heads:
        nn.init.uniform_(head)
    optimizers = [torch.optim.Adam(network.parameters(), **ADAM) for network in (ours, judge)]
    images = pictures(options.batch, options.side)

    def slope(loss: Tensor, leaf: Tensor) -> Tensor:
        return torch.autograd.grad(loss, leaf)[0]

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = ours(images)
            leaf = out.reconstruction.detach().requires_grad_()
            nll = slope(l1(leaf, images) + lpips(leaf, images).mean(), leaf)
            judge.requires_grad_(False)
            gan = slope(generator_loss("hinge", judge(leaf).flatten()), leaf)
            judge.requires_grad_(True)
            last = [
                torch.autograd.grad(out.reconstruction, ours.last_layer, one, retain_graph=True)[0]
                for one in (nll, gan)
            ]
        weight = adaptive_weight(*last)
        optimizers[0].zero_grad()
        torch.autograd.backward([out.reconstruction, out.quantizer_loss], [nll + weight * gan, None])
        optimizers[0].step()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            real, fake = judge(images).flatten(), judge(leaf.detach()).flatten()
        optimizers[1].zero_grad()
        (0.5 * discriminator_loss("hinge", real, fake)).backward()
        optimizers[1].step()

    return step


def work_of(name: str, options: argparse.Namespace) -> Callable[[], None]:
    """Return what a contestant does in one round."""
    if name == "released":
        use_checkout(options.reference)
        return released_step(options)
    return our_step(options, not name.endswith("fp32") and has_fast_bf16(torch.device("cpu")))


def report(results: dict[str, list[Times]]) -> None:
    """Print times, memory, and ratios to the release."""
    first = next(iter(results))
    cpu = {name: median(entry["cpu"] for entry in rounds[1:]) for name, rounds in results.items()}
    for name, rounds in results.items():
        wall = median(entry["wall"] for entry in rounds[1:])
        ratio = f"  {cpu[first] / cpu[name]:.2f}x" if name != first else ""
        print(
            f"{name:12s} {cpu[name]:7.2f} s ({wall:.2f})  peak {rounds[-1]['peak_gib']:.2f} GiB{ratio}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="checkout of taming-transformers")
    parser.add_argument("--case", choices=sorted(CASES), default="step")
    parser.add_argument("--side", type=int, default=256, help="of the image")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="contestants")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        return serve(work_of(options.serve, options))
    report(race(__spec__.name, options.only or CASES[options.case], options.rounds))


if __name__ == "__main__":
    main()
