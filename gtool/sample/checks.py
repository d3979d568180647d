"""What a `gtool sample` command line asks for: every flag is read and checked here, without torch."""

import os
import re
from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

from gtool import console
from gtool.config.recipe import recipe_of_weights
from gtool.config.schema import Recipe
from gtool.errors import CheckpointError, DataError, RecipeError
from gtool.flags import flag_of
from gtool.io.files import digest_of
from gtool.io.outputs import check_animation, check_folder, is_folder, write_problem
from gtool.io.run_folder import find_weights, newest_run, read_meta
from gtool.models import registry
from gtool.models.description import read_description
from gtool.models.prior.config import (
    DEFAULT_TOP_K,
    ONE_ORDER,
    PriorPipelineConfig,
    SamplingParams,
    drops_conditions,
)
from gtool.reading import file_problem
from gtool.sample.classes import find_classes, num_in_rows
from gtool.sample.options import CODES, LATENTS, SampleOptions
from gtool.sample.parse import Size, check_size, parse_mix, parse_numbers, parse_psis, parse_size

DEFAULT_NUM = {"sample": 64, "interpolation": 8, "psi": 8, "noise": 4, "attention": 4, "projection": 1}
DEFAULT_NUM_CODES = 16  # codes are sampled one after the other
DEFAULT_NUM_LARGE = 1  # of a --size, which takes as much longer as it is larger
DEFAULT_KEEP = 0.5
DEFAULT_FPS = 15.0
MAX_SHEETS = 64  # of attention, below each other in one picture
FLAG_OF_KIND = {
    "interpolation": "--interpolate or --animate",
    "psi": "--psi-sweep",
    "mix": "--mix",
    "noise": "--noise-variation",
    "attention": "--attention",
    "projection": "--project",
}
LATENT = "latent"  # what a file of --project calls itself
# Fields that need a mapping network.
OF_MAPPING = {"psi", "psi_sweep", "mix", "components", "space"}
# What a prior is conditioned on: in words, and the flag that names one.
CONDITIONS = {
    "none": ("no condition", ""),
    "class": ("classes", "--class 3"),
    "segmentation": ("label maps", "--segmentation map.png"),
    "depth": ("depth maps", "--depth map.png"),
}


