"""The five solids of a scene: silhouette, shading and shadow, each a closed formula per pixel.

Every function takes one kind of solid, M of them at once: `u` (M, 1, T) and `v` (M, T, 1) are picture
coordinates from the object's foot, `p` the object's numbers as (M, 1, 1) arrays. Distances are negative
inside and in picture lengths near the edge, so coverage is distance over pixel size. Shadows are measured on
the ground, from the foot, x to the right and y away from the viewer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gtool.data.synthetic.scene_layout import Layout

AMBIENT, DIFFUSE = np.float32(0.20), np.float32(0.92)
_TINY = np.float32(1e-6)
_HALF = np.float32(0.5)

Array = np.ndarray
Vector = tuple[Array, Array, Array]


@dataclass(frozen=True)
class Params:
    """Numbers of M objects of a kind, each (M, 1, 1)."""

    size: Array
    height: Array
    yaw: Array
    sin_pitch: Array
    cos_pitch: Array
    light: Vector  # in world axes (X, Y, Z)
    pixel: np.float32

    @property
    def half(self) -> Vector:
        """Half way between the light and the viewer, where highlights are."""
        x, y, z = self.light
        y, z = y - self.cos_pitch, z + self.sin_pitch
        norm = np.sqrt(x * x + y * y + z * z)
        return x / norm, y / norm, z / norm

    def seen(self, vector: Vector) -> Vector:
        """A world vector in camera axes: right, up, towards the viewer."""
        x, y, z = vector
        return x, y * self.sin_pitch + z * self.cos_pitch, z * self.sin_pitch - y * self.cos_pitch

    @property
    def throw(self) -> tuple[Array, Array]:
        """Where the shadow of a point one unit above the ground falls."""
        x, y, z = self.light
        return -x / z, -y / z


@dataclass(frozen=True)
class Solid:
    """How one kind of solid looks: `draw` gives distance, shade, gloss; `shadow` a distance on the ground."""

    draw: Callable[[Array, Array, Params], Vector]
    shadow: Callable[[Array, Array, Params], Array]


def reach(layout: Layout, pixel: np.float32) -> tuple[Array, Array, Array, Array]:
    """Return left, right, top, bottom (N, K each) of boxes that hold every object with its shadow."""
    wide, tall = np.take(_BOUNDS, layout.shape, axis=0).transpose(2, 0, 1) * layout.size
    tall = tall * layout.height
    light = layout.light[:, None]
    sin, cos = np.sin(layout.pitch)[:, None], np.cos(layout.pitch)[:, None]
    tip_x, tip_y = -tall * light[..., 0] / light[..., 2], tall * light[..., 1] / light[..., 2] * sin
    # Half the width of the shadow's soft edge at its far end, and half as much again: beyond a corner the
    # distance is that to an edge's line.
    soft = np.float32(0.12) * np.hypot(tip_x, tip_y / sin) + np.float32(0.21) * wide + np.float32(1.5) * pixel
    margin_x, margin_y = wide + soft, (wide + soft) * sin
    left, right = np.minimum(tip_x, 0) - margin_x, np.maximum(tip_x, 0) + margin_x
    top = np.minimum(np.minimum(tip_y, 0) - margin_y, -tall * cos - wide * sin - pixel)
    bottom = np.maximum(tip_y, 0) + margin_y
    return layout.x + left, layout.x + right, layout.y + top, layout.y + bottom


def _length(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y)


def _lambert(facing: Array) -> Array:
    """Brightness from the cosine to the light, wrapped around: the dark side has a form and no hard line."""
    wrapped = _HALF + _HALF * facing
    return AMBIENT + DIFFUSE * (wrapped * wrapped)


def _gloss(facing: Array) -> Array:
    """A highlight: the 32nd power of the cosine to the half vector, by squaring."""
    power: Array = np.maximum(facing, 0)
    for _ in range(5):
        power = power * power
    return power * np.float32(0.55)


def _ellipse(u: Array, v: Array, a: Array, b: Array) -> Array:
    """Distance to an ellipse with half axes a, b, exact to first order at the edge."""
    p, q = u / a, v / b
    level = _length(p, q) + _TINY
    p, q = p / a, q / b
    return level * (level - 1) / (_length(p, q) + _TINY)


def _zonogon(u: Array, v: Array, generators: list[tuple[Array, Array]]) -> Array:
    """Distance to the sum of the segments -g..g: the shape of a box's outline and of its shadow."""
    distance: Array | None = None
    for gx, gy in generators:
        norm = _length(gx, gy) + _TINY
        nx, ny = -gy / norm, gx / norm
        reach = sum(abs(nx * hx + ny * hy) for hx, hy in generators)
        side = np.abs(nx * u + ny * v) - reach
        distance = side if distance is None else np.maximum(distance, side)
    assert distance is not None
    return distance


