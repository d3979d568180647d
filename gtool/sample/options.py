"""What `gtool sample` is asked for: every flag is read and checked here, without torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from gtool.config.recipe import recipe_of_weights, validate
from gtool.config.schema import Recipe
from gtool.errors import CheckpointError, RecipeError
from gtool.io.outputs import check_animation, check_folder
from gtool.io.run_folder import find_weights, newest_run, read_meta
from gtool.models import registry
from gtool.models.prior.config import DEFAULT_TOP_K, PriorPipelineConfig, SamplingParams, drops_conditions

DEFAULT_NUM = {"sample": 64, "interpolation": 8, "psi": 8, "noise": 4, "attention": 4}
DEFAULT_NUM_CODES = 16  # codes are sampled one after the other
DEFAULT_NUM_LARGE = 1  # of a --size, which takes as much longer as it is larger
DEFAULT_KEEP = 0.5
MAX_IMAGES = 10_000_000
MAX_SHEETS = 64  # of attention, below each other in one picture
GLOBAL = "global"  # the name of the last component
FLAG_OF_KIND = {
    "interpolation": "--interpolate or --animate",
    "psi": "--psi-sweep",
    "mix": "--mix",
    "noise": "--noise-variation",
    "attention": "--attention",
}
# Fields of families that sample from latents, or from codes; those that need a mapping network.
LATENT_FIELDS = "psi psi_sweep attention mix components layers space noise_variation interpolate"
CODE_FIELDS = "of_class segmentation depth complete keep size temperature top_k top_p"
FLAGS_OF = {"latents": set(LATENT_FIELDS.split()), "codes": set(CODE_FIELDS.split())}
OF_MAPPING = {"psi", "psi_sweep", "mix", "components", "space"}
# What a prior is conditioned on: in words, and the flag that names one.
CONDITIONS = {
    "none": ("no condition", ""),
    "class": ("classes", "--class 3"),
    "segmentation": ("label maps", "--segmentation map.png"),
    "depth": ("depth maps", "--depth map.png"),
}
Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """The command line of `gtool sample`; what follows from it is found on first use."""

    target: str | None = None  # a run, weights, a hub id; None for the newest run
    num: int | None = None
    seeds: str | None = None  # image numbers: 0,1,4-6
    seed: int = 0
    psi: float = 1.0
    psi_sweep: str | None = None  # 0,0.5,1
    mix: str | None = None  # A,B or SOURCES:TARGETS
    components: str | None = None  # 0-4,global
    layers: str | None = None  # 0-3
    interpolate: int | None = None  # steps from one image to the next
    animate: Path | None = None
    space: str = "z"  # of interpolation
    fps: float = 15.0
    noise_variation: bool = False
    attention: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    of_class: str | None = None  # a number or a name
    segmentation: Path | None = None
    depth: Path | None = None
    complete: Path | None = None
    keep: float | None = None  # share of --complete
    size: str | None = None  # WIDTHxHEIGHT
    out: str | None = None  # FILE.png, or a folder
    overwrite: bool = False
    columns: int | None = None
    scale: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    as_json: bool = False

    @cached_property
    def weights(self) -> Path:
        """The weights file; CheckpointError where there is none."""
        return find_weights(self.target)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What the weights file says of itself."""
        return read_meta(self.weights)

    @cached_property
    def samples_from(self) -> str:
        """`latents` or `codes`; CheckpointError for a model that makes no images, or that is none of gtool's."""
        model = str(self.meta.get("model"))
        if model not in registry.MODELS:
            raise CheckpointError(f"{self.weights}: weights of an unknown model {model!r}")
        row = registry.find_model(model)
        if row.samples_from is None:
            learner = next(iter(registry.models_that(learns_from=model)), None)
            newest = newest_run(learner) if learner else None
            raise CheckpointError(
                f"{self.weights}: weights of {model}, which makes no images by itself; use "
                f"`{row.next_command.format(path=self.weights)}`"
                + (f"; the newest {learner} is {newest.path}" if newest else "")
            )
        return row.samples_from

    @cached_property
    def kind(self) -> str:
        """What is made: sample (a grid or a folder), interpolation, psi, mix, noise or attention; one of them."""
        # An animation of codes shows how images are sampled, and no interpolation.
        animates_latents = self.animate is not None and self.samples_from == "latents"
        wanted = {
            "interpolation": self.interpolate is not None or animates_latents,
            "psi": self.psi_sweep is not None,
            "mix": self.mix is not None,
            "noise": self.noise_variation,
            "attention": self.attention,
        }
        kinds = [kind for kind, is_wanted in wanted.items() if is_wanted]
        if len(kinds) > 1:
            first, second = FLAG_OF_KIND[kinds[0]], FLAG_OF_KIND[kinds[1]]
            raise RecipeError(f"{first} and {second} exclude each other: each makes a picture of its own")
        return kinds[0] if kinds else "sample"

    @cached_property
    def numbers(self) -> Sequence[int]:
        """The numbers of the images that are made, or shown by their parts; RecipeError for contradictions."""
        if self.mix is not None:
            if self.seeds is not None or self.num is not None:
                raise RecipeError("--mix names its images itself; leave --seeds and --num out")
            sources, targets, is_square = parse_mix(self.mix)
            return sources if is_square else [*sources, *targets]
        if self.seeds is not None:
            if self.num is not None:
                raise RecipeError("--num and --seeds exclude each other; --num 8 is --seeds 0-7")
            return parse_numbers(self.seeds)
        if self.size is not None:
            return range(self.num or DEFAULT_NUM_LARGE)
        default = DEFAULT_NUM_CODES if self.samples_from == "codes" else DEFAULT_NUM[self.kind]
        return range(self.num or default)

    @property
    def numbers_as_text(self) -> str:
        return self.mix or self.seeds or f"0-{len(self.numbers) - 1}"

    # Where results go.

    @property
    def folder(self) -> Path | None:
        """The folder for separate files, None for a picture."""
        if self.out is None:
            return None
        path, separators = Path(self.out).expanduser(), tuple(filter(None, (os.sep, os.altsep)))
        is_folder = self.out.endswith(separators) or Path(self.out).is_dir() or path.suffix == ""
        return path if is_folder else None

    @property
    def picture(self) -> Path:
        """The picture: -o, or in the run's samples, or here when the weights stand alone."""
        if self.out is not None:
            return Path(self.out).expanduser()
        parts = {
            "psi": f"{self.psi:g}" if self.psi != 1 else self.psi_sweep,
            "components": self.components,
            "layers": self.layers,
            "space": "w" if self.space == "w" else None,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "class": self.of_class,
            "of": next((p.stem for p in (self.segmentation, self.depth, self.complete) if p), None),
            "keep": self.keep,
            "size": self.size,
        }
        how = "".join(f"-{key}{_in_name(str(value))}" for key, value in parts.items() if value is not None)
        name = f"{self.kind}-{self.weights.stem.removeprefix('weights-')}-seed{self.seed}"
        name += f"-{_in_name(self.numbers_as_text)}{how}.png"
        run = self.weights.parent
        return run / "samples" / name if (run / "recipe.toml").is_file() else Path(name)

    # Of priors.

    @cached_property
    def config(self) -> PriorPipelineConfig:
        """What a prior and its tokenizer are; CheckpointError where the file says it wrongly."""
        try:
            return validate(PriorPipelineConfig, self.meta.get("config") or {}, str(self.weights), "config.")
        except RecipeError as bad:
            raise CheckpointError(str(bad)) from None

    @property
    def condition(self) -> str:
        """What the prior is conditioned on: none, class, segmentation or depth."""
        return self.config.prior.condition

    @property
    def given_condition(self) -> Path | str | None:
        """The condition that the user names."""
        flags = {"class": self.of_class, "segmentation": self.segmentation, "depth": self.depth}
        return flags.get(self.condition)

    @property
    def without_condition(self) -> bool:
        """Whether a prior that was trained to do so samples without a condition: to complete an image, or larger."""
        asked = self.complete is not None or self.size is not None
        return asked and self.given_condition is None and drops_conditions(self.meta)

    @cached_property
    def recipe(self) -> Recipe | None:
        """The data and the seed that a prior was trained with, where its file says it."""
        return recipe_of_weights(self.meta, self.weights)

    @property
    def params(self) -> SamplingParams:
        """How codes are sampled."""
        codes = self.config.prior.codebook_size
        top_k = min(DEFAULT_TOP_K, codes) if self.top_k is None else self.top_k
        return SamplingParams(1.0 if self.temperature is None else self.temperature, top_k, self.top_p)

    @property
    def image_size(self) -> Size | None:
        """Height and width that are asked for, None where they follow from a map or the training."""
        return None if self.size is None else parse_size(self.size, self.config.tokenizer.down)

    @property
    def kept_share(self) -> float:
        """The share of the rows of --complete that is kept."""
        return DEFAULT_KEEP if self.keep is None else self.keep

    def check(self) -> None:
        """Raise RecipeError or CheckpointError for what is wrong, before torch is imported."""
        _check_values(self)
        _check_family(self)
        _check_combinations(self)
        if self.samples_from == "codes":
            _check_codes(self)
        if self.animate is not None:
            check_animation(self.animate)
        if self.folder is not None:
            check_folder(self.folder, self.overwrite)


