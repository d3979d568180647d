"""What `gtool sample` was asked for: read, checked and named without torch."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gtool import __version__
from gtool.errors import RecipeError

DEFAULT_NUM = {"sample": 64, "walk": 8, "psi": 8, "noise": 4, "attention": 4}
DEFAULT_NUM_COMPOSED = 16  # codes are drawn one after the other
DEFAULT_NUM_LARGE = 1  # of a --size, which takes as much longer as it is larger
MAX_IMAGES = 10_000_000
MAX_SHEETS = 64  # of attention, below each other in one picture
GLOBAL = "global"  # the name of the last component
FLAG_OF_KIND = {
    "walk": "--interpolate or --animate",
    "psi": "--psi-sweep",
    "mix": "--mix",
    "noise": "--noise-variation",
    "attention": "--attention",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line of `gtool sample`, as typed."""

    target: str | None = None  # a run, weights, a hub id; None for the newest run
    num: int | None = None
    seeds: str | None = None  # image numbers: 0,1,4-6
    seed: int = 0
    psi: float = 1.0
    psi_sweep: str | None = None  # 0,0.5,1
    mix: str | None = None  # A,B or ROWS:COLUMNS
    components: str | None = None  # 0-4,global
    layers: str | None = None  # 0-3
    interpolate: int | None = None  # steps from one image of a walk to the next
    animate: Path | None = None
    space: str = "z"  # of a walk
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
    model: str | None = None  # that the weights are of; filled in when they are found

    @property
    def composes(self) -> bool:
        """Whether images are composed of codes, so that an animation shows that and no walk."""
        return self.model == "prior"

    @cached_property
    def kind(self) -> str:
        """What is made: sample (a grid or a folder), walk, psi, mix, noise or attention.

        Raises:
            RecipeError: several of them at once.
        """
        wanted = {
            "walk": self.interpolate is not None or (self.animate is not None and not self.composes),
            "psi": self.psi_sweep is not None,
            "mix": self.mix is not None,
            "noise": self.noise_variation,
            "attention": self.attention,
        }
        kinds = [kind for kind, is_wanted in wanted.items() if is_wanted]
        if len(kinds) > 1:
            raise RecipeError(
                f"{FLAG_OF_KIND[kinds[0]]} and {FLAG_OF_KIND[kinds[1]]} exclude each other: "
                "each makes a picture of its own"
            )
        return kinds[0] if kinds else "sample"

    @property
    def is_walk(self) -> bool:
        return self.kind == "walk"

    @property
    def into_folder(self) -> bool:
        return self.out is not None and _is_folder(self.out)


def _is_folder(out: str) -> bool:
    separators = tuple(filter(None, (os.sep, os.altsep)))
    return out.endswith(separators) or Path(out).is_dir() or Path(out).suffix == ""


# Numbers.


def parse_numbers(text: str, flag: str = "--seeds") -> list[int]:
    """Read numbers written as `0,1,4-6`, of images unless a flag says otherwise.

    Raises:
        RecipeError: anything else, or more numbers than could be meant.
    """
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
    """Read the values of --psi-sweep, written as `0,0.3,1`.

    Raises:
        RecipeError: not numbers from -2 to 2.
    """
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


def parse_components(text: str, count: int) -> list[int]:
    """Read components written as `0-4,global`: places of `count` local ones and the global one after them.

    Raises:
        RecipeError: something else, or one that the model does not have.
    """
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


def parse_layers(text: str, count: int) -> list[int]:
    """Read layers written as `0-3`, of `count`.

    Raises:
        RecipeError: something else, or one that the model does not have.
    """
    layers = parse_numbers(text, "--layers")
    if max(layers) >= count:
        raise RecipeError(f"--layers {text}: no layer {max(layers)}; this model has 0 to {count - 1}")
    return sorted(set(layers))


@dataclass(frozen=True)
class Mix:
    """The images of --mix."""

    sources: list[int]  # give
    targets: list[int]  # take
    is_pair: bool  # A,B: each takes from the other


