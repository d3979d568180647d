"""Build the networks of a dorarad/gansformer checkout on a CPU, for comparison with ours.

Nothing in the checkout is changed: packages that its imports ask for and its networks never use are stood in for.
"""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

UNUSED = ("seaborn", "termcolor", "cv2", "imageio", "moviepy", "moviepy.editor", "gdown", "click", "requests")


def use_checkout(path: Path) -> None:
    """Make the PyTorch port in a checkout importable.

    Raises:
        SystemExit: there is none.
    """
    inner = path / "pytorch_version"
    port = inner if inner.is_dir() else path
    if not (port / "torch_utils" / "persistence.py").is_file():
        raise SystemExit(f"{path} is not a checkout of dorarad/gansformer")
    sys.path.insert(0, str(port))
    for name in UNUSED:
        if name not in sys.modules:
            module = types.ModuleType(name)
            module.__dict__.update(colored=lambda *a, **_k: a[0], color_palette=lambda *_a, **_k: [])
            sys.modules[name] = module


def arguments(
    resolution: int,
    *,
    components: int = 16,
    width: int = 32,
    channels: tuple[int, int] = (32768, 512),  # base and most
    **changes: Any,
) -> dict[str, Any]:
    """Return what the released training script builds a generator with, for any data set but CLEVR.

    Args:
        resolution: of the image.
        components: local ones.
        width: of each.
        channels: of its maps.
        changes: arguments of its two networks; those of the mapping begin with `mapping_`.
    """
    transformer = changes.pop("transformer", True)
    attention = {"transformer": transformer, "num_heads": changes.pop("num_heads", 1)}
    attention |= {"use_pos": changes.pop("use_pos", True), "attention_dropout": 0.12}
    mapping = {"num_layers": 8, "lrmul": 0.01, "resnet": True, "ltnt2ltnt": transformer}
    mapping |= {
        name.removeprefix("mapping_"): changes.pop(name) for name in list(changes) if "mapping_" in name
    }
    synthesis = {"channel_base": channels[0], "channel_max": channels[1], "architecture": "resnet"}
    synthesis |= {"end_res": 8, "kmeans": True, "kmeans_iters": 1, "integration": "mul", "norm": "layer"}
    return {
        "z_dim": width,
        "c_dim": 0,
        "w_dim": width,
        "k": components + 1 if transformer else 1,
        "img_resolution": resolution,
        "img_channels": 3,
        "mapping_kwargs": mapping | attention,
        "synthesis_kwargs": synthesis | {"pos_type": "sinus"} | attention | changes,
    }


def released(settings: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Return the released generator of these arguments, and the discriminator that is trained with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        networks = importlib.import_module("training.networks")
        generator = networks.Generator(**settings)
        synthesis = settings["synthesis_kwargs"]
        discriminator = networks.Discriminator(
            c_dim=0,
            img_resolution=settings["img_resolution"],
            img_channels=3,
            architecture="resnet",
            channel_base=synthesis["channel_base"],
            channel_max=synthesis["channel_max"],
            epilogue_kwargs={"mbstd_group_size": 4},
        )
    return generator.eval(), discriminator.eval()


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name."""
    return dict(network.named_parameters()) | dict(network.named_buffers())
