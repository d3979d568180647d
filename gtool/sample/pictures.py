"""Pictures of what latents make: sheets that compare images, interpolations, animations.

Images are uint8 (3, R, R), pictures uint8 (H, W, 3). Every function can be called from a notebook with a model of
`gtool.models.generate.load_model`; `numbers` are of images of a seed, `scale` enlarges their pixels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gtool import console
from gtool.errors import RecipeError
from gtool.io.attention_pictures import COLOURS, layers_sheet
from gtool.io.pictures import Column, Pixels, Row, comfortable_scale, enlarge, fit, heat, image_cell, sheet
from gtool.io.video import save_animation
from gtool.models.generate import TrainedModel, WsOfRows, batches
from gtool.nn.ranges import to_uint8
from gtool.sample.latents import mixed_ws, noise_variation

MAX_PIXELS = 200_000_000  # of one picture
NOISE_DRAWS = 100
DRAW_BATCH = 64  # about a grid: every forward is filled up to its size
SHEET_BATCH = 32  # sheets show few images
SHEET_COLUMNS = 16  # at most, of an interpolation
FRAME_WIDTH = 384  # pixels that a frame of an animation comes near to


def check_pixels(count: int, height: int, width: int, scale: int | None = None) -> None:
    """Raise RecipeError for a picture of so many images that nobody could open it."""
    if count * height * width * (scale or 1) ** 2 > MAX_PIXELS:
        raise RecipeError(
            f"{count:,} images of {width}x{height} pixels are too many for one picture; "
            "ask for fewer or smaller ones, or write separate files with -o FOLDER/"
        )


def by_class(numbers: Sequence[int], classes: int) -> tuple[Sequence[int], int | None]:
    """Order the images of a grid so that each of so many classes has a row; return them and the columns of the grid.

    Where there is one class or none, or not as many images of each, they stay as they are, without columns.
    """
    columns, rest = divmod(len(numbers), max(1, classes))
    if classes < 2 or rest:
        return numbers, None
    return [numbers[row + classes * column] for row in range(classes) for column in range(columns)], columns


def draw(
    model: TrainedModel,
    numbers: Sequence[int] | Tensor,
    seed: int,
    *,
    psi: float = 1.0,
    given: Tensor | WsOfRows | None = None,
    most: int = DRAW_BATCH,
) -> Iterator[Pixels]:
    """Yield images (b, 3, R, R), `most` at once, with progress; given as of `gtool.models.generate.batches`."""
    indices, size = torch.as_tensor(numbers), model.images_at_once(most)
    if psi != 1 or (given is None and "ws" in model.found):
        given = model.ws(indices, seed, psi)
    elif given is None and "z" in model.found:
        given = model.found["z"][indices]
    source, classes = model.found_noise(indices) or seed, model.classes_of(indices)
    made = batches(
        model.network, source, indices, model.compute, batch_size=size, given=given, classes=classes
    )
    done, total = 0, len(indices)
    with console.progress("sampling") as update:
        for batch, _ in made:
            model.require_finite(batch, indices[done : done + len(batch)])
            done += len(batch)
            update(done, total)
            yield to_uint8(batch).cpu().numpy()


def _draw_all(
    model: TrainedModel, numbers: Sequence[int] | Tensor, seed: int, scale: int | None, **latents: Any
) -> list[Pixels]:
    """Return all images of a sheet; latents as of `draw`."""
    check_pixels(len(numbers), model.resolution, model.resolution, scale)
    return [image for batch in draw(model, numbers, seed, most=SHEET_BATCH, **latents) for image in batch]


def psi_sheet(
    model: TrainedModel,
    numbers: Sequence[int],
    psis: Sequence[float],
    seed: int = 0,
    *,
    scale: int | None = None,
) -> Pixels:
    """Draw a row for each image, a column for each truncation psi."""
    columns = len(psis)
    indices = torch.tensor(numbers).repeat_interleave(columns)
    ws = model.ws(indices, seed, torch.tensor(psis).repeat(len(numbers)))
    cell = image_cell(model.resolution, columns, scale)
    cells = [fit(image, cell) for image in _draw_all(model, indices, seed, scale, given=ws)]
    rows = [Row(f"image {number}", cells[i * columns :][:columns]) for i, number in enumerate(numbers)]
    return sheet(rows, [Column(f"psi {psi:g}") for psi in psis], cell, "truncation")


class Swap(NamedTuple):
    """What an image takes from another: these components at these layers."""

    name: str
    components: Sequence[int]
    layers: Sequence[int]
    colour: str | None = None  # of a local component alone

    def mask(self, network: Any) -> Tensor:
        """Return (L, K), true for what is taken."""
        taken = torch.zeros(network.num_ws, network.z_shape[0], dtype=torch.bool)
        taken[torch.tensor(self.layers)[:, None], torch.tensor(self.components)] = True
        return taken


def single_swaps(network: Any, layers: Sequence[int]) -> list[Swap]:
    """Return each component alone at these layers; without local components, each layer alone."""
    count = network.z_shape[0] - 1
    if not count:
        return [Swap(f"layer {layer}", (0,), (layer,)) for layer in layers]
    local = [Swap(str(one), (one,), layers, COLOURS[one % len(COLOURS)]) for one in range(count)]
    return [*local, Swap("global", (count,), layers)]


def swap_sheet(
    model: TrainedModel,
    pair: tuple[int, int],
    swaps: Sequence[Swap],
    seed: int = 0,
    *,
    psi: float = 1.0,
    scale: int | None = None,
) -> Pixels:
    """Draw two images, a row each: the image, what it becomes with each part of the other, and what changes."""
    first, second = pair
    width, masks = 1 + len(swaps), [swap.mask(model.network) for swap in swaps]
    taken = torch.stack([torch.zeros_like(masks[0]), *masks]).repeat(2, 1, 1)
    targets = torch.tensor([first] * width + [second] * width)
    ws = mixed_ws(model, targets, first + second - targets, taken, seed, psi)
    rows = np.split(np.stack(_draw_all(model, targets, seed, scale, given=ws)), 2)
    changes = [np.abs(images.astype(np.float32) - images[:1]).mean(axis=1) for images in rows]
    # The global component changes everything: on its scale nobody would see what the others do.
    local = slice(1, -1) if model.network.z_shape[0] > 1 else slice(1, None)
    largest = max(1.0, *(float(change[local].max()) for change in changes))
    cell = image_cell(model.resolution, width, scale)
    shown = []
    for number, images, change in zip(pair, rows, changes, strict=True):
        shown.append(Row(f"image {number}", [fit(image, cell) for image in images]))
        shown.append(Row("change", [None, *(fit(heat(one, largest), cell) for one in change[1:])]))
    heads = [Column("image"), *(Column(swap.name, swap.colour) for swap in swaps)]
    title = with_psi(f"images {first} and {second}: each with parts of the other", psi)
    return sheet(shown, heads, cell, title, f"change: black 0, white {largest:.0f} of 255 or more")


def mix_table(
    model: TrainedModel,
    sources: Sequence[int],
    targets: Sequence[int],
    swap: Swap,
    seed: int = 0,
    *,
    psi: float = 1.0,
    scale: int | None = None,
) -> Pixels:
    """Draw sources down the side, targets along the top, and between them targets with parts of sources."""
    check_pixels((len(sources) + 1) * (len(targets) + 1), model.resolution, model.resolution, scale)
    rows, columns, width = torch.tensor(sources), torch.tensor(targets), len(targets)
    giving = torch.cat([rows, columns, rows.repeat_interleave(width)])
    taking = torch.cat([rows, columns, columns.repeat(len(rows))])
    taken = swap.mask(model.network).expand(len(taking), -1, -1)
    ws = mixed_ws(model, taking, giving, taken, seed, psi)
    cell = image_cell(model.resolution, width + 1, scale)
    cells = [fit(image, cell) for image in _draw_all(model, taking, seed, scale, given=ws)]
    givers, takers, mixed = cells[: len(rows)], cells[len(rows) :][:width], cells[len(rows) + width :]
    shown = [Row("", [None, *takers])]
    for i, number in enumerate(sources):
        shown.append(Row(f"image {number}", [givers[i], *mixed[i * width :][:width]]))
    heads = [Column(""), *(Column(f"image {number}") for number in targets)]
    return sheet(shown, heads, cell, with_psi(f"columns with {swap.name} of rows", psi))


def noise_sheet(
    model: TrainedModel, numbers: Sequence[int], seed: int = 0, *, psi: float = 1.0, scale: int | None = None
) -> Pixels:
    """Draw a row for each image: as it is, the mean over other noise inputs, and how much these change."""
    check_pixels(3 * len(numbers), model.resolution, model.resolution, scale)
    images, found = _draw_all(model, numbers, seed, scale, psi=psi), []
    size = model.images_at_once(SHEET_BATCH)
    with console.progress("sampling noise") as update:
        for number in numbers:
            found.append(noise_variation(model, number, seed, psi=psi, draws=NOISE_DRAWS, batch_size=size))
            update(len(found), len(numbers))
    largest = max(float(deviation.max()) for _, deviation in found)
    cell = image_cell(model.resolution, 3, scale)
    rows = []
    for number, image, (mean, deviation) in zip(numbers, images, found, strict=True):
        shown = (image, mean.round().to(torch.uint8).numpy(), heat(deviation.numpy(), largest))
        rows.append(Row(f"image {number}", [fit(picture, cell) for picture in shown]))
    columns = [Column("image"), Column(f"mean of {NOISE_DRAWS}"), Column("deviation")]
    note = f"deviation: black 0, white {largest:.1f} of 255"
    return sheet(rows, columns, cell, with_psi("noise drawn anew", psi), note)


def attention_sheets(
    model: TrainedModel, numbers: Sequence[int], seed: int = 0, psi: float = 1.0
) -> Iterator[Pixels]:
    """Yield for each image a sheet of every component's attention at each layer and head."""
    network, indices, done = model.network, torch.tensor(numbers), 0
    size, ws = model.images_at_once(SHEET_BATCH), model.ws(indices, seed, psi)
    source = model.found_noise(indices) or seed
    made = batches(network, source, indices, model.compute, batch_size=size, given=ws, with_maps=True)
    with console.progress("drawing attention") as update:
        for images, maps in made:
            arrays = (one.float().cpu().numpy() for one in maps)
            layers = dict(zip(network.attention_layers, arrays, strict=True))
            for i, picture in enumerate(to_uint8(images).cpu().numpy()):
                title = with_psi(f"image {numbers[done]}: attention", psi)
                done += 1
                update(done, len(numbers))
                yield layers_sheet(picture, {name: one[i] for name, one in layers.items()}, title=title)


