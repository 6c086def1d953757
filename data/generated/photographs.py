"""Photographs of product defects, made by arithmetic: 34 products, 8 states, masks and captions, numpy only.

The small stand-in for MVTec-like data that the package learns and is tested on: every image is a function of
(product, state, split, index, seed) alone, so any one can be made again, in any order, on any machine.
Pose, light, texture, background, exposure, sensor noise and harmless specks vary on every image, good ones included.

    class = product/state    superclass = product    caption = "a photo of a hazelnut with a crack"

Eight products are drawn by functions of their own (products.py); the other kinds, 16 objects and 10 plain surfaces, are
rows of a table (kinds.py). Their photographs have grounds of several colours.
"""

from functools import partial

import numpy as np

from data.generated import kinds
from data.generated.defects import MARKS, bend, place_on
from data.generated.products import DRAW as FIRST
from data.generated.products import Array, Rng, Surface, power_noise, soft

# The order is frozen: an image's random numbers depend on the position of its product. New kinds come last.
DRAW = FIRST | {name: partial(kinds.draw, kind) for name, kind in kinds.KINDS.items()}
PRODUCTS, STATES = tuple(DRAW), tuple(MARKS)
# As in MVTec AD, each product has its own list: only states that can be seen on it (a bent ball is still a ball).
PRODUCT_STATES = {
    "hazelnut": ("good", "crack", "hole", "cut", "print"),
    "screw": ("good", "cut", "scratch", "contamination", "bent"),
    "metal_nut": ("good", "crack", "hole", "cut", "scratch", "print", "contamination", "bent"),
    "pill": ("good", "crack", "hole", "cut", "scratch", "print", "contamination"),
    "zipper": ("good", "hole", "cut", "print", "contamination", "bent"),
    "cable": ("good", "crack", "hole", "cut", "print", "contamination", "bent"),
    "tile": ("good", "crack", "hole", "cut", "scratch", "print", "contamination"),
    "bottle": ("good", "crack", "hole", "cut", "scratch", "print", "contamination"),
} | {name: kind.states for name, kind in kinds.KINDS.items()}
TARGETS = ("hazelnut", "screw")  # in no set that a model is pretrained on
BASE = tuple(p for p in FIRST if p not in TARGETS)  # six products
WORLD = tuple(p for p in PRODUCTS if p not in TARGETS)  # the base first, in its order, then the kinds
# What a kind's photographs are taken on: paper, wood, felt, slate, cloth, as colours of the ground's grey.
GROUNDS = np.array([(1, 1, 1), (1, 0.97, 0.90), (1, 0.84, 0.64), (0.72, 0.90, 0.76), (0.78, 0.86, 1), (1, 0.84, 0.82)])
# split -> images of each class by default. The order is frozen; no two splits share an image.
SPLITS = {"base": 500, "few": 20, "val": 20, "test": 100, "oracle": 500}


def caption(product: str, state: str) -> str:
    """The sentence that describes an image, from a grammar of one rule per state."""
    name, plain = product.replace("_", " "), product in kinds.SURFACES
    if state in ("good", "bent"):
        return f"a photo of {'' if plain else 'a '}{'flawless' if state == 'good' else 'bent'} {name}"
    article = "" if plain else "an " if name[0] in "aeiou" else "a "
    return f"a photo of {article}{name} with {'contamination' if state == 'contamination' else f'a {state}'}"


def alternatives(product: str, state: str) -> dict[str, list[tuple[str, str]]]:
    """attribute -> classes (product, state): the given one first, then all that differ from it in the attribute."""
    others = [name for name in PRODUCTS if name != product and state in PRODUCT_STATES[name]]
    return {
        "product": [(product, state), *((name, state) for name in others)],
        "state": [(product, state), *((product, name) for name in PRODUCT_STATES[product] if name != state)],
    }


