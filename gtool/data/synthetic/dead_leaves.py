"""Dead leaves: pictures of overlapping shapes of all sizes, which have the statistics of photographs but no author.

Lee, Mumford and Huang (2001), "Occlusion models for natural images": shapes whose sizes follow a power law, each
hiding what is behind it. Ours are ellipses, boxes, blobs and slivers with colours that agree within a picture,
linear shading, textures whose spectra fall as those of photographs do, soft or hard edges, sometimes blur and noise.

Axis letters: N pictures, S shapes a picture, R pixels a side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPES = 48
CHUNK = 64  # pictures drawn at a time


def draw_leaves(count: int, resolution: int, generator: torch.Generator) -> Tensor:
    """Draw pictures, uint8 (N, 3, R, R), a function of the generator alone."""
    parts = [_draw(min(CHUNK, count - start), resolution, generator) for start in range(0, count, CHUNK)]
    return torch.cat(parts) if parts else torch.empty(0, 3, resolution, resolution, dtype=torch.uint8)


def _draw(n: int, resolution: int, generator: torch.Generator) -> Tensor:
    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    places = (torch.arange(resolution) + 0.5) / resolution
    y, x = torch.meshgrid(places, places, indexing="ij")  # (R, R)
    # One mood a picture: colours scatter about a few of its own.
    # Most things are greyer than three independent numbers.
    saturation = uniform(n, 1, 1)
    palette = (1 - saturation) * uniform(n, 4, 1) + saturation * uniform(n, 4, 3)
    spread = uniform(n, 1, 1, high=0.35).square() * 2
    chosen = torch.randint(0, 4, (n, SHAPES + 1), generator=generator)
    colors = palette.gather(1, chosen[..., None].expand(-1, -1, 3))
    colors = (colors + spread * torch.randn(n, SHAPES + 1, 3, generator=generator)).clamp(0, 1)
    slope = 0.5 * uniform(n, SHAPES + 1, 2, low=-1).pow(3)  # brightness across a shape
    textures = _textures(n, resolution, generator)
    roughness = 0.15 * uniform(n, SHAPES + 1, 2, low=-1).pow(3)  # most shapes are nearly plain
    rough = (roughness[..., None, None] * textures[:, None]).sum(2)[:, :, None]  # (N, S + 1, 1, R, R)
    picture = _shaded(colors[:, 0], slope[:, 0], x - 0.5, y - 0.5) + rough[:, 0]
    # Sizes by a power law, cut off: p(r) ~ r^-2.
    smallest, largest = 0.02, 0.5
    radius = 1 / uniform(n, SHAPES, low=1 / largest, high=1 / smallest)
    radius = torch.where(uniform(n, SHAPES) < 0.3, uniform(n, SHAPES, low=0.08, high=largest), radius)
    # Large ones first, roughly: what is in front of a photo is often smaller than what is behind.
    order = (radius * uniform(n, SHAPES, low=0.4, high=1.6)).argsort(dim=1, descending=True)
    radius = radius.gather(1, order)
    ratio = torch.exp(uniform(n, SHAPES, low=-1.2, high=1.2))
    sliver = uniform(n, SHAPES) < 0.2  # poles, branches, folds
    ratio = torch.where(sliver, torch.exp(uniform(n, SHAPES, low=1.5, high=4.0)), ratio)
    angle = torch.pi * uniform(n, SHAPES)
    centre = uniform(n, SHAPES, 2, low=-0.1, high=1.1)
    power = torch.where(uniform(n, SHAPES) < 0.5, 2.0, uniform(n, SHAPES, low=3.0, high=12.0))
    softness = torch.where(uniform(n, SHAPES) < 0.7, 1.0, uniform(n, SHAPES, low=1.0, high=12.0))
    count = torch.randint(4, SHAPES + 1, (n, 1), generator=generator)
    for s in range(SHAPES):
        dx, dy = x - centre[:, s, 0, None, None], y - centre[:, s, 1, None, None]
        c, si = angle[:, s].cos()[:, None, None], angle[:, s].sin()[:, None, None]
        r, q = radius[:, s, None, None], ratio[:, s, None, None].sqrt()
        u, v = ((c * dx + si * dy) / (r * q)).abs(), ((c * dy - si * dx) / (r / q)).abs()
        p = power[:, s, None, None]
        level = ((u.clamp(max=4) ** p + v.clamp(max=4) ** p) ** (1 / p) - 1) * r * resolution  # about pixels
        alpha = (0.5 - level / softness[:, s, None, None]).clamp(0, 1)
        alpha = (alpha * (s < count)[:, :, None])[:, None]
        leaf = _shaded(colors[:, s + 1], slope[:, s + 1] / r[:, :, 0].clamp(min=0.1), dx, dy)
        picture = picture + alpha * (leaf + rough[:, s + 1] - picture)
    blurred = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, 1)
    picture = torch.where((uniform(n, 1, 1, 1) < 0.3), blurred, picture)
    noise = 0.03 * uniform(n, 1, 1, 1).square() * torch.randn(picture.shape, generator=generator)
    return (255 * (picture + noise).clamp(0, 1)).round().to(torch.uint8)


def _textures(n: int, resolution: int, generator: torch.Generator) -> Tensor:
    """Two fields of noise a picture, mean 0 and deviation 1, amplitude ~ 1 / frequency^p: (N, 2, R, R)."""
    across = torch.fft.rfftfreq(resolution)
    frequency = (torch.fft.fftfreq(resolution)[:, None].square() + across.square()).sqrt()
    frequency[0, 0] = torch.inf  # no mean
    power = 0.6 + torch.rand(n, 2, 1, 1, generator=generator)
    white = torch.randn(n, 2, resolution, resolution, generator=generator)
    field = torch.fft.irfft2(torch.fft.rfft2(white) * frequency**-power, s=(resolution, resolution))
    return field / field.std(dim=(2, 3), keepdim=True)


def _shaded(color: Tensor, slope: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Colours (N, 3) with brightness falling along slopes (N, 2): (N, 3, R, R)."""
    light = slope[:, 0, None, None] * dx + slope[:, 1, None, None] * dy
    return (color[:, :, None, None] + light[:, None]).clamp(0, 1)