def parse_mix(text: str) -> Mix:
    """Read --mix: `A,B`, more numbers for each with each, or `SOURCES:TARGETS`.

    Raises:
        RecipeError: something else, or fewer than two images.
    """
    sources, colon, targets = text.partition(":")
    first = parse_numbers(sources, "--mix")
    if colon:
        return Mix(first, parse_numbers(targets, "--mix"), False)
    if len(set(first)) < 2:
        raise RecipeError(f"--mix {text}: mixing takes two images, as 3,8")
    return Mix(first, first, len(first) == 2)


def image_numbers(request: Request) -> Sequence[int]:
    """Return the numbers of the images that are made, or shown by their parts.

    Raises:
        RecipeError: flags that contradict each other, or no numbers.
    """
    if request.mix is not None:
        if request.seeds is not None or request.num is not None:
            raise RecipeError("--mix names its images itself; leave --seeds and --num out")
        mix = parse_mix(request.mix)
        return mix.sources if mix.sources == mix.targets else [*mix.sources, *mix.targets]
    if request.seeds is not None and request.num is not None:
        raise RecipeError("--num and --seeds exclude each other; --num 8 is --seeds 0-7")
    if request.seeds is not None:
        return parse_numbers(request.seeds)
    default = DEFAULT_NUM_COMPOSED if request.composes else DEFAULT_NUM[request.kind]
    if request.size is not None:
        default = DEFAULT_NUM_LARGE
    return range(request.num or default)


# What means nothing.


def refuse_mixtures(request: Request, numbers: Sequence[int]) -> None:
    """Refuse flags that mean nothing together, where the model is known.

    Raises:
        RecipeError: one line about the first of them.
    """
    out, kind = request.out, request.kind
    if request.is_walk and len(numbers) < 2:
        raise RecipeError("a walk goes between at least two images; give --seeds 0,1 or --num 2")
    if request.is_walk and request.into_folder:
        raise RecipeError(f"-o {out}: the sheet of a walk is one .png file; name that, or leave -o out")
    if request.into_folder and kind not in ("sample", "attention"):
        raise RecipeError(f"-o {out}: {FLAG_OF_KIND[kind]} makes one .png file; name that, or leave -o out")
    if kind == "attention" and len(numbers) > MAX_SHEETS and not request.into_folder:
        raise RecipeError(
            f"--attention: {len(numbers):,} images are too many for one picture; write one for each with -o FOLDER/"
        )
    if request.composes and request.animate and request.into_folder:
        raise RecipeError(
            f"-o {out}: an animation is of the pictures of a grid; name a .png file, or leave -o out"
        )
    if request.columns and (kind != "sample" or request.into_folder):
        raise RecipeError("--columns is for grids; a walk has one row for each image, a folder has none")
    if request.scale and kind == "attention":
        raise RecipeError("--scale enlarges images; the sheets of --attention have a size of their own")
    if out is not None and not request.into_folder and Path(out).suffix.lower() != ".png":
        raise RecipeError(f"-o {out}: a grid ends in .png, a folder in /; an animation is named by --animate")


def refuse_strays(request: Request) -> None:
    """Refuse flags that mean nothing to any model.

    Raises:
        RecipeError: one line about the first of them.
    """
    kind = request.kind
    if not -2 <= request.psi <= 2:
        raise RecipeError(f"--psi {request.psi}: a number from -2 to 2, where 1 changes nothing")
    if kind == "psi" and request.psi != 1:
        raise RecipeError("--psi and --psi-sweep exclude each other")
    if request.components is not None and kind not in ("mix", "walk"):
        raise RecipeError(
            "--components says what --mix swaps or a walk moves; add --mix 3,8 or --interpolate 12"
        )
    if request.layers is not None and kind != "mix":
        raise RecipeError("--layers says where --mix swaps components; add --mix 3,8")
    if request.space not in ("z", "w"):
        raise RecipeError(f"--space {request.space}: a walk goes through `z` or `w`")
    if request.space == "w" and kind != "walk":
        raise RecipeError("--space says where a walk goes; add --interpolate 12")
    if kind == "psi":
        parse_psis(request.psi_sweep or "")
    says_what = request.components is not None or request.layers is not None
    if kind == "mix" and not parse_mix(request.mix or "").is_pair and not says_what:
        raise RecipeError("--mix of many images needs --components or --layers: what rows give to columns")


