"""`gtool sample --mix`: images that take latent components, or layers, from other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtool.sample.loaded_generator import Source, load
from gtool.sample.options import GLOBAL, Job, Mix, parse_components, parse_layers, parse_mix

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Swap:
    """What an image takes from another: these components at these layers."""

    name: str
    components: Sequence[int]
    layers: Sequence[int]
    colour: str | None = None  # of a local component alone
    head: str | None = None  # of its column, where the name is too long

    def mask(self, source: Source) -> Tensor:
        """Return (L, K), true for what is taken."""
        import torch

        taken = torch.zeros(source.generator.num_ws, source.count + 1, dtype=torch.bool)
        taken[torch.tensor(self.layers)[:, None], torch.tensor(self.components)] = True
        return taken


def write_mix(job: Job) -> dict[str, Path]:
    """Write the table of two images, or the grid of many."""
    source = load(job)
    mix = parse_mix(job.request.mix or "")
    chosen, singles = _swaps(source)
    if mix.is_pair:
        picture = _pair(source, mix, ([chosen] if chosen else []) + singles)
    else:
        assert chosen is not None
        picture = _table(source, mix, chosen)
    return {"mix": source.save_sheet(picture, **({"swapped": chosen.name} if chosen else {}))}


def _swaps(source: Source) -> tuple[Swap | None, list[Swap]]:
    """Return what the flags name, and each component alone; without local components, each layer alone."""
    from gtool.sample.attention_pictures import COLOURS

    request, count, every = source.job.request, source.count, range(source.generator.num_ws)
    layers = every if request.layers is None else parse_layers(request.layers, len(every))
    components: Sequence[int] = range(count + 1)
    if request.components is not None:
        components = parse_components(request.components, count)
    parts = {"components": request.components, "layers": request.layers}
    named = {kind: text for kind, text in parts.items() if text is not None}
    name = ", ".join(f"{kind} {text}" for kind, text in named.items())
    head = request.components or name
    chosen = Swap(name, components, layers, head=head) if name else None
    if not count:
        return chosen, [Swap(f"layer {layer}", (0,), (layer,)) for layer in layers]
    singles = [Swap(str(one), (one,), layers, COLOURS[one % len(COLOURS)]) for one in range(count)]
    return chosen, [*singles, Swap(GLOBAL, (count,), layers)]


def _pair(source: Source, mix: Mix, swaps: list[Swap]) -> Any:
    """Draw two images, a row each: the image, then what it becomes with each part of the other; and what changes."""
    import numpy as np
    import torch

    from gtool.io.colormap import heat
    from gtool.io.sheet import Column, Row, fit, image_cell, sheet

    first, second = mix.sources
    masks = torch.stack([torch.zeros_like(swaps[0].mask(source)), *(swap.mask(source) for swap in swaps)])
    width = len(masks)
    targets = torch.tensor([first] * width + [second] * width)
    sources = torch.tensor([second] * width + [first] * width)
    made = source.all_images(targets, source.components.mixed(targets, sources, masks.repeat(2, 1, 1)))
    cell = image_cell(source.resolution, width, source.job.request.scale)
    rows, changes = [], []
    for number, images in zip((first, second), np.split(made, 2), strict=True):
        change = np.abs(images.astype(np.float32) - images[:1]).mean(axis=1)  # (width, R, R)
        rows.append(Row(f"image {number}", [fit(image, cell) for image in images]))
        changes.append(change)
    # The global component changes everything: on its scale nobody would see what the others do.
    local = slice(1, -1) if source.count else slice(1, None)
    largest = max(1.0, *(float(change[local].max()) for change in changes))
    heats = [
        Row("change", [None, *(fit(heat(one, largest), cell) for one in change[1:])]) for change in changes
    ]
    return sheet(
        [rows[0], heats[0], rows[1], heats[1]],
        [Column("image"), *(Column(swap.head or swap.name, swap.colour) for swap in swaps)],
        cell,
        source.title(f"images {first} and {second}: each with parts of the other"),
        f"change: black 0, white {largest:.0f} of 255 or more",
    )


def _table(source: Source, mix: Mix, swap: Swap) -> Any:
    """Draw sources down the side, targets along the top, and between them targets with parts of sources."""
    import torch

    from gtool.io.sheet import Column, Row, fit, image_cell, sheet

    rows, columns = torch.tensor(mix.sources), torch.tensor(mix.targets)
    source.refuse_too_many((len(rows) + 1) * (len(columns) + 1))
    sources = torch.cat([rows, columns, rows.repeat_interleave(len(columns))])
    targets = torch.cat([rows, columns, columns.repeat(len(rows))])
    taken = swap.mask(source).expand(len(targets), -1, -1)
    made = source.all_images(targets, source.components.mixed(targets, sources, taken))
    cell = image_cell(source.resolution, len(columns) + 1, source.job.request.scale)
    cells = [fit(image, cell) for image in made]
    givers, takers, mixed = (
        cells[: len(rows)],
        cells[len(rows) :][: len(columns)],
        cells[-len(rows) * len(columns) :],
    )
    shown = [Row("", [None, *takers])]
    for place, (number, giver) in enumerate(zip(mix.sources, givers, strict=True)):
        shown.append(Row(f"image {number}", [giver, *mixed[place * len(columns) :][: len(columns)]]))
    heads = [Column(""), *(Column(f"image {number}") for number in mix.targets)]
    return sheet(shown, heads, cell, source.title(f"columns with {swap.name} of rows"))
