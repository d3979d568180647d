"""The smallest GANsformers of every kind, for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gtool.models.gansformer.config import GANsformerConfig
from gtool.models.gansformer.network import Discriminator, Generator, build

KINDS = ("duplex", "simplex", "centroid")


def tiny(**changes: Any) -> GANsformerConfig:
    """Return a config of some thousand parameters; tables are merged."""
    values: dict[str, Any] = {
        "resolution": 16,
        "components": 3,
        "component_dim": 8,
        "mapping": {"layers": 4, "multiplier": 0.1},
        "synthesis": {"channel_base": 64, "channel_max": 8},
        "discriminator": {"channel_base": 64, "channel_max": 8, "group_size": 2},
    }
    for key, change in changes.items():
        values[key] = {**values[key], **change} if isinstance(change, dict) else change
    return GANsformerConfig(**values)


def networks(config: GANsformerConfig, seed: int = 0) -> tuple[Generator, Discriminator]:
    """Build both, with every parameter off its zeros and ones."""
    torch.manual_seed(seed)
    built = build(config)
    with torch.no_grad():
        for network in built:
            for parameter in network.parameters():
                if parameter.ndim < 2:
                    parameter += 0.2 * torch.randn_like(parameter)
    return built


def generator_of(seed: int = 0, **changes: Any) -> Generator:
    """Build a tiny generator in eval mode."""
    return networks(tiny(**changes), seed)[0].eval()


def latents(generator: Generator, images: int = 2, seed: int = 1) -> Tensor:
    """Return (N, K, d)."""
    return torch.randn(images, *generator.z_shape, generator=torch.Generator().manual_seed(seed))


def noise_for(generator: Generator, images: int = 2, seed: int = 2) -> list[Tensor]:
    """Return one (N, 1, r, r) for every shape."""
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(images, *shape, generator=random) for shape in generator.noise_shapes]


def maps_of(generator: Generator, z: Tensor, noise: list[Tensor] | None = None) -> tuple[Tensor, ...]:
    """Return what each layer attends to."""
    with torch.no_grad():
        return generator.synthesis(generator.broadcast(generator.mapping(z)), noise, with_maps=True)[1]
