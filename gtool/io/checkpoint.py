"""Former home of what is now in files, run_folder and weights; goes when the last caller has moved."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    for place in ("files", "run_folder", "weights"):
        module = import_module(f"gtool.io.{place}")
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(name)
