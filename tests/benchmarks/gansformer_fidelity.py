"""Outputs of our networks against those of the released PyTorch port, with the same weights.

    python -m tests.benchmarks.gansformer_fidelity --reference PATH_TO_A_CHECKOUT_OF_gansformer
    python -m tests.benchmarks.gansformer_fidelity --reference PATH --write-golden tests/models/golden

Every parameter of the released networks is random, those that start as zeros too, so that each one matters. The
released networks draw noise inside; here they are given the noise that ours take as input. The discriminator sees
one group of images at a time, since groups of ours are of consecutive images. Printed: parameters of both, and the
largest error relative to the largest output, for images, logits, and the gradient of logits at images (which
jumps where a unit of the discriminator is within rounding of zero).

Measured on a CPU, torch 2.15, fp32: images 1e-6 to 2e-5, logits 4e-6 at most. Each iteration of k-means makes
rounding errors ten times as large: at three of them, the port differs from itself by 3e-4 between its two ways of
modulating convolutions, and from ours by 6e-4.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gtool.models.gansformer.network import Discriminator, Generator
from gtool.models.gansformer.released import rename_released
from tests.benchmarks.gansformer_reference import arguments, released, state_of, use_checkout
from tests.benchmarks.transgan_fidelity import randomise, relative_error
from tests.benchmarks.transgan_reference import recorded_noise
from tests.helpers.gansformer_formula import FILTERS, chirp, formula_noise, formula_weights
from tests.helpers.released_discriminators import rename_residual_discriminator
from tests.helpers.transgan_formula import summary

BATCH = 4
COMMAND = "python -m tests.benchmarks.gansformer_fidelity --reference PATH --write-golden tests/models/golden"
CLEVR = {"components": 8, "width": 16, "style": False, "mapping_ltnt2ltnt": False}
# What is changed of the arguments of the released training script.
CASES: dict[str, dict[str, Any]] = {
    "centroid": {},
    "clevr": CLEVR,
    "simplex": {"kmeans": False},
    "simplex_heads": {"kmeans": False, "num_heads": 2},
    "centroid_iterations": {"kmeans_iters": 2},
    "add": {"kmeans": False, "integration": "add"},
    "unnormed": {"kmeans": False, "integration": "add", "norm": None},
    "instance": {"norm": "instance"},
    "skip": {"architecture": "skip"},
    "no_positions": {"kmeans": False, "use_pos": False},
    "trainable_positions": {"pos_type": "trainable2d"},
    "pixel_gates": {"img_gate": True},
    "noiseless": {"local_noise": False},
    "plain_mapping": {"mapping_resnet": False},
    "from_tensorflow": {"mapping_normalize_global": False},
    "stylegan2": {"transformer": False, "width": 64, "kmeans": False},
}
FULL_WIDTH = ("centroid", "clevr", "simplex", "stylegan2")
NARROW, NARROWEST = (2048, 96), (128, 16)


def copied(
    generator: nn.Module, discriminator: nn.Module, settings: dict[str, Any]
) -> tuple[Generator, Discriminator]:
    """Return our networks with the weights of the released ones."""
    config, tensors = rename_released(state_of(generator), settings)
    synthesis = settings["synthesis_kwargs"]
    widths = {name: synthesis[name] for name in ("channel_base", "channel_max")}
    whole = config.model_dump()
    config = type(config).model_validate(whole | {"discriminator": whole["discriminator"] | widths})
    ours = Generator(config).eval(), Discriminator(config).eval()
    ours[0].load_state_dict(tensors)
    ours[1].load_state_dict(rename_residual_discriminator(state_of(discriminator)))
    return ours


def compare(name: str, resolution: int, channels: tuple[int, int]) -> dict[str, float]:
    """Build, copy and compare one configuration at one size."""
    torch.manual_seed(0)
    settings = arguments(resolution, channels=channels, **CASES[name])
    theirs = released(settings)
    for seed, network in enumerate(theirs):
        randomise(network, seed)
    generator, discriminator = copied(*theirs, settings)
    random = torch.Generator().manual_seed(3)
    z = torch.randn(BATCH, *generator.z_shape, generator=random)
    noise = [torch.randn(BATCH, *shape, generator=random) for shape in generator.noise_shapes]
    with torch.no_grad():
        with recorded_noise(noise):
            expected = theirs[0](z, None)[0]
        made = generator(z, noise or None)
    counts = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (generator, theirs[0])]
    found = {"ours M": counts[0], "theirs M": counts[1], "images": relative_error(made, expected)}
    return found | compare_logits(discriminator, theirs[1], expected)


def compare_logits(ours: Discriminator, theirs: nn.Module, images: Tensor) -> dict[str, float]:
    """Compare logits and their gradient at images scaled to about [-1, 1]."""
    images = (images / images.std()).clamp(-2, 2) / 2
    here, there = images.clone().requires_grad_(), images.clone().requires_grad_()
    logits, expected = ours(here), theirs(there, None).squeeze(1)
    gradients = [torch.autograd.grad(x.sum(), y)[0] for x, y in ((logits, here), (expected, there))]
    with torch.no_grad():
        return {"logits": relative_error(logits, expected), "gradient": relative_error(*gradients)}


def reduced(name: str) -> dict[str, Any]:
    """Return the arguments of the smallest network of a case."""
    changes = CASES[name] | {"components": 3, "width": 8 if name != "stylegan2" else 16}
    return arguments(16, channels=NARROWEST, **changes)


@torch.no_grad()
def with_formulas(network: nn.Module) -> dict[str, list[int]]:
    """Put formulas in the place of all weights and return their shapes."""
    state = {
        key: value
        for key, value in state_of(network).items()
        if not key.endswith(FILTERS) or isinstance(value, nn.Parameter)
    }
    shapes = {key: list(value.shape) for key, value in state.items()}
    for key, value in formula_weights(shapes).items():
        state[key].copy_(value)
    return shapes


@torch.no_grad()
def golden(name: str) -> dict[str, Any]:
    """Return shapes and outputs of a reduced released generator with formulas for weights."""
    settings = reduced(name)
    theirs = released(settings)[0]
    shapes = with_formulas(theirs)
    generator = Generator(rename_released(state_of(theirs), settings)[0])
    with recorded_noise(formula_noise(generator.noise_shapes, 2)):
        images = theirs(chirp((2, *generator.z_shape), 0), None)[0]
    return {"settings": settings, "shapes": shapes, "images": summary(images)}


@torch.no_grad()
def golden_logits() -> dict[str, Any]:
    """Return shapes and outputs of the reduced released discriminator with formulas for weights."""
    theirs = released(reduced("centroid"))[1]
    shapes = with_formulas(theirs)
    logits = theirs(chirp((BATCH, 3, 16, 16), 1, 0.4), None)
    return {"shapes": shapes, "logits": logits.flatten().tolist()}


def write_golden(folder: Path) -> None:
    """Write the known answers."""
    answers = {"command": COMMAND, "discriminator": golden_logits()}
    text = json.dumps(answers | {"generators": {name: golden(name) for name in CASES}}, separators=(",", ":"))
    (folder / "gansformer.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="checkout of dorarad/gansformer")
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), default=list(CASES))
    parser.add_argument("--resolutions", nargs="*", type=int, default=[16, 32, 64])
    parser.add_argument("--no-full", action="store_true", help="leave the full widths at 64 px out")
    parser.add_argument("--write-golden", type=Path, metavar="FOLDER", help="write known answers instead")
    options = parser.parse_args()
    use_checkout(options.reference)
    if options.write_golden:
        return write_golden(options.write_golden)
    races = [(name, side, NARROW) for name in options.only for side in options.resolutions]
    if not options.no_full:
        races += [(name, 64, (32768, 512)) for name in options.only if name in FULL_WIDTH]
    for name, side, channels in races:
        found = compare(name, side, channels)
        row = "  ".join(f"{what} {value:.3g}" for what, value in found.items())
        print(f"{name:20s} {side:4d} px, at most {channels[1]:3d} channels  {row}", flush=True)


if __name__ == "__main__":
    main()
