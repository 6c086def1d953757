"""Four garments, a billboard and a bottle of perfume as functions of a plane: what a logo is printed on.

As in products.py each is drawn in its own frame (u, v), about [-1, 1]^2, v downwards. `dye` is the colour (3, 1, 1)
of the cloth, which a billboard and a perfume have not, and `grain` a field of noise for folds and stains.
"""
import numpy as np

from .products import Surface, paint, soft, to_segment


def polygon(u, v, half):
    """Signed distance, negative inside, to the polygon of the corners `half` (K, 2), right of the middle, and their
    mirror images.
    """
    corners = np.concatenate([half, half[::-1] * np.array([-1, 1])])
    away, inside = np.full_like(u, np.inf), np.zeros(u.shape, bool)
    for a, b in zip(corners, np.roll(corners, -1, 0)):
        away = np.minimum(away, to_segment(u, v, a, b))
        crosses = (a[1] > v) != (b[1] > v)      # the edge passes the height of the point, to the right of it
        inside ^= crosses & (u - a[0] < (b[0] - a[0]) * (v - a[1]) / (b[1] - a[1] + 1e-12))
    return np.where(inside, -away, away)


def cloth(u, v, half, dye, grain, weave, seams=0.):
    """Soft cloth of an outline: round at its edge, in folds, darker where `seams` (H, W) is 1."""
    distance = polygon(u, v, np.array(half)) - .03
    folds = np.sin(4 * u + 2 * v + 1.5 * grain) + .5 * grain
    height = .05 * folds - .25 * u ** 2 - .22 * np.exp(np.clip(distance, -1, 0) / .09)
    return Surface(distance, height, dye * (1 + .05 * grain + .10 * weave - .35 * seams), .06)


def line(distance, width=.018):
    """1 on the zero of a distance, 0 beside it."""
    return np.exp(-(distance / width) ** 2)


def t_shirt(u, v, rng, dye, grain):
    collar = np.hypot(u, (v + .86) * 1.25)
    seams = line(collar - .36) + line(v - .80) + line(np.abs(u) - .60 - .12 * (v + .3)) * (v < -.12)
    half = [(.02, -.60), (.20, -.68), (.29, -.86), (.52, -.78), (.99, -.34), (.80, -.02), (.66, -.14), (.66, .88)]
    return cloth(u, v, half, dye, grain, .4 * np.sin(70 * u) * np.sin(70 * v), seams)


def sweater(u, v, rng, dye, grain):
    ribs = np.sin(75 * u) * (v > .68)
    sleeve = line(np.abs(u) - .62 - .05 * v) * (v > -.45)
    half = [(.02, -.72), (.22, -.80), (.26, -.88), (.56, -.80), (.84, -.45), (.97, .62), (.72, .68), (.63, .05),
            (.63, .90)]
    seams = line(np.hypot(u, v + .98) - .34) + line(v - .68) + .8 * sleeve
    return cloth(u, v, half, dye, grain, np.sin(48 * u + 1.5 * np.sin(24 * v)) + 2 * ribs, seams)


def shorts(u, v, rng, dye, grain):
    band = (v < -.46) * (1 + np.sin(60 * u)) / 2
    half = [(.02, .30), (.08, .84), (.98, .76), (.74, -.70)]
    seams = line(v + .46) + line(u, .015) * (v < .30) + line(v - .74)
    return cloth(u, v, half, dye, grain, np.sin(60 * (u + v)) + band, seams)


def hat(u, v, rng, dye, grain):
    band = v > .02
    ribs = np.sin(np.where(band, 44, 30) * u / np.sqrt(np.clip(1.3 - .6 * np.clip(-v, 0, 1) ** 2, .2, None)))
    half = [(.02, -.80), (.30, -.76), (.56, -.58), (.72, -.30), (.78, .02), (.86, .04), (.86, .66), (.02, .74)]
    return cloth(u, v, half, dye, grain, ribs * np.where(band, .6, 1.), line(v - .02, .03))


def billboard(u, v, rng, dye, grain):
    """A panel on two posts, before sky and grass: a surface that fills the picture."""
    panel = np.maximum(np.abs(u) - .80, np.abs(v + .22) - .44)
    posts = np.maximum(np.abs(np.abs(u) - .45) - .055, .2 - v)
    sky = paint(rng, .50, .66, .84) + .10 * (v + .2) + .05 * np.clip(grain, 0, None)
    ground = np.where(v > .70 + .03 * grain, paint(rng, .24, .36, .16) * (1 + .15 * grain), sky)
    steel = np.where(posts < 0, paint(rng, .34, .34, .36), ground)
    framed = np.where(panel < 0, paint(rng, .22, .22, .24), steel)
    sheet = paint(rng, .84, .83, .80) * (1 + .02 * grain)
    return Surface(np.full_like(u, -1), .08 * soft(panel, .02) + .05 * soft(posts, .02),
                   np.where(panel < -.05, sheet, framed), .2)


def perfume(u, v, rng, dye, grain):
    """A flacon with a dark cap, its scent seen through the glass."""
    body = np.maximum(np.abs(u) - .56, np.abs(v - .24) - .50) - .08
    neck = np.maximum(np.abs(u) - .16, np.abs(v + .38) - .08)
    cap = np.maximum(np.abs(u) - .27, np.abs(v + .64) - .20) - .03
    scent = paint(rng, *((.86, .66, .42), (.84, .58, .60), (.62, .74, .78))[rng.integers(3)])
    glass = np.where((body < -.08) & (v > -.06 + .02 * grain), scent, .80 + .12 * scent)
    metal = np.where(cap < 0, paint(rng, .16, .16, .18), paint(rng, .70, .62, .42))
    distance = np.minimum(np.minimum(body, neck), cap)
    height = -.18 * np.exp(np.clip(body, -1, 0) / .06) - .30 * u ** 2
    return Surface(distance, height, np.where(body < 0, glass, metal), .8)


# name -> how it is drawn, and where on it the logo sits: u, v and the half of its length.
# The order is frozen: an image's random numbers depend on the position of its garment.
GARMENTS = {"t-shirt": (t_shirt, (0, .06, .58)), "sweater": (sweater, (0, -.06, .56)),
            "shorts": (shorts, (0, -.15, .60)), "hat": (hat, (0, .35, .62))}
PROPS = {"billboard": (billboard, (0, -.22, .64)), "perfume": (perfume, (0, .30, .54))}
