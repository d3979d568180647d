"""Saving a training state and going on from it: the same for every family.

A state has named networks, named optimizers with the network they belong to, counters, and a place in its data. No
state of a random generator is saved, because every random number is a function of the seed and the step.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from gtool import checkpoint
from gtool.engines.trained import Trained
from gtool.errors import CheckpointError


class Resumable(Protocol):
    """What a family's state has to show to be saved."""

    nimg: int
    steps: int
    seconds: float
    progress: float
    position: int  # images drawn from the data so far; 0 for families that make their own
    numbers: dict[str, float]  # what else training remembers, by name

    @property
    def networks(self) -> dict[str, nn.Module]: ...
    @property
    def optimizers(self) -> dict[str, tuple[nn.Module, Any]]: ...


def state_tensors(state: Resumable) -> dict[str, dict[str, Tensor]]:
    """Return everything that a resume needs as named groups of tensors."""
    groups: dict[str, dict[str, Tensor]] = {
        name: dict(network.state_dict()) for name, network in state.networks.items()
    }
    for name, (network, optimizer) in state.optimizers.items():
        groups[name] = {
            f"{parameter}/{key}": value
            for parameter, tensor in network.named_parameters()
            for key, value in optimizer.state[tensor].items()
        }
    return groups


def state_info(state: Resumable) -> dict[str, Any]:
    """Return the counters and other numbers that a resume needs."""
    return {
        "nimg": state.nimg,
        "steps": state.steps,
        "seconds": state.seconds,
        "progress": state.progress,
        "position": state.position,
        "numbers": state.numbers,
    }


def restore_state(
    state: Resumable, tensors: dict[str, dict[str, Tensor]], info: dict[str, Any], where: str
) -> None:
    """Put a saved state back.

    Raises:
        CheckpointError: a group, tensor or counter is missing or of another shape.
    """
    expected = state.networks.keys() | state.optimizers.keys()
    if tensors.keys() != expected:
        raise CheckpointError(f"{where}: holds {sorted(tensors)}, expected {sorted(expected)}")
    for name, network in state.networks.items():
        checkpoint.restore(network, tensors[name], f"{where}/{name}")
    for name, (network, optimizer) in state.optimizers.items():
        _restore_optimizer(network, optimizer, tensors[name], f"{where}/{name}")
    try:
        state.nimg, state.steps = int(info["nimg"]), int(info["steps"])
        state.seconds, state.progress = float(info["seconds"]), float(info["progress"])
        state.position = int(info["position"])
        state.numbers = {str(name): float(value) for name, value in info["numbers"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{where}/state.json: a counter is missing or no number") from None


def begin_with(state: Resumable, trained: Trained) -> None:
    """Put trained weights into every network of a state at step 0: all are of the kind that the weights are.

    Raises:
        CheckpointError: a tensor is missing or of another shape.
    """
    for network in state.networks.values():
        checkpoint.restore(network, trained.tensors, trained.path)


def _restore_optimizer(network: nn.Module, optimizer: Any, saved: dict[str, Tensor], where: str) -> None:
    parameters = dict(network.named_parameters())
    found: dict[str, dict[str, Tensor]] = {}
    for entry, value in saved.items():
        name, _, key = entry.rpartition("/")
        if name not in parameters or (key != "step" and value.shape != parameters[name].shape):
            raise CheckpointError(f"{where}: `{entry}` does not fit this model")
        found.setdefault(name, {})[key] = value
    for name, values in found.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            key: value.to(parameter.device).clone() for key, value in values.items()
        }
