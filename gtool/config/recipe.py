"""Recipes: TOML files that say everything about a run.

Order of authority: model defaults < recipe file < `--set a.b=value` < dedicated flags. What a recipe can say is in
`gtool.config.schema`.
"""

import copy
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from gtool.config.schema import Recipe
from gtool.errors import CheckpointError, RecipeError, did_you_mean
from gtool.reading import check_plain, reason

SCHEMA = 1
# Reading a file takes time that grows with the square of its size and of the depth of its keys.
MOST_BYTES = 100_000
MOST_TABLES = 16  # within each other
_KEY = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_TOO_DEEP = re.compile(rf"(?<![\w-])(?:{_KEY}[ \t]*+\.[ \t]*+){{{MOST_TABLES}}}")

SectionType = TypeVar("SectionType", bound=BaseModel)
NOTHING: Mapping[str, Any] = MappingProxyType({})
Typed = Mapping[str, str]  # key -> how the user typed it, as `--kimg` or `--set train.kimg=2`


def validate(
    section: type[SectionType],
    values: Mapping[str, Any],
    where: str,
    prefix: str = "",
    typed: Typed = NOTHING,
) -> SectionType:
    """Build a section from plain values.

    Args:
        section: the pydantic class.
        values: what a recipe or a checkpoint says.
        where: the file to name in an error.
        prefix: the table that the values came from, as in `model.`.
        typed: what came from the command line, to be named in place of the file.

    Raises:
        RecipeError: one line naming the key, the value and what would be right.
    """
    try:
        return section(**values)
    except ValidationError as invalid:
        key = (prefix + ".".join(map(str, invalid.errors()[0]["loc"]))).rstrip(".")
        # A key of its own, a table above it, or, where values do not fit together, one below it.
        near = [
            name for name in typed if f"{key}.".startswith(f"{name}.") or f"{name}.".startswith(f"{key}.")
        ]
        by = typed[near[-1]] if near else where
        raise RecipeError(f"{by}: {_explain(section, invalid, prefix)}") from None
    except Exception as bad:  # of a check that met a value of another type than it counted on
        raise RecipeError(f"{where}: {reason(bad)}") from None


def recipe_of_weights(meta: Mapping[str, Any], path: Path) -> Recipe | None:
    """Return the data and the seed that weights were trained with, where their file says it; nothing else of it.

    So weights of a gtool whose recipes said other things can still be used.

    Raises:
        CheckpointError: data that make no sense.
    """
    table = meta.get("recipe")
    if not isinstance(table, dict) or not isinstance(table.get("data"), dict):
        return None
    train = table.get("train")
    seed = {"seed": train["seed"]} if isinstance(train, dict) and "seed" in train else {}
    values = {"model_name": str(meta.get("model")), "data": table["data"], "train": seed}
    try:
        return validate(Recipe, values, str(path), "recipe.")
    except RecipeError as bad:
        raise CheckpointError(str(bad)) from None


def require_recipe(meta: Mapping[str, Any], path: Path, and_so: str) -> Recipe:
    """Return the recipe of weights as `recipe_of_weights`; CheckpointError, which ends in a way out, without one."""
    recipe = recipe_of_weights(meta, path)
    if recipe is None:
        raise CheckpointError(f"{path}: does not say what it was trained on{and_so}")
    return recipe


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


def first_reason(bad: Exception) -> str:
    """Return in one line why values were refused."""
    if not isinstance(bad, ValidationError):
        return str(bad)
    return bad.errors()[0]["msg"].removeprefix("Value error, ")


def _known_keys(section: Any, path: list[str]) -> list[str]:
    """Return the keys of the table that a path of keys leads to."""
    for part in path:
        field = getattr(section, "model_fields", {}).get(part)
        annotations = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next((kind for kind in annotations if hasattr(kind, "model_fields")), section)
    return [field.alias or name for name, field in getattr(section, "model_fields", {}).items()]


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
    if path.is_file():
        raise RecipeError(f"recipe {name}: the name of a recipe file ends in .toml")
    known = [entry.removeprefix(f"{model}/") for entry in shipped_recipes(model)]
    raise RecipeError(f"recipe `{name}` does not exist{did_you_mean(name, known)}")


