"""A trained network from its weights file: what every verb does that uses one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.io.weights import read_safetensors, require_fit
from gtool.models import registry
from gtool.models.description import read_description
from gtool.models.outline import outline


@dataclass(frozen=True)
class Trained:
    """A weights file, read and understood; its tensors are not compared with a network yet."""

    path: Path
    model: str
    config: Any
    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def network(self) -> nn.Module:
        """Build the network around the tensors; a file that asks for more than it holds is refused before that.

        Raises:
            CheckpointError: the tensors are not those of the network.
        """
        with outline():
            network: nn.Module = registry.network(self.model)(self.config)
        require_fit(network, self.tensors, self.path)
        kinds, dense = network.state_dict(), torch.contiguous_format
        own = {
            name: tensor.to(kinds[name].dtype, copy=True, memory_format=dense)
            for name, tensor in self.tensors.items()
        }
        network.load_state_dict(own, assign=True)
        return network

    def halved(self) -> dict[str, Tensor]:
        """Return the tensors with floating-point numbers in fp16; CheckpointError where one is too large for that."""
        halved = {
            name: value.half() if value.is_floating_point() else value for name, value in self.tensors.items()
        }
        for name, value in halved.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise CheckpointError(f"{self.path}: tensor `{name}` is too large for fp16; leave --half out")
        return halved


def open_trained(path: Path) -> Trained:
    """Read a weights file and its description.

    Raises:
        CheckpointError: damaged, of a model that does not exist, or with a description that lacks something.
    """
    meta, config = read_description(path)
    return Trained(path, meta["model"], config, read_safetensors(path), meta)
