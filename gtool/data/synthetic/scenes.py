"""`scenes`: pictures of two to eight coloured solids on lit ground, drawn from a seed at any resolution.

The built-in data set: nothing to download, any number of images, and ground truth that no photo set has: the
exact mask of every object and a semantic map. Image i depends on (seed, i) alone and is the same scene at
every resolution. Edges are anti-aliased by the distance to them; masks are decided at pixel centres, the
front-most object wins.

Axis letters: N tiles (a picture of up to 64 pixels is one), K = 8 object slots, M objects of all tiles,
T pixels of a tile's side.
"""

from dataclasses import dataclass

import numpy as np

from gtool.data.synthetic.scene_layout import SHAPES, SLOTS, Layout, lay_out
from gtool.data.synthetic.scene_shapes import SOLIDS, Params, Solid, reach

CLASSES = ("sky", "ground", "shadow", *SHAPES)  # names of the values of a semantic map
SKY, GROUND, SHADOW = range(3)
CLASS_COLOURS = (  # sRGB, to show a semantic map
    (170, 205, 235),
    (222, 214, 196),
    (120, 116, 128),
    (224, 58, 62),
    (56, 112, 214),
    (246, 202, 62),
    (88, 178, 82),
    (134, 84, 198),
)
VERSION = 1  # of the pictures: raised when a pixel of any scene changes
_SHADOW_DEPTH = (np.float32(0.64), np.float32(0.60), np.float32(0.52))  # the sky's blue stays in a shadow
_TILE = 64
_PASS_PIXELS = 72 * 32 * 32  # drawn at once: the arrays stay in a core's cache
_HALF = np.float32(0.5)


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
    tile = min(resolution, _TILE)
    image, left, top = _tiles(total, resolution, tile)
    for start in range(0, len(image), step := max(1, _PASS_PIXELS // tile**2)):
        part = slice(start, start + step)
        _draw_tiles(layout, image[part], left[part], top[part], tile, scenes)
    return scenes


def _tiles(total: int, resolution: int, tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, left and top pixel, (N,) each, of tiles over every picture; the last of a row may overlap."""
    edges = np.minimum(np.arange(0, resolution, tile), resolution - tile)
    image, top, left = np.meshgrid(np.arange(total), edges, edges, indexing="ij")
    return image.ravel(), left.ravel(), top.ravel()


@dataclass(frozen=True)
class _Tiles:
    """Tiles of scenes, fullest first, so that those with a k-th object are a prefix."""

    layout: Layout  # of each tile's scene, its slots reordered: objects that reach into the tile come first
    slot: np.ndarray  # (N, K) int, the place of each object in its scene
    count: np.ndarray  # (N,) int, objects that reach into the tile
    x: np.ndarray  # (N, T) pixel centres
    y: np.ndarray
    pixel: np.float32

    def having(self, place: int) -> int:
        """How many tiles have an object in this place."""
        return int((self.count > place).sum())


def _draw_tiles(
    layout: Layout, image: np.ndarray, left: np.ndarray, top: np.ndarray, tile: int, scenes: Scenes
) -> None:
    tiles, order = _cut(layout, image, left, top, tile, scenes.images.shape[-1])
    images, segmentation = _background(tiles)
    layers = _render(tiles)
    _cast_shadows(tiles, layers, images, segmentation)
    masks = _place_objects(tiles, layers, images, segmentation)
    pixels = _to_bytes(images)
    steps = np.arange(tile)
    rows, columns = (top[order, None] + steps)[:, :, None], (left[order, None] + steps)[:, None, :]
    number = image[order, None, None]
    scenes.masks[number, rows, columns] = masks
    scenes.segmentation[number, rows, columns] = segmentation
    for channel in range(3):
        scenes.images[number, channel, rows, columns] = pixels[:, channel]


def _cut(
    layout: Layout, image: np.ndarray, left: np.ndarray, top: np.ndarray, tile: int, resolution: int
) -> tuple[_Tiles, np.ndarray]:
    """Find the objects of each tile; returns the tiles and the order they were brought into."""
    pixel = np.float32(1 / resolution)
    x, y = ((edge[:, None] + np.arange(tile)).astype(np.float32) + _HALF for edge in (left, top))
    x, y = x * pixel, y * pixel
    scene = layout[image]
    x0, x1, y0, y1 = reach(scene, pixel)
    meets = (x0 < x[:, -1:]) & (x1 > x[:, :1]) & (y0 < y[:, -1:]) & (y1 > y[:, :1])
    meets &= np.arange(SLOTS) < scene.count[:, None]
    count = meets.sum(axis=1)
    order = np.argsort(-count, kind="stable")
    slot = np.argsort(~meets[order], axis=1, kind="stable")
    return _Tiles(scene[order].with_slots(slot), slot, count[order], x[order], y[order], pixel), order


def _background(tiles: _Tiles) -> tuple[np.ndarray, np.ndarray]:
    """Ground and sky in linear light (N, 3, T, T) and their semantic map (N, T, T)."""
    layout, y = tiles.layout, tiles.y
    horizon = layout.horizon[:, None]
    far = np.maximum(horizon, 0)
    down = np.sqrt(np.clip((y - far) / (1 - far), 0, 1))[:, None]  # (N, 1, T): 0 far, 1 near
    rise = np.clip((horizon - y) / np.maximum(horizon, 0.2), 0, 1)[:, None]
    near, distant, haze, sky = (layout.world[:, k, :, None] for k in range(4))
    ground = distant + (near - distant) * down
    above = haze + (sky - haze) * rise
    is_ground = np.clip(_HALF + (y - horizon) / tiles.pixel, 0, 1)[:, None]
    column = above + (ground - above) * is_ground  # (N, 3, T)
    tilt = 1 + np.float32(0.18) * layout.slope[:, None] * (tiles.x - _HALF)  # (N, T)
    images = column[:, :, :, None] * tilt[:, None, None, :]  # (N, 3, T, T)
    kind = np.where(y > horizon, GROUND, SKY).astype(np.uint8)
    return images, kind[:, :, None].repeat(tiles.x.shape[1], axis=2)


@dataclass(frozen=True)
class _Layers:
    """Every object alone, (M, T, T) each, and the row of the object in place k of tile n."""

    distance: np.ndarray
    shade: np.ndarray
    gloss: np.ndarray
    dark: np.ndarray  # how much of the light the object takes from the ground, 0 to 1
    row: np.ndarray  # (N, K) int


def _render(tiles: _Tiles) -> _Layers:
    """Draw every object alone, a kind of solid at a time."""
    image, place = np.nonzero(np.arange(SLOTS) < tiles.count[:, None])
    shape = tiles.layout.shape[image, place]
    order = np.argsort(shape, kind="stable")
    image, place, shape = image[order], place[order], shape[order]
    row = np.zeros_like(tiles.slot)
    row[image, place] = np.arange(len(image))
    side = tiles.x.shape[1]
    blank = np.zeros((4, len(image), side, side), np.float32)
    layers = _Layers(blank[0], blank[1], blank[2], blank[3], row)
    for kind, solid in enumerate(SOLIDS):
        first, last = np.searchsorted(shape, [kind, kind + 1])
        if first < last:
            params, u, v = _params(tiles, image[first:last], place[first:last])
            layers.distance[first:last], layers.shade[first:last], layers.gloss[first:last] = solid.draw(
                u, v, params
            )
            layers.dark[first:last] = _darkness(solid, u, v, params)
    return layers


def _params(tiles: _Tiles, image: np.ndarray, place: np.ndarray) -> tuple[Params, np.ndarray, np.ndarray]:
    """Numbers of the objects in these tiles and places, and pixel coordinates from their feet."""
    layout = tiles.layout
    light_x, light_y, light_z = layout.light[image].T[:, :, None, None]
    params = Params(
        size=layout.size[image, place, None, None],
        height=layout.height[image, place, None, None],
        yaw=layout.yaw[image, place, None, None],
        sin_pitch=np.sin(layout.pitch[image, None, None]),
        cos_pitch=np.cos(layout.pitch[image, None, None]),
        light=(light_x, light_y, light_z),
        pixel=tiles.pixel,
    )
    u = tiles.x[image, None, :] - layout.x[image, place, None, None]
    v = tiles.y[image, :, None] - layout.y[image, place, None, None]
    return params, u, v


def _darkness(solid: Solid, u: np.ndarray, v: np.ndarray, p: Params) -> np.ndarray:
    """Light taken from the ground: a shadow that grows softer with the distance from the foot."""
    x, y = u, -v / p.sin_pitch
    soft = p.size * np.float32(0.10) + np.float32(0.16) * np.sqrt(x * x + y * y) + p.pixel
    edge = np.clip(_HALF - solid.shadow(x, y, p) / soft, 0, 1)
    return edge * edge * (3 - 2 * edge)


def _cast_shadows(tiles: _Tiles, layers: _Layers, images: np.ndarray, segmentation: np.ndarray) -> None:
    """Darken the ground in place; shadows that overlap are as dark as the darkest."""
    dark = np.zeros(segmentation.shape, np.float32)
    for place in range(int(tiles.count.max())):
        held = tiles.having(place)
        np.maximum(dark[:held], layers.dark[layers.row[:held, place]], out=dark[:held])
    dark *= segmentation == GROUND
    segmentation[dark > _HALF] = SHADOW
    for channel, depth in enumerate(_SHADOW_DEPTH):
        images[:, channel] *= 1 - depth * dark


def _place_objects(
    tiles: _Tiles, layers: _Layers, images: np.ndarray, segmentation: np.ndarray
) -> np.ndarray:
    """Paint the objects over images and semantic map in place, far to near; returns the masks."""
    masks = np.zeros_like(segmentation)
    for place in range(int(tiles.count.max())):
        held = tiles.having(place)
        rows = layers.row[:held, place]
        distance = layers.distance[rows]
        cover = np.clip(_HALF - distance / tiles.pixel, 0, 1)[:, None]
        paint = images[:held]
        paint *= 1 - cover
        paint += (cover * layers.shade[rows, None]) * tiles.layout.colour[:held, place, :, None, None]
        paint += cover * layers.gloss[rows, None]
        inside = distance < 0
        for canvas, value in (
            (masks, tiles.slot[:held, place] + 1),
            (segmentation, tiles.layout.shape[:held, place] + SHADOW + 1),
        ):
            np.copyto(canvas[:held], value.astype(np.uint8)[:, None, None], where=inside)
    return masks


def _to_bytes(images: np.ndarray) -> np.ndarray:
    """Linear light to sRGB bytes; the given array is used up."""
    np.clip(images, 0, 1, out=images)
    np.sqrt(images, out=images)
    images *= np.float32(255)
    images += _HALF
    return images.astype(np.uint8)
