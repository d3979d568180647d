"""Pictures of what a prior samples: grids beside their conditions and photos, and animations code by code.

Images are uint8 (3, P, Q), pictures uint8 (H, W, 3); codes are int64 (N, h, w).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gtool import console
from gtool.data.label_colours import legend
from gtool.io.pictures import (
    BACKGROUND,
    Column,
    Pixels,
    Row,
    comfortable_scale,
    default_columns,
    fit,
    grid,
    image_cell,
    sheet,
)
from gtool.models.generate import TrainedModel
from gtool.models.prior.config import SamplingParams
from gtool.models.prior.pipeline import decode, encode_images
from gtool.models.prior.sampling import UNKNOWN, sample_codes, uniform_numbers
from gtool.sample.conditions import ConditionBatch

MARGIN = 8  # of a legend, in pixels
MOST_GROUPS = 3  # in a row, where groups have names
MOST_FRAMES = 96
HOLD_SECONDS = 1.5  # that the finished images stay
FRAME_WIDTH = 512  # pixels that a frame comes near to
GREY = 128  # of what is not sampled yet
RELAXATIONS = 8  # of each size of a smooth filling


@dataclass(frozen=True)
class Completion:
    """A photo of which a part is sampled.

    photo: uint8 (3, P, Q). hole: bool (P, Q), what is sampled. is_pasted: whether the photo itself stays outside of the
    hole, else what the tokenizer makes of it.
    """

    photo: Pixels
    hole: np.ndarray
    is_pasted: bool

    @property
    def picture(self) -> Pixels:
        """The photo with a grey hole, uint8 (3, P, Q)."""
        return np.where(self.hole, np.uint8(GREY), self.photo)


def start_codes(model: TrainedModel, size: tuple[int, int], completion: Completion | None) -> Tensor:
    """Return the codes (1, h, w) that images of a size in pixels begin with: UNKNOWN, or of cells outside of a hole."""
    down = model.network.tokenizer.down
    h, w = size[0] // down, size[1] // down
    if completion is None:
        return torch.full((1, h, w), UNKNOWN)
    sampled = torch.from_numpy(completion.hole.reshape(h, down, w, down).any(axis=(1, 3)))
    codes = encode_images(model.network, torch.from_numpy(completion.photo)[None], model.compute)
    return codes.masked_fill(sampled, UNKNOWN)


def images_of(model: TrainedModel, codes: Tensor, completion: Completion | None = None) -> Pixels:
    """Return images uint8 (n, 3, P, Q) of codes (n, h, w), inside of a photo where it is pasted."""
    images: Pixels = decode(model.network, codes, model.compute).numpy()
    if completion is None or not completion.is_pasted:
        return images
    return blend(torch.from_numpy(completion.photo), torch.from_numpy(images), completion.hole).numpy()


def blend(photo: Tensor, images: Tensor, hole: np.ndarray) -> Tensor:
    """Return images uint8 (n, c, P, Q) inside of a hole (P, Q) in a photo, whose edge is not seen.

    In place of what a smooth filling of the hole makes of the images, it has what it makes of the photo; detail beside
    that comes in over the first two pixels.
    """
    kept, inside = torch.from_numpy(~hole), torch.from_numpy(hole).float()[None, None]
    depth = (2 * F.avg_pool2d(inside, 5, 1, 2, count_include_pad=False) - 1).clamp(min=0)
    detail = images - fill_smoothly(images.float(), kept)
    filled = fill_smoothly(photo.float()[None], kept) + depth * detail
    return torch.where(kept, photo, filled.clamp(0, 255).round().to(torch.uint8))


def fill_smoothly(values: Tensor, known: Tensor) -> Tensor:
    """Return values fp32 (n, c, P, Q) with smooth ones where they are not known; known: bool (P, Q), some of it.

    Coarse values first, each a mean of those known in 2 x 2, then finer ones, each the mean of its four neighbours
    after some rounds (the membrane of Perez et al. 2003, "Poisson Image Editing", by one pass of multigrid).
    """
    if known.all():
        return values
    share = F.avg_pool2d(known.float()[None, None], 2, ceil_mode=True)
    means = F.avg_pool2d(values * known, 2, ceil_mode=True) / share.clamp(min=1e-6)
    coarse = fill_smoothly(means, share[0, 0] > 0)
    filled = torch.where(known, values, F.interpolate(coarse, size=known.shape, mode="bilinear"))
    for _ in range(RELAXATIONS):
        near = F.pad(filled, (1, 1, 1, 1), mode="replicate")
        rows, columns = near[..., 1:-1], near[..., 1:-1, :]
        around = rows[..., 2:, :] + rows[..., :-2, :] + columns[..., 2:] + columns[..., :-2]
        filled = torch.where(known, values, around / 4)
    return filled


def sample_numbers(
    model: TrainedModel,
    numbers: Sequence[int],
    condition: Tensor,
    start: Tensor,
    seed: int,
    params: SamplingParams,
) -> tuple[Tensor, list[Tensor]]:
    """Sample images by their numbers, with progress.

    condition: ids, a row for each image. start: codes (1, h, w) that all begin with. Returns codes (n, h, w), and
    which of them the first batch had after every step, bool (h, w) each.
    """
    uniform = uniform_numbers(seed, torch.tensor(numbers), (start.shape[1], start.shape[2]))
    steps: list[Tensor] = []
    with console.progress("sampling codes") as update:

        def callback(done: int, total: int, decided: Tensor) -> None:
            if not steps or not steps[-1].all():
                steps.append(decided.clone())
            update(done, total, f"{done // start.numel():,} of {len(numbers):,} images")

        codes, size = start.expand(len(numbers), -1, -1), model.images_at_once()
        codes = sample_codes(
            model.prior, condition, codes, uniform, params, batch_size=size, callback=callback
        )
    return codes, steps or [start[0] >= 0]


def lay_out(
    images: Pixels,
    numbers: Sequence[int],
    given: ConditionBatch,
    shared: Mapping[str, Pixels],
    title: str,
    *,
    columns: int | None = None,
    scale: int | None = None,
) -> Pixels:
    """Return a grid of images, after what all are conditioned on, by its name, or beside the map and photo of each."""
    if given.photos is None and (not shared or images.shape[-1] != images.shape[-2]):
        return grid(np.stack([*shared.values(), *images]), columns=columns, scale=scale)
    if given.photos is None:
        return _beside(images, numbers, shared, title, columns, scale)
    kinds = [("map", given.maps), ("sample", images), ("photo", given.photos)]
    shown = [(head, pictures) for head, pictures in kinds if pictures is not None]
    groups = columns or max(1, round((len(images) / len(shown)) ** 0.5))
    if given.classes and not columns:
        groups = min(groups, MOST_GROUPS)
    cell = image_cell(images.shape[-1], groups * len(shown), scale)
    names = given.classes or [f"image {number}" for number in numbers]
    rows = []
    for start in range(0, len(images), groups):
        places = range(start, min(start + groups, len(images)))
        cells = [fit(pictures[place], cell) for place in places for _, pictures in shown]
        rows.append(Row("\n".join(names[place] for place in places), cells))
    heads = [Column(head) for head, _ in shown] * groups
    return sheet(rows, heads, cell, "" if groups * len(shown) < 4 else f"from the {title}")


def _beside(
    images: Pixels,
    numbers: Sequence[int],
    shared: Mapping[str, Pixels],
    title: str,
    columns: int | None,
    scale: int | None,
) -> Pixels:
    """Return a sheet of images in rows, at the right of what they have in common."""
    columns = columns or min(len(images), default_columns(len(images)))
    cell = image_cell(images.shape[-1], len(shared) + columns, scale)
    common: list[Pixels | None] = [fit(picture, cell) for picture in shared.values()]
    rows = []
    for start in range(0, len(images), columns):
        cells = [fit(image, cell) for image in images[start : start + columns]]
        last = numbers[start + len(cells) - 1]
        name = f"image {numbers[start]}" if len(cells) == 1 else f"images\n{numbers[start]} to {last}"
        rows.append(Row(name, [*(common if start == 0 else [None] * len(common)), *cells]))
    heads = [*shared, "sample" if columns == 1 else "samples", *[""] * (columns - 1)]
    return sheet(rows, [Column(head) for head in heads], cell, title)


def with_legend(picture: Pixels, labels: np.ndarray, colours: Pixels, names: Sequence[str] | None) -> Pixels:
    """Add the colours and names of the labels of some maps under a picture (H, W, 3)."""
    height, width = picture.shape[:2]
    drawn = legend(labels, colours, names, max(width - 2 * MARGIN, 120))
    size = (height + drawn.shape[0] + MARGIN, max(width, drawn.shape[1] + 2 * MARGIN), 3)
    joined = np.full(size, BACKGROUND, np.uint8)
    joined[:height, :width] = picture
    joined[height + MARGIN // 2 :][: drawn.shape[0], MARGIN : MARGIN + drawn.shape[1]] = drawn
    return joined


def frames(
    model: TrainedModel,
    codes: Tensor,
    steps: Sequence[Tensor],
    *,
    shared: Sequence[Pixels] = (),
    maps: Pixels | None = None,
    completion: Completion | None = None,
    columns: int | None = None,
    scale: int | None = None,
) -> Iterator[Pixels]:
    """Yield pictures of how images were sampled, code by code: what is not sampled yet is grey.

    codes: of the finished images (n, h, w). steps: which there were after every step, bool (h, w) each. shared:
    images (3, P, Q) that come first. maps: an image for each, which it stands beside. completion: what is completed.
    """
    first, total, down = int(steps[0].sum()), steps[-1].numel(), model.network.tokenizer.down
    wanted = set(np.linspace(first, total, min(MOST_FRAMES, total - first + 1)).round().astype(int).tolist())
    chosen = [step for step in steps if int(step.sum()) in wanted]
    with console.progress("animating", "frames") as update:
        for done, step in enumerate(chosen, start=1):
            images = images_of(model, torch.where(step, codes, 0), completion)
            seen = step.repeat_interleave(down, 0).repeat_interleave(down, 1).numpy()
            if completion is not None and completion.is_pasted:
                seen |= ~completion.hole
            images = np.where(seen, images, np.uint8(GREY))
            tiles = np.stack([*shared, *images])
            across = columns or default_columns(len(tiles))
            if maps is not None:
                tiles = np.stack([maps, images], axis=1).reshape(-1, *images.shape[1:])
                across = 2 * (columns or default_columns(max(1, len(images) // 2)))
            width = min(across, len(tiles)) * images.shape[-1]
            update(done, len(chosen))
            yield grid(tiles, columns=across, scale=scale or comfortable_scale(width, FRAME_WIDTH))
