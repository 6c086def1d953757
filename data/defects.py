"""What can be wrong with a product: seven defects, each a change of height and colour with its mask.

Every defect sits on the body of the product and lives in the product's frame, so light, pose and shape act on it as on
the rest. Sizes are chosen so that the state can be told at 64 pixels: no line is thinner than about two of them.
"""
from typing import NamedTuple

import numpy as np

from .products import power_noise, soft, to_segment


class Mark(NamedTuple):
    height: np.ndarray   # (H, W) added to the surface
    ink: np.ndarray      # (3, H, W) or (3, 1, 1) colour laid over the albedo
    alpha: np.ndarray    # (H, W) how much of the ink, 0..1
    mask: np.ndarray     # (H, W) soft extent of the defect


class Place(NamedTuple):
    u: np.ndarray        # (H, W) product frame
    v: np.ndarray
    point: np.ndarray    # (2,) where the defect sits
    angle: float
    size: float          # about 1, varied by 20 %


def colour(red, green, blue):
    return np.array([red, green, blue])[:, None, None]


def direction(angle):
    return np.array([np.cos(angle), np.sin(angle)])


def to_line(place, points):
    """Distance of every point of the plane to the polyline."""
    return np.min([to_segment(place.u, place.v, a, b) for a, b in zip(points, points[1:])], 0)


def crack(place, rng):
    """A dark groove along a random walk with one branch."""
    angle, walk = place.angle, [place.point - .42 * place.size * direction(place.angle)]
    for _ in range(5):
        angle = place.angle + rng.uniform(-.9, .9)
        walk.append(walk[-1] + .2 * place.size * direction(angle))
    fork = walk[rng.integers(2, 4)]
    branch = [fork, fork + .3 * place.size * direction(place.angle + rng.choice([-1, 1]) * rng.uniform(.7, 1.2))]
    groove = soft(np.minimum(to_line(place, walk), to_line(place, branch)) - .036, .012)
    return Mark(-.25 * groove, colour(.04, .03, .02), .9 * groove, groove)


def hole(place, rng):
    """A round, dark pit with a raised rim."""
    q = np.hypot(place.u - place.point[0], place.v - place.point[1])
    radius = .19 * place.size * (1 + .1 * power_noise(rng, len(q), 1.6))
    pit = soft(q - radius, .02)
    rim = np.exp(-((q - radius - .03) / .035) ** 2)
    return Mark(-.5 * pit + .12 * rim, colour(.04, .03, .02), .92 * pit, pit)


def cut(place, rng):
    """A straight gash that bares the pale inside between two dark lips."""
    half = .42 * place.size * direction(place.angle)
    away = to_segment(place.u, place.v, place.point - half, place.point + half)
    flesh, lips = soft(away - .055, .012), soft(away - .085, .012)
    ink = np.where(flesh > .5, colour(.97, .90, .74), colour(.10, .07, .05))
    return Mark(-.3 * flesh, ink, .95 * flesh + .5 * (lips - flesh), lips)


def scratch(place, rng):
    """Three or four fine parallel light lines."""
    along, across = direction(place.angle), direction(place.angle + np.pi / 2)
    lines = [place.point + across * offset for offset in np.linspace(-.16, .16, rng.integers(3, 5))]
    reach = [.4 * place.size * rng.uniform(.7, 1.1) * along for _ in lines]
    away = np.min([to_segment(place.u, place.v, p - r, p + r) for p, r in zip(lines, reach)], 0)
    line = soft(away - .022, .010)
    return Mark(-.05 * line, colour(.92, .92, .92), .8 * line, line)


def print_(place, rng):
    """A glyph of four strokes in a saturated ink, flat on the surface."""
    ink = np.array(((.85, .06, .10), (.08, .22, .85), (.04, .60, .20), (.80, .10, .70))[rng.integers(4)])
    corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1], [0, 0]]) * .2 * place.size
    across, along = direction(place.angle + np.pi / 2), direction(place.angle)
    glyph = [place.point + a * along + b * across for a, b in corners[rng.permutation(5)]]
    stroke = soft(to_line(place, glyph) - .045, .012)
    return Mark(0 * stroke, ink[:, None, None], .9 * stroke, stroke)


def contamination(place, rng):
    """A rough crumb of foreign matter, pale green to grey, that stands off the surface."""
    q = np.hypot(place.u - place.point[0], place.v - place.point[1])
    rough = power_noise(rng, len(q), 1.3)
    crumb = soft(q - .24 * place.size * (1 + .3 * rough), .03)
    ink = colour(*rng.uniform((.55, .65, .35), (.75, .85, .6))) * (1 + .18 * rough)
    return Mark(.10 * crumb * (1 + .5 * rough), ink, .85 * crumb, crumb)


def bend(u, v, rng):
    """The frame of a bent product: everything right of a knee is pushed aside, v - k (u - knee)^1.5."""
    push, knee = rng.uniform(.35, .6) * rng.choice([-1, 1]), rng.uniform(-.4, .2)
    return u, v - push * np.clip(u - knee, 0, None) ** 1.5


# `good` has no mark and `bent` warps the frame instead. The order is frozen, as that of the products.
MARKS = {"good": None, "crack": crack, "hole": hole, "cut": cut, "scratch": scratch, "print": print_,
         "contamination": contamination, "bent": None}


def place_on(distance, u, v, rng):
    """A random place on the body, off its edge (a thin body: on its innermost part) and well inside the picture."""
    body = np.argwhere((distance < max(-.2, distance.min() * .5)) & (np.hypot(u, v) < .7))
    row, column = body[rng.integers(len(body))]
    return Place(u, v, np.array([u[row, column], v[row, column]]), rng.uniform(0, np.pi), rng.uniform(.8, 1.2))
