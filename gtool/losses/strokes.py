"""Distances between strokes, their matching, and what a stroke gains: the losses of Paint Transformer.

Paint Transformer (Liu et al. 2021), section 3.3; code train/models/painter_model.py. Strokes are (x, y, width,
height, theta), theta in units of pi.

Deviations, with their reasons: the Wasserstein distance has a closed form here, without matrix roots that can be
NaN; angles are periodic (0 and 1 are one orientation) and count for little where a stroke is nearly square; the
matching cost holds a probability where the code holds a raw logit without bounds.

Axis letters: N patches, S proposals, G given strokes, P pixels, K strokes painted.
"""

import torch
from torch import Tensor

EPS = 1e-8


def covariance(shape_params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the entries xx, xy, yy (...) of the covariance of strokes (..., 5) seen as Gaussians."""
    width, height, theta = shape_params[..., 2:].unbind(-1)
    cosine, sine = torch.cos(torch.pi * theta), torch.sin(torch.pi * theta)
    across, along = width.square() / 4, height.square() / 4
    xx = across * cosine.square() + along * sine.square()
    yy = across * sine.square() + along * cosine.square()
    return xx, (across - along) * cosine * sine, yy


def wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared 2-Wasserstein distance (...) of strokes a and b (..., 5) seen as Gaussians.

    In the plane, tr (A^(1/2) B A^(1/2))^(1/2) = sqrt(tr(A B) + 2 sqrt(det A det B)), and sqrt(det) is width times
    height over 4.
    """
    axx, axy, ayy = covariance(a)
    bxx, bxy, byy = covariance(b)
    areas = (a[..., 2] * a[..., 3] * b[..., 2] * b[..., 3]).abs() / 8
    product = axx * bxx + 2 * axy * bxy + ayy * byy + areas
    centres = (a[..., :2] - b[..., :2]).square().sum(-1)
    # The root's slope is infinite at 0, which nothing but a stroke without area reaches.
    return centres + axx + ayy + bxx + byy - 2 * (product.clamp(min=0) + EPS).sqrt()


def angle_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return how far two theta (...) are apart, in [0, 1/2] units of pi."""
    apart = (a - b).remainder(1.0)
    return torch.minimum(apart, 1.0 - apart)


def elongation(shape_params: Tensor) -> Tensor:
    """Return how much the direction of strokes (..., 5) matters: 0 for squares, near 1 for lines."""
    width, height = shape_params[..., 2], shape_params[..., 3]
    return (width - height).abs() / (width + height + EPS)


def parameter_distance(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the L1 distance over (x, y, width, height), and that of the angles weighted by b's elongation: (...)."""
    sides = (a[..., :4] - b[..., :4]).abs().sum(-1)
    return sides, angle_distance(a[..., 4], b[..., 4]) * elongation(b)


def mean_color(mask: Tensor, target: Tensor) -> Tensor:
    """Return the mean colour (N, S, 3) of the target (N, 3, P) under masks (N, S, P)."""
    return mask @ target.transpose(1, 2) / (mask.sum(-1, keepdim=True) + 1e-4)


@torch.no_grad()
def select_by_gain(
    mask: Tensor, target: Tensor, canvas: Tensor, count: int, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Choose strokes one after the other, each time the one that lowers the squared error most.

    With mask a, colour c, canvas C and target T a stroke changes the summed squared error by
    sum a^2 |c - C|^2 - 2 a (c - C)(T - C), whose sums over pixels are products of the masks with maps of the
    canvas: one matrix product of (S, P) with (P, 4) for a and one for a^2, a choice.

    Args:
        mask: (N, S, P) in [0, 1], of all proposals.
        target: (N, 3, P).
        canvas: (N, 3, P).
        count: K, strokes to choose.
        weight: (N, S) positive, multiplies the gains that are compared; None compares them as they are.

    Returns:
        chosen: (N, K) numbers of proposals in the order they are to be painted.
        gain: (N, K) lowering of the summed squared error that each brings; 0 for those that would raise it.
    """
    colors = mean_color(mask, target)  # (N, S, 3)
    square = mask.square()
    area = square.sum(-1)  # (N, S)
    chosen, gains = [], []
    patches = torch.arange(len(mask), device=mask.device)
    for _ in range(count):
        missing = target - canvas
        first = mask @ torch.cat([missing, (missing * canvas).sum(1, keepdim=True)], 1).transpose(1, 2)
        second = square @ torch.cat([canvas, canvas.square().sum(1, keepdim=True)], 1).transpose(1, 2)
        rise = colors.square().sum(-1) * area - 2 * (colors * second[..., :3]).sum(-1) + second[..., 3]
        gain = 2 * ((colors * first[..., :3]).sum(-1) - first[..., 3]) - rise  # (N, S)
        place = (gain if weight is None else gain * weight).argmax(dim=1)
        best = gain[patches, place]
        useful = best > 0
        chosen.append(place)
        gains.append(best.clamp(min=0))
        alpha = mask[patches, place] * useful[:, None]  # (N, P)
        canvas = canvas + alpha[:, None] * (colors[patches, place][..., None] - canvas)
    return torch.stack(chosen, 1), torch.stack(gains, 1)


def paint_in_turn(
    mask: Tensor, shaded: Tensor, colors: Tensor, canvas: Tensor, applied: Tensor
) -> list[Tensor]:
    """Composite K strokes a patch, those of `applied` (N, K), one after the other and return the K canvases (N, 3, P).

    mask: (N, K, P). shaded: (N, K, P), mask times shade. colors: (N, K, 3). canvas: (N, 3, P).
    """
    canvases = []
    for k in range(mask.shape[1]):
        on = applied[:, k, None].to(mask.dtype)
        alpha, paint = (mask[:, k] * on)[:, None], (shaded[:, k] * on)[:, None]  # (N, 1, P)
        canvas = canvas * (1 - alpha) + paint * colors[:, k, :, None]
        canvases.append(canvas)
    return canvases
