"""Projection: the latent whose image is nearest to a photo, found from many starts; files that hold such latents.

As in StyleGAN2's projector (Karras et al. 2020, appendix D): Adam on the latent and the noise inputs, which a penalty
keeps from holding any of the photo. Other than there: many starts, of which the best go on, and L-BFGS at the end,
since one start often leads to another image than the nearest, and Adam is slow once it is near. What is searched is
z, or, of generators with a mapping network, a w for each layer.

Axis letters: N starts, P photos, R resolution, L layers that take a w, K components, d their width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.errors import CheckpointError
from gtool.io.weights import load_weights
from gtool.losses.perceptual import features_apart, perceptual_features
from gtool.models.generate import TrainedModel, latents, noise_inputs

PSI = 0.7  # truncation of the starts
POOL = 512  # latents of which the nearest are starts


@dataclass(frozen=True)
class Round:
    """Steps of Adam from so many starts, at a rate that falls from the first to the last; with features or without."""

    starts: int
    steps: int
    first_rate: float
    last_rate: float
    perceptual: bool = False


ROUNDS = (Round(32, 100, 0.1, 0.05), Round(8, 100, 0.05, 0.01, perceptual=True))
SHORT = Round(4, 40, 0.1, 0.05)  # to compare how near a model comes to photos
FINALISTS, EVALUATIONS = 4, 120  # of L-BFGS
PERCEPTUAL = 0.02  # weight of the perceptual distance beside the mean squared error of pixels in [-1, 1]
NORM = 0.02  # weight of the squared excess of a latent's mean square over what training saw
NOISE = 100.0  # weight of the squared correlation of neighbouring noise inputs
SMALLEST_NOISE = 8  # side of the smallest map whose noise is held uncorrelated
MOST_STEPS = sum(settings.steps for settings in ROUNDS) + FINALISTS * EVALUATIONS

# Gets the best image (3, R, R) of a step, its loss and what that is of.
Watch = Callable[[Tensor, float, str], None]


@dataclass(frozen=True)
class Points:
    """What is searched: latents (N, ...) in units of their deviation, and noise inputs (N, ...); and classes (N,)."""

    latent: Tensor
    noise: list[Tensor]
    classes: Tensor | None

    def take(self, rows: Tensor) -> Points:
        """Return some of the points, in the order of their rows."""
        noise = [x[rows] for x in self.noise]
        return Points(self.latent[rows], noise, None if self.classes is None else self.classes[rows])


@dataclass(frozen=True)
class Projection:
    """What was found for a photo.

    tensors: `z` or `ws` of the image, its noise inputs `noise.0`, ... and its `class`, without an axis of images.
    image: (3, R, R) in [-1, 1].
    distance: perceptual, to the photo.
    """

    tensors: dict[str, Tensor]
    image: Tensor
    psnr: float
    distance: float


class Search:
    """The images of a generator as a function of points, and their losses against targets (3, R, R)."""

    def __init__(self, model: TrainedModel, seed: int) -> None:
        self.model, self.network, self.device = model, model.network, model.compute.device
        numbers = torch.arange(POOL)
        z = latents(self.network, seed, numbers, "projection").to(self.device)
        classes = model.classes_of(numbers)
        noise = [x.to(self.device) for x in noise_inputs(self.network, seed, numbers[:1])]
        self.noise = [x.expand(POOL, *x.shape[1:]) for x in noise]
        self.classes = None if classes is None else classes.to(self.device)
        # The mean square of so many normals is 1, and above this in one of 700.
        self.largest = 1 + 3 * (2 / z[0].numel()) ** 0.5
        self.center, self.scale, self.kind = torch.zeros_like(z[:1]), 1.0, "z"
        if hasattr(self.network, "mapping"):
            with torch.no_grad():
                w = model.w(z, classes=classes)
            mean = model.mean_w.mean(dim=0) if self.network.num_classes else model.mean_w
            self.center, self.scale = self.network.broadcast(mean[None]), float(w.std(dim=0).mean())
            z, self.kind = (self.network.broadcast(w) - self.center) / self.scale, "ws"
        self.latent = z * PSI
        self.latent[0] = 0

    def images(self, points: Points) -> Tensor:
        """Return (N, 3, R, R) in float32."""
        latent, noise = self.center + self.scale * points.latent, points.noise or None
        if self.kind == "ws":
            return self.network.synthesis(latent, noise)[0].float()
        own = () if points.classes is None else (points.classes,)
        return self.network(latent, noise, *own).float()

    def losses(self, images: Tensor, points: Points, targets: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Return (N,); without features of the targets by pixels alone."""
        found = squared_error(images, targets)
        if features:
            found = found + PERCEPTUAL * features_apart(perceptual_features(images), features)
        excess = points.latent.square().flatten(1).mean(1) - self.largest
        found = found + NORM * excess.clamp(min=0).square()
        for noise in points.noise:
            found = found + NOISE * correlation(noise)
        return found

    @torch.no_grad()
    def starts(self, targets: Tensor, count: int) -> Points:
        """Return for each target (P, 3, R, R) the points of the pool whose images are nearest by their pixels."""
        pool, errors = Points(self.latent, self.noise, self.classes), []
        for rows in torch.split(torch.arange(POOL), self.model.images_at_once()):
            with self.model.compute.autocast():
                images = self.images(pool.take(rows))
            errors.append(torch.stack([squared_error(images, target) for target in targets]))
        return pool.take(torch.cat(errors, dim=1).argsort(dim=1)[:, :count].flatten())

    def descend(
        self, points: Points, targets: Tensor, settings: Round, watch: Watch | None = None
    ) -> tuple[Points, Tensor, Tensor]:
        """Go down from all points at once, towards a target for each (N, 3, R, R).

        Returns the points, and of the last step the losses (N,) and images (N, 3, R, R).
        """
        searched = [x.clone().requires_grad_() for x in (points.latent, *points.noise)]
        points = Points(searched[0], searched[1:], points.classes)
        size, numbers = self.model.images_at_once(), torch.arange(len(targets))
        wanted = [perceptual_features(x) for x in torch.split(targets, size)] if settings.perceptual else []
        adam = torch.optim.Adam(searched, lr=settings.first_rate, betas=(0.9, 0.99))
        losses, images = torch.zeros(len(targets)), targets
        for step in range(settings.steps):
            self.model.compute.follow_load()
            share = step / settings.steps
            adam.param_groups[0]["lr"] = settings.first_rate ** (1 - share) * settings.last_rate**share
            adam.zero_grad()
            found = []
            for chunk, rows in enumerate(torch.split(numbers, size)):
                part = points.take(rows)
                with self.model.compute.autocast():
                    images = self.images(part)
                loss = self.losses(images, part, targets[rows], wanted[chunk] if wanted else ())
                torch.autograd.backward(loss.sum())
                found.append((loss.detach(), images.detach()))
            losses, images = (torch.cat(parts) for parts in zip(*found, strict=True))
            if watch is not None:
                best = int(losses.argmin())
                watch(images[best], float(losses[best]), "with features" if wanted else "pixels")
            adam.step()
            for noise in points.noise:
                noise.data = _normalized(noise.data)
        points = Points(searched[0].detach(), [x.detach() for x in searched[1:]], points.classes)
        return points, losses, images

    def polish(
        self, point: Points, target: Tensor, watch: Watch | None = None, name: str = ""
    ) -> tuple[Points, Tensor, float]:
        """Go from one point to where the loss is least near it, in float32; `name` is what `watch` is told.

        Returns the point, its image (1, 3, R, R) and its loss.
        """
        point = replace(point, latent=point.latent.clone().requires_grad_())
        wanted = perceptual_features(target[None])
        lbfgs = torch.optim.LBFGS(
            [point.latent],
            max_iter=EVALUATIONS,
            max_eval=EVALUATIONS,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            self.model.compute.follow_load()
            lbfgs.zero_grad()
            images = self.images(point)
            loss = self.losses(images, point, target[None], wanted).sum()
            torch.autograd.backward(loss)
            if watch is not None:
                watch(images[0].detach(), float(loss.detach()), name)
            return loss

        lbfgs.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            images = self.images(point)
            loss = self.losses(images, point, target[None], wanted)
        return replace(point, latent=point.latent.detach()), images, float(loss)


def project(model: TrainedModel, photo: Tensor, seed: int = 0, watch: Watch | None = None) -> Projection:
    """Find the latent of a photo (3, R, R) in [-1, 1], R that of the model; `watch` is called at each step.

    Of a conditional generator the starts take the chosen classes in turn, and each keeps its own.
    """
    search, target = Search(model, seed), photo.to(model.compute.device)
    points = search.starts(target[None], ROUNDS[0].starts)
    for settings in ROUNDS:
        points = points.take(torch.arange(min(settings.starts, len(points.latent))))
        targets = target.expand(len(points.latent), -1, -1, -1)
        points, losses, _ = search.descend(points, targets, settings, watch)
        points = points.take(losses.argsort())
    finalists = []
    for start in torch.split(torch.arange(min(FINALISTS, len(points.latent))), 1):
        finalists.append(search.polish(points.take(start), target, watch, f"finalist {int(start) + 1}"))
    best, image, _ = min(finalists, key=lambda found: found[2])
    image = image.clamp(-1, 1)
    named = {search.kind: search.center + search.scale * best.latent}
    named |= {f"noise.{layer}": x for layer, x in enumerate(best.noise)}
    named |= {} if best.classes is None else {"class": best.classes}
    distance = features_apart(perceptual_features(image), perceptual_features(target[None]))
    tensors = {name: x[0].cpu() for name, x in named.items()}
    return Projection(tensors, image[0].cpu(), _psnr(image, target).item(), distance.item())


def short_search(model: TrainedModel, photos: Tensor, seed: int = 0) -> Tensor:
    """Return the PSNR (P,) in dB that a short search reaches for each of several photos (P, 3, R, R) in [-1, 1]."""
    search, targets = Search(model, seed), photos.to(model.compute.device)
    points = search.starts(targets, SHORT.starts)
    targets = targets.repeat_interleave(SHORT.starts, dim=0)
    _, _, images = search.descend(points, targets, SHORT)
    return _psnr(images, targets).view(-1, SHORT.starts).max(dim=1).values.cpu()


def squared_error(images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error (N,) of pixels; where a photo is at an end of [-1, 1], images may lie beyond it."""
    beyond = (images - images.clamp(-1, 1)) * (targets.abs() > 1 - 1e-3)
    return (images - beyond - targets).square().mean((1, 2, 3))


def correlation(noise: Tensor) -> Tensor:
    """Return (N,): how much noise inputs (N, ..., R R values in rows) are like their neighbours, at all scales."""
    side = round(noise[0].numel() ** 0.5)
    x, total = noise.reshape(-1, 1, side, side), torch.zeros(len(noise), device=noise.device)
    while True:
        for axis in (2, 3):
            total = total + (x * x.roll(1, axis)).mean((1, 2, 3)).square()
        if x.shape[2] <= SMALLEST_NOISE:
            return total
        x = F.avg_pool2d(x, 2) * 2  # of deviation 1 again


def _normalized(noise: Tensor) -> Tensor:
    """Noise inputs (N, ...) of mean 0 and mean square 1."""
    axes = tuple(range(1, noise.ndim))
    noise = noise - noise.mean(axes, keepdim=True)
    return noise * noise.square().mean(axes, keepdim=True).add(1e-8).rsqrt()


def _psnr(images: Tensor, target: Tensor) -> Tensor:
    return -10 * (squared_error(images, target).clamp(min=1e-10) / 4).log10()


def read_latents(paths: Sequence[Path], network: Any) -> dict[str, Tensor]:
    """Return the tensors of latent files, one behind the other (n, ...); CheckpointError where shapes are others."""
    shapes = {f"noise.{layer}": shape for layer, shape in enumerate(network.noise_shapes)}
    if hasattr(network, "mapping"):
        shapes["ws"] = (network.num_ws, *network.z_shape)
    else:
        shapes["z"] = network.z_shape
    shapes |= {"class": ()} if network.num_classes else {}
    found = []
    for path in paths:
        tensors = load_weights(path).tensors
        if {name: tuple(x.shape) for name, x in tensors.items()} != {
            name: tuple(s) for name, s in shapes.items()
        }:
            raise CheckpointError(
                f"{path}: its latents have other shapes than this model's; project the photo again"
            )
        found.append(tensors)
    return {name: torch.stack([tensors[name] for tensors in found]) for name in shapes}
