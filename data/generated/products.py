"""Eight products as functions of a plane: where each ends, how high it stands, what colour it has.

A product is drawn in its own frame (u, v), about [-1, 1]^2. A signed distance (negative inside) gives the silhouette,
a height map gives the shading, an albedo gives the colour and `gloss` the strength of the highlight.
"""

from typing import NamedTuple

import numpy as np

Array, Rng = np.ndarray, np.random.Generator


class Surface(NamedTuple):
    distance: np.ndarray  # (H, W) signed distance to the silhouette, < 0 on the product
    height: np.ndarray  # (H, W)
    albedo: np.ndarray  # (3, H, W) linear colour in about 0..1
    gloss: float


def power_noise(rng: Rng, n: int, slope: float = 1.8) -> Array:
    """A field (n, n) with zero mean, unit variance and amplitude spectrum f^-slope: stains, grain, clouds."""
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None])
    frequency[0, 0] = np.inf  # no mean
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, n))) * frequency**-slope, (n, n))
    return field / field.std()


def soft(distance: Array, width: float) -> Array:
    """1 where distance < 0, 0 where > 0, a logistic edge of the given width between."""
    return 1 / (1 + np.exp(np.clip(distance / width, -30, 30)))


def to_segment(u: Array, v: Array, start: Array, end: Array) -> Array:
    """Distance of every point to the segment from `start` to `end`."""
    along = end - start
    share = np.clip(((u - start[0]) * along[0] + (v - start[1]) * along[1]) / (along @ along + 1e-9), 0, 1)
    return np.hypot(u - start[0] - share * along[0], v - start[1] - share * along[1])


def paint(rng: Rng, red: float, green: float, blue: float) -> Array:
    """A colour (3, 1, 1), its brightness varied by 12 %."""
    return np.array([red, green, blue])[:, None, None] * (1 + rng.uniform(-0.12, 0.12))


def dome(radius2: Array) -> Array:
    """Height of a sphere of unit radius above the plane, 0 outside; radius2 is the squared distance to its axis."""
    return np.sqrt(np.clip(1 - radius2, 0, None))


def hazelnut(u: Array, v: Array, rng: Rng, grain: Array) -> Surface:
    r = np.hypot(u / 0.78, v / 0.92)
    distance = r - 0.82 + 0.02 * np.sin(3 * np.arctan2(v, u))
    streaks = np.sin(17 * u / (0.4 + np.abs(1 - v)) + 2 * grain)
    shell = paint(rng, 0.52, 0.33, 0.18) * (1 + 0.09 * streaks + 0.08 * grain)
    base = paint(rng, 0.68, 0.55, 0.38) * (1 + 0.12 * grain)  # the pale cap where the nut sat in its husk
    return Surface(distance, 0.68 * dome((r / 0.86) ** 2), np.where(v < -0.5 + 0.04 * grain, base, shell), 0.25)


def screw(u: Array, v: Array, rng: Rng, grain: Array) -> Surface:
    head = np.maximum(np.abs(v) - 0.40, np.abs(u + 0.74) - 0.15)
    thread = np.abs((u * 7 + v * 0.8) % 1 - 0.5)
    shank = np.maximum(np.abs(v) - 0.17 - 0.06 * thread, np.abs(u - 0.11) - 0.72)
    tip = np.maximum(np.abs(v) - 0.17 * (1.06 - u) / 0.25, np.abs(u - 0.92) - 0.14)
    distance = np.minimum(np.minimum(head, shank), tip)
    height = 0.45 * np.sqrt(np.clip(0.18 - v**2, 0, None)) + 0.07 * thread * (u > -0.6)
    return Surface(distance, height, paint(rng, 0.55, 0.55, 0.57) * (1 + 0.05 * grain), 0.9)


