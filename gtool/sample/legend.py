"""`gtool sample --legend`: the classes that --class takes, or the labels of the maps that --segmentation takes."""

from collections.abc import Sequence
from typing import Any

from gtool import console
from gtool.data.label_colours import colours_of
from gtool.sample.checks import Sampling
from gtool.sample.conditions import class_names, label_names, num_labels


def show(options: Sampling) -> None:
    """Print one line for each class or label: number, name where it is known, and the colour in maps."""
    rows = legend_rows(options)
    if options.as_json:
        return console.result_json({"weights": str(options.weights), "legend": rows})
    width = max(len(row["name"] or "") for row in rows)
    for row in rows:
        console.result(f"{row['number']:4}  {row['name'] or '':{width}}  {row.get('colour', '')}".rstrip())


def legend_rows(options: Sampling) -> list[dict[str, Any]]:
    """Return `number`, `name` (None where the data set is not here or names nothing) and, of labels, `colour`."""
    if options.samples_from == "latents":
        return _rows(len(options.classes), options.classes)
    count, recipe = num_labels(options.config), options.recipe
    if options.condition == "class":
        return _rows(count, class_names(recipe))
    colours = colours_of(recipe.data.dataset if recipe else "", count)
    rows = _rows(count, label_names(recipe))
    return [row | {"colour": "#{:02x}{:02x}{:02x}".format(*colours[row["number"]])} for row in rows]


def _rows(count: int, names: Sequence[str] | None) -> list[dict[str, Any]]:
    known = dict(enumerate(names or ()))
    return [{"number": number, "name": known.get(number)} for number in range(count)]
