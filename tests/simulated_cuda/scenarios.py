"""What gtool does on the simulated device, as JSON: `python -m tests.simulated_cuda.scenarios NAME...`.

A scenario's argument follows a colon: `verbs:gansformer`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import traceback
from contextlib import chdir, redirect_stdout
from typing import Any

import torch

from gtool.config.recipe import find_recipe, read_table
from gtool.errors import DeviceError
from gtool.models import registry
from gtool.models.outline import outline
from gtool.models.paint_transformer.proposals import predictor_of
from gtool.paint.video import FramePainter
from gtool.runtime.device import make_compute, require_gpus
from gtool.strokes.brush import load_brush
from gtool.strokes.painting import paint, passes
from gtool.strokes.settings import METHODS, PaintSettings
from gtool.train.memory import peak_memory
from tests.helpers import steps, tiny
from tests.helpers.verbs import failed
from tests.simulated_cuda.device import counted, simulate

TINY = {
    "transgan": (tiny.tiny_recipe, ()),
    "transgan, R1": (
        tiny.tiny_recipe,
        (
            "loss.gradient_penalty=0.0",
            "loss.drift=0.0",
            "loss.kind=relativistic",
            "loss.r1_gamma=1.0",
            "augment.policy=ada",
        ),
    ),
    "gansformer": (
        tiny.tiny_gansformer,
        (
            "loss.penalty_interval=1",
            "loss.path_length=2.0",
            "loss.path_length_interval=1",
            "loss.style_mixing=0.9",
        ),
    ),
    "vqgan": (
        tiny.tiny_tokenizer,
        (
            "reconstruction.discriminator_start=0.0",
            "reconstruction.adversarial_start=0.0",
            "reconstruction.adversarial_ramp=0.0",
        ),
    ),
    "prior": (tiny.tiny_prior, ("prior.token_keep_prob=0.9", "prior.condition_dropout=0.1")),
    "paint-transformer": (tiny.tiny_strokes, ("strokes.pixel=1.0",)),
}


def tiny_steps() -> dict[str, Any]:
    """The second step of a tiny recipe of every family, adding in a fixed order."""
    found = {}
    for name, (recipe_of, settings) in TINY.items():
        recipe = recipe_of("train.precision=auto", *settings)
        config = steps.config_of(recipe, tiny.TOKENIZER["model"])
        state, step = steps.begin(recipe, config, make_compute("cuda", "auto", deterministic=True))
        step(state)
        with counted() as counts:
            stats = step(state)
        found[name] = record(counts) | {"finite": all(bool(value.isfinite()) for value in stats.values())}
    return found


def paintings() -> dict[str, Any]:
    """A small photo by every method, two frames of a video, and the passes that see a photo of 4096 pixels whole."""
    brush = load_brush("flat").to("cuda")
    random = torch.Generator().manual_seed(0)
    photo = torch.rand(3, 40, 56, generator=random).to("cuda")
    recipe = tiny.tiny_strokes()
    state, _ = steps.begin(recipe, steps.config_of(recipe), make_compute("cuda", "auto"))
    predictor = predictor_of(state.ema, state.compute)
    found = {}
    for method in METHODS:
        settings = PaintSettings(levels=1, method=method, strokes_per_patch=2)
        with counted() as counts:
            painting = paint(photo, settings, brush, predictor)
            painting.render(40, 56)
        found[method] = record(counts) | {"strokes": len(painting)}
    video = FramePainter(PaintSettings(levels=1, strokes_per_patch=2), brush, predictor)
    frame = torch.rand(3, 48, 64, generator=random)
    for brighter in (0.0, 0.9):
        frame[:, 5:20, 5:20] += brighter
        video.paint(frame.to("cuda"))
    found["video"] = {"new strokes": video.new_strokes}
    wide = torch.rand(3, 128, 4096, generator=random).to("cuda")
    level = next(passes(128, 4096, 4))
    settings = PaintSettings(levels=0, method="random", max_strokes=8)
    found["4096 px"] = {
        "seen": list(level.resample(wide).shape),
        "strokes": len(paint(wide, settings, brush)),
    }
    return found


def verbs(family: str) -> dict[str, Any]:
    """Every verb from the command line: what did not end well."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder), redirect_stdout(sys.stderr):
        return {"failed": failed(family, "cuda")}


