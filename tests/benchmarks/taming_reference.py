"""Build the networks of a CompVis/taming-transformers checkout on a CPU, for comparison with ours.

Nothing in the checkout is changed: what its imports ask for and is not here is stood in for, and no weights are
downloaded. VGG16 and the heads of LPIPS keep the random weights that they are made with.
"""

from __future__ import annotations

import contextlib
import io
import sys
import types
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# What no network needs and imports ask for.
UNUSED = ("omegaconf", "requests", "tqdm", "pytorch_lightning", "einops", "transformers", "albumentations")


class LightningModule(nn.Module):
    """A module with the attributes that the released models read."""

    global_step = 0

    def log(self, *_args: Any, **_options: Any) -> None:
        """Do nothing."""

    def log_dict(self, *_args: Any, **_options: Any) -> None:
        """Do nothing."""


def rearrange(x: Tensor, pattern: str, **_sizes: int) -> Tensor:
    """Turn the axes of a tensor as einops does, for patterns that only turn them."""
    before, after = (side.split() for side in pattern.split("->"))
    return x.permute([before.index(axis) for axis in after])


def instantiate(config: Mapping[str, Any]) -> Any:
    """Build the object that a released config names."""
    module, _, name = config["target"].rpartition(".")
    return getattr(import_module(module), name)(**config.get("params", {}))


def use_checkout(path: Path) -> None:
    """Make a checkout importable.

    Raises:
        SystemExit: there is none.
    """
    if not (path / "taming" / "models" / "vqgan.py").is_file():
        raise SystemExit(f"{path} is not a checkout of CompVis/taming-transformers")
    missing = [name for name in UNUSED if find_spec(name) is None]
    sys.path.insert(0, str(path.resolve()))
    for name in ("main", *missing):  # their main is a program of many imports
        module = types.ModuleType(name)
        module.__dict__.update(
            LightningModule=LightningModule,
            rearrange=rearrange,
            instantiate_from_config=instantiate,
            tqdm=lambda x, **_options: x,
        )
        sys.modules[name] = module


def tokenizer(
    *,
    size: int = 1024,
    dim: int = 256,
    loss: Mapping[str, Any] | None = None,
    gumbel: bool = False,
    **changes: Any,
) -> nn.Module:
    """Return a released VQModel, by default that of configs/imagenet_vqgan.yaml without its losses, or a GumbelVQ.

    Args:
        size: of the codebook.
        dim: of an entry.
        loss: arguments of the released loss with LPIPS and discriminator, or None for no losses.
        gumbel: the class with logits for each entry.
        changes: of the arguments of encoder and decoder.
    """
    arguments = {
        "double_z": False,
        "z_channels": 256,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 1, 2, 2, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [16],
        "dropout": 0.0,
    } | changes
    name = "vqperceptual.DummyLoss" if loss is None else "vqperceptual.VQLPIPSWithDiscriminator"
    config = {"target": f"taming.modules.losses.{name}", "params": dict(loss or {})}
    if loss is not None:
        _without_downloads()
    with contextlib.redirect_stdout(io.StringIO()):
        models = import_module("taming.models.vqgan")
        if gumbel:
            return models.GumbelVQ(arguments, config, size, dim, {"target": "builtins.dict"})
        return models.VQModel(arguments, config, size, dim)


def _without_downloads() -> None:
    """Let the released LPIPS be built with random weights."""
    lpips = import_module("taming.modules.losses.lpips")
    models = import_module("torchvision.models")
    lpips.models = types.SimpleNamespace(vgg16=lambda pretrained: models.vgg16(weights=None))
    lpips.LPIPS.load_from_pretrained = lambda self: None


def discriminator() -> nn.Module:
    """Return the released PatchGAN."""
    module = import_module("taming.modules.discriminator.model")
    return module.NLayerDiscriminator().apply(module.weights_init)


def copy_perceptual(theirs: nn.Module, ours: Any) -> None:
    """Copy the weights of a released LPIPS into ours."""
    state = theirs.state_dict()
    features = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "net":
            features[f"features.{parts[2]}.{parts[3]}"] = value
    ours.load_vgg(features, "the release")
    ours.load_heads(state, "the release")


def heads_of_people(network: nn.Module) -> None:
    """Give the heads of a released LPIPS weights as theirs are: none below zero."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("lin"):
                parameter.abs_()
