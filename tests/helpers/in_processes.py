"""A few steps of every family, in as many processes as a launcher makes.

`python -m tests.helpers.in_processes OUT RECIPE...` trains each recipe from its first step and writes the networks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from gtool.config.recipe import read_table
from gtool.models import registry
from gtool.runtime.device import Compute, make_compute
from gtool.train import gan
from gtool.train.options import TrainOptions
from gtool.train.resolve import resolve
from tests.helpers import components
from tests.helpers.runs import flat


def train(path: Path, compute: Compute, steps: int = 3) -> dict[str, Tensor]:
    """Train the recipe of a file as in the middle of a run; returns its networks as `family/network`."""
    model = read_table(path)["model_name"]
    options = TrainOptions(model=model, recipe=str(path), num_processes=compute.world_size)
    _, recipe, config, _, _ = resolve(options)
    family = registry.trainer(model)
    trainer = family(recipe, config, family.open_inputs(recipe, None), compute)
    trainer.state.progress = 0.5
    for _ in range(steps):
        trainer.step(trainer.state)
    networks = trainer.state.networks.items()
    return {f"{path.stem}/{name}": flat(network) for name, network in networks if [*network.parameters()]}


def train_components(compute: Compute) -> dict[str, Tensor]:
    """Train networks of components, with all that regularizes them; `registry.network_module` has to give them."""
    state = components.make_state(*components.EVERYTHING, "train.micro_batch=4", compute=compute)
    for _ in range(5):
        gan.step(state)
    result = {f"components/{name}": flat(network) for name, network in state.networks.items()}
    return result | {"components/numbers": torch.tensor(list(state.numbers.values()))}


if __name__ == "__main__":
    compute = make_compute("cpu", "fp32")
    result: dict[str, Tensor] = {}
    for name in sys.argv[2:]:
        result |= train(Path(name), compute)
    registry.network_module = lambda _name: components.NETWORKS
    result |= train_components(compute)
    if compute.is_main:
        torch.save(result, sys.argv[1])
    compute.close()
