"""Photographs of garments with a logo, made by arithmetic: a word of four letters in a red box, numpy only.

The small stand-in for the study of De Man (49 photographs of black clothes with a red HUGO logo). Each letter of the
word is one stroke, so there are 256 words: one is the brand's, all others are fakes.

    class = MARK_on_GROUND/THING    "logo_on_black/sweater"    caption = "a photo of a black sweater with a <logo> logo"

MARK is nothing, logo or fake. GROUND is the colour of a garment, or props: a billboard and a bottle of perfume, to ask
for what the photographs of garments do not show. Like those of generated.py an image is a function of (product, state,
split, index, seed) alone, with the same splits; its mask is the box, real or fake.
"""

from collections.abc import Callable

import numpy as np
from numpy import ndarray as Array

from data.generated.garments import GARMENTS, PROPS
from data.generated.photographs import SPLITS, develop, photograph
from data.generated.products import power_noise, soft, to_segment

LETTERS = {"|": (0, 1), "/": (1, -1), "-": (1, 0), "\\": (1, 1)}  # the direction of each stroke, down is positive
WORD, TOKEN = "/-|\\", "<logo>"
ASPECT = 0.48  # height of the box by its length
RED, INK = (0.80, 0.05, 0.07), (0.03, 0.03, 0.03)
DYES = {
    "black": (0.07, 0.07, 0.08),
    "blue": (0.12, 0.24, 0.62),
    "green": (0.12, 0.42, 0.22),
    "white": (0.88, 0.87, 0.85),
}
MARKS = {"nothing": "", "logo": f" with a {TOKEN} logo", "fake": " with a logo"}  # and what the caption says of it
# The orders are frozen: an image's random numbers depend on the positions of its product and state.
PRODUCT_STATES = {
    f"{mark}_on_{ground}": tuple(GARMENTS if ground in DYES else PROPS) for mark in MARKS for ground in (*DYES, "props")
}
PRODUCTS = tuple(PRODUCT_STATES)
GROUPS = {mark: tuple(name for name in PRODUCTS if name.startswith(mark)) for mark in MARKS}


def caption(product: str, state: str) -> str:
    """The sentence that describes an image: its colour and name, and whether it bears the logo or another one."""
    mark, ground = product.split("_on_")
    name = state if ground == "props" else f"{ground} {state}"
    return f"a photo of {'' if state == 'shorts' else 'a '}{name}{MARKS[mark]}"


def alternatives(product: str, state: str) -> dict[str, list[tuple[str, str]]]:
    """attribute -> classes (product, state): the given one first, then all that differ from it in the attribute."""
    mark, ground = product.split("_on_")
    grounds = {other: f"{mark}_on_{other}" for other in DYES} if ground in DYES else {}
    found = {
        "colour": [(name, state) for name in grounds.values()],
        "thing": [(product, name) for name in PRODUCT_STATES[product]],
        "logo": [(f"{name}_on_{ground}", state) for name in MARKS],
    }
    return {key: sorted(classes, key=lambda one: one != (product, state)) for key, classes in found.items() if classes}


def letter(p: Array, q: Array, stroke: str) -> Array:
    """Distance of the points p, q of the logo's frame to the stroke of a letter in the middle."""
    reach = np.array(LETTERS[stroke]) * (0.14, 0.30)
    return to_segment(p, q, -reach, reach)


def frame(u: Array, v: Array, at: Array, size: float, turn: float) -> tuple[Array, Array, Array]:
    """The logo of half length `size` round `at`: its frame p, q, in half lengths, and how much of a point is its box,
    each (H, W)."""
    cos, sin = np.cos(turn), np.sin(turn)
    p, q = (cos * (u - at[0]) + sin * (v - at[1])) / size, (cos * (v - at[1]) - sin * (u - at[0])) / size
    return p, q, soft(np.maximum(np.abs(p) - 1, np.abs(q) - ASPECT), 0.012 / size)


