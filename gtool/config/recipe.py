"""Recipes: TOML files that say everything about a run, read into frozen, strictly typed sections.

Order of authority: model defaults < recipe file < `--set a.b=value` < dedicated flags. The `[model]` table stays
a plain mapping here: its schema belongs to the model (`gtool.models`), and this module knows no model.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gtool.errors import RecipeError, did_you_mean

SCHEMA = 1

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of a recipe: unknown keys and values of another type are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataRecipe(Section):
    """Which images, and how they become squares of `resolution` pixels."""

    dataset: str = "scenes"
    split: str = "train"
    resolution: Annotated[int, Field(ge=8, le=1024)] = 32
    image_column: str | None = None
    label_column: str | None = None
    segmentation_column: str | None = None
    depth_column: str | None = None
    condition: Literal["none", "class", "segmentation", "depth"] = "none"  # what images are generated from
    num_labels: Annotated[int, Field(ge=1, le=65534)] | None = (
        None  # of classes or label maps; none counts them
    )
    crop: Literal["center", "fit"] = "center"
    flip: bool = False
    num_images: Count | None = None
    cache_gb: NonNegative = 4.0

    @model_validator(mode="after")
    def _labels_are_of_a_condition(self) -> DataRecipe:
        if self.num_labels is not None and self.condition not in ("class", "segmentation"):
            raise ValueError('data.num_labels belongs to data.condition = "class" or "segmentation"')
        return self


class AugmentRecipe(Section):
    """Differentiable augmentation of real and generated images before the discriminator."""

    policy: str = ""
    p: Share = 1.0  # share of images that an operation of the policy is applied to
    target: Share | None = (
        None  # E[sign D(real)] towards which p is moved, beginning at 0; none leaves p fixed
    )
    kimg: Positive = 500.0  # in which p can go from 0 to 1

    @model_validator(mode="after")
    def _moves_or_stays(self) -> AugmentRecipe:
        if self.target is not None and self.p != 1.0:
            raise ValueError("augment.target moves the probability, augment.p fixes it; leave one out")
        if self.target is not None and self.policy.strip().lower() in ("", "none"):
            raise ValueError("augment.target needs operations in augment.policy, as `ada`")
        return self


class OptimRecipe(Section):
    """Adam for both networks; warm-up in steps, decay over the last part of the run."""

    kind: Literal["adam", "adamw"] = "adam"
    learning_rate: Positive = 1e-4
    discriminator_learning_rate: Positive | None = None
    betas: Annotated[tuple[float, float], Field(strict=False)] = (0.0, 0.99)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0
    # For a regulariser that is due every i > 1 steps: learning rate times i / (i + 1), betas to that power.
    lazy_rescale: bool = False
    # The i of the generator; none takes loss.path_length_interval, and no rescaling where there is no path length.
    generator_interval: Count | None = None
    clip_norm: Positive | None = None
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["none", "linear", "cosine"] = "none"
    decay_start: Share = 0.6
    decay_to: Share = 0.0


class LossRecipe(Section):
    """Adversarial loss, penalties on the discriminator's input gradient, regularisers of the generator."""

    kind: Literal["wgan-eps", "wgan", "hinge", "lsgan", "non-saturating", "relativistic"] = "wgan-eps"
    gradient_penalty: NonNegative = 0.0
    gradient_penalty_target: Positive = 1.0
    drift: NonNegative = 0.0
    r1_gamma: NonNegative = 0.0
    r2_gamma: NonNegative = 0.0
    gamma_decay: Positive = 1.0
    penalty_interval: Count = 1
    penalty_method: Literal["exact", "finite-difference"] = "exact"
    difference_step: Positive = 0.05
    path_length: NonNegative = 0.0
    path_length_interval: Count = 4
    path_length_decay: Share = 0.01
    path_length_shrink: Count = 2  # one in so many images of the generator's batch
    style_mixing: Share = 0.0  # probability, per image, that its later layers have other latents
    component_mixing: Share = 0.0  # and that its later components have
    mode_seeking: NonNegative = 0.0
    super_resolution: NonNegative = 0.0
    super_resolution_kimg: NonNegative = 0.0

    @model_validator(mode="after")
    def _drift_belongs_to_wgan_eps(self) -> LossRecipe:
        if self.drift and self.kind != "wgan-eps":
            raise ValueError(f"loss.drift is a term of `wgan-eps`, not of `{self.kind}`")
        return self


