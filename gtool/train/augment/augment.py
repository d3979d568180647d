"""Differentiable augmentation of the images that a discriminator sees, real and generated alike.

Differentiable Augmentation (Zhao et al. 2020) as the TransGAN release has it: shifts of 20 % where the paper
has 12.5 %, and erasing that hits the whole batch or nobody. `hue`, `filter` and `geo` come from StyleGAN2-ADA
(Karras et al. 2020, appendix B), whose whole pipeline is in `gtool.train.augment.ada`. Names and numbers:
`gtool.train.augment.policies`.

Drawing is apart from applying. Draws are made for the global batch, so that a share of a process or a
micro-batch, `draws[start:stop]`, is what the whole would have given it; what the release decides for a whole
batch is decided for the global batch. Image i depends on no other image. Every operation can be
differentiated twice, for penalties on the gradient at the images before it.

Deviations from the release: the border goes on mirrored without end in `geo` and `filter` (the release stops
after one reflection and needs more than 21 pixels), nothing is changed in place, and `cutmix` is left out.

Axis letters: N images, C channels, R resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.train.augment import ada, separable
from gtool.train.augment.policies import parse_word

ADA = "ada"  # words of `gtool.train.augment.ada`, and the operation that they become


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

    def to(self, device: torch.device | str) -> Draws:
        """Return the draws on a device."""
        moved = tuple(drawn.each(lambda values: values.to(device)) for drawn in self.operations)
        return Draws(moved, self.num_images)


@dataclass(frozen=True)
class _Request:
    """What a drawing function needs to know."""

    num_images: int
    resolution: int
    amount: float  # the number of the policy's word
    generator: torch.Generator

    def uniform(self, columns: int) -> Tensor:
        """Return (N, columns) in [0, 1)."""
        return torch.rand(self.num_images, columns, generator=self.generator, device=self.generator.device)

    def normal(self, columns: int) -> Tensor:
        """Return (N, columns) from N(0, 1)."""
        return torch.randn(self.num_images, columns, generator=self.generator, device=self.generator.device)

    def integers(self, low: int, high: int) -> Tensor:
        """Return (N, 1) integers from low to high, both included."""
        shape, device = (self.num_images, 1), self.generator.device
        return torch.randint(low, high + 1, shape, generator=self.generator, device=device)

    def one_integer(self, low: int, high: int) -> int:
        """Return one integer for the batch, from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator, device=self.generator.device))

    def hits_the_batch(self) -> bool:
        """Decide for the whole batch, with the probability `amount`."""
        return bool(torch.rand((), generator=self.generator, device=self.generator.device) < self.amount)


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
    drawn: list[Drawn | None] = []
    for is_ada, words in groupby((parse_word(word) for word in policy), lambda word: word[0].startswith(ADA)):
        requests = [(name, _Request(num_images, resolution, amount, generator)) for name, amount in words]
        drawn += [_draw_ada(requests, p)] if is_ada else [_draw_one(*request, p) for request in requests]
    return Draws(tuple(one for one in drawn if one is not None), num_images)


def _draw_one(name: str, request: _Request, p: float) -> Drawn | None:
    one = _OPERATIONS[name][0](request)
    if one is None:
        return None
    return Drawn(name, *one) if p == 1.0 else Drawn(name, *one, request.uniform(1) < p)


def _draw_ada(requests: list[tuple[str, _Request]], p: float) -> Drawn:
    words = [
        (name, ada.Chances(p * request.amount, request.uniform, request.normal)) for name, request in requests
    ]
    first = requests[0][1]
    return Drawn(ADA, *ada.draw(words, first.resolution, first.generator.device))


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Return images (N, C, R, R) changed as drawn, in their dtype; not clamped, never in place.

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


_DrawnNumbers = tuple[Tensor, tuple[int, ...]]
_Draw = Callable[[_Request], _DrawnNumbers | None]
_Apply = Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]


# Each operation: how it is drawn (None spares the batch), how it is applied.


def _draw_color(request: _Request) -> _DrawnNumbers:
    # Each in ±strength / 2.
    offset, saturation, contrast = request.uniform(3).sub(0.5).mul(request.amount).unbind(1)
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


def _draw_translation(request: _Request) -> _DrawnNumbers:
    largest = int(request.resolution * request.amount + 0.5)
    return torch.cat([request.integers(-largest, largest) for _ in "yx"], dim=1), ()


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


def _draw_cutout(request: _Request) -> _DrawnNumbers | None:
    side = int(request.resolution * 0.5 + 0.5)
    return _draw_rectangle(request, side, side)


def _draw_erase_ratio(request: _Request) -> _DrawnNumbers | None:
    low, high = int(request.resolution * 0.2), int(request.resolution * 0.7)
    return _draw_rectangle(request, request.one_integer(low, high), request.one_integer(low, high))


def _draw_stl_erase_ratio(request: _Request) -> _DrawnNumbers | None:
    high = request.resolution // 2 + 20
    return _draw_rectangle(request, request.one_integer(20, high), request.one_integer(20, high))


