"""What diagnostics by the segmenter of the package ask of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gtool.errors import RecipeError

SCENES = "scenes"  # the data set that the segmenter was trained on


def require_scenes(meta: dict[str, Any], path: Path, flag: str) -> None:
    """Refuse a model of other images than the built-in scenes; RecipeError names the flag."""
    dataset = meta.get("recipe", {}).get("data", {}).get("dataset")
    if dataset != SCENES:
        raise RecipeError(
            f"{path}: {flag}: the segmenter of the package knows the built-in scenes alone, and this model was "
            f"trained on {dataset or 'something that its file does not name'}"
        )
