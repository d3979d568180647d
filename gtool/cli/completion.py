"""What a shell offers where the value of an option is one of a few: by verb and field of its options."""

from collections.abc import Callable, Iterable

from gtool.export.options import FORMATS, HUB
from gtool.io.run_folder import GENERATORS, RUNS
from gtool.metrics.registry import METRICS
from gtool.models.registry import MODELS
from gtool.paint.options import STYLES
from gtool.runtime import PRECISIONS
from gtool.strokes.settings import BRUSHES, METHODS, SELECTIONS
from gtool.train.options import TRACKERS

Values = Iterable[str] | Callable[[], Iterable[str]]


def _recipes() -> Iterable[str]:
    from gtool.config.recipe import shipped_recipes

    return shipped_recipes()


def _runs() -> Iterable[str]:
    return sorted(str(path.parent) for path in RUNS.glob("*/recipe.toml"))


def _trained() -> Iterable[str]:
    return [*_runs(), *GENERATORS]


DEVICE: dict[str, Values] = {"device": ("auto", "cpu", "cuda", "cuda:1", "mps"), "precision": PRECISIONS}
GATES = [f"{name}=" for name in METRICS]
VALUES: dict[str, dict[str, Values]] = {
    "train": {
        "model": MODELS,
        "dataset": ("scenes", "cifar10"),
        "recipe": _recipes,
        "resume": lambda: ["auto", *_runs()],
        "weights": _runs,
        "tokenizer": _runs,
        "tracker": TRACKERS,
        **DEVICE,
    },
    "eval": {"target": _trained, "maximum": GATES, "minimum": GATES, "max_regress": GATES, **DEVICE},
    "sample": {"target": _trained, **DEVICE},
    "paint": {
        "brush": BRUSHES,
        "style": STYLES,
        "method": METHODS,
        "select": SELECTIONS,
        "weights": _runs,
        **DEVICE,
    },
    "export": {"target": _trained, "file_format": (*FORMATS, HUB), "source": (*MODELS, "taming")},
}


def complete(values: Values) -> Callable[[str], list[str]]:
    """Return what Typer asks with the part of a value that has been typed."""

    def begin_with(incomplete: str) -> list[str]:
        known = values() if callable(values) else values
        return [value for value in known if value.startswith(incomplete)]

    return begin_with
