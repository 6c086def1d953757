"""Silhouettes, their arrangements and their heights: what the parts of a product are made of (see kinds.py).

An outline is a function (u, v, rng) -> distance (H, W), about signed, negative inside. Those here make outlines from
numbers; a number may be a pair (low, high), and every image then draws its own. A solid is a function (distance, v) ->
height (H, W) above the part's own zero.
"""

from collections.abc import Callable, Sequence

import numpy as np

from data.generated.products import Array, Rng, to_segment

Number = float | tuple[float, float]
Outline = Callable[[Array, Array, Rng], Array]
Solid = Callable[[Array, Array], Array]


def pick(rng: Rng, value: Number) -> float:
    """A number as it is; of a pair (low, high) one between."""
    return rng.uniform(*value) if isinstance(value, tuple) else value


def everywhere(u: Array, v: Array, rng: Rng) -> Array:
    """A surface without an edge."""
    return np.full_like(u, -1)


def polar(radius: Number, waves: Sequence[tuple] = (), squash: Number = 1.0) -> Outline:
    """r - radius - sum of amplitude * clip(sharp * cos(count * angle + phase)), waves (count, amplitude, sharp)."""

    def outline(u: Array, v: Array, rng: Rng) -> Array:
        u = u / pick(rng, squash)
        angle, edge = np.arctan2(v, u), pick(rng, radius)
        for count, amplitude, sharp in waves:
            wave = np.cos(int(pick(rng, count)) * angle + rng.uniform(0, 2 * np.pi))
            edge = edge + pick(rng, amplitude) * np.clip(sharp * wave, -1, 1)
        return np.hypot(u, v) - edge

    return outline


def ring(radius: Number, width: Number) -> Outline:
    """The points within `width` of a circle."""

    def outline(u: Array, v: Array, rng: Rng) -> Array:
        return np.abs(np.hypot(u, v) - pick(rng, radius)) - pick(rng, width)

    return outline


def box(a: Number, b: Number, corner: Number = 0.0) -> Outline:
    """A rectangle of the half sides a and b, its corners round."""

    def outline(u: Array, v: Array, rng: Rng) -> Array:
        half_u, half_v, bow = pick(rng, a), pick(rng, b), pick(rng, corner)
        over_u, over_v = np.abs(u) - half_u + bow, np.abs(v) - half_v + bow
        return np.hypot(np.maximum(over_u, 0), np.maximum(over_v, 0)) + np.minimum(np.maximum(over_u, over_v), 0) - bow

    return outline


def oval(length: Number, width: Number, point: Number = 0.5, skew: Number = 0.0) -> Outline:
    """|v| - width (1 - (u / length)^2)^point (1 + skew u / length): an ellipse at .5, a leaf with two points at 1."""

    def outline(u: Array, v: Array, rng: Rng) -> Array:
        along = u / pick(rng, length)
        half = pick(rng, width) * np.clip(1 - along**2, 0, None) ** pick(rng, point) * (1 + pick(rng, skew) * along)
        return np.where(np.abs(along) < 1, np.abs(v) - half, np.hypot(np.abs(u) - np.abs(u / along), v))

    return outline


def fan(radius: Number, reach: Number, ribs: Number, depth: Number) -> Outline:
    """A sector that opens along u, with waves on its round edge: a scallop."""

    def outline(u: Array, v: Array, rng: Rng) -> Array:
        r, angle, half = np.hypot(u + 0.75, v), np.arctan2(v, u + 0.75), pick(rng, reach)
        waves = np.cos(int(pick(rng, ribs)) * np.pi * angle / half)
        edge = pick(rng, radius) * np.cos(0.45 * angle / half) + depth * waves
        return np.maximum(r - edge, 0.7 * r * np.sin(np.clip(np.abs(angle) - half, -1.5, 1.5)))

    return outline


def stroke(start: tuple[float, float], end: tuple[float, float], width: Number) -> Outline:
    """A line from point to point with round ends."""

    def outline(u: Array, v: Array, rng: Rng) -> Array:
        return to_segment(u, v, np.array(start), np.array(end)) - pick(rng, width)

    return outline


def joined(*outlines: Outline) -> Outline:
    """All of them as one."""
    return lambda u, v, rng: np.min([outline(u, v, rng) for outline in outlines], 0)


def moved(outline: Outline, du: Number = 0.0, dv: Number = 0.0, turn: Number = 0.0) -> Outline:
    """The outline at another place, turned by `turn` radians."""

    def placed(u: Array, v: Array, rng: Rng) -> Array:
        angle = pick(rng, turn)
        p, q = u - pick(rng, du), v - pick(rng, dv)
        return outline(np.cos(angle) * p + np.sin(angle) * q, np.cos(angle) * q - np.sin(angle) * p, rng)

    return placed


def around(outline: Outline, count: Number, radius: Number) -> Outline:
    """`count` of an outline on a circle, their u outwards."""

    def arranged(u: Array, v: Array, rng: Rng) -> Array:
        sector = 2 * np.pi / int(pick(rng, count))
        turn = sector * np.round(np.arctan2(v, u) / sector)
        return outline(
            np.cos(turn) * u + np.sin(turn) * v - pick(rng, radius), np.cos(turn) * v - np.sin(turn) * u, rng
        )

    return arranged


def rows(outline: Outline, columns: Number, pitch: Number, lines: Number = 1, spacing: Number = 1.0) -> Outline:
    """A raster of an outline: `columns` along u, `pitch` apart, in `lines`, `spacing` apart."""

    def nearest(x: Array, count: Number, step: Number) -> Array:
        place = np.clip(np.floor(x / step + count / 2), 0, count - 1)
        return x - (place - (count - 1) / 2) * step

    def arranged(u: Array, v: Array, rng: Rng) -> Array:
        return outline(
            nearest(u, int(pick(rng, columns)), pick(rng, pitch)),
            nearest(v, int(pick(rng, lines)), pick(rng, spacing)),
            rng,
        )

    return arranged


def scattered(outline: Outline, count: Number, reach: Number) -> Outline:
    """`count` of an outline at random places within `reach` of the middle."""

    def arranged(u: Array, v: Array, rng: Rng) -> Array:
        away, angle = reach * np.sqrt(rng.uniform(size=(n := int(pick(rng, count))))), rng.uniform(0, 2 * np.pi, n)
        spots = zip(away * np.cos(angle), away * np.sin(angle))
        return np.min([outline(u - p, v - q, rng) for p, q in spots], 0)

    return arranged


def flat(height: Number = 0.0) -> Solid:
    """One height up to the edge."""
    return lambda distance, v: np.full_like(v, height)


def slab(height: Number, bevel: Number) -> Solid:
    """A plate that falls to its edge over `bevel`; below 0 it is a recess."""
    return lambda distance, v: height * np.clip(-distance / bevel, 0, 1)


def pillow(height: Number, reach: Number) -> Solid:
    """Round from the edge to `reach` inside of it: a quarter of a circle, flat beyond."""
    return lambda distance, v: height * np.sqrt(1 - (1 - np.clip(-distance / reach, 0, 1)) ** 2)


def rod(strength: Number = 1.0) -> Solid:
    """A solid of revolution about v = 0: sqrt(w^2 - v^2) of an outline |v| - w."""

    def height(distance: Array, v: Array) -> Array:
        inside = np.clip(-distance, 0, None)
        return strength * np.sqrt(inside**2 + 2 * inside * np.abs(v))

    return height
