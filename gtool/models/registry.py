"""The table of models: what each is called, where its schema and networks are, which engine trains it.

A literal table of strings, so that help texts can list the names and nothing heavy is imported to know them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from gtool.errors import RecipeError, did_you_mean


@dataclass(frozen=True)
class Model:
    """One row of the table; every field is a name to import on use."""

    module: str  # the networks: needs torch
    schema: str  # module:class of the config: imports without torch
    trainer: str  # what the family adds to `gtool train`
    importer: str  # rename_released: needs torch
    use: str  # what a user types with weights of it
    learns_from: str | None = None  # the model whose weights it is trained on


MODELS = {
    "transgan": Model(
        module="gtool.models.transgan.network",
        schema="gtool.models.transgan.config:TransGANConfig",
        trainer="gtool.train.gan_trainer",
        importer="gtool.models.transgan.released",
        use="gtool sample {path}",
    ),
    "gansformer": Model(
        module="gtool.models.gansformer.network",
        schema="gtool.models.gansformer.config:GANsformerConfig",
        trainer="gtool.train.gan_trainer",
        importer="gtool.models.gansformer.released",
        use="gtool sample {path}",
    ),
    "paint-transformer": Model(
        module="gtool.models.paint_transformer.network",
        schema="gtool.models.paint_transformer.config:PaintTransformerConfig",
        trainer="gtool.train.strokes_trainer",
        importer="gtool.models.paint_transformer.released",
        use="gtool paint photo.jpg --weights {path}",
    ),
    "vqgan": Model(
        module="gtool.models.vqgan.network",
        schema="gtool.models.vqgan.config:VQGANConfig",
        trainer="gtool.train.tokenizer_trainer",
        importer="gtool.models.vqgan.released",
        use="gtool train prior --tokenizer {path}",
    ),
    "prior": Model(
        module="gtool.models.prior.composer",
        schema="gtool.models.prior.composer_config:ComposerConfig",
        trainer="gtool.train.prior_trainer",
        importer="gtool.models.prior.released",
        use="gtool sample {path}",
        learns_from="vqgan",
    ),
}

# Projects whose files are of several of these models: which one, their names tell.
PROJECTS = {"taming": ("vqgan", "prior")}


def find_model(name: str) -> Model:
    """Return a row of the table.

    Raises:
        RecipeError: no such model; the nearest name is suggested.
    """
    if name not in MODELS:
        raise RecipeError(f"model `{name}` does not exist{did_you_mean(name, list(MODELS))}")
    return MODELS[name]


def config_class(name: str) -> Any:
    """Return the pydantic class of a model's `[model]` table, without importing torch."""
    module, _, attribute = find_model(name).schema.partition(":")
    return getattr(import_module(module), attribute)


def networks(name: str) -> ModuleType:
    """Import and return the module that builds the networks of a model."""
    return import_module(find_model(name).module)


def trainer(name: str) -> ModuleType:
    """Import and return what a model's family adds to `gtool train`: open_inputs, check, step_flops, Trainer."""
    return import_module(find_model(name).trainer)


def importer(name: str) -> ModuleType:
    """Import and return the module that reads checkpoints of a model's original code."""
    return import_module(find_model(name).importer)


def flops(name: str, config: Any) -> dict[str, float]:
    """Return the floating-point operations of one image through each network, forward only, as `build` orders them."""
    schema = import_module(find_model(name).schema.partition(":")[0])
    return {network: float(count) for network, count in schema.flops(config).items()}
