"""The smallest networks that have every part, and runs of them that take seconds."""

from __future__ import annotations

from typing import Any

from gtool.recipe import Recipe, make_recipe

MODEL: dict[str, Any] = {
    "resolution": 16,
    "z_dim": 8,
    "generator": {
        "stages": [
            {"side": 4, "channels": 16, "depth": 1},
            {"side": 8, "channels": 16, "depth": 1, "upsample": "bicubic"},
            {"side": 16, "channels": 8, "depth": 1, "upsample": "bilinear"},
        ],
        "heads": 2,
    },
    "discriminator": {
        "stages": [{"side": 8, "channels": 8, "depth": 1}, {"side": 4, "channels": 16, "depth": 1}],
        "heads": 2,
    },
}
TABLE: dict[str, Any] = {
    "schema": 1,
    "model_name": "transgan",
    "model": MODEL,
    "data": {"dataset": "scenes", "resolution": 16, "num_images": 64, "flip": True},
    "augment": {"policy": "translation,cutout,color"},
    "optim": {"learning_rate": 1e-3, "clip_norm": 5.0},
    "loss": {"kind": "wgan-eps", "gradient_penalty": 10.0, "drift": 1e-3},
    "train": {
        "batch_size": 8,
        "n_critic": 2,
        "kimg": 0.16,
        "ema_kimg": 1.0,
        "tick_kimg": 0.016,
        "snapshot_kimg": 0.048,
        "metric_images": 16,
        "precision": "fp32",
    },
    "sample": {"num": 4},
}


def tiny_recipe(*settings: str) -> Recipe:
    """Return the tiny recipe with `--set` settings on top."""
    return make_recipe(TABLE, settings, where="tiny")


STROKES: dict[str, Any] = {
    "schema": 1,
    "model_name": "paint-transformer",
    "model": {"width": 32, "heads": 2, "depth": 1, "stem_width": 8},
    "optim": {"kind": "adamw", "learning_rate": 2e-3, "betas": [0.9, 0.99], "clip_norm": 2.0},
    "train": {
        "batch_size": 10,
        "kimg": 0.08,
        "ema_kimg": 0.05,
        "tick_kimg": 0.01,
        "snapshot_kimg": 0.02,
        "metric_images": 16,
        "precision": "fp32",
    },
    "strokes": {"pictures": 16, "count": 4, "scenes_share": 0.25},
    "sample": {"num": 1},
}


def tiny_strokes(*settings: str) -> Recipe:
    """Return the recipe of a tiny stroke predictor with `--set` settings on top."""
    return make_recipe(STROKES, settings, where="tiny")


GANSFORMER: dict[str, Any] = {
    "schema": 1,
    "model_name": "gansformer",
    "model": {
        "resolution": 16,
        "components": 3,
        "component_dim": 8,
        "mapping": {"layers": 2, "multiplier": 0.1},
        "synthesis": {"channel_base": 128, "channel_max": 16, "heads": 2, "integration": "both"},
        "discriminator": {"channel_base": 128, "channel_max": 16},
    },
    "data": {"dataset": "scenes", "resolution": 16, "num_images": 64},
    "optim": {"learning_rate": 2e-3},
    "loss": {"kind": "non-saturating", "r1_gamma": 0.1, "penalty_interval": 2},
    "train": {
        "batch_size": 8,
        "kimg": 0.16,
        "ema_kimg": 0.05,
        "tick_kimg": 0.016,
        "snapshot_kimg": 0.048,
        "metric_images": 16,
        "precision": "fp32",
    },
    "sample": {"num": 4},
}


def tiny_gansformer(*settings: str) -> Recipe:
    """Return the recipe of a tiny GANsformer with `--set` settings on top."""
    return make_recipe(GANSFORMER, settings, where="tiny")