# Sphere


def _sphere(u: Array, v: Array, p: Params) -> Vector:
    right, up = u / p.size, -(v / p.size + p.cos_pitch)
    square = right * right + up * up
    depth = np.sqrt(np.maximum(1 - square, 0))
    (lx, ly, lz), (hx, hy, hz) = p.seen(p.light), p.seen(p.half)
    shade = _lambert(lx * right + ly * up + lz * depth)
    return (np.sqrt(square) - 1) * p.size, shade, _gloss(hx * right + hy * up + hz * depth)


def _sphere_shadow(x: Array, y: Array, p: Params) -> Array:
    sx, sy = p.throw
    length = _length(sx, sy)
    cos, sin = sx / length, sy / length
    x, y = x - sx * p.size, y - sy * p.size
    return _ellipse(cos * x + sin * y, cos * y - sin * x, p.size * np.sqrt(1 + length * length), p.size)


# Box


def _box_axes(p: Params) -> list[Vector]:
    """The three half edges in world axes: two on the ground, one up."""
    side, rise = p.size * np.float32(0.82), p.size * p.height * np.float32(0.85)
    cos, sin, zero = np.cos(p.yaw), np.sin(p.yaw), np.zeros_like(side)
    return [(side * cos, side * sin, zero), (-side * sin, side * cos, zero), (zero, zero, rise)]


def _box(u: Array, v: Array, p: Params) -> Vector:
    axes = _box_axes(p)
    up = -v - axes[2][2] * p.cos_pitch  # from the box's centre
    seen = [(x, y * p.sin_pitch + z * p.cos_pitch) for x, y, z in axes]
    # Depth of each visible face's plane along the ray: the front-most surface is the least of the three.
    planes, shades = [], []
    for (x, y, z), (sx, sy) in zip(axes, seen, strict=True):
        square = x * x + y * y + z * z
        to_viewer = z * p.sin_pitch - y * p.cos_pitch
        sign = np.where(to_viewer < 0, np.float32(-1), np.float32(1))
        toward = np.abs(to_viewer) + _TINY
        planes.append((square / toward, -sign * sx / toward, -sign * sy / toward))
        facing = sign * (x * p.light[0] + y * p.light[1] + z * p.light[2]) / np.sqrt(square)
        shades.append(_lambert(facing))
    bevel = np.maximum(p.pixel, p.size * np.float32(0.05))
    first_side = _nearer(u, up, planes[0], planes[1], bevel)
    lid = np.minimum(_nearer(u, up, planes[2], planes[0], bevel), _nearer(u, up, planes[2], planes[1], bevel))
    side = shades[1] + first_side * (shades[0] - shades[1])
    side = side * (np.float32(0.92) + np.float32(0.12) * up / axes[2][2])
    return _zonogon(u, up, seen), side + lid * (shades[2] - side), np.zeros_like(side)


def _nearer(u: Array, up: Array, plane: Vector, other: Vector, width: Array) -> Array:
    """1 where the box's surface is `plane`, 0 where it is `other`, a ramp of `width` at their edge."""
    c, a, b = (theirs - mine for mine, theirs in zip(plane, other, strict=True))
    scale = 1 / (_length(a, b) * width + _TINY)
    return np.clip((a * scale) * u + (b * scale) * up + (c * scale + _HALF), 0, 1)


def _box_shadow(x: Array, y: Array, p: Params) -> Array:
    axes = _box_axes(p)
    sx, sy = p.throw
    rise = axes[2][2]
    return _zonogon(x - sx * rise, y - sy * rise, [axes[0][:2], axes[1][:2], (sx * rise, sy * rise)])


# Cone


def _cone(u: Array, v: Array, p: Params) -> Vector:
    radius, rise = p.size * np.float32(0.98), p.size * p.height * np.float32(2.0)
    flat, apex = radius * p.sin_pitch, rise * p.cos_pitch
    # Tangent from the apex to the foot's ellipse: touches at height flat^2 / apex.
    touch = flat * flat / apex
    half = radius * np.sqrt(1 - (flat / apex) ** 2)
    slope = half / (apex - touch)
    norm = 1 / np.sqrt(1 + slope * slope)
    below = v + apex  # distance below the apex
    line = (np.abs(u) - slope * below) * norm
    distance = np.minimum(np.maximum(line, v + touch), _ellipse(u, v, radius, flat))
    across = np.clip(u / (slope * np.maximum(below, p.pixel)), -1, 1)
    depth = np.sqrt(1 - across * across)
    # The side leans back by the cone's half angle.
    edge = _length(radius, rise)
    lean, stand = radius / edge, rise / edge
    (lx, ly, lz), (hx, hy, hz) = p.light, p.half
    shade = _lambert((lx * stand) * across - (ly * stand) * depth + lz * lean)
    return distance, shade, _gloss((hx * stand) * across - (hy * stand) * depth + hz * lean)


