"""Eight products as functions of a plane: where each ends, how high it stands, what colour it has.

A product is drawn in its own frame (u, v), about [-1, 1]^2. A signed distance (negative inside) gives the silhouette,
a height map gives the shading, an albedo gives the colour and `gloss` the strength of the highlight.
"""
from typing import NamedTuple

import numpy as np


class Surface(NamedTuple):
    distance: np.ndarray   # (H, W) signed distance to the silhouette, < 0 on the product
    height: np.ndarray     # (H, W)
    albedo: np.ndarray     # (3, H, W) linear colour in about 0..1
    gloss: float


def power_noise(rng, n, slope=1.8):
    """A field (n, n) with zero mean, unit variance and amplitude spectrum f^-slope: stains, grain, clouds."""
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None])
    frequency[0, 0] = np.inf   # no mean
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, n))) * frequency ** -slope, (n, n))
    return field / field.std()


def soft(distance, width):
    """1 where distance < 0, 0 where > 0, a logistic edge of the given width between."""
    return 1 / (1 + np.exp(np.clip(distance / width, -30, 30)))


def to_segment(u, v, start, end):
    """Distance of every point to the segment from `start` to `end`."""
    along = end - start
    share = np.clip(((u - start[0]) * along[0] + (v - start[1]) * along[1]) / (along @ along + 1e-9), 0, 1)
    return np.hypot(u - start[0] - share * along[0], v - start[1] - share * along[1])


def paint(rng, red, green, blue):
    """A colour (3, 1, 1), its brightness varied by 12 %."""
    return np.array([red, green, blue])[:, None, None] * (1 + rng.uniform(-.12, .12))


def dome(radius2):
    """Height of a sphere of unit radius above the plane, 0 outside; radius2 is the squared distance to its axis."""
    return np.sqrt(np.clip(1 - radius2, 0, None))


def hazelnut(u, v, rng, grain):
    r = np.hypot(u / .78, v / .92)
    distance = r - .82 + .02 * np.sin(3 * np.arctan2(v, u))
    streaks = np.sin(17 * u / (.4 + np.abs(1 - v)) + 2 * grain)
    shell = paint(rng, .52, .33, .18) * (1 + .09 * streaks + .08 * grain)
    base = paint(rng, .68, .55, .38) * (1 + .12 * grain)          # the pale cap where the nut sat in its husk
    return Surface(distance, .68 * dome((r / .86) ** 2), np.where(v < -.5 + .04 * grain, base, shell), .25)


def screw(u, v, rng, grain):
    head = np.maximum(np.abs(v) - .40, np.abs(u + .74) - .15)
    thread = np.abs((u * 7 + v * .8) % 1 - .5)
    shank = np.maximum(np.abs(v) - .17 - .06 * thread, np.abs(u - .11) - .72)
    tip = np.maximum(np.abs(v) - .17 * (1.06 - u) / .25, np.abs(u - .92) - .14)
    distance = np.minimum(np.minimum(head, shank), tip)
    height = .45 * np.sqrt(np.clip(.18 - v ** 2, 0, None)) + .07 * thread * (u > -.6)
    return Surface(distance, height, paint(rng, .55, .55, .57) * (1 + .05 * grain), .9)


def metal_nut(u, v, rng, grain):
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    hexagon = np.max([np.abs(np.cos(angle - k * np.pi / 3)) * r for k in range(3)], 0)
    brushed = np.sin(40 * u + 2 * grain)
    height = .3 * np.clip((.78 - hexagon) / .12, 0, 1) * .12 / .12
    return Surface(np.maximum(hexagon - .76, .30 - r), height, paint(rng, .58, .56, .50) * (1 + .06 * brushed), .9)


def pill(u, v, rng, grain):
    r = np.hypot(np.maximum(np.abs(u) - .38, 0), v)
    halves = np.where(u < 0, paint(rng, .86, .84, .80), paint(rng, .80, .79, .77)) * (1 + .02 * grain)
    groove = .12 * soft(np.abs(u) - .03, .012)
    return Surface(r - .48, .5 * dome((r / .5) ** 2) - groove, halves, .35)


def zipper(u, v, rng, grain):
    comb = np.sin(16 * u)
    teeth = np.maximum(np.abs(v + .1 * np.sign(comb)) - .2, .35 - np.abs(comb))
    weave = np.sin(60 * u + 30 * np.sin(2 * v)) * np.sin(55 * v)
    cloth = paint(rng, .20, .21, .25) * (1 + .2 * weave + .1 * grain)
    albedo = np.where(teeth < 0, paint(rng, .62, .58, .48), cloth)
    return Surface(np.abs(v) - .82, .22 * soft(teeth, .03) + .015 * weave, albedo, .4)


def cable(u, v, rng, grain):
    r = np.hypot(u, v)
    height, albedo = .1 * (r > .72), paint(rng, .30, .30, .31) * (1 + .06 * grain)
    for k, colour in enumerate(((.25, .50, .22), (.20, .30, .60), (.50, .33, .20))):
        turn = 2 * np.pi / 3 * k + .5
        pu, pv = u - .41 * np.cos(turn), v - .41 * np.sin(turn)
        q, wires = np.hypot(pu, pv), np.sin(34 * pu) * np.sin(34 * pv)
        albedo = np.where(q < .33, paint(rng, *colour), albedo)
        albedo = np.where(q < .24, paint(rng, .72, .48, .30) * (1 + .3 * wires), albedo)
        height = height + .05 * np.where(q < .24, wires, q < .33)
    return Surface(r - .86, height, albedo, .5)


def tile(u, v, rng, grain):
    blotches = power_noise(rng, len(u), 1.3)
    albedo = paint(rng, .60, .58, .54) * (1 + .12 * (blotches > .6) - .18 * (blotches < -1.1) + .04 * grain)
    return Surface(np.full_like(u, -1), .03 * grain, albedo, .3)


def bottle(u, v, rng, grain):
    r = np.hypot(u, v)
    rim = .28 * np.exp(-((r - .66) / .08) ** 2)
    albedo = paint(rng, .42, .28, .14) * (.55 + .5 * np.clip(r, 0, 1)) * (1 + .05 * grain)
    return Surface(r - .88, rim, albedo + .2 * np.exp(-((r - .36) / .02) ** 2), .9)


DRAW = {"hazelnut": hazelnut, "screw": screw, "metal_nut": metal_nut, "pill": pill,
        "zipper": zipper, "cable": cable, "tile": tile, "bottle": bottle}
