"""What a part is made of: colours to choose from, a pattern on them, how deep it is and how glossy.

A pattern is a function (u, v, rng, grain) -> field (H, W), about -1..1 or, where it tells a second colour, 0..1. Those
here make patterns from numbers, pairs (low, high) of which every image draws its own, as in shapes.py.
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .products import paint, power_noise, soft
from .shapes import pick

# Red, green and blue in 0..1. A palette is a string of these names: what one thing may be made of.
COLOURS = {
    "steel": (.56, .56, .58), "brass": (.62, .52, .28), "copper": (.60, .38, .26), "black": (.10, .10, .11),
    "grey": (.42, .42, .44), "white": (.86, .85, .83), "cream": (.84, .78, .64), "red": (.70, .12, .12),
    "blue": (.13, .26, .62), "green": (.14, .46, .22), "yellow": (.84, .68, .12), "orange": (.84, .42, .10),
    "pink": (.82, .50, .58), "purple": (.42, .22, .52), "teal": (.14, .48, .50), "brown": (.46, .28, .15),
    "tan": (.70, .52, .34), "dark_brown": (.24, .14, .08), "soot": (.16, .16, .17), "grass": (.30, .48, .14),
    "amber": (.62, .42, .10), "rust": (.56, .20, .10), "lime": (.60, .66, .34), "straw": (.76, .66, .36),
    "nut": (.56, .36, .18), "skin": (.84, .74, .62), "clay": (.74, .54, .40), "duck": (.62, .74, .74),
    "sky": (.60, .76, .84), "rose": (.84, .60, .62), "biscuit": (.62, .42, .22), "chocolate": (.36, .22, .12),
    "cocoa": (.30, .16, .10), "peach": (.80, .60, .46), "lilac": (.72, .66, .76), "cherry": (.60, .36, .20),
    "birch": (.76, .62, .42), "coal": (.22, .20, .20), "ox": (.52, .16, .12), "navy": (.18, .24, .34),
    "slate": (.30, .34, .42), "brick": (.48, .20, .18), "moss": (.26, .38, .28), "sand": (.56, .50, .42),
    "wine": (.44, .16, .22), "iron": (.44, .45, .48), "nickel": (.62, .60, .57), "cement": (.56, .55, .53),
    "ash": (.46, .46, .47), "stone": (.62, .58, .52), "pit": (.28, .27, .26), "mint": (.80, .86, .84),
    "blush": (.86, .76, .78), "azure": (.40, .56, .78), "coral": (.74, .44, .44), "lead": (.50, .50, .52),
    "night": (.20, .22, .22), "jade": (.24, .36, .30), "dusk": (.74, .62, .54), "tar": (.14, .13, .12),
}
BRIGHT = "red blue green yellow orange purple teal"


def plain(u, v, rng, grain):
    return np.zeros_like(u)


def stained(u, v, rng, grain):
    """Clouds, as on all that was handled."""
    return grain



def streaks(fine):
    """Fibres along u: noise of v alone, a little frayed. Brushed metal, the grain of wood."""
    def field(u, v, rng, grain):
        noise = rng.standard_normal(257)
        return np.interp(fine * v + .02 * fine * grain + 128, np.arange(257), noise) / 1.4
    return field


def circles(frequency):
    """Rings about the middle: what a lathe leaves."""
    return lambda u, v, rng, grain: np.sin(pick(rng, frequency) * np.hypot(u, v) + .4 * grain)


def rays(count, twist=0.):
    """Waves in the angle, seen from `twist` behind the middle: ribs of a shell, veins of a leaf."""
    def field(u, v, rng, grain):
        return np.cos(int(pick(rng, count)) * np.arctan2(v, u + twist))
    return field


def herringbone(frequency, slant):
    """A rib in the middle and others that leave it at a slant: 1 on them, 0 between. The veins of a leaf."""
    def field(u, v, rng, grain):
        side = np.cos(pick(rng, frequency) * (u - slant * np.abs(v)))
        return np.maximum(soft(np.abs(v) - .035, .012), .7 * soft(.9 - side, .05))
    return field


def weave(frequency):
    """Warp and weft: the product of two waves."""
    def field(u, v, rng, grain):
        f = pick(rng, frequency)
        return np.sin(f * u) * np.sin(f * v)
    return field



def ribs(frequency):
    """Loops of yarn in rows: waves across v, cut by finer ones along u that differ from row to row. Carpet."""
    def field(u, v, rng, grain):
        f = pick(rng, frequency)
        return np.sin(f * v) + .8 * np.sin(1.3 * f * u + 2.4 * np.round(f * v / np.pi)) + .4 * grain
    return field


def noise(slope):
    """Grain of its own: the smaller the slope, the finer."""
    return lambda u, v, rng, grain: power_noise(rng, len(u), pick(rng, slope)) / 2


def spots(slope, above, edge=.15):
    """1 in islands, where noise is above a threshold, 0 elsewhere: speckles of an egg, pits of concrete."""
    return lambda u, v, rng, grain: soft(pick(rng, above) - power_noise(rng, len(u), slope), edge)


def veins(slope, width):
    """1 along winding lines, where noise crosses zero, 0 elsewhere: marble."""
    def field(u, v, rng, grain):
        broad, fine = (np.exp(-(power_noise(rng, len(u), slope) / (thin * pick(rng, width))) ** 2) for thin in (1, .5))
        return np.maximum(broad, .6 * fine)
    return field


def growth(frequency):
    """Years of wood: waves across v, bent by slow noise and sharper on one side."""
    def field(u, v, rng, grain):
        slow = power_noise(rng, len(u), 3.)
        phase = pick(rng, frequency) * (v + .04 * u ** 2 * rng.normal()) + .8 * slow
        return np.sin(phase + .6 * np.sin(phase)) * .8 + .25 * np.sin(90 * v + 3 * slow)
    return field


def cells(size):
    """Cells about jittered points of a raster: 0 at a border, up to 1 inside. Leather, terrazzo."""
    def field(u, v, rng, grain):
        step = pick(rng, size)
        p, q = u / step, v / step
        first = second = np.full_like(u, np.inf)
        jitter = rng.uniform(.1, .9, (64, 64, 2))
        left, top = np.floor(p), np.floor(q)
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                a, b = left + i, top + j
                at = jitter[a.astype(int) % 64, b.astype(int) % 64]
                away = np.hypot(p - a - at[..., 0], q - b - at[..., 1])
                first, second = np.minimum(first, away), np.minimum(second, np.maximum(first, away))
        return np.clip((second - first) / .5, 0, 1)
    return field


def raster(pitch, edge, shift=0.):
    """Round dots on a raster, each second line moved by `shift`: 1 in a dot, 0 between."""
    def field(u, v, rng, grain):
        step = pick(rng, pitch)
        line = np.round(v / step)
        p = u / step + shift * line
        return soft(np.hypot(p - np.round(p), v / step - line) - edge, .06)
    return field


def squares(pitch, width):
    """1 on the lines of squared paper, on the joints of bricks, on the wires of a mesh."""
    def field(u, v, rng, grain):
        step = pick(rng, pitch)
        away = [np.abs(x / step - np.round(x / step)) for x in (u, v)]
        return soft(np.minimum(*away) - width, .03)
    return field


class Material(NamedTuple):
    """albedo = a colour (1 + contrast field), or from it to a colour of `second` as the field goes from 0 to 1."""
    colours: str                             # a palette to choose from
    pattern: Callable = stained
    contrast: float = .05
    relief: float = 0.                       # height of the field
    gloss: float = .3
    second: str = ""                         # palette of where the field is 1; none: see above


def choose(palette, rng):
    """One of the palette's colours (3, 1, 1), its brightness varied."""
    names = palette.split()
    return paint(rng, *COLOURS[names[rng.integers(len(names))]])


def look(material: Material, u, v, rng, grain):
    """The albedo (3, H, W) and the relief (H, W) of a material."""
    first = choose(material.colours, rng)
    field = material.pattern(u, v, rng, grain)
    if not material.second:
        return first * (1 + material.contrast * field), material.relief * field
    second = choose(material.second, rng)
    ground = first * (1 + material.contrast * grain)
    return ground + (second - ground) * np.clip(field, 0, 1), material.relief * field
