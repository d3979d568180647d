"""gtool: train, sample, paint with, score and export the transformer image generators. From Python:

    import gtool

    model = gtool.load("runs/transgan-scenes-000")                  # or a weights file, a hub id; the newest run
    images = model.sample(num=16, seed=0)                           # uint8 (16, R, R, 3)
    images = gtool.sample(num=16)                                   # both in one, of the newest run
    gtool.paint("photo.jpg").to_image(1024).save("painted.png")
    scores = gtool.score(model, metrics=["rfd", "swd"])             # against the data that it was trained on
    scores["rfd"]["value"]

Importing gtool imports nothing else: a function is imported when it is first used. What a user can put right is raised
as a `gtool.errors.GToolError` of one line.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtool.eval.api import score_images as score
    from gtool.models.generate import load_model as load
    from gtool.models.generate import sample_images as sample
    from gtool.paint.painter import paint_image as paint

__version__ = "0.1.0"
__all__ = ["__version__", "load", "paint", "sample", "score"]
_FUNCTIONS = {
    "load": "gtool.models.generate:load_model",
    "paint": "gtool.paint.painter:paint_image",
    "sample": "gtool.models.generate:sample_images",
    "score": "gtool.eval.api:score_images",
}


class CallablePackage(ModuleType):
    """Python puts the packages `sample` and `paint` in the place of the functions when they are imported: both work."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return __getattr__(self.__name__.rpartition(".")[2])(*arguments, **options)


def __getattr__(name: str) -> Any:
    """Import a function of the API; `paint` and `sample` are packages as well, which call it once they are imported."""
    from importlib import import_module

    if name not in _FUNCTIONS:
        raise AttributeError(f"module `gtool` has no attribute `{name}`")
    module, _, function = _FUNCTIONS[name].partition(":")
    return getattr(import_module(module), function)
