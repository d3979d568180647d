"""From the options that a dataclass declares to a command of Typer, and how help shows them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.core import TyperCommand, TyperGroup

from gtool.cli.completion import Values, complete
from gtool.flags import as_json


def command(
    options: type, carry_out: Callable[[Any], None], values: Mapping[str, Values]
) -> Callable[..., None]:
    """Return a function that Typer makes a command of: a keyword for each option of a class; see gtool/flags.py.

    values: what a shell offers for the fields that have a few.
    """
    parameters, hints = list[inspect.Parameter](), get_type_hints(options)
    each: dict[str, tuple[str, str]] = {}  # keyword -> the field that holds its name, and this name
    for field in fields(options):
        for name, info in field.metadata.get("flags", {}).items():
            each[f"{field.name}_{name}"] = field.name, name
            parameters.append(_parameter(f"{field.name}_{name}", bool, info, default=False))
        if info := field.metadata.get("typer"):
            if field.name in values:
                info.autocompletion = complete(values[field.name])
            parameters.append(_parameter(field.name, hints[field.name], info, field.default))

    def call(**typed: Any) -> None:
        given = {
            name: _as_field(typed[name]) for name in typed if typed[name] is not None and name not in each
        }
        for keyword, (field, name) in each.items():
            given[field] = (*given.get(field, ()), *([name] if typed[keyword] else []))
        carry_out(options(**given))

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__doc__ = options.__doc__
    return call


def _as_field(value: Any) -> Any:
    """Return a value that was typed as its field has it: in a tuple, and a path without `~`."""
    if isinstance(value, list):
        return tuple(map(_as_field, value))
    return value.expanduser() if isinstance(value, Path) else value


def _parameter(name: str, hint: Any, info: Any, default: Any) -> inspect.Parameter:
    """Return a keyword as Typer wants it: lists for tuples, and flags that have no opposite."""
    if get_origin(hint) is tuple:
        hint, default = list[get_args(hint)[0]], None  # type: ignore[misc]
    if hint is bool and not info.param_decls:
        info.param_decls = (f"--{name.replace('_', '-')}",)
    default = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, info]
    )


Json = Annotated[bool, as_json().metadata["typer"]]


class _Help:
    """Help that names kinds of values by a word, and flags by nothing: Typer shows `<bool>` and `<list[str]>`."""

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        for param in self.get_params(ctx):
            if param.param_type_name == "argument":
                param.display_type = lambda ctx: None  # its help says it
            elif getattr(param, "is_flag", False):
                param.metavar = ""
            elif param.metavar is None and (kind := getattr(param, "type_descriptor", None)):
                param.metavar = {int: "N", float: "X", Path: "PATH"}.get(kind.annotation, "TEXT")
        super().format_help(ctx, formatter)  # type: ignore[misc]


class Command(_Help, TyperCommand):
    """A verb."""


class Group(_Help, TyperGroup):
    """A verb with verbs of its own."""
