"""How the picture moves from one frame to the next: dense optical flow (Lucas and Kanade 1981), coarse to fine.

A flow (2, H, W) says for every pixel of the later frame where in the one before it was: so many pixels to the right
and down of its own place.

Axis letters: H W pixels, N points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gtool.nn.resample import resample

SMALLEST = 12  # pixels of the shorter side of the coarsest pictures, at least
STEPS = 3  # at each size
WINDOW = 9  # pixels a side over which the flow is taken as constant, twice
DAMPING = 2e-5  # of squared gradients: where there is less to see, the flow of the coarser pictures holds


def optical_flow(before: Tensor, after: Tensor) -> Tensor:
    """Return the flow (2, H, W) between two frames (3, H, W) in [0, 1]."""
    height, width = after.shape[1:]
    flow = after.new_zeros(2, 1, 1)
    halvings = 0
    while min(height, width) >> (halvings + 1) >= SMALLEST:
        halvings += 1
    for halving in range(halvings, -1, -1):
        size = max(1, height >> halving), max(1, width >> halving)
        old, new = resample(torch.stack([before, after]), size, antialias=True)
        factor = flow.new_tensor([size[1] / flow.shape[2], size[0] / flow.shape[1]])[:, None, None]
        flow = resample(flow[None], size)[0] * factor
        for _ in range(STEPS):
            flow = flow + _step(warp(old, flow), new)
    return flow


def _step(before: Tensor, after: Tensor) -> Tensor:
    """Improve a flow by one step: the least squares of each window, (2, H, W)."""
    down, right = torch.gradient((before + after) / 2, dim=(1, 2))
    change = after - before
    products = (right * right, right * down, down * down, right * change, down * change)
    xx, xy, yy, x, y = _blur(torch.stack([product.sum(0) for product in products]))
    xx, yy = xx + DAMPING, yy + DAMPING
    determinant = xx * yy - xy * xy
    step = torch.stack([yy * x - xy * y, xx * y - xy * x]) / determinant
    return step.clamp(-1, 1)


def _blur(pictures: Tensor) -> Tensor:
    for _ in range(2):
        pictures = F.avg_pool2d(pictures[None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[0]
    return pictures


def warp(picture: Tensor, flow: Tensor, mode: str = "bicubic") -> Tensor:
    """Move a picture (C, H, W) of the frame before along a flow; edges are repeated beyond it."""
    _, height, width = picture.shape
    y = torch.arange(height, device=flow.device)[:, None] + 0.5
    x = torch.arange(width, device=flow.device) + 0.5
    grid = torch.stack([2 * (x + flow[0]) / width - 1, 2 * (y + flow[1]) / height - 1], dim=-1)
    return F.grid_sample(picture[None], grid[None], mode, "border", align_corners=False)[0]


def flow_at(flow: Tensor, points: Tensor) -> Tensor:
    """Return the flow at points (N, 2) x, y in pixels: (N, 2)."""
    height, width = flow.shape[1:]
    grid = 2 * points / points.new_tensor([width, height]) - 1
    return F.grid_sample(flow[None], grid[None, None], "bilinear", "border", align_corners=False)[0, :, 0].T


def displacement(flow: Tensor, points: Tensor) -> Tensor:
    """Return how far points (N, 2) of the frame before have moved in the later one: (N, 2)."""
    away = torch.zeros_like(points)
    for _ in range(3):
        away = -flow_at(flow, points + away)
    return away


def outside(flow: Tensor) -> Tensor:
    """Say which places were outside of the frame before: (H, W) bool."""
    _, height, width = flow.shape
    y = torch.arange(height, device=flow.device)[:, None] + 0.5 + flow[1]
    x = torch.arange(width, device=flow.device) + 0.5 + flow[0]
    return (x < 0) | (x > width) | (y < 0) | (y > height)
