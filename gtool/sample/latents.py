"""Latents beyond sampling: interpolation between images, mixing of components and layers, the effect of noise.

Generators with a mapping network (`mapping`, `broadcast`, `synthesis`, `num_ws`) turn z into w, and w into an image.
Axis letters: N images, S key latents, K components with the global one last, d their width, L layers that take a w.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from gtool.models.generate import TrainedModel, WsOfRows, batches, latents
from gtool.runtime.random import derive_seed

NEARLY_PARALLEL = 1e-4  # radians


def interpolate(keys: Tensor, steps: int, *, linear: bool = False) -> Tensor:
    """Interpolate from each latent to the next, and from the last to the first.

    Spherically, since Gaussian latents of many dimensions lie near a sphere, which the straight line between two of
    them leaves (White 2016, "Sampling Generative Networks").

    keys: (S, ..., d), S >= 2; each component of a latent is interpolated by itself.
    linear: on straight lines: for what is not Gaussian, as w.

    Returns (S x steps, ..., d); row s x steps is key s.
    """
    share = torch.arange(steps, dtype=keys.dtype, device=keys.device).div(steps)
    share = share.view(1, -1, *[1] * (keys.ndim - 1))  # (1, steps, 1, ...)
    start, end = keys.unsqueeze(1), keys.roll(-1, dims=0).unsqueeze(1)  # (S, 1, ..., d)
    if linear:
        return torch.lerp(start, end, share).flatten(0, 1)
    unit_start, unit_end = (torch.nn.functional.normalize(z, dim=-1) for z in (start, end))
    angle = (unit_start * unit_end).sum(-1, keepdim=True).clamp(-1, 1).acos()  # (S, 1, ..., 1)
    is_flat = angle < NEARLY_PARALLEL
    sine = torch.where(is_flat, torch.ones_like(angle), angle.sin())
    from_start = torch.where(is_flat, 1 - share, ((1 - share) * angle).sin() / sine)
    from_end = torch.where(is_flat, share, (share * angle).sin() / sine)
    return (from_start * start + from_end * end).flatten(0, 1)


@torch.no_grad()
def interpolated_ws(
    model: TrainedModel,
    numbers: Tensor,
    steps: int,
    seed: int,
    *,
    psi: float = 1.0,
    moving: Collection[int] | None = None,
    space: str = "z",
) -> WsOfRows:
    """Return what makes the ws of an interpolation between images of a seed, so many steps from one to the next.

    model: a generator with a mapping network.
    moving: components that move, the others stay those of the first image; None moves all.
    space: `z` (spherical) or `w` (linear), which latents of photos always take.
    """
    # All of them are of the class of the first image.
    one = model.classes_of(numbers[:1])
    first = model.ws(numbers[:1], seed, psi)(torch.tensor([0]))
    if space == "w" or "ws" in model.found:
        space, of_all = "w", None if one is None else one.expand(len(numbers))
        keys = model.ws(numbers, seed, psi, of_all)(torch.arange(len(numbers)))
        path = interpolate(keys, steps, linear=True)
    else:
        path = interpolate(latents(model.network, seed, numbers), steps)
    components = range(first.shape[2])
    is_moving = torch.tensor([moving is None or one in moving for one in components], device=first.device)

    def ws(rows: Tensor) -> Tensor:
        made = path[rows.to(path.device)]
        made = made if space == "w" else model.network.broadcast(model.w(made, psi, one))
        # Components attend to each other in the mapping: one that moves in z alone would move the others in w.
        return torch.where(is_moving[:, None], made, first)

    return ws


def mixed_ws(
    model: TrainedModel, targets: Tensor, sources: Tensor, taken: Tensor, seed: int, psi: float = 1.0
) -> WsOfRows:
    """Return what makes the ws of images `targets` (N,) with what `taken` (N, L, K) marks from `sources` (N,)."""
    of_targets, of_sources = (model.ws(numbers, seed, psi) for numbers in (targets, sources))

    def ws(rows: Tensor) -> Tensor:
        kept = of_targets(rows)
        return torch.where(taken[rows].to(kept.device)[..., None], of_sources(rows), kept)

    return ws


def noise_variation(
    model: TrainedModel, number: int, seed: int, *, psi: float = 1.0, draws: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Make an image `draws` times with other noise inputs, never all of them in memory.

    Draw j depends on (seed, number, j) alone. Returns the mean (3, R, R) and the standard deviation (R, R), root mean
    square over colours, in levels of 0 to 255.
    """
    same = torch.tensor([number]).expand(draws)
    total = squares = torch.zeros((), dtype=torch.float64)
    made = batches(
        model.network,
        derive_seed("noise-variation", seed, number),
        torch.arange(draws),
        model.compute,
        batch_size=min(batch_size, draws),
        classes=model.classes_of(same),
        given=latents(model.network, seed, same[:1]).expand(draws, *model.network.z_shape)
        if psi == 1
        else model.ws(same, seed, psi),
    )
    for images, _ in made:
        levels = images.cpu().double().clamp(-1, 1).add(1).mul(127.5)
        total, squares = total + levels.sum(0), squares + levels.square().sum(0)
    mean = total / draws
    variance = (squares / draws - mean.square()).clamp(min=0).mean(0)
    return mean.float(), variance.sqrt().float()
