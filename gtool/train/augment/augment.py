"""Differentiable augmentation of the images that a discriminator sees, real and generated alike.

Differentiable Augmentation (Zhao et al. 2020) as the TransGAN release has it: shifts of 20 % where the paper has
12.5 %, and erasing that hits the whole batch or nobody. `hue` and `filter` come from StyleGAN2-ADA (Karras et al. 2020,
appendix B), whose whole pipeline is in `gtool.train.augment.ada`. Names and numbers: `gtool.train.augment.policies`.

Drawing is apart from applying. Draws are made for the global batch, so that a share of a process or a micro-batch,
`draws[start:stop]`, is what the whole would have given it; what the release decides for a whole batch is decided for
the global batch. Image i depends on no other image. Every operation can be differentiated twice, for penalties on the
gradient at the images before it. Nothing is changed in place.

Axis letters: N images, C channels, R resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from gtool.runtime.device import send
from gtool.train.augment import ada
from gtool.train.augment.ada import NUM_BANDS, Chances, bands
from gtool.train.augment.policies import parse_word

ADA = "ada"  # words of `gtool.train.augment.ada`, and the operation that they become
Numbers = tuple[Tensor, tuple[int, ...]]  # (N, k) of each image, and what all images have in common


@dataclass(frozen=True)
class Drawn:
    """One operation with its random numbers; an operation that spares the whole batch is not there at all."""

    name: str
    values: Tensor  # (N, k), one row per image
    shared: tuple[int, ...] = ()  # what all images of the global batch have in common
    is_hit: Tensor | None = None  # (N, 1): the images that it changes; None for all

    def each(self, change: Callable[[Tensor], Tensor]) -> Drawn:
        """Return it with all that it says about single images changed."""
        hit = None if self.is_hit is None else change(self.is_hit)
        return Drawn(self.name, change(self.values), self.shared, hit)


@dataclass(frozen=True)
class Draws:
    """The random numbers of a policy for N images; `draws[start:stop]` is a share of them."""

    operations: tuple[Drawn, ...]
    num_images: int

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, part: slice) -> Draws:
        chosen = tuple(drawn.each(lambda values: values[part]) for drawn in self.operations)
        return Draws(chosen, len(range(self.num_images)[part]))

    def to(self, device: torch.device) -> Draws:
        """Return the draws on a device."""
        moved = tuple(drawn.each(lambda values: send(values, device)) for drawn in self.operations)
        return Draws(moved, self.num_images)


def draw(
    policy: tuple[str, ...], num_images: int, resolution: int, generator: torch.Generator, p: float = 1.0
) -> Draws:
    """Draw the random numbers of a policy for the global batch, on the device of the generator.

    Args:
        policy: words as `parse_policy` returns them, applied from left to right; words of the `ada` pipeline that
            follow each other become one operation, which is what they are for.
        num_images: of the global batch.
        resolution: R of the images that `augment` will get.
        generator: the only source of randomness.
        p: probability, for each image by itself, of each operation, and of each change within one of `ada`.

    Raises:
        ValueError: an unknown word.
    """
    random = Chances(num_images, resolution, generator)
    drawn = []
    for is_ada, words in groupby((parse_word(word) for word in policy), lambda word: word[0].startswith(ADA)):
        if is_ada:
            pipeline = [(name, replace(random, p=p * amount)) for name, amount in words]
            drawn.append(Drawn(ADA, *ada.draw(pipeline)))
            continue
        for name, amount in words:
            numbers = _OPERATIONS[name][0](random, amount)
            if numbers is not None:
                drawn.append(Drawn(name, *numbers, None if p == 1.0 else random.uniform(1) < p))
    return Draws(tuple(drawn), num_images)


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Return images (N, C, R, R) changed as drawn, in their dtype; not clamped.

    Raises:
        ValueError: draws for another number of images.
    """
    if len(images) != len(draws):
        raise ValueError(f"{len(images)} images, but draws for {len(draws)}")
    # Shifting pixels must not round them: under autocast the matrix products would.
    with torch.autocast(images.device.type, enabled=False):
        for drawn in draws.operations:
            change = ada.apply if drawn.name == ADA else _OPERATIONS[drawn.name][1]
            changed = change(images, drawn.values, drawn.shared)
            hit = drawn.is_hit
            images = changed if hit is None else torch.where(hit.view(-1, 1, 1, 1), changed, images)
    return images


# Each operation: how it is drawn (None spares the batch), how it is applied.


def _integers(random: Chances, low: int, high: int, shape: tuple[int, ...] | None = None) -> Tensor:
    """Return (N, 1) integers, or of another shape, from low to high, both included."""
    shape = (random.num_images, 1) if shape is None else shape
    return torch.randint(low, high + 1, shape, generator=random.generator, device=random.generator.device)


def _draw_color(random: Chances, strength: float) -> Numbers:
    # Each in ±strength / 2.
    offset, saturation, contrast = random.uniform(3).sub(0.5).mul(strength).unbind(1)
    return torch.stack([offset, 1 + 2 * saturation, 1 + contrast], dim=1), ()


def _color(images: Tensor, values: Tensor, _: tuple[int, ...]) -> Tensor:
    """Brightness, then saturation about the mean of a pixel, then contrast about that of the image."""
    x = _at_least_fp32(images)
    brightness, saturation, contrast = values.to(x.dtype).view(-1, 3, 1, 1, 1).unbind(1)  # each (N, 1, 1, 1)
    grey = x.mean(dim=1, keepdim=True)  # (N, 1, R, R)
    mean = grey.mean(dim=(2, 3), keepdim=True)  # (N, 1, 1, 1)
    # Brightness b moves all means alike, saturation s leaves them, so the three are one affine map:
    # c (s (x - grey) + grey + b) + (1 - c) (mean + b).
    rest = contrast * (1 - saturation) * grey + ((1 - contrast) * mean + brightness)
    return (contrast * saturation * x + rest).to(images.dtype)


