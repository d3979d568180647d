"""Outputs of our networks against the released classes, with the same weights.

    python -m tests.benchmarks.transgan_fidelity --reference PATH_TO_A_CHECKOUT_OF_TransGAN
    python -m tests.benchmarks.transgan_fidelity --reference PATH --write-golden tests/models/golden

Every parameter of the released networks is random, those that start as zeros too, so that each one matters.
The released networks draw noise inside; here they are given the noise that ours take as input. Printed: the
largest error relative to the largest output, for images, logits, and the gradient of logits at images.

Measured on a CPU, torch 2.15, fp32: images 7e-7, logits 1e-6, gradients 2e-6 at most for all four.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gtool.models.transgan.config import TransGANConfig
from gtool.models.transgan.network import Discriminator, Generator
from gtool.models.transgan.released import rename_released
from gtool.nn.positions import to_tiles
from tests.benchmarks.transgan_reference import RELEASED, recorded_noise, released, use_checkout
from tests.helpers.released_discriminators import (
    describe_transgan_discriminator,
    rename_transgan_discriminator,
)
from tests.helpers.transgan_formula import formula_noise, formula_tensor, formula_weights, summary

BATCH = 2
COMMAND = "python -m tests.benchmarks.transgan_fidelity --reference PATH --write-golden tests/models/golden"
SMALL = {"gf_dim": 64, "df_dim": 16, "d_depth": 1, "g_depth": "2,1,1", "latent_dim": 8}
LARGE = {"gf_dim": 256, "df_dim": 32, "d_depth": 2, "g_depth": "1,1,1,1,1,1", "latent_dim": 8}
# The smallest networks that the released classes can be.
REDUCED: dict[str, dict[str, Any]] = {
    "cifar10": SMALL | {"bottom_width": 2, "img_size": 8},
    "stl10": SMALL | {"bottom_width": 3, "img_size": 12},
    "church256": LARGE,
    "celebahq256": LARGE,
}


@torch.no_grad()
def randomise(network: nn.Module, seed: int) -> None:
    """Add noise to every parameter: a tenth of what linear maps have, enough to move zeros and ones."""
    random = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter += torch.randn(parameter.shape, generator=random) * (0.1 if parameter.ndim < 2 else 0.01)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference over the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def copied(generator: nn.Module, discriminator: nn.Module) -> tuple[Generator, Discriminator]:
    """Return our networks with the weights of the released ones."""
    config, tensors = rename_released(generator.state_dict())
    described = describe_transgan_discriminator(discriminator.state_dict())
    config = TransGANConfig.model_validate(config.model_dump() | {"discriminator": described})
    ours = Generator(config).eval(), Discriminator(config).eval()
    ours[0].load_state_dict(tensors)
    ours[1].load_state_dict(rename_transgan_discriminator(discriminator.state_dict()))
    return ours


def in_tiles(generator: Generator, noise: list[Tensor]) -> list[Tensor]:
    """Return noise in the order in which the released generator draws it."""
    windows = [stage.window for stage in generator.stages for _ in stage.blocks]
    return [to_tiles(values, window) for values, window in zip(noise, windows, strict=False)]


def compare(name: str) -> dict[str, float]:
    """Build, copy and compare one released configuration."""
    torch.manual_seed(0)
    theirs = released(name)
    for seed, network in enumerate(theirs):
        randomise(network.eval(), seed)
    generator, discriminator = copied(*theirs)
    random = torch.Generator().manual_seed(3)
    z = torch.randn(BATCH, *generator.z_shape, generator=random)
    noise = [torch.randn(BATCH, *shape, generator=random) for shape in generator.noise_shapes]
    with torch.no_grad():
        with recorded_noise(in_tiles(generator, noise)):
            expected = theirs[0](z, 0)
        made = generator(z, noise or None)
        silent = relative_error(generator(z), generator(z, [torch.zeros_like(x) for x in noise] or None))
    errors = {"images": relative_error(made, expected), "no noise is zero noise": silent}
    return errors | compare_logits(discriminator, theirs[1], expected)


def compare_logits(ours: Discriminator, theirs: nn.Module, images: Tensor) -> dict[str, float]:
    """Compare logits and their gradient at images scaled to about [-1, 1]."""
    images = (images / images.std()).clamp(-2, 2) / 2
    random = torch.Generator().manual_seed(4)
    noise = [torch.randn(BATCH, *shape, generator=random) for shape in ours.noise_shapes]
    here, there = images.clone().requires_grad_(), images.clone().requires_grad_()
    with recorded_noise(noise):
        expected = theirs(there).squeeze(1)
    logits = ours(here, noise or None)
    gradients = [torch.autograd.grad(x.sum(), y)[0] for x, y in ((logits, here), (expected, there))]
    with torch.no_grad():
        return {"logits": relative_error(logits, expected), "gradient of logits": relative_error(*gradients)}


@torch.no_grad()
def golden(name: str) -> dict[str, Any]:
    """Return shapes and outputs of the reduced released networks with formulas for weights."""
    theirs = released(name, **REDUCED[name])
    shapes = []
    for network in theirs:
        state = {
            key: value for key, value in network.eval().state_dict().items() if not key.endswith("index")
        }
        shapes.append({key: list(value.shape) for key, value in state.items()})
        network.load_state_dict(formula_weights(shapes[-1]), strict=False)
    generator, discriminator = copied(*theirs)
    noise = in_tiles(generator, formula_noise(generator.noise_shapes, 1))
    with recorded_noise(noise):
        images = theirs[0](formula_tensor((1, *generator.z_shape), 0), 0)
    shown = formula_tensor(images.shape, 1)
    with recorded_noise(formula_noise(discriminator.noise_shapes, 1)):
        logits = theirs[1](shown)
    return {
        "command": COMMAND,
        "generator": {"shapes": shapes[0], "images": summary(images)},
        "discriminator": {"shapes": shapes[1], "logits": logits.flatten().tolist()},
    }


def write_golden(folder: Path, name: str) -> None:
    """Write the known answers of one configuration."""
    text = json.dumps(golden(name), separators=(",", ":"))
    (folder / f"transgan_{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="checkout of VITA-Group/TransGAN")
    parser.add_argument("--only", choices=sorted(RELEASED))
    parser.add_argument("--write-golden", type=Path, metavar="FOLDER", help="write known answers instead")
    arguments = parser.parse_args()
    use_checkout(arguments.reference)
    for name in [arguments.only] if arguments.only else RELEASED:
        if arguments.write_golden:
            write_golden(arguments.write_golden, name)
        else:
            errors = compare(name)
            print(name, *(f"{what} {error:.1e}" for what, error in errors.items()), sep="  ", flush=True)


if __name__ == "__main__":
    main()