OF_GENERATORS = (
    "psi",
    "psi_sweep",
    "attention",
    "mix",
    "components",
    "layers",
    "space",
    "noise_variation",
    "interpolate",
)
OF_PRIORS = (
    "of_class",
    "segmentation",
    "depth",
    "complete",
    "keep",
    "size",
    "temperature",
    "top_k",
    "top_p",
)


def refuse_foreign(request: Request, weights: Path) -> None:
    """Refuse the flags of other kinds of models than the weights are of.

    Raises:
        RecipeError: one line about the first of them.
    """
    nothing = Request()
    for name in OF_GENERATORS if request.composes else OF_PRIORS:
        if getattr(request, name) != getattr(nothing, name):
            flag = "--" + name.removeprefix("of_").replace("_", "-")
            why = (
                "composes pictures of codes, and has no latents"
                if request.composes
                else "makes images of latents"
            )
            hint = "" if request.composes else "; a prior composes them of codes: `gtool train prior`"
            raise RecipeError(f"{flag}: {weights}: {request.model} {why}{hint}")


# Names.


@dataclass(frozen=True)
class Job:
    """A request with its image numbers and its weights file."""

    request: Request
    numbers: Sequence[int]
    weights: Path

    @property
    def folder(self) -> Path | None:
        out = self.request.out
        return Path(out).expanduser() if out is not None and self.request.into_folder else None

    @property
    def picture(self) -> Path:
        """The picture: -o, or in the run's samples, or here when the weights stand alone."""
        if self.request.out is not None:
            return Path(self.request.out).expanduser()
        name = f"{self.request.kind}-{self.weights.stem.removeprefix('weights-')}-seed{self.request.seed}"
        name += f"-{_in_name(self.numbers_as_text)}{self._how_in_name}.png"
        run = self.weights.parent
        return run / "samples" / name if (run / "recipe.toml").is_file() else Path(name)

    @property
    def numbers_as_text(self) -> str:
        return self.request.mix or self.request.seeds or f"0-{len(self.numbers) - 1}"

    def text(self, meta: Mapping[str, Any], numbers: str, **more: str) -> dict[str, str]:
        """Return text chunks that say how a picture was made, so that it can be made again."""
        return {
            "Software": f"gtool {__version__}",
            "model": str(meta["model"]),
            "weights": f"{self.weights.resolve().parent.name}/{self.weights.name}",
            "kimg": kimg_of(meta),
            "seed": str(self.request.seed),
            "index": numbers,
            **more,
        }

    @property
    def _how_in_name(self) -> str:
        request = self.request
        parts = {
            "psi": f"{request.psi:g}" if request.psi != 1 else request.psi_sweep,
            "components": request.components,
            "layers": request.layers,
            "space": "w" if request.space == "w" else None,
            "temperature": request.temperature,
            "top_k": request.top_k,
            "top_p": request.top_p,
            "class": request.of_class,
            "of": next((p.stem for p in (request.segmentation, request.depth, request.complete) if p), None),
            "keep": request.keep,
            "size": request.size,
        }
        return "".join(f"-{key}{_in_name(str(value))}" for key, value in parts.items() if value is not None)


def kimg_of(meta: Mapping[str, Any]) -> str:
    """Return how many thousand images weights were trained with."""
    return f"{meta.get('nimg', 0) / 1000:g}"


def _in_name(text: str) -> str:
    return re.sub(r"\s*[,:/\\]\s*", "_", text.strip())[:60]
