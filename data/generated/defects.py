"""What can be wrong with a product: seven defects, each a change of height and colour with its mask.

Every defect sits on the body of the product and lives in the product's frame, so light, pose and shape act on it as on
the rest. Sizes are chosen so that the state can be told at 64 pixels: no line is thinner than about two of them.
"""

from typing import NamedTuple

import numpy as np

from data.generated.products import Array, Rng, power_noise, soft, to_segment


class Mark(NamedTuple):
    height: np.ndarray  # (H, W) added to the surface
    ink: np.ndarray  # (3, H, W) or (3, 1, 1) colour laid over the albedo
    alpha: np.ndarray  # (H, W) how much of the ink, 0..1
    mask: np.ndarray  # (H, W) soft extent of the defect


class Place(NamedTuple):
    u: np.ndarray  # (H, W) product frame
    v: np.ndarray
    point: np.ndarray  # (2,) where the defect sits
    angle: float
    size: float  # about 1, varied by 20 %


def colour(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue])[:, None, None]


def direction(angle: float) -> Array:
    return np.array([np.cos(angle), np.sin(angle)])


def to_line(place: Place, points: list[Array]) -> Array:
    """Distance of every point of the plane to the polyline."""
    return np.min([to_segment(place.u, place.v, a, b) for a, b in zip(points, points[1:])], 0)


def crack(place: Place, rng: Rng) -> Mark:
    """A dark groove along a random walk with one branch."""
    angle, walk = place.angle, [place.point - 0.42 * place.size * direction(place.angle)]
    for _ in range(5):
        angle = place.angle + rng.uniform(-0.9, 0.9)
        walk.append(walk[-1] + 0.2 * place.size * direction(angle))
    fork = walk[rng.integers(2, 4)]
    branch = [fork, fork + 0.3 * place.size * direction(place.angle + rng.choice([-1, 1]) * rng.uniform(0.7, 1.2))]
    groove = soft(np.minimum(to_line(place, walk), to_line(place, branch)) - 0.036, 0.012)
    return Mark(-0.25 * groove, colour(0.04, 0.03, 0.02), 0.9 * groove, groove)


def hole(place: Place, rng: Rng) -> Mark:
    """A round, dark pit with a raised rim."""
    q = np.hypot(place.u - place.point[0], place.v - place.point[1])
    radius = 0.19 * place.size * (1 + 0.1 * power_noise(rng, len(q), 1.6))
    pit = soft(q - radius, 0.02)
    rim = np.exp(-(((q - radius - 0.03) / 0.035) ** 2))
    return Mark(-0.5 * pit + 0.12 * rim, colour(0.04, 0.03, 0.02), 0.92 * pit, pit)


def cut(place: Place, rng: Rng) -> Mark:
    """A straight gash that bares the pale inside between two dark lips."""
    half = 0.42 * place.size * direction(place.angle)
    away = to_segment(place.u, place.v, place.point - half, place.point + half)
    flesh, lips = soft(away - 0.055, 0.012), soft(away - 0.085, 0.012)
    ink = np.where(flesh > 0.5, colour(0.97, 0.90, 0.74), colour(0.10, 0.07, 0.05))
    return Mark(-0.3 * flesh, ink, 0.95 * flesh + 0.5 * (lips - flesh), lips)


def scratch(place: Place, rng: Rng) -> Mark:
    """Three or four fine parallel light lines."""
    along, across = direction(place.angle), direction(place.angle + np.pi / 2)
    lines = [place.point + across * offset for offset in np.linspace(-0.16, 0.16, rng.integers(3, 5))]
    reach = [0.4 * place.size * rng.uniform(0.7, 1.1) * along for _ in lines]
    away = np.min([to_segment(place.u, place.v, p - r, p + r) for p, r in zip(lines, reach)], 0)
    line = soft(away - 0.022, 0.010)
    return Mark(-0.05 * line, colour(0.92, 0.92, 0.92), 0.8 * line, line)


def print_(place: Place, rng: Rng) -> Mark:
    """A glyph of four strokes in a saturated ink, flat on the surface."""
    ink = np.array(((0.85, 0.06, 0.10), (0.08, 0.22, 0.85), (0.04, 0.60, 0.20), (0.80, 0.10, 0.70))[rng.integers(4)])
    corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1], [0, 0]]) * 0.2 * place.size
    across, along = direction(place.angle + np.pi / 2), direction(place.angle)
    glyph = [place.point + a * along + b * across for a, b in corners[rng.permutation(5)]]
    stroke = soft(to_line(place, glyph) - 0.045, 0.012)
    return Mark(0 * stroke, ink[:, None, None], 0.9 * stroke, stroke)


def contamination(place: Place, rng: Rng) -> Mark:
    """A rough crumb of foreign matter, pale green to grey, that stands off the surface."""
    q = np.hypot(place.u - place.point[0], place.v - place.point[1])
    rough = power_noise(rng, len(q), 1.3)
    crumb = soft(q - 0.24 * place.size * (1 + 0.3 * rough), 0.03)
    ink = colour(*rng.uniform((0.55, 0.65, 0.35), (0.75, 0.85, 0.6))) * (1 + 0.18 * rough)
    return Mark(0.10 * crumb * (1 + 0.5 * rough), ink, 0.85 * crumb, crumb)


def bend(u: Array, v: Array, rng: Rng) -> tuple[Array, Array]:
    """The frame of a bent product: everything right of a knee is pushed aside, v - k (u - knee)^1.5."""
    push, knee = rng.uniform(0.35, 0.6) * rng.choice([-1, 1]), rng.uniform(-0.4, 0.2)
    return u, v - push * np.clip(u - knee, 0, None) ** 1.5


# `good` has no mark and `bent` warps the frame instead. The order is frozen, as that of the products.
MARKS = {
    "good": None,
    "crack": crack,
    "hole": hole,
    "cut": cut,
    "scratch": scratch,
    "print": print_,
    "contamination": contamination,
    "bent": None,
}


def place_on(distance: Array, u: Array, v: Array, rng: Rng) -> Place:
    """A random place on the body, off its edge (a thin body: on its innermost part) and well inside the picture."""
    body = np.argwhere((distance < max(-0.2, distance.min() * 0.5)) & (np.hypot(u, v) < 0.7))
    row, column = body[rng.integers(len(body))]
    return Place(u, v, np.array([u[row, column], v[row, column]]), rng.uniform(0, np.pi), rng.uniform(0.8, 1.2))
