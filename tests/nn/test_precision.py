"""Casting the weights of a block together is what autocast does one by one."""

import copy

import torch
from torch import nn

from gtool.nn.precision import cast_blocks


class Block(nn.Module):
    is_block = True

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.unused = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, *, gain: float) -> torch.Tensor:
        return self.norm(self.conv(x)).tanh() * gain


def test_weights_cast_together_give_the_bits_of_autocast_and_second_derivatives():
    torch.manual_seed(0)
    plain = nn.ModuleList([Block()])
    cast = copy.deepcopy(plain)
    cast_blocks(cast)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    found = []
    for network in (plain, cast):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = network[0](x, gain=2.0)
        (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        found.append([out, slope, *(p.grad for p in network.parameters())])
        assert torch.equal(network[0](x, gain=2.0), plain[0](x, gain=2.0))  # without autocast
    for one, two in zip(*found, strict=True):
        assert (one is None and two is None) or torch.equal(one, two)
    assert cast.state_dict().keys() == plain.state_dict().keys()
