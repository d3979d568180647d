"""What is in a scene: light, ground, objects, drawn from (seed, index) and free of any resolution.

Lengths are shares of the picture's side. Picture coordinates (x, y) run right and down from the upper left
corner; the world has X to the right, Y away from the viewer and Z up, and is seen from above at angle `pitch`
without perspective, so a world point p lies at (p.X, -(p.Y sin pitch + p.Z cos pitch)) from its object's
foot.

Axis letters: N images, K = 8 object slots.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from gtool.runtime.random import hashed_uniform

SLOTS = 8
SHAPES = ("sphere", "box", "cone", "cylinder", "ring")
SPHERE, BOX, CONE, CYLINDER, RING = range(5)
_SHAPE_SHARE = (0.30, 0.27, 0.21, 0.12, 0.10)
_COUNT_SHARE = (0.27, 0.30, 0.22, 0.10, 0.05, 0.03, 0.03)  # of 2, 3 ... 8 objects

# sRGB. Eight hues at similar strength, told apart at a glance; no hue occurs twice in a scene.
OBJECT_COLOURS = np.array(
    [
        (224, 58, 62),
        (240, 134, 46),
        (246, 202, 62),
        (88, 178, 82),
        (38, 172, 178),
        (56, 112, 214),
        (134, 84, 198),
        (232, 106, 160),
    ],
    np.float32,
)
# Near ground, far ground, horizon, upper sky. Pale, so that objects stand out.
WORLDS = np.array(
    [
        [(214, 196, 168), (236, 222, 198), (240, 236, 226), (150, 190, 226)],  # sand under a blue sky
        [(166, 190, 160), (204, 218, 190), (236, 240, 228), (136, 188, 218)],  # meadow
        [(172, 178, 196), (208, 212, 224), (232, 234, 242), (164, 180, 214)],  # slate
        [(196, 176, 200), (224, 206, 222), (250, 226, 214), (196, 158, 204)],  # heather at dusk
        [(214, 178, 160), (236, 206, 186), (254, 226, 190), (232, 158, 142)],  # clay at sunset
        [(166, 196, 202), (206, 224, 226), (238, 244, 240), (140, 196, 204)],  # ice
    ],
    np.float32,
)


@dataclass(frozen=True)
class Layout:
    """Everything about N scenes, float32 unless said; slot k is farther away than slot k + 1."""

    count: np.ndarray  # (N,) int, objects in the scene
    shape: np.ndarray  # (N, K) int, index into SHAPES
    colour: np.ndarray  # (N, K, 3) linear light
    x: np.ndarray  # (N, K) the foot's centre
    y: np.ndarray
    size: np.ndarray  # (N, K) about half the width
    height: np.ndarray  # (N, K) relative to the shape's usual height
    yaw: np.ndarray  # (N, K) radians
    pitch: np.ndarray  # (N,) radians
    light: np.ndarray  # (N, 3) unit vector towards the light
    horizon: np.ndarray  # (N,) y of the horizon; below zero when it is out of the picture
    world: np.ndarray  # (N, 4, 3) near ground, far ground, horizon, sky in linear light
    slope: np.ndarray  # (N,) brightness of the ground from left to right, -1 to 1

    def __getitem__(self, chosen: slice | np.ndarray) -> Layout:
        return Layout(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def with_slots(self, slot: np.ndarray) -> Layout:
        """Return the layout with its objects in another order, (N, K) int."""
        moved = {
            name: np.take_along_axis(getattr(self, name), slot, axis=1)
            for name in ("shape", "x", "y", "size", "height", "yaw")
        }
        return replace(self, colour=np.take_along_axis(self.colour, slot[:, :, None], axis=1), **moved)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Bring 0..255 to linear light in [0, 1], with a gamma of 2 so that the way back is a square root."""
    return np.square(srgb.astype(np.float32) / 255)