def devices() -> dict[str, Any]:
    """The second of two GPUs by its name, and more processes than GPUs."""
    chosen: list[Any] = []
    torch.cuda.set_device = chosen.append
    compute = make_compute("cuda:1", "auto")
    found: dict[str, Any] = {"compute": str(compute.device), "current": [str(device) for device in chosen]}
    moved: list[Any] = []
    network = torch.nn.Linear(1, 1)
    network.to = moved.append  # type: ignore[method-assign]
    compute.accelerator.prepare(network)
    found["moved"] = [str(device) for device in moved]
    try:
        require_gpus(torch.device("cuda"), 3)
    except DeviceError as refused:
        found["refused"] = str(refused)
    return found


TOKENIZERS = {"prior/scenes": "vqgan/scenes", "prior/image-gpt": None}  # else that of the data set's size


def measure(name: str, *settings: str) -> dict[str, Any]:
    """Work and peak memory of the first step of a shipped recipe, every regularizer due, of one micro-batch."""
    gc.collect()  # the recipe before
    recipe = steps.shipped(name, *settings)
    tokenizer = TOKENIZERS.get(name, "vqgan/imagenet" if recipe.data.resolution == 256 else "vqgan/folder")
    table = None if tokenizer is None else dict(read_table(find_recipe(tokenizer))["model"])
    config, compute = steps.config_of(recipe, table), make_compute("cuda", "bf16")
    stated = peak_memory(recipe, config, compute)
    train = recipe.train
    micro = min(train.micro_batch or train.batch_size, train.batch_size)
    parts = max(train.batch_size, train.generator_batch_size or 0) // micro
    smaller = {
        "batch_size": micro,
        "generator_batch_size": None if train.micro_batch else train.generator_batch_size,
    }
    smaller |= {"n_critic": 1, "share_fakes": False}
    recipe = recipe.model_copy(update={"train": train.model_copy(update=smaller)})
    networks = registry.network_module(recipe.model_name)
    build = networks.build

    def build_outline(config: Any) -> Any:
        with outline():
            return build(config)

    networks.build = build_outline  # type: ignore[attr-defined]
    try:
        state, step = steps.begin(recipe, config, compute)
    finally:
        networks.build = build  # type: ignore[attr-defined]
    sizes = []
    for network, optimizer in state.optimizers.values():  # have states before the first step
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        sizes.append(sum(parameter.nbytes for parameter in network.parameters()))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with counted() as counts:
        step(state)
    earlier = max(sizes) if parts > 1 else 0  # gradients of the micro-batches before
    gib = {"gib": (counts.peak + earlier) / 2**30, "stated_gib": stated and stated / 2**30}
    return record(counts) | {"micro_batch": micro} | gib


IDLE = ("_to_copy", "copy_", "clone", "cat", "stack", "zeros_like", "ones_like", "flip")


def record(counts: Any) -> dict[str, Any]:
    return {
        "kernels": counts.kernels,
        "idle": sum(counts.operations[name] for name in IDLE),
        "convolutions": sum(number for name, number in counts.operations.items() if "convolution" in name),
        "copies": dict(counts.copies),
        "copied_bytes": counts.copied_bytes,
        "waits": dict(counts.waits),
        "unordered": dict(counts.unordered),
        "peak": counts.peak,
    }


def main(names: list[str]) -> int:
    """Run scenarios, or `measure` recipes: `vqgan/scenes vqgan/folder train.batch_size=8`."""
    if recipes := [name for name in names if "/" in name]:
        simulate(values=False)
        settings = [name for name in names if "=" in name]
        sys.stdout.write(json.dumps({recipe: measure(recipe, *settings) for recipe in recipes}, indent=1))
        return 0
    simulate(gpus=2)
    torch.set_num_threads(1)
    found = {}
    for name in names:
        scenario, *arguments = name.split(":")
        try:
            found[name] = globals()[scenario](*arguments)
        except Exception:
            found[name] = {"error": traceback.format_exc()}
    sys.stdout.write(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(
        status
    )  # torch's threads for backward passes on a device were seen to abort while they were torn down