class Sampling(SampleOptions):
    """The options of `gtool sample`, and what follows from them, found on first use."""

    @cached_property
    def weights(self) -> Path:
        """The weights file; CheckpointError where there is none."""
        return find_weights(self.target)

    @cached_property
    def described(self) -> tuple[dict[str, Any], Any]:
        """What the weights file says of itself, and the config in it."""
        return read_description(self.weights)

    @property
    def meta(self) -> dict[str, Any]:
        """What the weights file says of itself."""
        return self.described[0]

    @cached_property
    def samples_from(self) -> str:
        """`latents` or `codes`; CheckpointError for a model that makes no images."""
        model = self.meta["model"]
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
        """What is made: sample (a grid or a folder), interpolation, psi, mix, noise, attention or projection; one."""
        # An animation of codes or of a projection shows how images are found, and no interpolation.
        is_search = self.samples_from == "codes" or self.project is not None
        animates_latents = self.animate is not None and not is_search
        wanted = {
            "interpolation": self.interpolate is not None or animates_latents,
            "psi": self.psi_sweep is not None,
            "mix": self.mix is not None,
            "noise": self.noise_variation,
            "attention": self.attention,
            "projection": self.project is not None,
        }
        kinds = [kind for kind, is_wanted in wanted.items() if is_wanted]
        if len(kinds) > 1:
            first, second = FLAG_OF_KIND[kinds[0]], FLAG_OF_KIND[kinds[1]]
            raise RecipeError(f"{first} and {second} exclude each other: each makes a picture of its own")
        return kinds[0] if kinds else "sample"

    @cached_property
    def numbers(self) -> Sequence[int]:
        """The numbers of the images that are made, or shown by their parts."""
        if self.mix is not None:
            sources, targets = parse_mix(self.mix)
            return [*sources, *(targets or [])]
        if self.seeds is not None:
            return parse_numbers(self.seeds)
        if self.latents is not None:
            return range(len(self.latent_files))
        default = DEFAULT_NUM_CODES if self.samples_from == "codes" else DEFAULT_NUM[self.kind]
        default = (self.kind == "sample" and num_in_rows(len(self.chosen))) or default
        return range(self.num or (default if self.size is None else DEFAULT_NUM_LARGE))

    @property
    def numbers_as_text(self) -> str:
        return self.mix or self.seeds or f"0-{len(self.numbers) - 1}"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of a conditional generator, none of another; not of a prior."""
        return self.described[1].classes if self.samples_from == "latents" else ()

    @cached_property
    def chosen(self) -> tuple[int, ...]:
        """The numbers of the classes that images of a conditional generator take in turn."""
        return find_classes(self.of_class, self.classes) if self.classes else ()

    @property
    def latent_files(self) -> list[Path]:
        """The files of --latents."""
        return [Path(part.strip()).expanduser() for part in (self.latents or "").split(",") if part.strip()]

    # Where results go.

    @property
    def folder(self) -> Path | None:
        """The folder for separate files, None for a picture."""
        return None if self.out is None or not is_folder(self.out) else Path(self.out).expanduser()

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
            "guidance": self.guidance,
            "steps": self.steps,
            "class": self.of_class,
            "of": next(
                (p.stem for p in (self.segmentation, self.depth, self.complete, self.project) if p), None
            ),
            "latents": "_".join(path.stem for path in self.latent_files) or None,
            "keep": self.keep,
            "mask": None if self.mask is None else self.mask.stem,
            "size": self.size,
        }
        how = "".join(f"-{key}{_in_name(str(value))}" for key, value in parts.items() if value is not None)
        name = f"{self.kind}-{self.weights.stem.removeprefix('weights-')}-seed{self.seed}"
        name += f"-{_in_name(self.numbers_as_text)}{how}.png"
        run = self.weights.parent
        return run / "samples" / name if (run / "recipe.toml").is_file() else Path(name)

    @property
    def projected(self) -> dict[str, Path]:
        """The files of --project: the latent, its picture beside the photo, the loss curve, and an animation."""
        out = None if self.out is None else Path(self.out).expanduser()
        latent = out or self.picture.with_suffix(".safetensors")
        files = {
            "latent": latent,
            "picture": latent.with_name(f"{latent.stem}-projected.png"),
            "curve": latent.with_name(f"{latent.stem}-loss.png"),
        }
        return files if self.animate is None else files | {"animation": self.animate}

    # Of priors.

    @property
    def config(self) -> PriorPipelineConfig:
        """What a prior and its tokenizer are."""
        return self.described[1]

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
        temperature = 1.0 if self.temperature is None else self.temperature
        guidance = 1.0 if self.guidance is None else self.guidance
        return SamplingParams(temperature, top_k, self.top_p, guidance, self.steps)

    @property
    def image_size(self) -> Size | None:
        """Height and width that are asked for, None where they follow from a map or the training."""
        return None if self.size is None else parse_size(self.size, self.config.tokenizer.down)

    @property
    def kept_share(self) -> float:
        """The share of the rows of --complete that is kept."""
        return DEFAULT_KEEP if self.keep is None else self.keep


def check(options: SampleOptions) -> Sampling:
    """Raise RecipeError or CheckpointError for what is wrong, before torch is imported."""
    o = Sampling(**vars(options))
    if o.legend:
        _check_legend(o)
        return o
    _check_values(o)
    _check_family(o)
    _check_combinations(o)
    if o.samples_from == "codes":
        _check_codes(o)
    if o.project is not None:
        _check_projection(o, o.project)
    for path in o.latent_files:
        _check_latent(o, path)
    if o.animate is not None:
        check_animation(o.animate)
    if o.folder is not None:
        check_folder(o.folder, o.overwrite)
    elif o.overwrite:
        console.notice("--overwrite has no effect: it is for -o FOLDER/; a picture is always replaced")
    if o.temperature == 0:
        filters = " and ".join(flag for flag, given in (("--top-k", o.top_k), ("--top-p", o.top_p)) if given)
        also = f"; {filters} without effect" if filters else ""
        console.notice(f"--temperature 0: images of one condition are the same, whatever the seed{also}")
    return o


def _in_name(text: str) -> str:
    return re.sub(r"\s*[,:/\\]\s*", "_", text.strip())[:60]


# What is refused: with one line about the first mistake.


def _refuse(*rules: tuple[Any, str]) -> None:
    """Raise RecipeError with the message of the first rule whose condition is true."""
    for is_wrong, message in rules:
        if is_wrong:
            raise RecipeError(message)


def _check_legend(o: Sampling) -> None:
    """Refuse weights without classes or labels, and flags of what is sampled."""
    own = ("target", "legend", "as_json", "device", "precision")
    others = [
        field for field in fields(o) if field.name not in own and getattr(o, field.name) != field.default
    ]
    _refuse((others, f"--legend samples nothing; leave {flag_of(others[0]) if others else ''} out"))
    has_legend = o.classes if o.samples_from == "latents" else o.condition in ("class", "segmentation")
    where = f"{o.weights}: {o.meta['model']}"
    _refuse((not has_legend, f"--legend: {where} was trained with neither classes nor label maps"))


def _check_values(o: Sampling) -> None:
    """Refuse what means nothing to any model."""
    is_interpolation = o.interpolate or o.animate  # what --animate alone means depends on the model
    psis, (sources, targets) = parse_psis(o.psi_sweep), parse_mix(o.mix)
    is_table = targets is not None or len(sources) > 2
    needs_parts = o.components is None and o.layers is None
    empty = next((flag_of(field) for field in fields(o) if getattr(o, field.name) == ""), "")
    _refuse(
        (empty, f"{empty}: is empty"),
        (o.out == "-", "-o -: nothing is written to stdout; name a file, or a folder as ./-/"),
        (not -2 <= o.psi <= 2, f"--psi {o.psi}: a number from -2 to 2, where 1 changes nothing"),
        (psis and o.psi != 1, "--psi and --psi-sweep exclude each other"),
        (o.components and not (o.mix or is_interpolation), "--components: add --mix 3,8 or --interpolate 12"),
        (o.layers and not o.mix, "--layers says where --mix swaps components; add --mix 3,8"),
        (o.space not in (None, "z", "w"), f"--space {o.space}: interpolation is in `z` or `w`"),
        (o.space and not is_interpolation, "--space is of an interpolation; add --interpolate 12"),
        (is_table and needs_parts, "--mix of many images needs --components or --layers"),
        (o.mix and (o.seeds or o.num), "--mix names its images itself; leave --seeds and --num out"),
        (o.seeds and o.num, "--num and --seeds exclude each other; --num 8 is --seeds 0-7"),
        (o.fps and not o.animate, "--fps is of an animation; add --animate FILE.webp"),
        (o.keep is not None and not o.complete, "--keep is a share of an image; add --complete photo.png"),
        (not 0 <= o.kept_share <= 1, f"--keep {o.keep}: a share of the height from 0 to 1"),
        (o.mask is not None and not o.complete, "--mask is of an image; add --complete photo.png"),
        (o.mask is not None and o.keep is not None, "--mask and --keep exclude each other"),
        (
            (o.project or o.latents) and (o.num or o.seeds),
            "--num and --seeds are for images of a seed, not for --project or --latents",
        ),
        (o.project and (o.latents or o.psi != 1), "--project goes with neither --latents nor --psi"),
        (o.latents and o.of_class, "--latents have the classes that they were found with; leave --class out"),
        (o.latents and o.space, "--latents are interpolated where they were found; leave --space out"),
        (o.latents and o.noise_variation, "--noise-variation draws noise, and --latents have their own"),
    )


def _check_family(o: Sampling) -> None:
    """Refuse the flags of other families than the weights are of."""
    model, source = str(o.meta.get("model")), o.samples_from
    row, where = registry.find_model(model), f"{o.weights}: {model}"
    hint = "; `gtool train prior` trains one of codes" if source == "latents" else ""
    foreign = CODES if source == "latents" else LATENTS  # panels of the help page
    for field in fields(o):
        name = field.name
        if getattr(o, name) == field.default:
            continue
        flag, panel = flag_of(field), field.metadata["typer"].rich_help_panel
        if panel == foreign or (name == "interpolate" and source == "codes"):
            raise RecipeError(f"{flag}: {where} samples from {source}{hint}")
        if name in OF_MAPPING and getattr(o, name) != "z" and not row.truncation:
            raise RecipeError(f"{flag}: {where} has no latent components and no mapping network")
    if o.of_class is not None and source == "latents":
        _refuse((not o.classes, f"--class: {where} was trained without classes (data.condition = 'class')"))
        find_classes(o.of_class, o.classes)
    if o.attention and not row.attention_maps:
        raise RecipeError(f"--attention: {where} has no attention to latent components")


def _check_combinations(o: Sampling) -> None:
    """Refuse flags that mean nothing together, where the model is known."""
    kind, count, in_files, flag = o.kind, len(o.numbers), o.folder is not None, f"-o {o.out}"
    one_file = f"{FLAG_OF_KIND.get(kind)} makes one .png file; name that, or leave -o out"
    is_picture = Path(o.out or "grid.png").suffix.lower() == ".png"
    _refuse(
        (kind == "interpolation" and count < 2, "interpolation is between at least two images; give --num 2"),
        (
            o.latents and max(o.numbers) >= len(o.latent_files),
            f"--mix {o.mix}: --latents names {len(o.latent_files)} files, numbered from 0",
        ),
        (
            kind == "projection" and Path(o.out or "latent.safetensors").suffix.lower() != ".safetensors",
            f"{flag}: --project writes a latent; name a .safetensors file",
        ),
        (in_files and kind not in ("sample", "attention"), f"{flag}: {one_file}"),
        (
            kind == "attention" and count > MAX_SHEETS and not in_files,
            f"--attention: {count:,} images are too many; write one for each with -o FOLDER/",
        ),
        (o.animate and in_files, f"{flag}: an animation is of the images of a grid; name a .png file"),
        (o.columns and (kind != "sample" or in_files), "--columns is for grids of images"),
        (o.scale and kind == "attention", "--scale is of images; sheets of --attention have their own size"),
        (
            not in_files and not is_picture and kind != "projection",
            f"{flag}: a grid ends in .png, a folder in /; --animate names others",
        ),
    )


def _check_codes(o: Sampling) -> None:
    """Refuse what this prior cannot do."""
    try:
        o.params.check(o.config.prior)
    except RecipeError as bad:
        raise RecipeError(f"--{bad}") from None
    needs, right = CONDITIONS[o.condition]
    where = f"{o.weights}: this prior is conditioned on {needs}"
    for kind, value in (("class", o.of_class), ("segmentation", o.segmentation), ("depth", o.depth)):
        if value is not None and kind != o.condition:
            raise RecipeError(f"--{kind}: {where}" + (f"; use {right}" if right else ""))
    if right and o.given_condition is None and not o.without_condition:
        _refuse((o.complete, f"--complete: {where}; add {right}"), (o.size, f"--size: {where}; add {right}"))
    _refuse(
        (
            o.mask is not None and o.config.prior.orders == "one",
            f"--mask: {o.weights}: {ONE_ORDER} fills any region",
        ),
        (
            o.guidance is not None and not drops_conditions(o.meta),
            f"--guidance: {o.weights}: was never trained without its condition; one trained with "
            "`--set prior.condition_dropout=0.1` can be guided",
        ),
        (
            o.guidance is not None and o.without_condition,
            f"--guidance: there is no condition to follow; add {right}",
        ),
    )
    if o.image_size is not None:
        check_size(o.image_size, o.config, f"--size {o.size}")


def _check_projection(o: Sampling, photo: Path) -> None:
    """Refuse a photo that is not there, and files that cannot be written or that would replace something else."""
    if problem := file_problem(photo):
        raise DataError(f"--project {photo}: {problem}")
    for path in o.projected.values():
        if os.path.realpath(path) == os.path.realpath(photo):
            raise CheckpointError(f"{path}: is the photo itself; choose another name")
        if problem := write_problem(path):
            raise CheckpointError(f"{path}: {problem}")
    latent = o.projected["latent"]
    if latent.exists() and _model_of(latent) != LATENT:
        raise CheckpointError(f"{latent}: exists and holds no latent; choose another name")


def _check_latent(o: Sampling, path: Path) -> None:
    """Refuse a file that is no latent of these weights."""
    if problem := file_problem(path):
        raise CheckpointError(f"--latents {path}: {problem}")
    if _model_of(path) != LATENT:
        raise CheckpointError(
            f"--latents {path}: holds no latent; `--project photo.png -o {path.name}` makes one"
        )
    meta = read_meta(path)
    if meta.get("weights_sha256") != digest_of(o.weights):
        raise CheckpointError(
            f"--latents {path}: is of other weights ({meta.get('weights')}) than {o.weights}; project its photo again"
        )


def _model_of(path: Path) -> Any:
    try:
        return read_meta(path).get("model")
    except CheckpointError:
        return None
