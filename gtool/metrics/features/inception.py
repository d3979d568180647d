"""Inception-v3's features of images: its weights, its protocol of resizing, and the last layer.

Two file layouts carry the weights: the TorchScript file that clean-fid and NVIDIA's metrics use, and the state dict
that pytorch-fid and torch-fidelity use. Both are read into the network of inception_network.py, with batch norm folded
into the convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gtool.errors import CheckpointError
from gtool.metrics.features.inception_network import Inception, Unit
from gtool.metrics.features.packed import Dtype, pack
from gtool.metrics.features.resize import to_input
from gtool.metrics.features.weight_files import read_tensors
from gtool.metrics.images import in_batches

SIZE = 2048  # numbers of a feature
NUM_CLASSES = 1008
BATCH_NORM_EPS = 1e-3
AT_ONCE = 8  # images that a processor's cache holds the first layers of: 8 % faster than 32, and less memory


class InceptionExtractor:
    """From uint8 images of any size to Inception features, by one protocol of clean-fid's.

    The network's layers are exchanged for faster ones. dtype: of the layers; `bf16` for previews only.
    """

    size = SIZE

    def __init__(self, network: Inception, mode: str = "clean", dtype: Dtype = "fp32") -> None:
        self.device = next(network.parameters()).device
        self.network = pack(network, dtype)
        self.mode = mode
        self.dtype = dtype

    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Return (N, 2048) fp32 features on the CPU.

        images: uint8 (N, 3, H, W), or N images (3, H, W) of any sizes.
        """
        inputs = torch.cat([to_input(batch.to(self.device), self.mode) for batch in in_batches(images)])
        together = AT_ONCE if self.device.type == "cpu" else len(inputs)
        parts: list[Tensor] = [self.network(part).cpu() for part in torch.split(inputs, together)]
        return torch.cat(parts)


def logits_of(head: Tensor, features: Tensor) -> Tensor:
    """Return the classes (N, 1008) of features (N, 2048), without the last layer's bias, as IS is defined on."""
    return features @ head.to(features).T


def load_inception(path: Path, device: torch.device | str = "cpu") -> Inception:
    """Read one of the three known weight files; CheckpointError for anything else."""
    tensors = read_tensors(path)
    with torch.device("meta"):
        network = Inception()
    network.to_empty(device="cpu").eval().requires_grad_(False)
    for unit in network.modules():
        if isinstance(unit, Unit):
            weight, bias = _fold(unit, tensors, path)
            unit.load_state_dict({"weight": weight, "bias": bias})
    network.head = _head(tensors)
    return network.to(device).to(memory_format=torch.channels_last)


def _fold(unit: Unit, tensors: Mapping[str, Tensor], path: Path) -> tuple[Tensor, Tensor]:
    """Return the unit's weight and bias with the batch norm of inference folded in, in fp64."""
    plain, script = unit.name.plain, unit.name.script
    if f"{plain}.conv.weight" in tensors:
        names = [f"{plain}.{end}" for end in ("conv.weight", "bn.running_mean", "bn.running_var", "bn.bias")]
        gain = tensors.get(f"{plain}.bn.weight")
    else:
        names = [f"{script}.{end}" for end in ("weight", "mean", "var", "beta")]
        gain = None  # this graph's batch norm has no gain
    weight, mean, variance, shift = (_checked(tensors, name, unit, path) for name in names)
    scale = (variance + BATCH_NORM_EPS).rsqrt() * (1 if gain is None else gain.double())
    return weight * scale.view(-1, 1, 1, 1), shift - mean * scale


def _head(tensors: Mapping[str, Tensor]) -> Tensor | None:
    """Return the last layer's weight, the only matrix of its shape under whatever name a layout gives it."""
    shape = (NUM_CLASSES, SIZE)
    found = [tensor for tensor in tensors.values() if getattr(tensor, "shape", None) == shape]
    return found[0].detach().float() if len(found) == 1 and bool(torch.isfinite(found[0]).all()) else None


def _checked(tensors: Mapping[str, Tensor], name: str, unit: Unit, path: Path) -> Tensor:
    tensor = tensors.get(name)
    expected = unit.weight.shape if name.endswith("weight") else unit.weight.shape[:1]
    if not isinstance(tensor, Tensor) or tensor.shape != expected or not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(
            f"{path}: not the Inception network of 2015-12-05: `{name}` is missing or wrong"
        )
    return tensor.double()