def lay_out(indices: np.ndarray, seed: int) -> Layout:
    """Return the layout of scenes `indices` (N,); each is a function of (seed, index) alone."""

    def draw(name: str, size: int = SLOTS, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        return low + (high - low) * hashed_uniform(seed, indices, size, f"scene-{name}")

    count = 2 + np.searchsorted(np.cumsum(_COUNT_SHARE)[:-1], draw("count", 1)[:, 0])
    has_horizon = draw("has-horizon", 1)[:, 0] < 0.5
    horizon = np.where(has_horizon, draw("horizon", 1, 0.24, 0.42)[:, 0], -1.0)
    size = 0.245 * count[:, None] ** -0.36 * draw("size", SLOTS, 0.84, 1.18)
    y = _depths(draw("y"), count, horizon)
    nearness = np.where(has_horizon[:, None], 0.62 + 0.5 * y, 0.85 + 0.2 * y)
    size = size * nearness
    hue = np.argsort(draw("hue"), axis=1)
    x = _columns(draw("order"), draw("x"), count, size)
    values = {
        "shape": np.searchsorted(np.cumsum(_SHAPE_SHARE)[:-1], draw("shape")),
        "colour": to_linear(OBJECT_COLOURS[hue]),
        "x": x,
        "y": y,
        "size": size,
        "height": draw("height", SLOTS, 0.8, 1.25),
        "yaw": draw("yaw", SLOTS, 0.0, np.pi / 2),
        "pitch": np.radians(
            np.where(has_horizon, draw("low", 1, 17, 25)[:, 0], draw("high", 1, 34, 48)[:, 0])
        ),
        "light": _light(draw("light", 3)),
        "horizon": horizon,
        "world": _world(draw("world", 3)),
        "slope": draw("slope", 1, -1.0, 1.0)[:, 0],
    }
    counts = {"count": count}
    kinds = {"shape": np.int64}
    arrays = {name: array.astype(kinds.get(name, np.float32)) for name, array in values.items()}
    return Layout(**counts, **arrays)


def _depths(uniform: np.ndarray, count: np.ndarray, horizon: np.ndarray) -> np.ndarray:
    """Feet (N, K) from far to near, spread over the ground so that few objects vanish behind others."""
    slot = np.arange(SLOTS)
    step = np.minimum((slot + 0.15 + 0.7 * uniform) / count[:, None], 1.0)
    far = np.where(horizon > 0, horizon + 0.16, 0.40)[:, None]
    return far + (0.92 - far) * step


def _columns(order: np.ndarray, jitter: np.ndarray, count: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Feet (N, K): one object a column, columns in random order."""
    slot = np.arange(SLOTS)
    absent = slot >= count[:, None]
    rank = np.argsort(np.argsort(order + 2.0 * absent, axis=1), axis=1)
    margin = 0.10
    x = margin + (1 - 2 * margin) * (rank + 0.1 + 0.8 * jitter) / count[:, None]
    return np.clip(x, 1.05 * size, 1 - 1.05 * size)


def _light(uniform: np.ndarray) -> np.ndarray:
    """Unit vectors from the left or the right, high, a little before the objects or level with them."""
    side = np.where(uniform[:, 0] < 0.5, -1.0, 1.0)
    azimuth = -0.75 + 0.85 * uniform[:, 1]  # 0 is beside the object, negative towards the viewer
    elevation = np.radians(42 + 14 * uniform[:, 2])
    flat = np.cos(elevation)
    return np.stack([side * flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], axis=1)


def _world(uniform: np.ndarray) -> np.ndarray:
    """Colours between two neighbouring worlds of the list, brighter or darker as a whole."""
    place = uniform[:, 0] * len(WORLDS)
    first = place.astype(np.int64)
    part = np.clip((place - first - 0.5) * 2, 0, 0.5)[:, None, None]
    mixed: np.ndarray = (
        to_linear(WORLDS[first]) * (1 - part) + to_linear(WORLDS[(first + 1) % len(WORLDS)]) * part
    )
    return mixed * (0.86 + 0.24 * uniform[:, 1])[:, None, None]
