"""Four garments, a billboard and a bottle of perfume as functions of a plane: what a logo is printed on.

As in products.py each is drawn in its own frame (u, v), about [-1, 1]^2, v downwards. `dye` is the colour (3, 1, 1)
of the cloth, which a billboard and a perfume have not, and `grain` a field of noise for folds and stains.
"""

import numpy as np
from numpy import ndarray as Array

from data.generated.products import Surface, paint, soft, to_segment


def polygon(u: Array, v: Array, half: Array) -> Array:
    """Signed distance, negative inside, to the polygon of the corners `half` (K, 2), right of the middle, and their
    mirror images.
    """
    corners = np.concatenate([half, half[::-1] * np.array([-1, 1])])
    away, inside = np.full_like(u, np.inf), np.zeros(u.shape, bool)
    for a, b in zip(corners, np.roll(corners, -1, 0)):
        away = np.minimum(away, to_segment(u, v, a, b))
        crosses = (a[1] > v) != (b[1] > v)  # the edge passes the height of the point, to the right of it
        inside ^= crosses & (u - a[0] < (b[0] - a[0]) * (v - a[1]) / (b[1] - a[1] + 1e-12))
    return np.where(inside, -away, away)


def cloth(
    u: Array, v: Array, half: list, dye: Array, grain: Array, weave: Array, seams: Array | float = 0.0
) -> Surface:
    """Soft cloth of an outline: round at its edge, in folds, darker where `seams` (H, W) is 1."""
    distance = polygon(u, v, np.array(half)) - 0.03
    folds = np.sin(4 * u + 2 * v + 1.5 * grain) + 0.5 * grain
    height = 0.05 * folds - 0.25 * u**2 - 0.22 * np.exp(np.clip(distance, -1, 0) / 0.09)
    return Surface(distance, height, dye * (1 + 0.05 * grain + 0.10 * weave - 0.35 * seams), 0.06)


def line(distance: Array, width: float = 0.018) -> Array:
    """1 on the zero of a distance, 0 beside it."""
    return np.exp(-((distance / width) ** 2))


def t_shirt(u: Array, v: Array, rng: np.random.Generator, dye: Array, grain: Array) -> Surface:
    """A t-shirt: short sleeves and a round collar."""
    collar = np.hypot(u, (v + 0.86) * 1.25)
    seams = line(collar - 0.36) + line(v - 0.80) + line(np.abs(u) - 0.60 - 0.12 * (v + 0.3)) * (v < -0.12)
    half = [
        (0.02, -0.60),
        (0.20, -0.68),
        (0.29, -0.86),
        (0.52, -0.78),
        (0.99, -0.34),
        (0.80, -0.02),
        (0.66, -0.14),
        (0.66, 0.88),
    ]
    return cloth(u, v, half, dye, grain, 0.4 * np.sin(70 * u) * np.sin(70 * v), seams)


def sweater(u: Array, v: Array, rng: np.random.Generator, dye: Array, grain: Array) -> Surface:
    """A sweater: long sleeves and a ribbed hem."""
    ribs = np.sin(75 * u) * (v > 0.68)
    sleeve = line(np.abs(u) - 0.62 - 0.05 * v) * (v > -0.45)
    half = [
        (0.02, -0.72),
        (0.22, -0.80),
        (0.26, -0.88),
        (0.56, -0.80),
        (0.84, -0.45),
        (0.97, 0.62),
        (0.72, 0.68),
        (0.63, 0.05),
        (0.63, 0.90),
    ]
    seams = line(np.hypot(u, v + 0.98) - 0.34) + line(v - 0.68) + 0.8 * sleeve
    return cloth(u, v, half, dye, grain, np.sin(48 * u + 1.5 * np.sin(24 * v)) + 2 * ribs, seams)


def shorts(u: Array, v: Array, rng: np.random.Generator, dye: Array, grain: Array) -> Surface:
    """Shorts with a waistband."""
    band = (v < -0.46) * (1 + np.sin(60 * u)) / 2
    half = [(0.02, 0.30), (0.08, 0.84), (0.98, 0.76), (0.74, -0.70)]
    seams = line(v + 0.46) + line(u, 0.015) * (v < 0.30) + line(v - 0.74)
    return cloth(u, v, half, dye, grain, np.sin(60 * (u + v)) + band, seams)