def frame(n: int, rng: Rng) -> tuple[Array, Array, Array, Array]:
    """Image coordinates x, y and the product's frame u, v (n, n): turned by any angle, scaled, moved."""
    y, x = np.mgrid[0:n, 0:n] / (n / 2) - 1 + 1 / n
    turn, scale, (dx, dy) = rng.uniform(0, 2 * np.pi), rng.uniform(0.85, 1.05), rng.uniform(-0.1, 0.1, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    return x, y, (cos * (x - dx) + sin * (y - dy)) / scale, (cos * (y - dy) - sin * (x - dx)) / scale


def surface(product: str, state: str, n: int, rng: Rng) -> tuple[Surface, Array, Array, Array]:
    """The product in its state: its surface, its frame's image coordinates and the mask of the defect (n, n)."""
    x, y, u, v = frame(n, rng)
    draw, looks = DRAW[product], rng.integers(2**31)
    straight = draw(u, v, np.random.default_rng(looks), power_noise(np.random.default_rng(looks + 1), n))
    if state == "good":
        return straight, x, y, np.zeros((n, n))
    if state == "bent":
        bent = draw(*bend(u, v, rng), np.random.default_rng(looks), power_noise(np.random.default_rng(looks + 1), n))
        return bent, x, y, 1.0 * ((bent.distance < 0) != (straight.distance < 0))
    mark = MARKS[state](place_on(straight.distance, u, v, rng), rng)
    marked = straight._replace(
        height=straight.height + mark.height, albedo=straight.albedo * (1 - mark.alpha) + mark.ink * mark.alpha
    )
    return marked, x, y, mark.mask * (straight.distance < 0)


def photograph(surface: Surface, x: Array, y: Array, rng: Rng, dark: bool, tint: Array | float = 1.0) -> Array:
    """Light a surface (Lambert and Blinn-Phong) over a background with its cast shadow: (3, n, n) in about 0..1.

    dark: whether the background is; tint: its colour (3, 1, 1), 1 for grey.
    """
    n = len(x)
    albedo = surface.albedo
    for _ in range(rng.poisson(2)):  # specks that mean nothing, so that "any dark dot" is not a defect
        px, py = rng.uniform(-0.6, 0.6, 2)
        albedo = albedo * (1 - 0.35 * soft(np.hypot(x - px, y - py) - 0.02, 0.01))
    slope_y, slope_x = np.gradient(surface.height, 2 / n)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.1)
    light = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    half = (light + [0, 0, 1]) / np.linalg.norm(light + [0, 0, 1])
    normal = np.stack([-slope_x, -slope_y, np.ones_like(x)]) / np.sqrt(1 + slope_x**2 + slope_y**2)
    diffuse = np.clip(np.tensordot(light, normal, 1), 0, 1)
    highlight = np.clip(np.tensordot(half, normal, 1), 0, 1) ** 40
    body = albedo * (0.38 + 0.72 * diffuse) + 0.4 * surface.gloss * highlight
    ground = rng.uniform(0.04, 0.10) if dark else rng.uniform(0.60, 0.82)
    ground = ground + 0.04 * (x * light[0] + y * light[1]) + 0.015 * power_noise(rng, n, 1.2)
    shift = (-round(n / 21 * light[1]), -round(n / 21 * light[0]))
    ground = ground * (1 - 0.45 * soft(np.roll(surface.distance, shift, (0, 1)) - 0.02, 0.05))
    cover = soft(surface.distance, 0.012)
    return tint * ground * (1 - cover) + body * cover


def backdrop(product: str, rng: Rng) -> tuple[bool, Array | float]:
    """Whether a photograph's ground is dark, and its tint: of the first products always the same."""
    if product in FIRST:
        return product in ("hazelnut", "bottle"), 1.0
    return rng.random() < 0.3, GROUNDS[rng.integers(len(GROUNDS))][:, None, None]


def image(product: str, state: str, split: str, index: int, seed: int = 0, size: int = 64) -> tuple[Array, Array, str]:
    """One photograph: rgb (size, size, 3) uint8, mask (size, size) uint8 of 0 and 255, caption."""
    if state not in PRODUCT_STATES[product]:
        raise ValueError(f"{product} has no state {state!r}; it has {', '.join(PRODUCT_STATES[product])}")
    rng = np.random.default_rng([seed, PRODUCTS.index(product), STATES.index(state), list(SPLITS).index(split), index])
    look, x, y, mask = surface(product, state, 2 * size, rng)  # drawn at twice the size, then averaged
    picture = photograph(look, x, y, rng, *backdrop(product, rng))
    mask = mask.reshape(size, 2, size, 2).mean((1, 3)) > 0.35
    return develop(picture, rng), mask.astype(np.uint8) * 255, caption(product, state)


def develop(picture: Array, rng: Rng) -> Array:
    """What the camera makes of a picture (3, 2 S, 2 S) in about 0..1: (S, S, 3) uint8."""
    size = picture.shape[1] // 2
    picture = picture * rng.uniform(0.85, 1.12) * (1 + rng.uniform(-0.04, 0.04, 3)[:, None, None])  # exposure, white
    picture = picture.reshape(3, size, 2, size, 2).mean((2, 4))  # (3, size, size)
    picture = picture + rng.normal(0, rng.uniform(0.004, 0.015), picture.shape)
    return np.clip(picture.transpose(1, 2, 0) * 255 + 0.5, 0, 255).astype(np.uint8)