class StrokesRecipe(Section):
    """How a stroke predictor learns: from strokes that are known, then from what its strokes gain on pictures."""

    count: Annotated[int, Field(ge=1, le=64)] = 8  # strokes painted on a patch
    brush: str = "flat"
    known_until: Share = 0.1  # share of the run on patches of known strokes alone
    known_share: Share = 0.3  # share of patches of known strokes after that
    known_weight: NonNegative = 0.3  # and their weight then
    sides: NonNegative = 5.0  # L1 over x, y, width, height
    angle: NonNegative = 1.0
    wasserstein: NonNegative = 5.0
    decision: NonNegative = 1.0
    positive_weight: Positive = 2.0  # of strokes that are there, in the decision's cross-entropy
    pixel: NonNegative = 0.0  # L1 of patches of known strokes, painted by decision
    gain_decision: NonNegative = 1.0  # of the cross-entropy that teaches which strokes gain most
    # Power of the decision's probability that gains are multiplied by in training. Among proposals that gain alike
    # those are chosen that were chosen before, so that there is something to be learned about which.
    habit: NonNegative = 1.0
    explore: Share = (
        0.5  # share of patches on which half of the proposals cannot be chosen, so that all learn
    )
    soft: Positive = 0.02  # added to a patch's error, in [0, 1], by which its reward is divided
    pictures: Annotated[int, Field(ge=16)] = 2048  # drawn at the start
    scenes_share: Share = 0.3  # of them built-in scenes; the rest are dead leaves
    drawn_share: Share = 0.0  # of the pictures that are drawn where data.dataset gives others


class ReconstructionRecipe(Section):
    """How a tokenizer learns: to give back its images, and later to look real to a discriminator of patches."""

    l1: NonNegative = 1.0
    perceptual: NonNegative = 1.0
    # gradients: differences of neighbouring pixels at three scales; it needs no weights, and is no LPIPS.
    perceptual_kind: Literal["gradients", "lpips"] = "gradients"
    lpips_vgg: str | None = None  # VGG16 by torchvision's names, .pth or .safetensors
    lpips_heads: str | None = None  # the linear heads of LPIPS
    feature_matching: NonNegative = (
        0.0  # of the discriminator's features, as long as the decoder listens to it
    )
    codebook: NonNegative = 1.0
    restart_interval: Annotated[int, Field(ge=0)] = (
        20  # steps between two looks for unused codes; 0 keeps them
    )
    restart_until: Share = 0.8  # share of the run; after it the codes stay what they are
    adversarial: NonNegative = 0.8
    adaptive: bool = True  # the adversarial term is weighed by the ratio of gradients at the last layer
    # Of that ratio. The release allows 10000: a discriminator that can tell nothing has no gradient, and the ratio
    # then makes of its noise the strongest voice of all.
    adaptive_most: Positive = 0.2
    # Shares of the run: when the discriminator begins to learn, alone; when the decoder begins to listen; in which
    # share after that its term has grown to its full weight.
    discriminator_start: Share = 0.45
    adversarial_start: Share = 0.5
    adversarial_ramp: Share = 0.1

    @model_validator(mode="after")
    def _discriminator_is_there_first(self) -> ReconstructionRecipe:
        if self.adversarial and self.discriminator_start > self.adversarial_start:
            raise ValueError(
                f"reconstruction.discriminator_start = {self.discriminator_start:g} comes after "
                f"reconstruction.adversarial_start = {self.adversarial_start:g}"
            )
        if self.perceptual_kind == "lpips" and not (self.lpips_vgg and self.lpips_heads):
            raise ValueError(
                "reconstruction.perceptual_kind = 'lpips' needs two files: reconstruction.lpips_vgg, the weights of "
                "VGG16, and reconstruction.lpips_heads, the linear heads; 'gradients' needs none"
            )
        return self


