"""Outputs of our networks against the released classes, with the same random weights.

    python tests/benchmarks/transgan_fidelity.py --reference PATH_TO_A_CHECKOUT_OF_TransGAN

Every parameter of the released networks is random, those that start as zeros too, so that each one matters.
The released networks draw noise inside; here they are given the noise that ours take as input. Printed: the
largest error relative to the largest output, for images, logits, and the gradient of the logits at the
images.

Measured on one core, torch 2.15, fp32: see the table of CHANGELOG.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from transgan_reference import RELEASED, recorded_noise, released, use_checkout

from gtool.layers.position import to_tiles
from gtool.models.transgan import Discriminator, Generator, read_released

BATCH = 2


@torch.no_grad()
def randomise(network: nn.Module, seed: int) -> None:
    """Add noise to every parameter: a tenth of what linear maps have, enough to move zeros and ones."""
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter += torch.randn(parameter.shape, generator=random) * (0.1 if parameter.ndim < 2 else 0.01)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare(name: str) -> dict[str, float]:
    """Build, copy and compare one released configuration."""
    torch.manual_seed(0)
    their_generator, their_discriminator = released(name)
    randomise(their_generator, 1)
    randomise(their_discriminator, 2)
    state = {
        "gen_state_dict": their_generator.state_dict(),
        "dis_state_dict": their_discriminator.state_dict(),
    }
    read = read_released(state)
    generator, discriminator = Generator(read.config), Discriminator(read.config)
    generator.load_state_dict(read.generator)
    discriminator.load_state_dict(read.discriminator)
    random = torch.Generator().manual_seed(3)
    z = torch.randn(BATCH, generator.z_dim, generator=random)
    noise = [torch.randn(BATCH, length, 1, generator=random) for length in generator.noise_lengths]
    windows = [stage.window for stage in generator.stages for _ in stage.blocks]
    theirs = [to_tiles(values, window) for values, window in zip(noise, windows, strict=False)]
    with torch.no_grad():
        with recorded_noise(theirs):
            expected = their_generator.eval()(z, 0)
        made = generator.eval()(z, noise or None)
        silent = relative_error(generator(z), generator(z, [torch.zeros_like(x) for x in noise] or None))
    errors = {"images": relative_error(made, expected), "no noise is zero noise": silent}
    return errors | compare_logits(discriminator.eval(), their_discriminator.eval(), expected, random)


def compare_logits(
    ours: nn.Module, theirs: nn.Module, images: Tensor, random: torch.Generator
) -> dict[str, float]:
    """Compare logits and their gradient at images scaled to about [-1, 1]."""
    images = (images / images.std()).clamp(-2, 2) / 2
    noise = [torch.randn(BATCH, length, 1, generator=random) for length in ours.noise_lengths]
    here, there = images.clone().requires_grad_(), images.clone().requires_grad_()
    with recorded_noise(noise):
        expected = theirs(there).squeeze(1)
    logits = ours(here, noise or None)
    gradients = [torch.autograd.grad(x.sum(), y)[0] for x, y in ((logits, here), (expected, there))]
    return {"logits": relative_error(logits, expected), "gradient of logits": relative_error(*gradients)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--only", choices=sorted(RELEASED))
    arguments = parser.parse_args()
    use_checkout(arguments.reference)
    for name in [arguments.only] if arguments.only else RELEASED:
        errors = compare(name)
        print(name, *(f"{what} {error:.1e}" for what, error in errors.items()), sep="  ", flush=True)


if __name__ == "__main__":
    main()
