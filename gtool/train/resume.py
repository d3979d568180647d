"""How a run is resumed: `gtool train MODEL --resume RUN` (or `auto`, the newest) ends with the bits of a run that
never stopped.

1. Every snapshot writes `state-<kimg>/` beside the weights (`gtool.train.run`): all networks and optimizers as
   safetensors, and counters as JSON; `state_tensors` and `state_info` below are what goes into it.
2. A signal (Ctrl-C, SIGTERM) ends the step that runs, then a snapshot is written; a crash loses what came after the
   newest snapshot.
3. `--resume` finds the run folder and takes its recipe.toml in place of any other (`gtool.train.options`); networks,
   seed and batch size cannot change, length and cadence may be set anew.
4. The data are read as before, networks are built as before, then `restore_state` puts the newest state back, and the
   log drops the lines after it.

No state of a random generator is saved, because every random number is a function of the seed and the step; nor is the
order of the data, which is a function of the seed and the `position`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.io.weights import restore
from gtool.models.trained import Trained
from gtool.train.trainer import TrainingState


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
    keys = ("nimg", "steps", "seconds", "progress", "position", "numbers")
    return {key: getattr(state, key) for key in keys}


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
        raise CheckpointError(f"{where}/state.json: a counter is missing or not a number") from None


def begin_with(state: TrainingState, trained: Trained) -> None:
    """Put trained weights into every network of a state at step 0 (`--weights`): all are of the weights' kind.

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
