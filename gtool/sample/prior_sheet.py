"""Pictures of a prior beside what they were composed from: map, sample and photo, with a legend of the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gtool.data.dataset import ImageDataset
from gtool.data.label_colours import colours_of, legend
from gtool.errors import GToolError
from gtool.io.picture import BACKGROUND, Pixels
from gtool.io.sheet import Column, Row, fit, image_cell, sheet

if TYPE_CHECKING:
    from gtool.data.conditions_for_sampling import Given
    from gtool.sample.prior import Source

MARGIN = 8  # of a legend, in pixels
MOST_GROUPS = 3  # in a row, where groups have names


def beside_photos(source: Source, pictures: np.ndarray, given: Given) -> Pixels:
    """Lay out map (where there is one), sample and photo of every image, several images a row."""
    assert given.photos is not None
    request, numbers = source.job.request, source.job.numbers
    kinds = [("map", given.maps), ("sample", pictures), ("photo", given.photos)]
    shown = [(head, images) for head, images in kinds if images is not None]
    groups = request.columns or max(1, round((len(pictures) / len(shown)) ** 0.5))
    if given.names and not request.columns:
        groups = min(groups, MOST_GROUPS)
    cell = image_cell(pictures.shape[-1], groups * len(shown), request.scale)
    names = given.names or [f"image {number}" for number in numbers]
    rows = []
    for start in range(0, len(pictures), groups):
        places = range(start, min(start + groups, len(pictures)))
        cells = [fit(images[place], cell) for place in places for _, images in shown]
        rows.append(Row("\n".join(names[place] for place in places), cells))
    heads = [Column(head) for head, _ in shown] * groups
    title = "" if groups * len(shown) < 4 else f"from the {source.conditions.text}"
    return with_legend(source, sheet(rows, heads, cell, title), given.labels)


def with_legend(source: Source, picture: Pixels, labels: np.ndarray | None) -> Pixels:
    """Add the colours and names of the labels of some maps under a picture (H, W, 3)."""
    if labels is None:
        return picture
    recipe = source.plan.recipe
    colours = colours_of(recipe.data.dataset if recipe else "", source.plan.num_labels)
    width = picture.shape[1]
    drawn = legend(labels, colours, _label_names(source), max(width - 2 * MARGIN, 120))
    height = picture.shape[0] + drawn.shape[0] + MARGIN
    joined = np.full((height, max(width, drawn.shape[1] + 2 * MARGIN), 3), BACKGROUND, np.uint8)
    joined[: picture.shape[0], :width] = picture
    joined[picture.shape[0] + MARGIN // 2 :][: drawn.shape[0], MARGIN : MARGIN + drawn.shape[1]] = drawn
    return joined


def _label_names(source: Source) -> tuple[str, ...] | None:
    """Return the names of labels where the data set is there and has any."""
    from gtool.data.held_out import open_images

    if source.plan.recipe is None:
        return None
    try:
        opened: ImageDataset = open_images(source.plan.recipe)
        return opened.maps_of("segmentation").names
    except GToolError:
        return None
