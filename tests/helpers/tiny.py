"""The smallest networks that have every part, and runs of them that take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gtool.config.recipe import make_recipe, to_toml
from gtool.config.schema import Recipe

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
    "optim": {"learning_rate": 1e-3, "clip_grad_norm": 5.0},
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
    "optim": {"kind": "adamw", "learning_rate": 2e-3, "betas": [0.9, 0.99], "clip_grad_norm": 2.0},
    "train": {
        "batch_size": 10,
        "kimg": 0.08,
        "ema_kimg": 0.05,
        "tick_kimg": 0.01,
        "snapshot_kimg": 0.02,
        "metric_images": 16,
        "precision": "fp32",
    },
    "strokes": {"num_pictures": 16, "count": 4, "scenes_share": 0.25},
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


TOKENIZER: dict[str, Any] = {
    "schema": 1,
    "model_name": "vqgan",
    "model": {
        "resolution": 16,
        "channels": 8,
        "multipliers": [1, 2],
        "blocks": 1,
        "decoder_blocks": 1,
        "middle_blocks": 1,
        "middle_attention": False,
        "attention_sides": [],
        "norm_groups": 4,
        "z_channels": 8,
        "quantizer": {"kind": "cosine", "size": 32, "dim": 4},
        "discriminator": {"channels": 8, "layers": 1, "norm": "group"},
    },
    "data": {"dataset": "scenes", "resolution": 16, "num_images": 64, "flip": True},
    "optim": {"learning_rate": 3e-3, "betas": [0.5, 0.9]},
    "reconstruction": {"restart_interval": 3},
    "train": {
        "batch_size": 8,
        "kimg": 0.16,
        "ema_kimg": 0.02,
        "tick_kimg": 0.016,
        "snapshot_kimg": 0.048,
        "metric_images": 16,
        "precision": "fp32",
    },
    "sample": {"num": 4},
}


def tiny_tokenizer(*settings: str) -> Recipe:
    """Return the recipe of a tiny tokenizer with `--set` settings on top."""
    return make_recipe(TOKENIZER, settings, where="tiny")


PRIOR: dict[str, Any] = {
    "schema": 1,
    "model_name": "prior",
    "model": {"prior": {"layers": 2, "heads": 2, "width": 16}},
    "data": {"dataset": "scenes", "resolution": 16, "num_images": 64, "condition": "segmentation"},
    "optim": {"kind": "adamw", "learning_rate": 3e-3, "betas": [0.9, 0.95], "weight_decay": 0.01},
    "prior": {"encode_flipped": True},
    "train": {
        "batch_size": 8,
        "kimg": 0.16,
        "ema_kimg": 0.02,
        "tick_kimg": 0.016,
        "snapshot_kimg": 0.048,
        "metric_images": 16,
        "precision": "fp32",
    },
    "sample": {"num": 2},
}


def save_tokenizer(path: Path, *settings: str) -> Path:
    """Write the weights of an untrained tiny tokenizer; returns the path."""
    import torch

    from gtool.io.weights import save_weights
    from gtool.models import registry
    from gtool.models.generate import weights_meta

    recipe = tiny_tokenizer(*settings)
    config = registry.config_class("vqgan").model_validate(recipe.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = registry.network_module("vqgan").build(config)[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    save_weights(path, tokenizer.state_dict(), weights_meta(recipe, config, 1000))
    return path


def save_prior(
    path: Path,
    *settings: str,
    tokenizer: tuple[str, ...] = (),
    of_maps: tuple[str, ...] | None = None,
    **prior: Any,
) -> Path:
    """Write the weights of an untrained tiny prior beside its recipe; returns the path.

    settings: of the recipe. tokenizer: of its tokenizer. of_maps: of a tokenizer of its conditions, where it has one.
    prior: of its config, `condition` and `condition_size` too.
    """
    import torch

    from gtool.io.weights import save_weights
    from gtool.models import registry
    from gtool.models.generate import weights_meta

    recipe = tiny_prior(f"data.condition={prior.get('condition', 'none')}", *settings)
    model = tiny_tokenizer(*tokenizer).model
    values = {"resolution": 16, "tokenizer": model, "prior": {**recipe.model["prior"], **prior}}
    if of_maps is not None:
        values["condition_tokenizer"] = tiny_tokenizer(*of_maps).model
    config = registry.config_class("prior").model_validate(values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        (pipeline,) = registry.network_module("prior").build(config)
        # Untrained logits are all but equal; these prefer some codes, as trained ones do.
        pipeline.prior.head.weight.data.mul_(50)
        if config.tokenizer.kind == "palette":
            pipeline.tokenizer.palette.uniform_(-1, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    save_weights(path, pipeline.state_dict(), weights_meta(recipe, config, 2000))
    return path


def tiny_prior(*settings: str) -> Recipe:
    """Return the recipe of a tiny prior with `--set` settings on top; it says nothing of a tokenizer."""
    return make_recipe(PRIOR, settings, where="tiny")