class PriorRecipe(Section):
    """What a prior learns from beside its images: the tokenizer, and how its inputs are made."""

    tokenizer: str | None = None  # a run, a weights file, a hub id; none takes the newest of the data set
    keep: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the codes it reads; the others are drawn at random
    flips: bool = False  # codes of the mirrored images, too
    untold: Share = (
        0.0  # of the images whose condition is not said, so that it may be left out in sampling, too
    )
    preview_top_k: Count | None = None  # of the pictures that a run shows of itself


class TrainRecipe(Section):
    """Length, batches, averaging, cadence. One kimg is a thousand real images shown to the discriminator."""

    weights: str | None = None  # to begin with: a run, a weights file, a hub id, or `shipped`
    kimg: Positive = 1000.0
    minutes: Positive | None = None
    batch_size: Count = 64
    generator_batch_size: Count | None = None
    micro_batch: Count | None = None
    n_critic: Count = 1
    share_fakes: bool = False
    ema_kimg: NonNegative = 500.0
    ema_rampup: NonNegative = 0.1
    ema_decay: Share | None = None
    locality: Annotated[
        tuple[Annotated[tuple[float, int], Field(strict=False)], ...], Field(strict=False)
    ] = ()
    tick_kimg: Positive = 4.0
    snapshot_kimg: Positive = 200.0
    keep: Count = 3
    metrics: Annotated[tuple[Literal["rfd", "swd"], ...], Field(strict=False)] = ("rfd", "swd")
    metric_images: Annotated[int, Field(ge=16)] = 2000
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    penalty_precision: Literal["fp32", "auto"] = "fp32"
    compile: bool = False
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _batches_fit(self) -> TrainRecipe:
        generator = self.generator_batch_size or self.batch_size
        for name, batch in (("batch_size", self.batch_size), ("generator_batch_size", generator)):
            if self.micro_batch and batch % min(self.micro_batch, batch):
                raise ValueError(
                    f"train.{name} = {batch} is not a multiple of train.micro_batch = {self.micro_batch}"
                )
        if self.share_fakes and (
            generator != self.batch_size or (self.micro_batch or self.batch_size) < self.batch_size
        ):
            raise ValueError(
                "train.share_fakes needs equal batch sizes of both networks and no train.micro_batch"
            )
        return self


class SampleRecipe(Section):
    """The picture that a run shows of itself."""

    num: Count = 64
    columns: Count | None = None
    fps: Positive = 8.0


class Recipe(Section):
    """A whole recipe; `model` is checked by the model it names."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    model_name: str
    model: dict[str, Any] = Field(default_factory=dict)
    data: DataRecipe = DataRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    optim: OptimRecipe = OptimRecipe()
    loss: LossRecipe = LossRecipe()
    strokes: StrokesRecipe = StrokesRecipe()
    reconstruction: ReconstructionRecipe = ReconstructionRecipe()
    prior: PriorRecipe = PriorRecipe()
    train: TrainRecipe = TrainRecipe()
    sample: SampleRecipe = SampleRecipe()

    @model_validator(mode="after")
    def _shared_fakes_are_the_only_ones(self) -> Recipe:
        if self.train.share_fakes and self.loss.path_length:
            raise ValueError("train.share_fakes and loss.path_length exclude each other")
        return self


SectionType = TypeVar("SectionType", bound=BaseModel)


def validate(
    section: type[SectionType], values: Mapping[str, Any], where: str, prefix: str = ""
) -> SectionType:
    """Build a section from plain values.

    Args:
        section: the pydantic class.
        values: what a recipe or a checkpoint says.
        where: the file or flag to name in an error.
        prefix: the table that the values came from, as in `model.`.

    Raises:
        RecipeError: one line naming the key, the value and what would be right.
    """
    try:
        return section(**values)
    except ValidationError as invalid:
        raise RecipeError(f"{where}: {_explain(section, invalid, prefix)}") from None


def _explain(section: type[BaseModel], invalid: ValidationError, prefix: str) -> str:
    first = invalid.errors()[0]
    parts = [str(part) for part in first["loc"]]
    key = prefix + ".".join(parts)
    if first["type"] == "extra_forbidden":
        return f"unknown key `{key}`{did_you_mean(parts[-1], _known_keys(section, parts[:-1]))}"
    if first["type"] == "missing":
        return f"`{key}` is missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"`{key}` = {first['input']!r}: {message}" if parts and first["type"] != "value_error" else message


def first_reason(bad: ValueError) -> str:
    """Return in one line why values were refused."""
    if not isinstance(bad, ValidationError):
        return str(bad)
    return bad.errors()[0]["msg"].removeprefix("Value error, ")


def _known_keys(section: Any, path: list[str]) -> list[str]:
    for part in path:
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            break
        section = next((kind for kind in _models_in(field.annotation)), section)
    return [field.alias or name for name, field in getattr(section, "model_fields", {}).items()]


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def recipes_folder() -> Path:
    """Return the folder of shipped recipes: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_recipes(model: str | None = None) -> list[str]:
    """Return the names `model/recipe` that come with gtool, sorted."""
    found = sorted(recipes_folder().glob(f"{model or '*'}/*.toml"))
    return [f"{path.parent.name}/{path.stem}" for path in found]


