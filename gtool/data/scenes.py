"""`scenes`: pictures of two to eight coloured solids on lit ground, drawn from a seed at any resolution.

The built-in data set: nothing to download, any number of images, and ground truth that no photo set has: the exact
mask of every object and a semantic map. Image i depends on (seed, i) alone and is the same scene at every resolution.
Edges are anti-aliased by the distance to them; masks are decided at pixel centres, the front-most object wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gtool.data.scene_layout import SHAPES, SLOTS, Layout, lay_out
from gtool.data.scene_shapes import SOLIDS, Params

CLASSES = ("sky", "ground", "shadow", *SHAPES)  # names of the values of a semantic map
SKY, GROUND, SHADOW = range(3)
CLASS_COLOURS = (
    (170, 205, 235),
    (222, 214, 196),
    (120, 116, 128),
    (224, 58, 62),
    (56, 112, 214),
    (246, 202, 62),
    (88, 178, 82),
    (134, 84, 198),
)
_CHUNK_PIXELS = 96 * 32 * 32  # of one pass: its arrays stay in a core's cache


@dataclass(frozen=True)
class Scenes:
    """N drawn scenes with their ground truth."""

    images: np.ndarray  # uint8 (N, 3, R, R)
    masks: np.ndarray  # uint8 (N, R, R): 0 background, k the k-th object counted from the farthest
    segmentation: np.ndarray  # uint8 (N, R, R), index into CLASSES


def draw_scenes(indices: np.ndarray, resolution: int, seed: int = 0) -> Scenes:
    """Draw the scenes with these indices (N,), each a function of (seed, index) alone."""
    layout = lay_out(np.asarray(indices), seed)
    total = len(layout.count)
    scenes = Scenes(
        images=np.empty((total, 3, resolution, resolution), np.uint8),
        masks=np.empty((total, resolution, resolution), np.uint8),
        segmentation=np.empty((total, resolution, resolution), np.uint8),
    )
    # Fullest first, so that the images that have a k-th object are a prefix of every pass.
    order = np.argsort(-layout.count, kind="stable")
    step = max(1, _CHUNK_PIXELS // resolution**2)
    for start in range(0, total, step):
        chosen = order[start : start + step]
        images, masks, segmentation = _draw(layout[chosen], resolution)
        scenes.images[chosen] = images
        scenes.masks[chosen] = masks
        scenes.segmentation[chosen] = segmentation
    return scenes


@dataclass(frozen=True)
class _Layers:
    """Objects of a pass, one row each: (M, R, R), and where slot k of image n lies in them."""

    distance: np.ndarray
    shade: np.ndarray
    gloss: np.ndarray
    dark: np.ndarray  # how much of the light the object takes from the ground, 0 to 1
    row: np.ndarray  # (N, K) int


def _draw(layout: Layout, resolution: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pixel = np.float32(1 / resolution)
    grid = (np.arange(resolution, dtype=np.float32) + np.float32(0.5)) * pixel
    layers = _render(layout, grid, pixel)
    images, segmentation = _background(layout, grid, pixel)
    _cast_shadows(layout, layers, images, segmentation)
    masks = np.zeros_like(segmentation)
    for slot in range(int(layout.count.max())):
        held = int((layout.count > slot).sum())
        rows = layers.row[:held, slot]
        distance = layers.distance[rows]
        cover = np.clip(np.float32(0.5) - distance / pixel, 0, 1)
        paint = images[:held]
        paint *= (1 - cover)[:, None]
        paint += (cover * layers.shade[rows])[:, None] * layout.colour[:held, slot, :, None, None]
        paint += (cover * layers.gloss[rows])[:, None]
        inside = distance < 0
        masks[:held][inside] = slot + 1
        kind = np.broadcast_to((layout.shape[:held, slot] + SHADOW + 1)[:, None, None], inside.shape)
        segmentation[:held][inside] = kind[inside]
    np.clip(images, 0, 1, out=images)
    np.sqrt(images, out=images)
    images *= np.float32(255)
    images += np.float32(0.5)
    return images.astype(np.uint8), masks, segmentation


def _render(layout: Layout, grid: np.ndarray, pixel: np.float32) -> _Layers:
    """Draw every object alone, a kind of solid at a time."""
    image, slot = np.nonzero(np.arange(SLOTS) < layout.count[:, None])
    shape = layout.shape[image, slot]
    order = np.argsort(shape, kind="stable")
    image, slot, shape = image[order], slot[order], shape[order]
    row = np.zeros(layout.shape.shape, np.int64)
    row[image, slot] = np.arange(len(image))
    size = (len(image), len(grid), len(grid))
    layers = _Layers(*(np.zeros(size, np.float32) for _ in range(4)), row)
    for kind, solid in enumerate(SOLIDS):
        first, last = np.searchsorted(shape, [kind, kind + 1])
        if first == last:
            continue
        params, u, v = _params(layout, image[first:last], slot[first:last], grid, pixel)
        distance, shade, gloss = solid.draw(u, v, params)
        layers.distance[first:last] = distance
        layers.shade[first:last] = shade
        if gloss is not None:
            layers.gloss[first:last] = gloss
        layers.dark[first:last] = _darkness(solid, u, v, params)
    return layers


def _params(
    layout: Layout, image: np.ndarray, slot: np.ndarray, grid: np.ndarray, pixel: np.float32
) -> tuple[Params, np.ndarray, np.ndarray]:
    def spread(values: np.ndarray) -> np.ndarray:
        return values[:, None, None]

    pitch = layout.pitch[image]
    params = Params(
        size=spread(layout.size[image, slot]),
        height=spread(layout.height[image, slot]),
        yaw=spread(layout.yaw[image, slot]),
        sin_pitch=spread(np.sin(pitch)),
        cos_pitch=spread(np.cos(pitch)),
        light=tuple(spread(axis) for axis in layout.light[image].T),  # type: ignore[arg-type]
        pixel=pixel,
    )
    u = grid[None, None, :] - spread(layout.x[image, slot])
    v = grid[None, :, None] - spread(layout.y[image, slot])
    return params, u, v


def _darkness(solid: object, u: np.ndarray, v: np.ndarray, p: Params) -> np.ndarray:
    """Light taken from the ground: a cast shadow that softens with its distance, and a dark line of contact."""
    x, y = u, -v / p.sin_pitch
    distance = solid.shadow(x, y, p)  # type: ignore[attr-defined]
    away = np.sqrt(x * x + y * y)
    soft = p.size * np.float32(0.10) + np.float32(0.16) * away + p.pixel
    edge = np.clip(np.float32(0.5) - distance / soft, 0, 1)
    return edge * edge * (3 - 2 * edge)


def _background(layout: Layout, grid: np.ndarray, pixel: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Ground and sky, linear light (N, 3, R, R), and their semantic map."""
    horizon = layout.horizon[:, None]
    top = np.maximum(horizon, 0)
    down = np.clip((grid - top) / (1 - top), 0, 1)  # (N, R): 0 far, 1 near
    near, far, haze, sky = (layout.world[:, k, :, None] for k in range(4))
    ground = far + (near - far) * np.sqrt(down)[:, None]
    rise = np.clip((horizon - grid) / np.maximum(horizon, 0.2), 0, 1)[:, None]
    above = haze + (sky - haze) * rise
    is_ground = np.clip(np.float32(0.5) + (grid - horizon) / pixel, 0, 1)[:, None]
    column = above + (ground - above) * is_ground  # (N, 3, R)
    tilt = 1 + np.float32(0.18) * layout.slope[:, None] * (grid - np.float32(0.5))  # (N, R)
    images = column[:, :, :, None] * tilt[:, None, None, :]
    below = grid > horizon
    segmentation = np.where(below, GROUND, SKY).astype(np.uint8)[:, :, None].repeat(len(grid), axis=2)
    return np.ascontiguousarray(images, dtype=np.float32), segmentation


def _cast_shadows(layout: Layout, layers: _Layers, images: np.ndarray, segmentation: np.ndarray) -> None:
    """Darken the ground in place; shadows overlap as one."""
    dark = np.zeros(segmentation.shape, np.float32)
    for slot in range(int(layout.count.max())):
        held = int((layout.count > slot).sum())
        np.maximum(dark[:held], layers.dark[layers.row[:held, slot]], out=dark[:held])
    dark *= segmentation == GROUND
    segmentation[dark > np.float32(0.5)] = SHADOW
    images *= (1 - np.float32(0.58) * dark)[:, None]
