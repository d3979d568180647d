"""Configurations of TransGAN by name, as plain values for the `[model]` table."""

from __future__ import annotations

from typing import Any


def _stages(rows: list[tuple[Any, ...]], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    return [dict(zip(keys, row, strict=False)) for row in rows]


_G = ("side", "channels", "depth", "upsample", "low_pass")
_D = ("side", "channels", "depth", "full_blocks", "overlap")


def _generator_256(first_depth: int, low_pass: bool) -> list[dict[str, Any]]:
    rows: list[tuple[Any, ...]] = [
        (8, 1024, first_depth),
        (16, 1024, 4, "bicubic"),
        (32, 1024, 4, "bicubic"),
        (64, 256, 4),
    ]
    rows += [(128, 64, 4, None, low_pass), (256, 16, 4, None, low_pass)]
    return _stages(rows, _G)


def _version_1(channels: int, depths: tuple[int, int, int]) -> dict[str, Any]:
    """A size of the first version: a plain one-scale discriminator of depth 7, no relative positions."""
    sides = [(8, channels, depths[0]), (16, channels // 4, depths[1]), (32, channels // 16, depths[2])]
    return {
        "resolution": 32,
        "z_dim": channels,
        "generator": {"stages": _stages(sides, _G), "relative_position": "none", "locality": "band"},
        "discriminator": {
            "stages": [{"side": 8, "channels": 384, "depth": 0}],
            "relative_position": "none",
            "head_depth": 7,
        },
    }


# Released by VITA-Group/TransGAN (exps/*.py and models_search/), the sizes of version 1, and ours.
PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {"resolution": 32, "z_dim": 256},
    "stl10": {
        "resolution": 48,
        "z_dim": 512,
        "generator": {
            "stages": _stages([(12, 1024, 7), (24, 256, 5), (48, 64, 3)], _G),
            "full_attention_until": 48,
            "norm": "pn",
        },
        "discriminator": {"stages": _stages([(24, 288, 3), (12, 384, 3)], _D), "norm": "pn"},
    },
    "church256": {
        "resolution": 256,
        "z_dim": 512,
        "generator": {"stages": _generator_256(5, False), "norm": "pn", "noise": True},
        "discriminator": {"stages": _stages([(64, 288, 3, 1), (32, 336, 3), (16, 384, 4)], _D)},
    },
    "celebahq256": {
        "resolution": 256,
        "z_dim": 512,
        "generator": {
            "stages": _generator_256(0, True),
            "norm": "pn",
            "noise": True,
            "modulation": "cross-attention",
        },
        "discriminator": {
            "stages": _stages([(128, 96, 3, 0, True), (64, 192, 3, 1), (32, 384, 4)], _D),
            "window": 4,
            "relative_position": "none",
        },
    },
    "v1-s": _version_1(384, (5, 2, 2)),
    "v1-m": _version_1(512, (5, 2, 2)),
    "v1-l": _version_1(768, (5, 2, 2)),
    "v1-xl": _version_1(1024, (5, 4, 2)),
    "cpu32": {
        "resolution": 32,
        "z_dim": 64,
        "generator": {
            "stages": _stages([(8, 128, 2), (16, 64, 2), (32, 32, 1)], _G),
            "upsample": "bilinear",
            "positions": "first-stage",
            "head_width": 32,
            "full_attention_until": 16,
            "norm": "layer",
            "modulation": "gain",
            "relative_position": "local",
        },
        "discriminator": {
            "stages": [{"side": 8, "channels": 128, "depth": 3, "overlap": True}],
            "head_width": 32,
            "norm": "layer",
            "activation": "leaky-relu",
            "head": "pooled",
            "init": "fan-in",
        },
    },
}