def metal_nut(u: Array, v: Array, rng: Rng, grain: Array) -> Surface:
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    hexagon = np.max([np.abs(np.cos(angle - k * np.pi / 3)) * r for k in range(3)], 0)
    brushed = np.sin(40 * u + 2 * grain)
    height = 0.3 * np.clip((0.78 - hexagon) / 0.12, 0, 1) * 0.12 / 0.12
    return Surface(
        np.maximum(hexagon - 0.76, 0.30 - r), height, paint(rng, 0.58, 0.56, 0.50) * (1 + 0.06 * brushed), 0.9
    )


def pill(u: Array, v: Array, rng: Rng, grain: Array) -> Surface:
    r = np.hypot(np.maximum(np.abs(u) - 0.38, 0), v)
    halves = np.where(u < 0, paint(rng, 0.86, 0.84, 0.80), paint(rng, 0.80, 0.79, 0.77)) * (1 + 0.02 * grain)
    groove = 0.12 * soft(np.abs(u) - 0.03, 0.012)
    return Surface(r - 0.48, 0.5 * dome((r / 0.5) ** 2) - groove, halves, 0.35)


def zipper(u: Array, v: Array, rng: Rng, grain: Array) -> Surface:
    comb = np.sin(16 * u)
    teeth = np.maximum(np.abs(v + 0.1 * np.sign(comb)) - 0.2, 0.35 - np.abs(comb))
    weave = np.sin(60 * u + 30 * np.sin(2 * v)) * np.sin(55 * v)
    cloth = paint(rng, 0.20, 0.21, 0.25) * (1 + 0.2 * weave + 0.1 * grain)
    albedo = np.where(teeth < 0, paint(rng, 0.62, 0.58, 0.48), cloth)
    return Surface(np.abs(v) - 0.82, 0.22 * soft(teeth, 0.03) + 0.015 * weave, albedo, 0.4)


def cable(u: Array, v: Array, rng: Rng, grain: Array) -> Surface:
    r = np.hypot(u, v)
    height, albedo = 0.1 * (r > 0.72), paint(rng, 0.30, 0.30, 0.31) * (1 + 0.06 * grain)
    for k, colour in enumerate(((0.25, 0.50, 0.22), (0.20, 0.30, 0.60), (0.50, 0.33, 0.20))):
        turn = 2 * np.pi / 3 * k + 0.5
        pu, pv = u - 0.41 * np.cos(turn), v - 0.41 * np.sin(turn)
        q, wires = np.hypot(pu, pv), np.sin(34 * pu) * np.sin(34 * pv)
        albedo = np.where(q < 0.33, paint(rng, *colour), albedo)
        albedo = np.where(q < 0.24, paint(rng, 0.72, 0.48, 0.30) * (1 + 0.3 * wires), albedo)
        height = height + 0.05 * np.where(q < 0.24, wires, q < 0.33)
    return Surface(r - 0.86, height, albedo, 0.5)


def tile(u: Array, v: Array, rng: Rng, grain: Array) -> Surface:
    blotches = power_noise(rng, len(u), 1.3)
    albedo = paint(rng, 0.60, 0.58, 0.54) * (1 + 0.12 * (blotches > 0.6) - 0.18 * (blotches < -1.1) + 0.04 * grain)
    return Surface(np.full_like(u, -1), 0.03 * grain, albedo, 0.3)


def bottle(u: Array, v: Array, rng: Rng, grain: Array) -> Surface:
    r = np.hypot(u, v)
    rim = 0.28 * np.exp(-(((r - 0.66) / 0.08) ** 2))
    albedo = paint(rng, 0.42, 0.28, 0.14) * (0.55 + 0.5 * np.clip(r, 0, 1)) * (1 + 0.05 * grain)
    return Surface(r - 0.88, rim, albedo + 0.2 * np.exp(-(((r - 0.36) / 0.02) ** 2)), 0.9)


# The order is frozen: an image's random numbers depend on the position of its product.
DRAW = {
    "hazelnut": hazelnut,
    "screw": screw,
    "metal_nut": metal_nut,
    "pill": pill,
    "zipper": zipper,
    "cable": cable,
    "tile": tile,
    "bottle": bottle,
}
