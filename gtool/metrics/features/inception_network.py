"""Inception-v3 of 2015-12-05, the network that FID and KID are defined on, without batch norm.

Szegedy et al. 2015 (Rethinking the Inception Architecture), in the TensorFlow graph of 2015-12-05 used by Heusel et al.
2017. It differs from torchvision's network: average pools leave the padding out of the mean, and the last block pools
with a maximum. 94 convolutions, 21.8 M parameters up to the 2048 features. N images, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.runtime.precision import full_fp32

SIZE = 2048  # numbers of a feature


@dataclass(frozen=True)
class Name:
    """Where a layer's weights are: in the state-dict layout, and in the TorchScript layout."""

    plain: str
    script: str

    def __truediv__(self, child: tuple[str, str]) -> Name:
        return Name(f"{self.plain}.{child[0]}", f"{self.script}.{child[1]}")


class Unit(nn.Conv2d):
    """Convolution with its batch norm folded in, and ReLU."""

    def __init__(
        self,
        name: Name,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        pad: bool = True,
    ) -> None:
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if pad else (0, 0)
        super().__init__(inputs, outputs, sides, stride=stride, padding=padding)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(super().forward(x))


_Shape = tuple[int, int] | tuple[int, int, int | tuple[int, int]]  # inputs, outputs, kernel (1 when left out)
ROW, COLUMN = (1, 7), (7, 1)


class Branches(nn.ModuleList):
    """Run several layers on the same input and join their channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], dim=1)


def _average() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def _chain(block: Name, plain: str, script: str, *layers: _Shape, stride: int = 1) -> nn.Sequential:
    """Units in a row, each (inputs, outputs, kernel); the last one has the stride and then no padding.

    plain, script: its names in both layouts; `branch5x5` numbers its units from 1, `tower` calls them conv, conv_1
    """
    units = []
    for position, shape in enumerate(layers):
        tail = f"_{position}" if position else ""
        name = block / (f"{plain}_{position + 1}", f"{script}.conv{tail}")
        strides = stride > 1 and position == len(layers) - 1
        units.append(Unit(name, *shape, stride=stride if strides else 1, pad=not strides))
    return nn.Sequential(*units)


def _block_a(block: Name, width: int, pooled: int) -> Branches:
    return Branches(
        Unit(block / ("branch1x1", "conv"), width, 64),
        _chain(block, "branch5x5", "tower", (width, 48), (48, 64, 5)),
        _chain(block, "branch3x3dbl", "tower_1", (width, 64), (64, 96, 3), (96, 96, 3)),
        nn.Sequential(_average(), Unit(block / ("branch_pool", "tower_2.conv"), width, pooled)),
    )


def _block_b(block: Name, width: int) -> Branches:
    return Branches(
        Unit(block / ("branch3x3", "conv"), width, 384, 3, stride=2, pad=False),
        _chain(block, "branch3x3dbl", "tower", (width, 64), (64, 96, 3), (96, 96, 3), stride=2),
        nn.MaxPool2d(3, stride=2),
    )


def _block_c(block: Name, width: int, inner: int) -> Branches:
    short: list[_Shape] = [(width, inner), (inner, inner, ROW), (inner, 192, COLUMN)]
    long: list[_Shape] = [(width, inner), (inner, inner, COLUMN), (inner, inner, ROW), (inner, inner, COLUMN)]
    return Branches(
        Unit(block / ("branch1x1", "conv"), width, 192),
        _chain(block, "branch7x7", "tower", *short),
        _chain(block, "branch7x7dbl", "tower_1", *long, (inner, 192, ROW)),
        nn.Sequential(_average(), Unit(block / ("branch_pool", "tower_2.conv"), width, 192)),
    )


def _block_d(block: Name, width: int) -> Branches:
    long: list[_Shape] = [(width, 192), (192, 192, ROW), (192, 192, COLUMN), (192, 192, 3)]
    return Branches(
        _chain(block, "branch3x3", "tower", (width, 192), (192, 320, 3), stride=2),
        _chain(block, "branch7x7x3", "tower_1", *long, stride=2),
        nn.MaxPool2d(3, stride=2),
    )


def _block_e(block: Name, width: int, pool: nn.Module) -> Branches:
    def fork(plain: str, script: str, number: int) -> Branches:
        across = Unit(block / (f"{plain}_{number}a", f"{script}_mixed_conv"), 384, 384, (1, 3))
        down = Unit(block / (f"{plain}_{number}b", f"{script}_mixed_conv_1"), 384, 384, (3, 1))
        return Branches(across, down)

    def unit(plain: str, script: str, *shape: int) -> Unit:
        return Unit(block / (plain, script), *shape)

    return Branches(
        unit("branch1x1", "conv", width, 320),
        nn.Sequential(unit("branch3x3_1", "tower_conv", width, 384), fork("branch3x3", "tower", 2)),
        nn.Sequential(
            unit("branch3x3dbl_1", "tower_1_conv", width, 448),
            unit("branch3x3dbl_2", "tower_1_conv_1", 448, 384, 3),
            fork("branch3x3dbl", "tower_1", 3),
        ),
        nn.Sequential(pool, unit("branch_pool", "tower_2_conv", width, 192)),
    )


class Inception(nn.Sequential):
    """From the network's input (N, 3, 299, 299) in about [-1, 1] to the 2048 pooled features.

    head: the last layer (1008, 2048), for the classes of IS; None where the file has none.
    """

    head: Tensor | None = None
    dtype = torch.float32  # that the layers compute in

    def __init__(self) -> None:
        def stem(plain: str, script: str) -> Name:
            return Name(plain, f"layers.{script}")

        def mixed(letter: str, number: int) -> Name:
            return Name(f"Mixed_{letter}", "layers.mixed" + (f"_{number}" if number else ""))

        super().__init__(
            Unit(stem("Conv2d_1a_3x3", "conv"), 3, 32, 3, stride=2, pad=False),
            Unit(stem("Conv2d_2a_3x3", "conv_1"), 32, 32, 3, pad=False),
            Unit(stem("Conv2d_2b_3x3", "conv_2"), 32, 64, 3),
            nn.MaxPool2d(3, stride=2),
            Unit(stem("Conv2d_3b_1x1", "conv_3"), 64, 80),
            Unit(stem("Conv2d_4a_3x3", "conv_4"), 80, 192, 3, pad=False),
            nn.MaxPool2d(3, stride=2),
            _block_a(mixed("5b", 0), 192, 32),
            _block_a(mixed("5c", 1), 256, 64),
            _block_a(mixed("5d", 2), 288, 64),
            _block_b(mixed("6a", 3), 288),
            _block_c(mixed("6b", 4), 768, 128),
            _block_c(mixed("6c", 5), 768, 160),
            _block_c(mixed("6d", 6), 768, 160),
            _block_c(mixed("6e", 7), 768, 192),
            _block_d(mixed("7a", 8), 768),
            _block_e(mixed("7b", 9), 1280, _average()),
            _block_e(mixed("7c", 10), 2048, nn.MaxPool2d(3, stride=1, padding=1)),
        )

    @torch.no_grad()
    @full_fp32()
    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 2048) fp32 features."""
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        for layer in self:
            x = layer(x)
        return x.float().mean((2, 3))