def _draw_rectangle(request: _Request, height: int, width: int) -> _DrawnNumbers | None:
    """One size for the batch and a place for each image, whose middle lies in the image."""
    if not request.hits_the_batch():
        return None
    corners = [request.integers(0, request.resolution - side % 2) - side // 2 for side in (height, width)]
    return torch.cat(corners, dim=1), (height, width)


def _erase(images: Tensor, values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Set a rectangle to zero, which is mid-grey."""
    rows = torch.arange(images.shape[2], device=images.device) - values[:, :1]  # (N, H)
    columns = torch.arange(images.shape[3], device=images.device) - values[:, 1:]  # (N, W)
    erased = _within(rows, size[0]).unsqueeze(2) & _within(columns, size[1]).unsqueeze(1)  # (N, H, W)
    return images * ~erased.unsqueeze(1)


def _draw_hue(request: _Request) -> _DrawnNumbers:
    turn, chance = request.uniform(2).unbind(1)
    return (math.pi * (2 * turn - 1) * (chance < request.amount)).unsqueeze(1), ()


def _hue(images: Tensor, values: Tensor, _: tuple[int, ...]) -> Tensor:
    """Rotate colours (3 channels) about the grey axis k = (1, 1, 1) / sqrt(3), by Rodrigues' formula."""
    x = _at_least_fp32(images)
    angle = values.to(x.dtype).view(-1, 1, 1, 1)
    cosine, sine = angle.cos(), angle.sin()
    across = (x.roll(1, dims=1) - x.roll(-1, dims=1)) / math.sqrt(3)  # k × x
    along = x.mean(dim=1, keepdim=True)  # k (k · x)
    return (cosine * x + sine * across + (1 - cosine) * along).to(images.dtype)


def _draw_filter(request: _Request) -> _DrawnNumbers:
    chosen = request.uniform(separable.NUM_BANDS) < request.amount
    return request.normal(separable.NUM_BANDS) * chosen, ()


def _filter(images: Tensor, values: Tensor, _: tuple[int, ...]) -> Tensor:
    """Multiply four frequency bands by 2^values; each change of a band keeps the power of a 1/f spectrum."""
    power = torch.tensor([10.0, 1.0, 1.0, 1.0], device=values.device) / 13
    gains = values.exp2()  # (N, 4)
    gains = gains / (1 + power * (gains.square() - 1)).prod(dim=1, keepdim=True).sqrt()
    bank = separable.bands(images.shape[-1], images.device)
    kernel = torch.einsum("nb,bij->nij", gains, bank)
    return separable.apply(images, kernel, kernel)


def _draw_geo(request: _Request) -> _DrawnNumbers:
    """Mirror p 0.5; scale and stretch 2^N(0, 0.2^2), shift N(0, 0.125^2) of the side, p 0.3 each."""
    chances = torch.tensor([0.5, 0.3, 0.3, 0.3], device=request.generator.device) * request.amount
    mirror, scaled, stretched, shifted = (request.uniform(4) < chances).unbind(1)
    scale, stretch, down, right = request.normal(4).unbind(1)
    scale, stretch = 0.2 * scale * scaled, 0.2 * stretch * stretched
    down, right = (0.125 * shift * shifted for shift in (down, right))
    tall, wide = (scale - stretch).exp2(), (scale + stretch).exp2()
    return torch.stack([mirror.float(), tall, wide, down, right], dim=1), ()


def _geo(images: Tensor, values: Tensor, _: tuple[int, ...]) -> Tensor:
    """Mirror left to right, enlarge each axis about the middle, shift; mirrored borders."""
    mirror, tall, wide, down, right = values.unbind(1)
    images = torch.where(mirror.view(-1, 1, 1, 1) > 0, images.flip(3), images)
    height, width = images.shape[2:]
    rows = separable.rescaling(tall, down * height, height)
    columns = separable.rescaling(wide, right * width, width)
    return separable.apply(images, rows, columns)


def _draw_crop(request: _Request) -> _DrawnNumbers:
    """One place for the batch; which images are cropped is each image's own."""
    room = int(request.resolution * 1.2) - request.resolution
    corner = (request.one_integer(0, room), request.one_integer(0, room))
    return request.uniform(1) < request.amount, corner


def _crop(images: Tensor, values: Tensor, corner: tuple[int, ...]) -> Tensor:
    height, width = images.shape[2:]
    large = F.interpolate(images, scale_factor=1.2, mode="bicubic")
    cropped = large[:, :, corner[0] : corner[0] + height, corner[1] : corner[1] + width]
    return torch.where(values.view(-1, 1, 1, 1), cropped, images)


def _draw_rotate(request: _Request) -> _DrawnNumbers | None:
    quarters = request.one_integer(1, 3)
    return (request.uniform(0), (quarters,)) if request.hits_the_batch() else None


def _rotate(images: Tensor, _: Tensor, quarters: tuple[int, ...]) -> Tensor:
    return torch.rot90(images, quarters[0], (2, 3))


def _at_least_fp32(images: Tensor) -> Tensor:
    return images.to(torch.promote_types(images.dtype, torch.float32))


_OPERATIONS: dict[str, tuple[_Draw, _Apply]] = {
    "color": (_draw_color, _color),
    "translation": (_draw_translation, _translation),
    "cutout": (_draw_cutout, _erase),
    "erase_ratio": (_draw_erase_ratio, _erase),
    "stl_erase_ratio": (_draw_stl_erase_ratio, _erase),
    "hue": (_draw_hue, _hue),
    "filter": (_draw_filter, _filter),
    "geo": (_draw_geo, _geo),
    "crop": (_draw_crop, _crop),
    "rotate": (_draw_rotate, _rotate),
}
