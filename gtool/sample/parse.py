"""Values of options that are more than one word: numbers, ranges, components, layers, sizes."""

import math
import re

from gtool.errors import RecipeError
from gtool.models.prior.config import PriorPipelineConfig

MAX_IMAGES = 10_000_000
GLOBAL = "global"  # the name of the last component
Size = tuple[int, int]  # height and width in pixels


def parse_numbers(text: str, flag: str = "--seeds") -> list[int]:
    """Read numbers written as `0,1,4-6`; RecipeError for anything else, or more numbers than could be meant."""
    numbers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", part)
        if found is None:
            raise RecipeError(f"{flag} {text}: `{part.strip()}` is no number or range; write it as 0,1,4-6")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first >= MAX_IMAGES:
            raise RecipeError(f"{flag} {text}: the range `{part.strip()}` is empty or too long")
        numbers += range(first, last + 1)
    return numbers


def parse_psis(text: str | None) -> list[float]:
    """Read the values of --psi-sweep, written as `0,0.3,1`; RecipeError for anything but numbers from -2 to 2."""
    try:
        psis = [float(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        psis = [math.nan]
    if not all(-2 <= psi <= 2 for psi in psis):
        raise RecipeError(f"--psi-sweep {text}: write numbers from -2 to 2, as 0,0.5,1")
    return psis


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


def parse_mix(text: str | None) -> tuple[list[int], list[int] | None]:
    """Read --mix: the images that give and those that take, None where each mixes with each; else RecipeError."""
    if text is None:
        return [], None
    sources, colon, targets = text.partition(":")
    first = parse_numbers(sources, "--mix")
    if not colon and len(set(first)) < 2:
        raise RecipeError(f"--mix {text}: mixing takes two images, as 3,8")
    return first, parse_numbers(targets, "--mix") if colon else None


def parse_size(text: str, down: int) -> Size:
    """Read --size, written as WIDTHxHEIGHT; returns height and width, which are multiples of `down`."""
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX]\s*(\d{1,6})\s*", text)
    if found is None:
        raise RecipeError(f"--size {text}: write WIDTHxHEIGHT in pixels, as 512x256")
    width, height = int(found[1]), int(found[2])
    if width % down or height % down:
        near = "x".join(str(max(1, round(side / down)) * down) for side in (width, height))
        raise RecipeError(f"--size {text}: sides are multiples of {down}, the pixels of a code, as {near}")
    return height, width


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
