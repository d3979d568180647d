"""A network of Inception's shape with random weights, written in both file layouts.

Convolutions are Kaiming-normal, batch norm is calibrated on noise pictures, so features have the usual scale.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.metrics.features.inception_network import Inception, Unit

EPS = 1e-3


class Unfolded(nn.Module):
    """One unit as the TorchScript file keeps it: convolution, batch norm without gain, ReLU."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.stride, self.padding = unit.stride, unit.padding
        self.weight = nn.Parameter(torch.empty_like(unit.weight))
        nn.init.kaiming_normal_(self.weight)
        self.beta = nn.Parameter(torch.randn(len(unit.weight)) * 0.1)
        self.mean = nn.Parameter(torch.zeros(len(unit.weight)))
        self.var = nn.Parameter(torch.ones(len(unit.weight)))
        self.is_calibrated = False

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)
        if not self.is_calibrated:
            self.mean.data, self.var.data = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.is_calibrated = True
        return F.relu(F.batch_norm(x, self.mean, self.var, bias=self.beta, eps=EPS))


class Layers(nn.Module):
    """Units under the names of the TorchScript file; the order of work is that of `Inception`."""

    def __init__(self) -> None:
        super().__init__()
        network = Inception()
        self.units: dict[str, tuple[str, Unfolded]] = {}
        for unit in [unit for unit in network.modules() if isinstance(unit, Unit)]:
            unfolded = Unfolded(unit)
            self.units[unit.name.plain] = (unit.name.script, unfolded)
            self._attach(unit.name.script.split(".")[1:], unfolded)
            for parent in network.modules():
                for name, child in parent.named_children():
                    if child is unit:
                        setattr(parent, name, unfolded)
        object.__setattr__(self, "_network", list(network))

    def _attach(self, path: list[str], unit: nn.Module) -> None:
        parent: nn.Module = self
        for name in path[:-1]:
            if not hasattr(parent, name):
                parent.add_module(name, nn.Module())
            parent = getattr(parent, name)
        parent.add_module(path[-1], unit)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._network:
            x = layer(x)
        return F.avg_pool2d(x, 8)


class Base(nn.Module):
    """The whole file: features of images 0..255 of any size, resized as TensorFlow 1 did."""

    def __init__(self, layers: nn.Module, output: Tensor) -> None:
        super().__init__()
        self.layers = layers
        self.output = nn.Linear(2048, 1008)
        self.output.weight = nn.Parameter(output)

    def forward(self, img: Tensor, return_features: bool = True) -> Tensor:
        n, c, h, w = img.shape
        theta = torch.eye(2, 3)
        theta[0, 2] += 1 / w - 1 / 299
        theta[1, 2] += 1 / h - 1 / 299
        grid = F.affine_grid(theta.unsqueeze(0).repeat(n, 1, 1), [n, c, 299, 299], align_corners=False)
        x = F.grid_sample(img.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
        features = self.layers((x - 128) / 128).view(n, 2048)
        return features if return_features else self.output(features)


@torch.no_grad()
def make(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write the same random weights as a state dict (.pth) and as TorchScript (.pt); return both paths."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = Layers().eval()
        pictures = [
            F.interpolate(torch.randn(2, 3, side, side), 299, mode="bilinear") for side in (9, 33, 150)
        ]
        layers(torch.cat(pictures).clamp_(-1, 1))
        output = torch.randn(1008, 2048) * 0.02  # larger ones leave classes without any share
    return _write_plain(layers, output, folder), _write_script(layers, output, folder)


def _write_plain(layers: Layers, output: Tensor, folder: Path) -> Path:
    tensors = {"fc.weight": output, "fc.bias": torch.zeros(1008)}
    for plain, (_, unit) in layers.units.items():
        batch_norm = {"running_mean": unit.mean, "running_var": unit.var, "bias": unit.beta}
        batch_norm |= {"weight": torch.ones_like(unit.mean), "num_batches_tracked": torch.tensor(0)}
        tensors[f"{plain}.conv.weight"] = unit.weight.data
        tensors |= {
            f"{plain}.bn.{name}": getattr(tensor, "data", tensor) for name, tensor in batch_norm.items()
        }
    path = folder / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(tensors, path)
    return path


def _write_script(layers: Layers, output: Tensor, folder: Path) -> Path:
    path = folder / "inception-2015-12-05.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layers, torch.zeros(2, 3, 299, 299), check_trace=False)
        torch.jit.script(Base(traced, output)).save(str(path))
    return path