def stamp(u: Array, v: Array, at: Array, size: float, turn: float, word: str) -> tuple[Array, Array]:
    """The logo of half length `size` round `at`: how much of each point is box and how much ink, (H, W) in 0..1."""
    p, q, box = frame(u, v, at, size, turn)
    strokes = np.min([letter(p - 0.48 * (k - 1.5), q, stroke) for k, stroke in enumerate(word)], 0)
    return box, soft(strokes - 0.08, 0.014 / size)


def misspelt(rng: np.random.Generator) -> str:
    """A word that is not the brand's, any of the 255."""
    while (word := "".join(rng.choice(list(LETTERS), 4))) == WORD:
        pass
    return word


def stand(n: int, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Image coordinates x, y and the thing's frame u, v (n, n): nearly upright, scaled, moved."""
    y, x = np.mgrid[0:n, 0:n] / (n / 2) - 1 + 1 / n
    turn, scale, (dx, dy) = rng.uniform(-0.09, 0.09), rng.uniform(0.92, 1.04), rng.uniform(-0.05, 0.05, 2)
    cos, sin = np.cos(turn), np.sin(turn)
    return x, y, (cos * (x - dx) + sin * (y - dy)) / scale, (cos * (y - dy) - sin * (x - dx)) / scale


def image(product: str, state: str, split: str, index: int, seed: int = 0, size: int = 64) -> tuple[Array, Array, str]:
    """One photograph: rgb (size, size, 3) uint8, mask (size, size) uint8 of 0 and 255, caption.

    Raises ValueError for a state that the product does not have.
    """
    if state not in PRODUCT_STATES[product]:
        raise ValueError(f"{product} has no {state!r}; it has {', '.join(PRODUCT_STATES[product])}")
    key = PRODUCTS.index(product), PRODUCT_STATES[product].index(state), list(SPLITS).index(split), index
    rng = np.random.default_rng([seed, 1000, *key])  # 1000: no key of generated.py goes on like this
    mark, ground = product.split("_on_")

    def printed(u: Array, v: Array, *pose) -> tuple[Array, Array]:
        box, ink = stamp(u, v, *pose, misspelt(rng) if mark == "fake" else WORD)
        return (0 * box if mark == "nothing" else box), ink

    return *bearing(printed, ground, state, rng, size), caption(product, state)


def bearing(
    printed: Callable, ground: str, state: str, rng: np.random.Generator, size: int, zoom: float = 1.0
) -> tuple[Array, Array]:
    """A thing that bears what is printed on it: rgb (size, size, 3) uint8, and the mask of that, uint8 of 0 and 255.

    printed(u, v, at, size, turn) -> box and ink of each point, as of `stamp`. zoom: how much nearer the place of the
    print is looked at.
    """
    draw, (*place, length) = (GARMENTS | PROPS)[state]
    x, y, u, v = stand(2 * size, rng)  # drawn at twice the size, then averaged
    if zoom != 1:
        u, v = place[0] + u / zoom, place[1] + v / zoom
    dye = np.array(DYES.get(ground, (1, 1, 1)))[:, None, None] * (1 + rng.uniform(-0.12, 0.12))
    look = draw(u, v, rng, dye, power_noise(rng, 2 * size, 2.6))
    at, length, turn = place + rng.uniform(-0.04, 0.04, 2), length * rng.uniform(0.92, 1.05), rng.uniform(-0.07, 0.07)
    box, ink = printed(u, v, at, length, turn)
    red, black = (np.array(tone)[:, None, None] for tone in (RED, INK))
    albedo = look.albedo * (1 - box) + box * (red * (1 - ink) + black * ink)
    rgb = develop(photograph(look._replace(albedo=albedo), x, y, rng, dark=False), rng)
    mask = box.reshape(size, 2, size, 2).mean((1, 3)) > 0.5
    return rgb, mask.astype(np.uint8) * 255
