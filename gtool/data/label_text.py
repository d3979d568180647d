"""Colours and names of the labels of a data set, for pictures of its maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtool.io.picture import Pixels


def colours_of(dataset: str, num_labels: int | None) -> Pixels:
    """Return a colour for every label, uint8 (num_labels + 1, 3), the last for "no label"."""
    from gtool.data.label_map_picture import palette
    from gtool.data.synthetic.scenes import CLASS_COLOURS

    return palette(num_labels or 1, CLASS_COLOURS if dataset == "scenes" else ())