def read_table(path: Path) -> dict[str, Any]:
    """Read a recipe file into plain values.

    Raises:
        RecipeError: unreadable, not TOML, or of another schema version.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(MOST_BYTES + 1).decode("utf-8-sig")  # some editors mark UTF-8
        if len(text) > MOST_BYTES:
            raise RecipeError(f"recipe {path}: larger than {MOST_BYTES:,} bytes; no recipe is")
        values = _parse(text)
    except (OSError, UnicodeDecodeError) as bad:
        raise RecipeError(f"recipe {path}: cannot be read: {bad}") from None
    except ValueError as bad:
        raise RecipeError(f"recipe {path}: not valid TOML: {bad}") from None
    if values.get("schema") != SCHEMA:
        raise RecipeError(f"recipe {path}: `schema = {SCHEMA}` expected, found {values.get('schema')!r}")
    return values


def _parse(text: str) -> dict[str, Any]:
    """Read TOML; ValueError: it is none, or nested more deeply than any recipe."""
    if _TOO_DEEP.search(text):
        raise ValueError(f"a key of more than {MOST_TABLES} parts")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_plain(values)
    return values


def parse_setting(text: str) -> tuple[list[str], Any]:
    """Split `a.b=value`; the value is read as TOML, or taken as text when it is not valid TOML.

    Raises:
        RecipeError: no key or no `=`.
    """
    key, equals, raw = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path) or len(path) > MOST_TABLES:
        raise RecipeError(f"--set {text[:200]}: expected the form section.key=value")
    try:
        return path, _parse(f"value = {raw}")["value"]
    except ValueError:
        return path, raw.strip()


def overlay(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a nested value in place, making tables on the way; list items are addressed by number.

    Raises:
        RecipeError: the path runs through something that is not a table.
    """
    here: Any = values
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        key: Any = part
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise RecipeError(f"`{'.'.join(path)}`: `{part}` is not an item of a list of {len(here)}")
            key = int(part)
        elif not isinstance(here, dict):
            raise RecipeError(f"`{'.'.join(path)}`: `{'.'.join(path[:depth])}` is not a table")
        if last:
            here[key] = value
        else:
            here = here[key] if isinstance(here, list) else here.setdefault(key, {})


def make_recipe(
    values: Mapping[str, Any],
    settings: Collection[str] = (),
    *,
    where: str,
    flags: Mapping[str, Any] = NOTHING,
) -> Recipe:
    """Validate plain values with `--set` settings on top, and on top of those the dedicated flags, by their keys.

    Raises:
        RecipeError: unknown key, wrong type, impossible combination; names what was typed, or `where`.
    """
    merged = copy.deepcopy(dict(values))
    for setting in settings:
        try:
            overlay(merged, *parse_setting(setting))
        except RecipeError as bad:
            raise RecipeError(f"--set {setting}: {bad}" if str(bad).startswith("`") else str(bad)) from None
    for key, value in flags.items():
        overlay(merged, key.split("."), value)
    return validate(Recipe, merged, where, typed=as_typed(settings, flags))


def as_typed(settings: Iterable[str], flags: Iterable[str]) -> dict[str, str]:
    """Return the keys that come from the command line, with the words of it that errors name."""
    typed = {".".join(parse_setting(setting)[0]): f"--set {setting}" for setting in settings}
    return typed | {key: f"--{key.rpartition('.')[2].replace('_', '-')}" for key in flags}


def to_toml(recipe: Recipe, comment: str = "", leave_out: Collection[str] = ()) -> str:
    """Write a recipe as TOML that `read_table` reads back to the same recipe.

    Args:
        recipe: keys without a value are left out.
        comment: lines of text to begin with.
        leave_out: sections and keys that mean nothing for the recipe's model.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    return "\n".join([*lines, table_to_toml(recipe.model_dump(by_alias=True, exclude_none=True), leave_out)])


def table_to_toml(values: dict[str, Any], leave_out: Collection[str] = ()) -> str:
    """Write the values of a recipe as TOML, without some of its sections and keys, which `values` loses."""
    for place in leave_out:
        section, _, key = place.partition(".")
        if key:
            values.get(section, {}).pop(key, None)
        else:
            values.pop(section, None)
    return tomli_w.dumps(values)