def hat(u: Array, v: Array, rng: np.random.Generator, dye: Array, grain: Array) -> Surface:
    """A knitted hat with a turned-up brim."""
    band = v > 0.02
    ribs = np.sin(np.where(band, 44, 30) * u / np.sqrt(np.clip(1.3 - 0.6 * np.clip(-v, 0, 1) ** 2, 0.2, None)))
    half = [
        (0.02, -0.80),
        (0.30, -0.76),
        (0.56, -0.58),
        (0.72, -0.30),
        (0.78, 0.02),
        (0.86, 0.04),
        (0.86, 0.66),
        (0.02, 0.74),
    ]
    return cloth(u, v, half, dye, grain, ribs * np.where(band, 0.6, 1.0), line(v - 0.02, 0.03))


def billboard(u: Array, v: Array, rng: np.random.Generator, dye: Array, grain: Array) -> Surface:
    """A panel on two posts, before sky and grass: a surface that fills the picture."""
    panel = np.maximum(np.abs(u) - 0.80, np.abs(v + 0.22) - 0.44)
    posts = np.maximum(np.abs(np.abs(u) - 0.45) - 0.055, 0.2 - v)
    sky = paint(rng, 0.50, 0.66, 0.84) + 0.10 * (v + 0.2) + 0.05 * np.clip(grain, 0, None)
    ground = np.where(v > 0.70 + 0.03 * grain, paint(rng, 0.24, 0.36, 0.16) * (1 + 0.15 * grain), sky)
    steel = np.where(posts < 0, paint(rng, 0.34, 0.34, 0.36), ground)
    framed = np.where(panel < 0, paint(rng, 0.22, 0.22, 0.24), steel)
    sheet = paint(rng, 0.84, 0.83, 0.80) * (1 + 0.02 * grain)
    return Surface(
        np.full_like(u, -1),
        0.08 * soft(panel, 0.02) + 0.05 * soft(posts, 0.02),
        np.where(panel < -0.05, sheet, framed),
        0.2,
    )


def perfume(u: Array, v: Array, rng: np.random.Generator, dye: Array, grain: Array) -> Surface:
    """A flacon with a dark cap, its scent seen through the glass."""
    body = np.maximum(np.abs(u) - 0.56, np.abs(v - 0.24) - 0.50) - 0.08
    neck = np.maximum(np.abs(u) - 0.16, np.abs(v + 0.38) - 0.08)
    cap = np.maximum(np.abs(u) - 0.27, np.abs(v + 0.64) - 0.20) - 0.03
    scent = paint(rng, *((0.86, 0.66, 0.42), (0.84, 0.58, 0.60), (0.62, 0.74, 0.78))[rng.integers(3)])
    glass = np.where((body < -0.08) & (v > -0.06 + 0.02 * grain), scent, 0.80 + 0.12 * scent)
    metal = np.where(cap < 0, paint(rng, 0.16, 0.16, 0.18), paint(rng, 0.70, 0.62, 0.42))
    distance = np.minimum(np.minimum(body, neck), cap)
    height = -0.18 * np.exp(np.clip(body, -1, 0) / 0.06) - 0.30 * u**2
    return Surface(distance, height, np.where(body < 0, glass, metal), 0.8)


# name -> how it is drawn, and where on it the logo sits: u, v and the half of its length.
# The order is frozen: an image's random numbers depend on the position of its garment.
GARMENTS = {
    "t-shirt": (t_shirt, (0, 0.06, 0.58)),
    "sweater": (sweater, (0, -0.06, 0.56)),
    "shorts": (shorts, (0, -0.15, 0.60)),
    "hat": (hat, (0, 0.35, 0.62)),
}
PROPS = {"billboard": (billboard, (0, -0.22, 0.64)), "perfume": (perfume, (0, 0.30, 0.54))}