# What is typed.


def parse_numbers(text: str, flag: str = "--seeds") -> list[int]:
    """Read numbers written as `0,1,4-6`; RecipeError for anything else, or more numbers than could be meant."""
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", part)
        if found is None:
            raise RecipeError(
                f"{flag} {text}: `{part.strip()}` is no number and no range; write it as 0,1,4-6"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first >= MAX_IMAGES:
            raise RecipeError(f"{flag} {text}: the range `{part.strip()}` is empty or too long")
        numbers += range(first, last + 1)
    return numbers


def parse_psis(text: str) -> list[float]:
    """Read the values of --psi-sweep, written as `0,0.3,1`; RecipeError for anything but numbers from -2 to 2."""
    values = []
    for part in text.split(","):
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not -2 <= value <= 2:
            raise RecipeError(
                f"--psi-sweep {text}: `{part.strip()}` is no number from -2 to 2; write it as 0,0.5,1"
            )
        values.append(value)
    return values


def parse_components(text: str | None, count: int) -> list[int]:
    """Read components written as `0-4,global`: places of `count` local ones and the global one after them.

    None is all of them. RecipeError for something else, or one that the model does not have.
    """
    if text is None:
        return list(range(count + 1))
    places: list[int] = []
    for part in text.split(","):
        if part.strip().lower() == GLOBAL:
            places.append(count)
            continue
        numbers = parse_numbers(part, "--components")
        if max(numbers) >= count:
            has = f"0 to {count - 1} and `{GLOBAL}`" if count else f"`{GLOBAL}` alone"
            raise RecipeError(f"--components {text}: no component {max(numbers)}; this model has {has}")
        places += numbers
    return sorted(set(places))


def parse_layers(text: str | None, count: int) -> list[int]:
    """Read layers written as `0-3`, of `count`; None is all. RecipeError for one that the model does not have."""
    layers = list(range(count)) if text is None else parse_numbers(text, "--layers")
    if max(layers) >= count:
        raise RecipeError(f"--layers {text}: no layer {max(layers)}; this model has 0 to {count - 1}")
    return sorted(set(layers))


class Mix(NamedTuple):
    """The images of --mix: those that give, those that take, and whether both are the same."""

    sources: list[int]
    targets: list[int]
    is_square: bool

    @property
    def is_pair(self) -> bool:
        """Whether two images swap parts."""
        return self.is_square and len(self.sources) == 2


def parse_mix(text: str) -> Mix:
    """Read --mix: `A,B`, more numbers for each with each, or `SOURCES:TARGETS`; RecipeError for anything else."""
    sources, colon, targets = text.partition(":")
    first = parse_numbers(sources, "--mix")
    if colon:
        return Mix(first, parse_numbers(targets, "--mix"), False)
    if len(set(first)) < 2:
        raise RecipeError(f"--mix {text}: mixing takes two images, as 3,8")
    return Mix(first, first, True)


def parse_size(text: str, down: int) -> Size:
    """Read --size, written as WIDTHxHEIGHT; returns height and width, which are multiples of `down`."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX]\s*(\d{1,6})\s*", text)
    if found is None:
        raise RecipeError(f"--size {text}: write WIDTHxHEIGHT in pixels, as 512x256")
    width, height = int(found[1]), int(found[2])
    if width % down or height % down:
        near = [max(1, round(side / down)) * down for side in (width, height)]
        raise RecipeError(
            f"--size {text}: both sides must be multiples of {down}, the pixels of a code, as {near[0]}x{near[1]}"
        )
    return height, width


def _in_name(text: str) -> str:
    return re.sub(r"\s*[,:/\\]\s*", "_", text.strip())[:60]


# What is refused: each raises RecipeError with one line about the first mistake.


def _check_values(o: SampleOptions) -> None:
    """Refuse flags that mean nothing to any model."""
    # What --animate alone means depends on the model.
    is_mix, is_interpolation = o.mix is not None, o.interpolate or o.animate
    if not -2 <= o.psi <= 2:
        raise RecipeError(f"--psi {o.psi}: a number from -2 to 2, where 1 changes nothing")
    if o.psi_sweep is not None and (parse_psis(o.psi_sweep) and o.psi != 1):
        raise RecipeError("--psi and --psi-sweep exclude each other")
    if o.components is not None and not (is_mix or is_interpolation):
        raise RecipeError(
            "--components are what --mix swaps or --interpolate changes: add --mix 3,8 or --interpolate 12"
        )
    if o.layers is not None and not is_mix:
        raise RecipeError("--layers says where --mix swaps components; add --mix 3,8")
    if o.space not in ("z", "w"):
        raise RecipeError(f"--space {o.space}: interpolation is in `z` or `w`")
    if o.space == "w" and not is_interpolation:
        raise RecipeError("--space says where images are interpolated; add --interpolate 12")
    if o.mix is not None and not parse_mix(o.mix).is_pair and o.components is None and o.layers is None:
        raise RecipeError("--mix of many images needs --components or --layers: what rows give to columns")


def _check_family(o: SampleOptions) -> None:
    """Refuse the flags of other families than the weights are of."""
    model, source = str(o.meta.get("model")), o.samples_from
    where = f"{o.weights}: {model}"
    hint = "; `gtool train prior` trains one of codes" if source == "latents" else ""
    for field in fields(o):
        name, flag = field.name, "--" + field.name.removeprefix("of_").replace("_", "-")
        if getattr(o, name) == field.default:
            continue
        if name in FLAGS_OF["codes" if source == "latents" else "latents"]:
            raise RecipeError(f"{flag}: {where} samples from {source}{hint}")
        if name in OF_MAPPING and not registry.find_model(model).truncation:
            raise RecipeError(f"{flag}: {where} has no latent components and no mapping network")
    if o.attention and not registry.find_model(model).attention_maps:
        raise RecipeError(f"--attention: {where} has no attention to latent components")


def _check_combinations(o: SampleOptions) -> None:
    """Refuse flags that mean nothing together, where the model is known."""
    kind, count, in_files, flag = o.kind, len(o.numbers), o.folder is not None, f"-o {o.out}"
    if kind == "interpolation" and count < 2:
        raise RecipeError("interpolation is between at least two images; give --seeds 0,1 or --num 2")
    if in_files and kind not in ("sample", "attention"):
        raise RecipeError(f"{flag}: {FLAG_OF_KIND[kind]} makes one .png file; name that, or leave -o out")
    if kind == "attention" and count > MAX_SHEETS and not in_files:
        raise RecipeError(f"--attention: {count:,} images are too many; write one for each with -o FOLDER/")
    if o.animate and in_files:
        raise RecipeError(f"{flag}: an animation is of the images of a grid; name a .png file")
    if o.columns and (kind != "sample" or in_files):
        raise RecipeError("--columns is for grids; an interpolation has a row for each image, a folder none")
    if o.scale and kind == "attention":
        raise RecipeError("--scale enlarges images; the sheets of --attention have a size of their own")
    if o.out is not None and not in_files and Path(o.out).suffix.lower() != ".png":
        raise RecipeError(f"{flag}: a grid ends in .png, a folder in /; an animation is named by --animate")


def _check_codes(o: SampleOptions) -> None:
    """Refuse what this prior cannot do."""
    if o.keep is not None and o.complete is None:
        raise RecipeError("--keep says how much of an image is kept; add --complete photo.png")
    if not 0 <= o.kept_share <= 1:
        raise RecipeError(f"--keep {o.keep:g}: a share of the height from 0 to 1")
    try:
        o.params.check(o.config.prior.codebook_size)
    except RecipeError as bad:
        raise RecipeError(f"--{bad}") from None
    needs, right = CONDITIONS[o.condition]
    where = f"{o.weights}: this prior is conditioned on {needs}"
    for kind, value in (("class", o.of_class), ("segmentation", o.segmentation), ("depth", o.depth)):
        if value is not None and kind != o.condition:
            raise RecipeError(f"--{kind}: {where}" + (f"; use {right}" if right else ""))
    if right and o.given_condition is None and not o.without_condition:
        for flag, asked in (("--complete", o.complete), ("--size", o.size)):
            if asked is not None:
                raise RecipeError(f"{flag}: {where}; add {right}")
    if o.image_size is not None:
        check_size(o.image_size, o.config, f"--size {o.size}")


def check_size(size: Size, config: PriorPipelineConfig, where: str) -> None:
    """Refuse a size smaller than that of the training, or a larger one in an order that cannot go on; names `where`."""
    side, order = config.resolution, config.prior.order
    if min(size) < side:
        raise RecipeError(f"{where}: smaller than the {side}x{side} pixels that this prior was trained on")
    if size != (side, side) and order != "raster":
        raise RecipeError(
            f"{where}: this prior predicts codes in the order `{order}`, which only fits {side}x{side} pixels; "
            "larger images need the order `raster`"
        )
