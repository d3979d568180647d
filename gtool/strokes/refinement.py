"""Refining a painting of few strokes: their places, sides, turns and colours follow the gradient of what is wrong.

Each stroke of a budget is found on its own, by patches, and then stays as it is; here all of them move together, seen
first small and then larger. On the way strokes that hardly matter give way to new ones where the image is missed most.

What falls: the mean absolute difference, weighted by how much places draw the eye; that of its gradients at three
scales; bare canvas; and at last the distance of features of EfficientNet-Lite0. It takes about 10 s of one core for 250
strokes, 12 s for 500 and 15 s for 1,000, at 512 px.

Axis letters: N strokes, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.losses.perceptual import features_apart, perceptual_features
from gtool.losses.reconstruction import multiscale_gradients
from gtool.nn.resample import resample
from gtool.runtime.device import use_threads
from gtool.runtime.torch_random import make_generator
from gtool.strokes.canvas import Painting, to_pixels
from gtool.strokes.renderer import mark_of, stand_up, turn_to_mark
from gtool.strokes.seeding import Seeds, seed_strokes
from gtool.strokes.settings import PaintSettings
from gtool.strokes.visible import VisiblePixels, find_visible, losses_without, render_visible

MOST_REFINED = 1000  # strokes of a budget, above which they are many enough
RATES = (0.004, 0.04, 0.015, 0.015)  # of place (shares of the longer side), log of the sides, turn, colour
BETAS = (0.9, 0.95)
LIST_EVERY = 5  # steps after which visible pixels are listed anew
SEED_EVERY = 10  # steps between replacements
SEED_SHARE = 0.3  # of the strokes, that the first replacement may take
WORTH = 0.4  # of what a stroke is worth, that a new one has to gain before it is refined
GRADIENTS, BARE = 0.5, 0.05  # weights of the loss
NARROWEST = 1 / 512  # sides in shares of the longer side of the picture
SHORTEST_SEED, LONGEST_SEED = 3.0, 0.35  # lengths of new strokes: in pixels; in shares of the longer side


@dataclass(frozen=True)
class Stage:
    """Some steps at one size."""

    side: int  # pixels of the longer side
    steps: int
    rate: float  # times RATES, at first
    replacements: int
    perceptual: float  # weight of the distance of features


STAGES = (Stage(128, 120, 1.0, 8, 0.0), Stage(256, 40, 0.6, 0, 0.0), Stage(512, 20, 0.4, 0, 0.03))


def refine(
    painting: Painting,
    image: Tensor,
    settings: PaintSettings,
    *,
    interest: Tensor,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Painting:
    """Bring a painting nearer to its image (3, H, W) in [0, 1] with as many strokes, within the same limits.

    interest: (1, h, w) of `gtool.strokes.saliency`; progress: is told how many steps of how many are done.
    """
    stages = list(_stages_for(max(image.shape[1:])))
    total, done = sum(stage.steps for stage in stages), 0
    with use_threads(1), torch.enable_grad():  # sums of several threads end in other bits
        strokes = _MovingStrokes(painting, settings)
        for stage in stages:
            scene = _scene(image, interest, stage)
            for _ in _steps(strokes, scene, stage):
                progress(done, total)
                done += 1
    progress(total, total)
    return strokes.painting()


def _stages_for(longer: int) -> Iterator[Stage]:
    """Yield the stages that show more of an image than those before."""
    before = 0
    for stage in STAGES:
        if before < longer:
            yield replace(stage, side=min(stage.side, longer))
        before = stage.side


@dataclass(frozen=True)
class _Scene:
    """What is painted, at the size of a stage."""

    target: Tensor  # (3, H, W)
    weight: Tensor  # (1, H, W)
    features: list[Tensor] | None

    @property
    def size(self) -> tuple[int, int]:
        _, height, width = self.target.shape
        return height, width

    def loss(self, canvas: Tensor, perceptual: float) -> Tensor:
        """How far a canvas (4, H, W), colours and how bare it is, is from the target."""
        painted, bare = canvas[:3], canvas[3].mean()
        near = ((painted - self.target).abs() * self.weight).mean()
        total = near + GRADIENTS * multiscale_gradients(painted[None], self.target[None]) + BARE * bare
        if self.features is not None:
            found = perceptual_features(2 * painted[None] - 1)
            total = total + perceptual * features_apart(found, self.features).sum()
        return total


def _scene(image: Tensor, interest: Tensor, stage: Stage) -> _Scene:
    scale = stage.side / max(image.shape[1:])
    height, width = (max(1, round(side * scale)) for side in image.shape[1:])
    target = resample(image[None], (height, width), antialias=True)[0].clamp(0, 1)
    weight = 0.5 + 0.5 * F.interpolate(interest[None], (height, width), mode="bilinear")[0]
    with torch.no_grad():
        features = perceptual_features(2 * target[None] - 1) if stage.perceptual else None
    return _Scene(target, weight, features)


class _MovingStrokes:
    """Strokes that change: in shares of the longer side of the picture, none wider than long."""

    def __init__(self, painting: Painting, settings: PaintSettings) -> None:
        geometry = stand_up(painting.shape_params)
        self.before, self.brush, self.opacity = painting, painting.brush, painting.opacity
        self.limits = settings.shortest, settings.longest
        self.random = make_generator(settings.seed, "refinement")
        self.ground = geometry.new_tensor([*painting.ground, 1.0])  # all of it bare
        self.marks = mark_of(painting.shape_params[:, 4], self.brush.marks)
        self.levels = painting.levels.clone()
        self.parameters = [part.clone().requires_grad_() for part in _parts(geometry, painting.colors)]

    def geometry(self, longer: float = 1.0) -> Tensor:
        """The strokes (N, 5) as they are painted: within their limits, with the marks they began with."""
        place, sides, theta, _ = self.parameters
        turned = turn_to_mark(theta.detach(), self.marks[:, None], self.brush.marks)
        sides = sides.exp().clamp(min=NARROWEST)
        length = sides.amax(1, keepdim=True)
        sides = sides * (length.clamp(*self.limits) / length).detach()
        return to_pixels(torch.cat([place, sides, theta + (turned - theta.detach())], dim=1), longer)

    def colors(self) -> Tensor:
        """Colours and 0 for what is bare: (N, 4)."""
        return F.pad(self.parameters[3].clamp(0, 1), (0, 1))

    def list_pixels(self, size: tuple[int, int]) -> VisiblePixels:
        """Find the pixels in which strokes show at a size."""
        return find_visible(self.brush, self.geometry(max(size)).detach(), size, self.opacity)

    def paint(self, pixels: VisiblePixels) -> Tensor:
        """The canvas (4, H, W): colours, and how bare it is."""
        geometry = self.geometry(max(pixels.size))
        return render_visible(pixels, self.brush, geometry, self.colors(), self.ground, self.opacity)

    def losses_without(self, pixels: VisiblePixels, scene: _Scene) -> Tensor:
        """What each stroke is worth: (N,)."""
        target = scene.target.flatten(1).T.contiguous()
        geometry = self.geometry(max(pixels.size))
        inputs = (self.brush, geometry, self.colors(), self.ground, self.opacity, target)
        return losses_without(pixels, *inputs, scene.weight.flatten())

    def replace(self, gone: Tensor, seeds: Seeds, longer: float, adam: torch.optim.Adam) -> None:
        """Leave out strokes (n,) and paint as many new ones last."""
        stay = torch.ones_like(self.marks, dtype=torch.bool)
        stay[gone] = False
        self.marks = torch.cat([self.marks[stay], mark_of(seeds.geometry[:, 4], self.brush.marks)])
        last = self.levels.max().expand(len(gone))
        self.levels = torch.cat([self.levels[stay], last])
        new = _parts(stand_up(to_pixels(seeds.geometry, 1 / longer)), seeds.colors)
        for parameter, values in zip(self.parameters, new, strict=True):
            parameter.copy_(torch.cat([parameter[stay], values]))
            for key in ("exp_avg", "exp_avg_sq"):
                moment = adam.state[parameter][key]
                moment.copy_(torch.cat([moment[stay], torch.zeros_like(values)]))

    def painting(self) -> Painting:
        """The painting as it is now."""
        geometry, colors = self.geometry().detach(), self.colors().detach()[:, :3]
        return replace(self.before, shape_params=geometry, colors=colors, levels=self.levels)


def _parts(geometry: Tensor, colors: Tensor) -> tuple[Tensor, ...]:
    """Split strokes (N, 5) into what is refined: place, log of the sides, turn, colour."""
    sides = geometry[:, 2:4].clamp(min=NARROWEST).log()
    return geometry[:, :2], sides, geometry[:, 4:], colors


def _steps(strokes: _MovingStrokes, scene: _Scene, stage: Stage) -> Iterator[None]:
    """Refine strokes at one size; yields before each step."""
    groups = [
        {"params": [part], "lr": 0.0, "most": rate * stage.rate}
        for part, rate in zip(strokes.parameters, RATES, strict=True)
    ]
    adam = torch.optim.Adam(groups, betas=BETAS)
    pixels = strokes.list_pixels(scene.size)
    for step in range(stage.steps):
        yield
        for group in adam.param_groups:
            group["lr"] = group["most"] * min(1.0, (step + 1) / 5, 2 * (1 - step / stage.steps))
        if step % LIST_EVERY == 0:
            pixels = strokes.list_pixels(scene.size)
        adam.zero_grad()
        torch.autograd.backward(scene.loss(strokes.paint(pixels), stage.perceptual))
        adam.step()
        turn, is_due = divmod(step + 1, SEED_EVERY)
        if is_due == 0 and turn <= stage.replacements:
            _replace_weakest(strokes, scene, adam, SEED_SHARE * (1 - (turn - 1) / stage.replacements))


@torch.no_grad()
def _replace_weakest(strokes: _MovingStrokes, scene: _Scene, adam: torch.optim.Adam, share: float) -> None:
    """Let at most a share of the strokes give way to new ones that promise more."""
    pixels = strokes.list_pixels(scene.size)
    worth = strokes.losses_without(pixels, scene)
    longer = float(max(scene.size))
    shortest, longest = (limit * longer for limit in strokes.limits)
    low = min(longest, max(SHORTEST_SEED, shortest))
    lengths = (low, max(low, min(LONGEST_SEED * longer, longest)))
    canvas = strokes.paint(pixels)[:3]
    most = math.ceil(share * len(worth))
    inputs = (strokes.brush, strokes.opacity, canvas, scene.target, scene.weight)
    seeds = seed_strokes(*inputs, most, lengths, strokes.random)
    weakest = worth.argsort(stable=True)[: len(seeds.gains)]
    count = int((seeds.gains > WORTH * worth[weakest]).sum())
    best = Seeds(seeds.geometry[:count], seeds.colors[:count], seeds.gains[:count])
    strokes.replace(weakest[:count], best, longer, adam)
