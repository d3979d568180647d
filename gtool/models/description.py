"""What a weights file says of itself, checked before anything is made of it; imports no torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from gtool.config.recipe import validate
from gtool.errors import CheckpointError, RecipeError
from gtool.io.run_folder import read_meta
from gtool.models import registry
from gtool.reading import reading

_OPEN = ConfigDict(strict=True, extra="allow")


class _Data(TypedDict, total=False):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    dataset: str
    crop: Literal["center", "fit"]


class _Train(TypedDict, total=False):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    seed: Annotated[int, Field(ge=0)]


class _Prior(TypedDict, total=False):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    condition_dropout: float


class _Recipe(TypedDict, total=False):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    data: _Data
    train: _Train
    prior: _Prior


class _Description(TypedDict, total=False):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    nimg: Annotated[int, Field(ge=0)]
    recipe: _Recipe
    source: str


_SCHEMA = TypeAdapter(_Description)


def read_description(path: Path) -> tuple[dict[str, Any], Any]:
    """Return the metadata of a weights file of gtool, its `config` with all values, and the config itself.

    What else a recipe in it says is not looked at: it may be one of an earlier gtool.

    Raises:
        CheckpointError: no weights of gtool, of a model that does not exist, or with values of other types.
    """
    meta = read_meta(path)
    model = meta.get("model")
    if not isinstance(model, str) or model not in registry.MODELS:
        raise CheckpointError(f"{path}: weights of an unknown model {str(model)[:40]!r}")
    with reading(str(path), "description of weights", CheckpointError):
        values: dict[str, Any] = {**_SCHEMA.validate_python(meta)}
        if not isinstance(meta.get("config"), dict):
            raise ValueError("it lacks a config")
        try:
            config = validate(registry.config_class(model), meta["config"], str(path), "config.")
        except RecipeError as bad:
            raise CheckpointError(str(bad)) from None
        return values | {"config": config.model_dump(mode="json")}, config
