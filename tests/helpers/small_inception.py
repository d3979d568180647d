"""A small network in the place of Inception: 2,048 features from the network's input in a millisecond.

For tests of what happens around the network: files, protocols, caches, shards. Those of the network itself use
`tests.helpers.inception_standin`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gtool.metrics.features.weights import INCEPTION


class Small(nn.Module):
    """From (N, 3, 299, 299) to (N, 2048): a fixed random layer over 8 x 8 means."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(192, 2048, generator=torch.Generator().manual_seed(0)) / 192**0.5
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.head = weight  # (192, 2048), as if there were 192 classes

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return (F.adaptive_avg_pool2d(x, 8).flatten(1) @ self.weight).tanh()


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `gtool eval` find a file of weights and build the small network from it."""
    path = tmp_path / "small.pth"
    path.write_bytes(b"weights of the small network")
    monkeypatch.setenv(INCEPTION.variable, str(path))
    monkeypatch.setattr("gtool.eval.scores.load_inception", lambda *_, **__: Small())
    return path