def _draw_translation(random: Chances, share: float) -> Numbers:
    largest = int(random.resolution * share + 0.5)
    return torch.cat([_integers(random, -largest, largest) for _ in "yx"], dim=1), ()


def _translation(images: Tensor, values: Tensor, _: tuple[int, ...]) -> Tensor:
    """Pixel (y, x) comes from (y + dy, x + dx); zero where that lies outside."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + values[:, :1]  # (N, H)
    columns = torch.arange(width, device=images.device) + values[:, 1:]  # (N, W)
    inside = _within(rows, height).unsqueeze(2) & _within(columns, width).unsqueeze(1)  # (N, H, W)
    sources = rows.clamp(0, height - 1).unsqueeze(2) * width + columns.clamp(0, width - 1).unsqueeze(1)
    sources = sources.view(len(images), 1, -1).expand(-1, images.shape[1], -1)  # (N, C, H W)
    return images.flatten(2).gather(2, sources).view_as(images) * inside.unsqueeze(1)


def _within(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)


def _draw_cutout(random: Chances, p: float) -> Numbers | None:
    side = int(random.resolution * 0.5 + 0.5)
    return _draw_rectangle(random, p, side, side)


def _draw_erase_ratio(random: Chances, p: float) -> Numbers | None:
    return _draw_any_rectangle(random, p, int(random.resolution * 0.2), int(random.resolution * 0.7))


def _draw_stl_erase_ratio(random: Chances, p: float) -> Numbers | None:
    return _draw_any_rectangle(random, p, 20, random.resolution // 2 + 20)


def _draw_any_rectangle(random: Chances, p: float, low: int, high: int) -> Numbers | None:
    return _draw_rectangle(random, p, *(int(_integers(random, low, high, ())) for _ in "yx"))


def _draw_rectangle(random: Chances, p: float, height: int, width: int) -> Numbers | None:
    """One size for the batch and a place for each image, whose middle lies in the image; p is of the whole batch."""
    if not torch.rand((), generator=random.generator, device=random.generator.device) < p:
        return None
    corners = [_integers(random, 0, random.resolution - side % 2) - side // 2 for side in (height, width)]
    return torch.cat(corners, dim=1), (height, width)


def _erase(images: Tensor, values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Set a rectangle to zero, which is mid-grey."""
    rows = torch.arange(images.shape[2], device=images.device) - values[:, :1]  # (N, H)
    columns = torch.arange(images.shape[3], device=images.device) - values[:, 1:]  # (N, W)
    erased = _within(rows, size[0]).unsqueeze(2) & _within(columns, size[1]).unsqueeze(1)  # (N, H, W)
    return images * ~erased.unsqueeze(1)


def _draw_hue(random: Chances, p: float) -> Numbers:
    turn, chance = random.uniform(2).unbind(1)
    return (math.pi * (2 * turn - 1) * (chance < p)).unsqueeze(1), ()


def _hue(images: Tensor, values: Tensor, _: tuple[int, ...]) -> Tensor:
    """Rotate colours (3 channels) about the grey axis k = (1, 1, 1) / sqrt(3), by Rodrigues' formula."""
    x = _at_least_fp32(images)
    angle = values.to(x.dtype).view(-1, 1, 1, 1)
    cosine, sine = angle.cos(), angle.sin()
    across = (x.roll(1, dims=1) - x.roll(-1, dims=1)) / math.sqrt(3)  # k × x
    along = x.mean(dim=1, keepdim=True)  # k (k · x)
    return (cosine * x + sine * across + (1 - cosine) * along).to(images.dtype)


def _draw_filter(random: Chances, p: float) -> Numbers:
    chosen = random.uniform(NUM_BANDS) < p
    return random.normal(NUM_BANDS) * chosen, ()


def _filter(images: Tensor, values: Tensor, _: tuple[int, ...]) -> Tensor:
    """Multiply four frequency bands by 2^values; each change of a band keeps the power of a 1/f spectrum."""
    power = torch.tensor([10.0, 1.0, 1.0, 1.0], device=values.device) / 13
    gains = values.exp2()  # (N, 4)
    gains = gains / (1 + power * (gains.square() - 1)).prod(dim=1, keepdim=True).sqrt()
    kernel = torch.einsum("nb,bij->nij", gains, bands(images.shape[-1], images.device))
    kernel = kernel.to(images.dtype).unsqueeze(1)  # (N, 1, R, R)
    return kernel @ images @ kernel.mT


def _at_least_fp32(images: Tensor) -> Tensor:
    return images.to(torch.promote_types(images.dtype, torch.float32))


_Draw = Callable[[Chances, float], Numbers | None]
_Apply = Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]
_OPERATIONS: dict[str, tuple[_Draw, _Apply]] = {
    "color": (_draw_color, _color),
    "translation": (_draw_translation, _translation),
    "cutout": (_draw_cutout, _erase),
    "erase_ratio": (_draw_erase_ratio, _erase),
    "stl_erase_ratio": (_draw_stl_erase_ratio, _erase),
    "hue": (_draw_hue, _hue),
    "filter": (_draw_filter, _filter),
}