def interpolation_sheet(
    images: Pixels, numbers: Sequence[int], components: str, *, scale: int | None, psi: float = 1.0
) -> Pixels:
    """Lay out an interpolation of some components (n, 3, R, R): a row from each image, and what it changes."""
    columns = len(images) // len(numbers)
    change = np.abs(images.astype(np.float32) - images[:1]).mean(axis=1)  # (n, R, R), from the first image
    change = change.reshape(-1, columns, *change.shape[1:]).mean(axis=1)  # of a row
    largest = max(1.0, float(change.max()))
    cell = image_cell(images.shape[-1], columns + 1, scale)
    cells = [fit(image, cell) for image in images]
    rows = [
        Row(f"as image {number}", [*cells[i * columns :][:columns], fit(heat(change[i], largest), cell)])
        for i, number in enumerate(numbers)
    ]
    title = with_psi(f"component {components} moves, all else stays as in image {numbers[0]}", psi)
    heads = [Column("")] * columns + [Column("change")]
    return sheet(rows, heads, cell, title, f"change: black 0, white {largest:.0f} of 255")


def animate(drawn: Iterator[Pixels], steps: int, path: Path | None, fps: float, scale: int | None) -> Pixels:
    """Write the images of an interpolation as an animation, where a path is given; return those of its sheet.

    A long interpolation is made once and never held whole: of every `steps` images, SHEET_COLUMNS at most are copied
    as they pass. drawn: batches of images. `scale` None brings the animation near FRAME_WIDTH. Returns (n, 3, R, R).
    """
    columns = min(steps, SHEET_COLUMNS)
    in_row = {column * steps // columns for column in range(columns)}
    kept: list[Pixels] = []

    def passing() -> Iterator[Pixels]:
        for number, frame in enumerate(image for batch in drawn for image in batch):
            if number % steps in in_row:
                kept.append(frame)
            yield enlarge(frame, scale or comfortable_scale(frame.shape[-1], FRAME_WIDTH))

    if path is not None:
        save_animation(path, passing(), fps)
    for _ in passing():  # what is left: all, without an animation
        continue
    return np.stack(kept)


def projection_sheet(
    photo: Pixels, image: Pixels, name: str, note: str, *, scale: int | None = None
) -> Pixels:
    """Lay a photo (3, R, R), its projection and what differs out beside each other."""
    change = np.abs(image.astype(np.float32) - photo).mean(axis=0)
    largest, cell = max(1.0, float(change.max())), image_cell(image.shape[-1], 3, scale)
    cells = [fit(picture, cell) for picture in (photo, image, heat(change, largest))]
    heads = [Column("photo"), Column("projection"), Column(f"difference, white {largest:.0f} of 255")]
    return sheet([Row(name, cells)], heads, cell, "projection", note)


def with_psi(title: str, psi: float) -> str:
    """Return a headline that names the truncation where there is any."""
    return title if psi == 1 else f"{title}, psi {psi:g}"
