"""Build the transformer of a CompVis/taming-transformers checkout on a CPU, for comparison with ours."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gtool.models.prior import released as prior_import
from gtool.models.prior.network import Prior
from gtool.models.vqgan import released as vqgan_import
from gtool.models.vqgan.config import VQGANConfig


def load_module(checkout: Path) -> Any:
    """Import taming/modules/transformer/mingpt.py by its path.

    It asks for a function that its package no longer has, and that only its cached sampler uses.

    Raises:
        SystemExit: the folder is no checkout.
    """
    path = checkout / "taming" / "modules" / "transformer" / "mingpt.py"
    if not path.is_file():
        raise SystemExit(f"{checkout} is not a checkout of CompVis/taming-transformers")
    package = types.ModuleType("transformers")
    package.__dict__["top_k_top_p_filtering"] = None
    sys.modules["transformers"] = package
    spec = importlib.util.spec_from_file_location("released_mingpt", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def released(module: Any, *, randomise: bool = True, **settings: Any) -> nn.Module:
    """Return the released transformer; positions, biases and norms made random too, so that each one matters."""
    torch.manual_seed(0)
    network: nn.Module = module.GPT(**settings).eval().requires_grad_(False)
    if randomise:
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def ours(network: nn.Module, heads: int, side: int, channels: int | None, classes: int = 0) -> Prior:
    """Return our prior with the weights of a released transformer.

    Args:
        network: the released one.
        heads: of its attention.
        side: codes a side of an image.
        channels: of the condition's pictures: 1 depth, more are labels, None for no such condition.
        classes: that it is conditioned on, 0 for none.
    """
    codes = network.tok_emb.weight.shape[0]  # type: ignore[union-attr, index]

    def stand_in(_: Any, prefix: str) -> tuple[VQGANConfig, dict[str, Tensor]]:
        mults = (1,) * ((256 // side).bit_length())
        inputs = channels if prefix == prior_import.CONDITION and channels else 3
        quantizer = {"size": codes, "dim": 8}
        return VQGANConfig.model_validate(
            {"image_channels": inputs, "multipliers": mults, "attention_sides": (), "quantizer": quantizer}
        ), {}

    tensors = {f"{prior_import.PRIOR}{name}": value for name, value in network.state_dict().items()}
    if channels is not None:
        tensors[f"{prior_import.CONDITION}weight"] = torch.ones(1)
    before, vqgan_import.tokenizer_from = vqgan_import.tokenizer_from, stand_in  # type: ignore[assignment]
    try:
        config, renamed = prior_import.split_released(tensors, heads=heads, classes=classes)["prior"]
    finally:
        vqgan_import.tokenizer_from = before
    with torch.device("meta"):
        prior = Prior(config)
    prior.load_state_dict(renamed, assign=True)
    return prior.eval().requires_grad_(False)
