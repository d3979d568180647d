"""Saving a training state and going on from it: the same for every family.

A state has named networks, named optimizers with the network they belong to, counters, and a place in its data. No
state of a random generator is saved, because every random number is a function of the seed and the step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gtool.config.recipe import Recipe
from gtool.errors import CheckpointError
from gtool.io.weights import restore
from gtool.models.trained import Trained
from gtool.runtime.device import Compute


@dataclass(kw_only=True)
class TrainingState(ABC):
    """What the families' states share: counters, a place in the data, and names for everything that is saved.

    Networks are wrapped when there are processes; `batches` has the place, and is None for families that draw by step.
    """

    recipe: Recipe
    compute: Compute
    batches: Any = None
    nimg: int = 0
    steps: int = 0
    seconds: float = 0.0
    progress: float = 0.0

    @property
    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The bare networks by the names they are saved under."""

    @property
    @abstractmethod
    def optimizers(self) -> dict[str, tuple[nn.Module, Any]]:
        """The optimizers with their bare networks, by the names they are saved under."""

    @property
    def numbers(self) -> dict[str, float]:
        """What training remembers beside networks and counters, the same in every process."""
        return {}

    @numbers.setter  # noqa: B027 - most have nothing to put back
    def numbers(self, numbers: dict[str, float]) -> None:
        """Put back what was remembered."""

    @property
    def position(self) -> int:
        """Images drawn from the data so far, 0 for families that do not draw in turn."""
        return 0 if self.batches is None else int(self.batches.position)

    @position.setter
    def position(self, position: int) -> None:
        if self.batches is not None:
            self.batches.position = position

    def bare(self, network: nn.Module) -> Any:
        """Return a network without what wraps it when there are processes."""
        return self.compute.accelerator.unwrap_model(network)


def state_tensors(state: TrainingState) -> dict[str, dict[str, Tensor]]:
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


def state_info(state: TrainingState) -> dict[str, Any]:
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
    state: TrainingState, tensors: dict[str, dict[str, Tensor]], info: dict[str, Any], where: str
) -> None:
    """Put a saved state back.

    Raises:
        CheckpointError: a group, tensor or counter is missing or of another shape.
    """
    expected = state.networks.keys() | state.optimizers.keys()
    if tensors.keys() != expected:
        raise CheckpointError(f"{where}: holds {sorted(tensors)}, expected {sorted(expected)}")
    for name, network in state.networks.items():
        restore(network, tensors[name], f"{where}/{name}")
    for name, (network, optimizer) in state.optimizers.items():
        _restore_optimizer(network, optimizer, tensors[name], f"{where}/{name}")
    try:
        state.nimg, state.steps = int(info["nimg"]), int(info["steps"])
        state.seconds, state.progress = float(info["seconds"]), float(info["progress"])
        state.position = int(info["position"])
        state.numbers = {str(name): float(value) for name, value in info["numbers"].items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{where}/state.json: a counter is missing or no number") from None


def begin_with(state: TrainingState, trained: Trained) -> None:
    """Put trained weights into every network of a state at step 0: all are of the kind that the weights are.

    Raises:
        CheckpointError: a tensor is missing or of another shape.
    """
    for network in state.networks.values():
        restore(network, trained.tensors, trained.path)


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