def _cone_shadow(x: Array, y: Array, p: Params) -> Array:
    radius, rise = p.size * np.float32(0.98), p.size * p.height * np.float32(2.0)
    sx, sy = p.throw
    length = _length(sx, sy)
    along, across = (x * sx + y * sy) / length, np.abs(x * sy - y * sx) / length
    tip = length * rise
    sine = np.minimum(radius / tip, np.float32(0.98))
    cosine = np.sqrt(1 - sine * sine)
    line = (along - tip) * sine + across * cosine
    return np.minimum(np.maximum(line, radius * sine - along), _length(x, y) - radius)


# Cylinder


def _cylinder_size(p: Params) -> tuple[Array, Array]:
    return p.size * np.float32(0.84), p.size * p.height * np.float32(1.6)


def _cylinder(u: Array, v: Array, p: Params) -> Vector:
    radius, rise = _cylinder_size(p)
    flat, top = radius * p.sin_pitch, -rise * p.cos_pitch
    distance = _ellipse(u, v - np.clip(v, top, 0), radius, flat)
    lid = np.clip(_HALF - _ellipse(u, v - top, radius, flat) / p.pixel, 0, 1)
    across = np.clip(u / radius, -1, 1)
    depth = np.sqrt(1 - across * across)
    (lx, ly, lz), (hx, hy, _) = p.light, p.half
    side = _lambert(lx * across - ly * depth)
    return distance, side + lid * (_lambert(lz) - side), _gloss(hx * across - hy * depth) * (1 - lid)


def _cylinder_shadow(x: Array, y: Array, p: Params) -> Array:
    radius, rise = _cylinder_size(p)
    sx, sy = p.throw
    sx, sy = sx * rise, sy * rise
    part = np.clip((x * sx + y * sy) / (sx * sx + sy * sy), 0, 1)
    dx, dy = x - part * sx, y - part * sy
    return _length(dx, dy) - radius


# Ring, standing upright and facing the viewer

_TUBE = np.float32(0.36)


def _ring(u: Array, v: Array, p: Params) -> Vector:
    outer = p.size * np.float32(1.12)
    tube = outer * _TUBE
    middle = outer - tube
    right, up = u, -v - outer * p.cos_pitch
    radius = _length(right, up) + _TINY
    bulge = np.clip((radius - middle) / tube, -1, 1)
    depth = np.sqrt(1 - bulge * bulge)
    out = bulge / radius
    (lx, ly, lz), (hx, hy, hz) = p.seen(p.light), p.seen(p.half)
    shade = _lambert((lx * right + ly * up) * out + lz * depth)
    return np.abs(radius - middle) - tube, shade, _gloss((hx * right + hy * up) * out + hz * depth)


def _ring_shadow(x: Array, y: Array, p: Params) -> Array:
    """The shadow of a torus with an upright hole: the nearest of points on its middle circle, thrown down."""
    outer = p.size * np.float32(1.12)
    tube = outer * _TUBE
    sx, sy = p.throw
    length = _length(sx, sy)
    part = np.clip((x * sx + y * sy) / (length * length), 0, 2 * outer)
    dx, dy = x - part * sx, y - part * sy
    half = np.sqrt(np.maximum(np.square(outer - tube) - np.square(part - outer), 0))
    across = np.abs((dx * sy - dy * sx) / length)
    beyond = np.abs((dx * sx + dy * sy) / length)
    face = np.abs(sy / length)  # 0: the light is in the ring's plane and the shadow is a bar
    return _length(np.maximum(across - half * face, 0), beyond) - tube


SOLIDS = (
    Solid(_sphere, _sphere_shadow),
    Solid(_box, _box_shadow),
    Solid(_cone, _cone_shadow),
    Solid(_cylinder, _cylinder_shadow),
    Solid(_ring, _ring_shadow),
)
# Bounds of each: half the width, with that of the shadow, and the height at layout.height 1, in sizes.
_BOUNDS = np.array([(1.65, 2.5), (1.16, 1.7), (0.98, 2.0), (0.84, 1.6), (1.12, 2.8)], np.float32)
