"""What a part is made of: colours to choose from, a pattern on them, how deep it is and how glossy.

A pattern is a function (u, v, rng, grain) -> field (H, W), about -1..1 or, where it tells a second colour, 0..1. Those
here make patterns from numbers, pairs (low, high) of which every image draws its own, as in shapes.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data.generated.products import Array, Rng, paint, power_noise, soft
from data.generated.shapes import Number, pick

Pattern = Callable[[Array, Array, Rng, Array], Array]

# Red, green and blue in 0..1. A palette is a string of these names: what one thing may be made of.
COLOURS = {
    "steel": (0.56, 0.56, 0.58),
    "brass": (0.62, 0.52, 0.28),
    "copper": (0.60, 0.38, 0.26),
    "black": (0.10, 0.10, 0.11),
    "grey": (0.42, 0.42, 0.44),
    "white": (0.86, 0.85, 0.83),
    "cream": (0.84, 0.78, 0.64),
    "red": (0.70, 0.12, 0.12),
    "blue": (0.13, 0.26, 0.62),
    "green": (0.14, 0.46, 0.22),
    "yellow": (0.84, 0.68, 0.12),
    "orange": (0.84, 0.42, 0.10),
    "pink": (0.82, 0.50, 0.58),
    "purple": (0.42, 0.22, 0.52),
    "teal": (0.14, 0.48, 0.50),
    "brown": (0.46, 0.28, 0.15),
    "tan": (0.70, 0.52, 0.34),
    "dark_brown": (0.24, 0.14, 0.08),
    "soot": (0.16, 0.16, 0.17),
    "grass": (0.30, 0.48, 0.14),
    "amber": (0.62, 0.42, 0.10),
    "rust": (0.56, 0.20, 0.10),
    "lime": (0.60, 0.66, 0.34),
    "straw": (0.76, 0.66, 0.36),
    "nut": (0.56, 0.36, 0.18),
    "skin": (0.84, 0.74, 0.62),
    "clay": (0.74, 0.54, 0.40),
    "duck": (0.62, 0.74, 0.74),
    "sky": (0.60, 0.76, 0.84),
    "rose": (0.84, 0.60, 0.62),
    "biscuit": (0.62, 0.42, 0.22),
    "chocolate": (0.36, 0.22, 0.12),
    "cocoa": (0.30, 0.16, 0.10),
    "peach": (0.80, 0.60, 0.46),
    "lilac": (0.72, 0.66, 0.76),
    "cherry": (0.60, 0.36, 0.20),
    "birch": (0.76, 0.62, 0.42),
    "coal": (0.22, 0.20, 0.20),
    "ox": (0.52, 0.16, 0.12),
    "navy": (0.18, 0.24, 0.34),
    "slate": (0.30, 0.34, 0.42),
    "brick": (0.48, 0.20, 0.18),
    "moss": (0.26, 0.38, 0.28),
    "sand": (0.56, 0.50, 0.42),
    "wine": (0.44, 0.16, 0.22),
    "iron": (0.44, 0.45, 0.48),
    "nickel": (0.62, 0.60, 0.57),
    "cement": (0.56, 0.55, 0.53),
    "ash": (0.46, 0.46, 0.47),
    "stone": (0.62, 0.58, 0.52),
    "pit": (0.28, 0.27, 0.26),
    "mint": (0.80, 0.86, 0.84),
    "blush": (0.86, 0.76, 0.78),
    "azure": (0.40, 0.56, 0.78),
    "coral": (0.74, 0.44, 0.44),
    "lead": (0.50, 0.50, 0.52),
    "night": (0.20, 0.22, 0.22),
    "jade": (0.24, 0.36, 0.30),
    "dusk": (0.74, 0.62, 0.54),
    "tar": (0.14, 0.13, 0.12),
}
BRIGHT = "red blue green yellow orange purple teal"


def plain(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
    return np.zeros_like(u)


def stained(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
    """Clouds, as on all that was handled."""
    return grain


def streaks(fine: Number) -> Pattern:
    """Fibres along u: noise of v alone, a little frayed. Brushed metal, the grain of wood."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        noise = rng.standard_normal(257)
        return np.interp(fine * v + 0.02 * fine * grain + 128, np.arange(257), noise) / 1.4

    return field


def circles(frequency: Number) -> Pattern:
    """Rings about the middle: what a lathe leaves."""
    return lambda u, v, rng, grain: np.sin(pick(rng, frequency) * np.hypot(u, v) + 0.4 * grain)


def rays(count: Number, twist: Number = 0.0) -> Pattern:
    """Waves in the angle, seen from `twist` behind the middle: ribs of a shell, veins of a leaf."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        return np.cos(int(pick(rng, count)) * np.arctan2(v, u + twist))

    return field


def herringbone(frequency: Number, slant: Number) -> Pattern:
    """A rib in the middle and others that leave it at a slant: 1 on them, 0 between. The veins of a leaf."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        side = np.cos(pick(rng, frequency) * (u - slant * np.abs(v)))
        return np.maximum(soft(np.abs(v) - 0.035, 0.012), 0.7 * soft(0.9 - side, 0.05))

    return field


