"""Classes as they are typed: by their names, or as numbers."""

from collections.abc import Sequence

from gtool.errors import RecipeError

MOST_SHOWN = 20
ROW, MOST_ROWS = 8, 16  # images of a class in a grid of several classes, and of how many


def find_class(text: str, names: Sequence[str] | None, count: int) -> int:
    """Return the number of a class of `count`, by its name first; RecipeError says which classes there are."""
    if names and text in names:
        return names.index(text)
    are_numbers = bool(names) and all(name.isdecimal() for name in names or ())
    # Not ², which is a digit and no number.
    if text.strip().isdecimal() and not are_numbers and int(text) < count:
        return int(text)
    if not names:
        there = f"this set names no classes; give a number from 0 to {count - 1}"
    else:
        there = "the classes are " + ", ".join(names[:MOST_SHOWN]) + (", ..." if count > MOST_SHOWN else "")
    raise RecipeError(f"--class {text}: no such class; {there}")


def num_in_rows(classes: int) -> int | None:
    """Return how many images a grid has that shows so many classes, a row for each; None where it does not."""
    return ROW * classes if 1 < classes <= MOST_ROWS else None


def find_classes(text: str | None, names: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of classes written with commas between them, of all for None; RecipeError as `find_class`."""
    if text is None:
        return tuple(range(len(names)))
    parts = [text] if text in names else [part.strip() for part in text.split(",")]
    return tuple(find_class(part, names, len(names)) for part in parts)
