"""Build the classes of a VITA-Group/TransGAN checkout on a CPU, for comparison with ours.

Nothing in the checkout is changed: modules that current libraries no longer have are stood in for, and
`Tensor.get_device`, which the released forward passes hand to `.to()`, answers with the tensor's device.
"""

from __future__ import annotations

import collections.abc
import contextlib
import importlib
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

# The options of exps/*.py that reach the networks, over the defaults of cfg.py.
DEFAULTS = {
    "bottom_width": 8,
    "img_size": 32,
    "gf_dim": 1024,
    "df_dim": 384,
    "g_depth": "5,4,2",
    "d_depth": 3,
    "latent_dim": 256,
    "patch_size": 2,
    "g_norm": "ln",
    "d_norm": "ln",
    "g_act": "gelu",
    "d_act": "gelu",
    "g_mlp": 4,
    "d_mlp": 4,
    "g_window_size": 8,
    "d_window_size": 8,
    "latent_norm": False,
    "diff_aug": "None",
    "dropout": 0.0,
}
STL = {
    "bottom_width": 12,
    "img_size": 48,
    "g_depth": "7,5,3",
    "latent_dim": 512,
    "g_norm": "pn",
    "d_norm": "pn",
}
LARGE = {"img_size": 256, "g_depth": "5,4,4,4,4,4", "latent_dim": 512, "g_norm": "pn", "g_window_size": 16}
RELEASED = {
    "cifar10": ("ViT_custom_rp", "ViT_custom_scale2_rp_noise", {}),
    "stl10": ("ViT_custom_rp", "ViT_custom_scale2_rp_noise", STL),
    "church256": (
        "ViT_custom_local544444_256_rp_noise",
        "ViT_scale3_local_new_rp",
        LARGE | {"patch_size": 4, "d_window_size": 16},
    ),
    "celebahq256": ("Celeba256_gen", "Celeba256_dis", LARGE | {"patch_size": 2, "d_window_size": 4}),
}


def use_checkout(path: Path) -> None:
    """Make the checkout importable.

    Raises:
        SystemExit: it is not one.
    """
    if not (path / "models_search").is_dir():
        raise SystemExit(f"{path} is not a checkout of VITA-Group/TransGAN")
    sys.path.insert(0, str(path))
    _stand_in("torch._six", container_abcs=collections.abc)
    _stand_in("utils")
    _stand_in("utils.utils", make_grid=None, save_image=None)
    torch.Tensor.get_device = lambda tensor: tensor.device  # type: ignore[method-assign]


def _stand_in(name: str, **contents: object) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(contents)
    sys.modules[name] = module


def released(name: str, **options: object) -> tuple[nn.Module, nn.Module]:
    """Return the released generator and discriminator; options replace those of the release's script."""
    generator, discriminator, changes = RELEASED[name]
    args = SimpleNamespace(**(DEFAULTS | changes | options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = [importlib.import_module(f"models_search.{file}") for file in (generator, discriminator)]
        return modules[0].Generator(args=args), modules[1].Discriminator(args=args)


@contextlib.contextmanager
def recorded_noise(noise: list[Tensor]) -> Iterator[None]:
    """Answer `torch.randn` with the given tensors in order, each reshaped to what is asked for."""
    queue = list(noise)
    original = torch.randn

    def answer(shape: list[int], **_options: object) -> Tensor:
        return queue.pop(0).reshape(shape)

    torch.randn = answer  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.randn = original
    if queue:
        raise AssertionError(f"{len(queue)} noise inputs were not used")