def weave(frequency: Number) -> Pattern:
    """Warp and weft: the product of two waves."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        f = pick(rng, frequency)
        return np.sin(f * u) * np.sin(f * v)

    return field


def ribs(frequency: Number) -> Pattern:
    """Loops of yarn in rows: waves across v, cut by finer ones along u that differ from row to row. Carpet."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        f = pick(rng, frequency)
        return np.sin(f * v) + 0.8 * np.sin(1.3 * f * u + 2.4 * np.round(f * v / np.pi)) + 0.4 * grain

    return field


def noise(slope: Number) -> Pattern:
    """Grain of its own: the smaller the slope, the finer."""
    return lambda u, v, rng, grain: power_noise(rng, len(u), pick(rng, slope)) / 2


def spots(slope: Number, above: Number, edge: Number = 0.15) -> Pattern:
    """1 in islands, where noise is above a threshold, 0 elsewhere: speckles of an egg, pits of concrete."""
    return lambda u, v, rng, grain: soft(pick(rng, above) - power_noise(rng, len(u), slope), edge)


def veins(slope: Number, width: Number) -> Pattern:
    """1 along winding lines, where noise crosses zero, 0 elsewhere: marble."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        broad, fine = (
            np.exp(-((power_noise(rng, len(u), slope) / (thin * pick(rng, width))) ** 2)) for thin in (1, 0.5)
        )
        return np.maximum(broad, 0.6 * fine)

    return field


def growth(frequency: Number) -> Pattern:
    """Years of wood: waves across v, bent by slow noise and sharper on one side."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        slow = power_noise(rng, len(u), 3.0)
        phase = pick(rng, frequency) * (v + 0.04 * u**2 * rng.normal()) + 0.8 * slow
        return np.sin(phase + 0.6 * np.sin(phase)) * 0.8 + 0.25 * np.sin(90 * v + 3 * slow)

    return field


def cells(size: Number) -> Pattern:
    """Cells about jittered points of a raster: 0 at a border, up to 1 inside. Leather, terrazzo."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        step = pick(rng, size)
        p, q = u / step, v / step
        first = second = np.full_like(u, np.inf)
        jitter = rng.uniform(0.1, 0.9, (64, 64, 2))
        left, top = np.floor(p), np.floor(q)
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                a, b = left + i, top + j
                at = jitter[a.astype(int) % 64, b.astype(int) % 64]
                away = np.hypot(p - a - at[..., 0], q - b - at[..., 1])
                first, second = np.minimum(first, away), np.minimum(second, np.maximum(first, away))
        return np.clip((second - first) / 0.5, 0, 1)

    return field


def raster(pitch: Number, edge: Number, shift: Number = 0.0) -> Pattern:
    """Round dots on a raster, each second line moved by `shift`: 1 in a dot, 0 between."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        step = pick(rng, pitch)
        line = np.round(v / step)
        p = u / step + shift * line
        return soft(np.hypot(p - np.round(p), v / step - line) - edge, 0.06)

    return field


def squares(pitch: Number, width: Number) -> Pattern:
    """1 on the lines of squared paper, on the joints of bricks, on the wires of a mesh."""

    def field(u: Array, v: Array, rng: Rng, grain: Array) -> Array:
        step = pick(rng, pitch)
        away = [np.abs(x / step - np.round(x / step)) for x in (u, v)]
        return soft(np.minimum(*away) - width, 0.03)

    return field


class Material(NamedTuple):
    """albedo = a colour (1 + contrast field), or from it to a colour of `second` as the field goes from 0 to 1."""

    colours: str  # a palette to choose from
    pattern: Callable = stained
    contrast: float = 0.05
    relief: float = 0.0  # height of the field
    gloss: float = 0.3
    second: str = ""  # palette of where the field is 1; none: see above


def choose(palette: str, rng: Rng) -> Array:
    """One of the palette's colours (3, 1, 1), its brightness varied."""
    names = palette.split()
    return paint(rng, *COLOURS[names[rng.integers(len(names))]])


def look(material: Material, u: Array, v: Array, rng: Rng, grain: Array) -> tuple[Array, Array]:
    """The albedo (3, H, W) and the relief (H, W) of a material."""
    first = choose(material.colours, rng)
    field = material.pattern(u, v, rng, grain)
    if not material.second:
        return first * (1 + material.contrast * field), material.relief * field
    second = choose(material.second, rng)
    ground = first * (1 + material.contrast * grain)
    return ground + (second - ground) * np.clip(field, 0, 1), material.relief * field
