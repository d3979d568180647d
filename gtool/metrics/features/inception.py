"""Inception-v3's features of images, by the protocols of clean-fid.

Two file layouts carry the weights: the TorchScript file that clean-fid and NVIDIA's metrics use, and the state dict
that pytorch-fid and torch-fidelity use. Both are read into the network of inception_network.py, with batch norm folded
into the convolutions and channels last: 1.4 to 1.5 times the speed of the TorchScript file, features equal to 2e-5.

On a CPU the convolutions are then packed: one spends a good part of its time on bringing its weights into the
library's own order, again at every call, and on a second pass for its ReLU. oneDNN, which torch brings along, keeps
weights packed and applies the ReLU inside. Features equal those of the plain layers to fp32 rounding (7e-6 of the
largest). bf16 is for previews: FIDs move by 0.4 to 1.5 %, so nothing made with it is comparable.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from gtool.errors import CheckpointError
from gtool.io.safe_pickle import Record, read_pickle
from gtool.io.weights import read_safetensors
from gtool.metrics.features.inception_network import SIZE, Inception, Name, Unit
from gtool.metrics.features.resize import to_input
from gtool.metrics.images import in_batches

Dtype = Literal["fp32", "bf16"]
DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
NUM_CLASSES = 1008
BATCH_NORM_EPS = 1e-3
MOST_PARTS, MOST_DEPTH = 20_000, 12  # modules and tensors of a file, and modules in each other
AT_ONCE = 8  # images that a processor's cache holds the first layers of: 8 % faster than 32, and less memory


class InceptionExtractor:
    """From uint8 images of any size to Inception features; packs the network's layers. bf16: for previews only."""

    size = SIZE

    def __init__(self, network: Inception, mode: str = "clean", dtype: Dtype = "fp32") -> None:
        self.device = next(network.parameters()).device
        self.network = pack(network, DTYPES[dtype])
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
    """Return the logits (N, 1008) of features (N, 2048), without the last layer's bias, as IS is defined on."""
    return features @ head.to(features).T


def load_inception(path: Path, device: torch.device | str = "cpu") -> Inception:
    """Read one of the known weight files, executing nothing of it; CheckpointError for anything else."""
    tensors = read_tensors(path)
    with torch.device("meta"):
        network = Inception()
    network.to_empty(device="cpu").eval().requires_grad_(False)
    for unit in network.modules():
        if isinstance(unit, Unit):
            weight, bias = _fold(unit, tensors, path)
            unit.load_state_dict({"weight": weight, "bias": bias})
    # The last layer's weight is the only matrix of its shape, under whatever name a layout gives it.
    heads = [one for one in tensors.values() if getattr(one, "shape", None) == (NUM_CLASSES, SIZE)]
    network.head = heads[0].detach().float() if len(heads) == 1 and bool(heads[0].isfinite().all()) else None
    return network.to(device).to(memory_format=torch.channels_last)


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Return what a TorchScript archive, a pickled state dict or a safetensors file holds, executing nothing of it.

    Raises:
        CheckpointError: missing, unreadable, or none of the three.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    loaded = read_pickle(path)
    if isinstance(loaded, dict):
        return loaded
    tensors, waiting = dict[str, Tensor](), [("", loaded)]
    while waiting and len(waiting) + len(tensors) < MOST_PARTS:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, Record) and isinstance(value.state, dict) and name.count(".") < MOST_DEPTH:
            waiting += [(f"{name}.{key}" if name else str(key), part) for key, part in value.state.items()]
    if waiting or not tensors:
        raise CheckpointError(f"{path}: holds no network and no named tensors")
    return tensors


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


def _checked(tensors: Mapping[str, Tensor], name: str, unit: Unit, path: Path) -> Tensor:
    tensor = tensors.get(name)
    expected = unit.weight.shape if name.endswith("weight") else unit.weight.shape[:1]
    if not isinstance(tensor, Tensor) or tensor.shape != expected or not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{path}: not the Inception of 2015-12-05: `{name}` is missing or wrong")
    return tensor.double()


class PackedUnit(nn.Module):
    """Convolution and ReLU in one operator, with weights in the order that oneDNN reads."""

    def __init__(self, unit: Unit, dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = list(unit.padding), list(unit.stride), list(unit.dilation), unit.groups
        self.weight = unit.weight.detach().to(dtype).contiguous()
        self.is_packed = False
        assert unit.bias is not None
        self.bias = nn.Parameter(unit.bias.detach().to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_packed:  # the best order depends on the size of the input
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self.weight = reorder(self.weight, *self.shape, list(x.shape))
            self.is_packed = True
        return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.shape, "relu", [], "")


@torch.no_grad()
def pack(network: Inception, dtype: torch.dtype = torch.float32) -> Inception:
    """Change the network's layers in place to faster ones of this dtype; return it."""
    network.dtype = dtype
    if next(network.parameters()).device.type != "cpu" or not has_packing(dtype):
        return network.to(dtype)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Unit):
                setattr(parent, name, PackedUnit(child, dtype))
    return network


@torch.no_grad()
def has_packing(dtype: torch.dtype) -> bool:
    """Say whether this torch can do it on this processor: the operators are its compiler's own and may change."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        PackedUnit(Unit(Name("", ""), 4, 4, 3), dtype)(torch.zeros(1, 4, 5, 5, dtype=dtype))
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return True