def find_recipe(name: str, model: str | None = None) -> Path:
    """Return the file of a recipe given as a path, `model/name`, or `name` of the given model.

    Raises:
        RecipeError: nothing by that name; the nearest is suggested.
    """
    path = Path(name).expanduser()
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise RecipeError(f"recipe {name}: no such file")
    full = name if "/" in name or model is None else f"{model}/{name}"
    if full in shipped_recipes():
        return recipes_folder() / f"{full}.toml"
    known = [entry.removeprefix(f"{model}/") for entry in shipped_recipes(model)]
    raise RecipeError(f"recipe `{name}` does not exist{did_you_mean(name, known)}")


def read_table(path: Path) -> dict[str, Any]:
    """Read a recipe file into plain values.

    Raises:
        RecipeError: unreadable, not TOML, or of another schema version.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as bad:
        raise RecipeError(f"recipe {path}: not valid TOML: {bad}") from None
    except (OSError, UnicodeDecodeError) as bad:
        raise RecipeError(f"recipe {path}: cannot be read: {bad}") from None
    if values.get("schema") != SCHEMA:
        raise RecipeError(f"recipe {path}: `schema = {SCHEMA}` expected, found {values.get('schema')!r}")
    return values


def parse_setting(text: str) -> tuple[list[str], Any]:
    """Split `a.b=value`; the value is read as TOML and taken as text when it is none.

    Raises:
        RecipeError: no key or no `=`.
    """
    key, equals, raw = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise RecipeError(f"--set {text}: expected the form section.key=value")
    try:
        return path, tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return path, raw.strip()


def overlay(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a nested value in place, making tables on the way; list items are addressed by number.

    Raises:
        RecipeError: the path runs through something that is no table.
    """
    here: Any = values
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        key: Any = part
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise RecipeError(f"`{'.'.join(path)}`: `{part}` is no item of a list of {len(here)}")
            key = int(part)
        elif not isinstance(here, dict):
            raise RecipeError(f"`{'.'.join(path)}`: `{'.'.join(path[:depth])}` is no table")
        if last:
            here[key] = value
        else:
            here = here[key] if isinstance(here, list) else here.setdefault(key, {})


def make_recipe(values: Mapping[str, Any], settings: Iterable[str] = (), *, where: str) -> Recipe:
    """Validate plain values with `--set` settings applied on top.

    Raises:
        RecipeError: unknown key, wrong type, impossible combination.
    """
    import copy

    merged = copy.deepcopy(dict(values))
    for setting in settings:
        overlay(merged, *parse_setting(setting))
    return validate(Recipe, merged, where)


def to_toml(recipe: Recipe, comment: str = "") -> str:
    """Write a recipe as TOML that `read_table` reads back to the same recipe; None is left out."""
    values = recipe.model_dump(by_alias=True, exclude_none=True)
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += _toml_table(values, [])
    return "\n".join(lines) + "\n"


def _toml_table(values: Mapping[str, Any], path: list[str]) -> list[str]:
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items() if value is not None]
    if path and (lines or not values):
        lines = ["", f"[{'.'.join(path)}]", *lines]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _toml_table(value, [*path, key])
    return lines


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        import json

        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    return repr(value)
