"""The table of models: where the parts of each family are, and what the family can do.

A literal table of strings, so that help texts can list the names and nothing heavy is imported to know them. No other
place compares names of models: what the verbs have to know of a family is a field of its row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

from gtool.errors import RecipeError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the table. A `module:name` is imported on use."""

    config: str  # module:class of the `[model]` table: imports without torch
    network: str  # module:class or function of what weights hold; its module's `build` makes all networks
    networks: tuple[str, ...]  # what `build` makes, in its order
    trainer: str  # module:class of the `gtool.train.trainer.Trainer` of the family
    keys: tuple[str, ...]  # sections and keys of a recipe that this family has beside those of all
    exports: str  # module:function from (network, metadata) to the parts to export, by name
    next_command: str  # what a user types with weights of it
    released: str | None = None  # module of `rename_released`, which reads checkpoints of the original code
    samples_from: Literal["latents", "codes"] | None = None  # None: makes no images by itself
    learns_from: str | None = None  # the model whose weights it is trained on
    finetunes: bool = False  # goes on from trained weights with pictures of the user
    adversarial: bool = False  # weights hold its generator, and a discriminator can be learned beside it
    reconstructs: bool = False  # holds a tokenizer: images to codes to images
    paints: bool = False  # proposes strokes for `gtool paint`
    attention_maps: bool = False  # its generator can return what its layers attend to
    truncation: bool = False  # its generator has a mapping, whose output can be drawn towards the mean


# Keys that several families share, and others do not look at.
SQUARES = ("data.resolution", "data.flip")
DISCRIMINATOR = ("optim.discriminator_learning_rate",)
PARTS = ("train.micro_batch",)
CLASSES = ("data.condition", "data.num_labels", "data.label_column")
GAN = (
    *("augment", "loss", *SQUARES, *DISCRIMINATOR, *PARTS, *CLASSES),
    *("optim.lazy_rescale", "optim.generator_reg_interval"),
    *("train.generator_batch_size", "train.n_critic", "train.share_fakes"),
    *("train.metrics", "train.penalty_precision", "train.discriminator_kimg"),
)

MODELS = {
    "transgan": Model(
        config="gtool.models.transgan.config:TransGANConfig",
        network="gtool.models.transgan.network:Generator",
        networks=("generator", "discriminator"),
        trainer="gtool.train.gan:GANTrainer",
        keys=(*GAN, "train.locality", "loss.super_resolution", "loss.super_resolution_kimg"),
        released="gtool.models.transgan.released",
        exports="gtool.export.parts:of_generator",
        next_command="gtool sample {path}",
        samples_from="latents",
        adversarial=True,
    ),
    "gansformer": Model(
        config="gtool.models.gansformer.config:GANsformerConfig",
        network="gtool.models.gansformer.network:Generator",
        networks=("generator", "discriminator"),
        trainer="gtool.train.gan:GANTrainer",
        keys=(
            *(*GAN, "loss.style_mixing", "loss.component_mixing", "loss.path_length"),
            *("loss.path_length_interval", "loss.path_length_decay", "loss.path_length_batch_shrink"),
        ),
        released="gtool.models.gansformer.released",
        exports="gtool.export.parts:of_generator",
        next_command="gtool sample {path}",
        samples_from="latents",
        adversarial=True,
        attention_maps=True,
        truncation=True,
    ),
    "paint-transformer": Model(
        config="gtool.models.paint_transformer.config:PaintTransformerConfig",
        network="gtool.models.paint_transformer.network:build_predictor",
        networks=("predictor",),
        trainer="gtool.train.strokes:StrokesTrainer",
        keys=("strokes",),
        released="gtool.models.paint_transformer.released",
        exports="gtool.export.parts:of_predictor",
        next_command="gtool paint photo.jpg --weights {path}",
        finetunes=True,
        paints=True,
    ),
    "vqgan": Model(
        config="gtool.models.vqgan.config:VQGANConfig",
        network="gtool.models.vqgan.network:make_tokenizer",
        networks=("tokenizer", "discriminator"),
        trainer="gtool.train.tokenizer:TokenizerTrainer",
        keys=("reconstruction", *SQUARES, *DISCRIMINATOR),
        released="gtool.models.vqgan.released",
        exports="gtool.export.parts:of_tokenizer",
        next_command="gtool train prior --tokenizer {path}",
        reconstructs=True,
    ),
    "prior": Model(
        config="gtool.models.prior.config:PriorPipelineConfig",
        network="gtool.models.prior.pipeline:PriorPipeline",
        networks=("prior",),
        trainer="gtool.train.prior:PriorTrainer",
        keys=(*("prior", *SQUARES, *PARTS, *CLASSES, "data.segmentation_column", "data.depth_column"),),
        released="gtool.models.prior.released",
        exports="gtool.export.parts:of_prior",
        next_command="gtool sample {path}",
        samples_from="codes",
        learns_from="vqgan",
        reconstructs=True,
    ),
}

# Projects whose files are of several of these models: which one, their tensors tell.
PROJECTS = {"taming": ("vqgan", "prior")}


def find_model(name: str) -> Model:
    """Return a row of the table.

    Raises:
        RecipeError: no such model; the nearest name is suggested.
    """
    if name not in MODELS:
        raise RecipeError(f"model `{name}` does not exist{did_you_mean(name, list(MODELS))}")
    return MODELS[name]


def models_that(**can: Any) -> list[str]:
    """Return the names of the models whose rows have these values, as `models_that(paints=True)`."""
    return [name for name, row in MODELS.items() if all(getattr(row, key) == can[key] for key in can)]


def models_with(key: str) -> list[str]:
    """Return the names of the models that a section or a key of recipes is for."""
    return [name for name, row in MODELS.items() if key in row.keys]


def config_class(name: str) -> Any:
    """Return the pydantic class of a model's `[model]` table, without importing torch."""
    return _named(find_model(name).config)


def network(name: str) -> Callable[[Any], Any]:
    """Return what builds, from a config, the network that a weights file of a model holds."""
    return _named(find_model(name).network)


def network_module(name: str) -> ModuleType:
    """Return the module whose `build(config)` makes all networks of a model's training, that of its weights first."""
    return import_module(find_model(name).network.partition(":")[0])


def trainer(name: str) -> Any:
    """Return the class that trains a model, a subclass of `gtool.train.trainer.Trainer`."""
    return _named(find_model(name).trainer)


def foreign_keys(name: str) -> list[str]:
    """Return the sections and keys of recipes that mean nothing for a model, and something for others; sorted."""
    return sorted({key for row in MODELS.values() for key in row.keys} - set(find_model(name).keys))


def released_module(name: str) -> ModuleType:
    """Import and return the module that reads checkpoints of a model's original code.

    Raises:
        RecipeError: no such model, or none whose original checkpoints are read.
    """
    module = find_model(name).released
    if module is None:
        raise RecipeError(f"model `{name}` has no checkpoints of original code")
    return import_module(module)


def exports(name: str) -> Callable[..., Any]:
    """Return the function that takes a model's network and metadata apart for `gtool export`."""
    return _named(find_model(name).exports)


def _named(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
