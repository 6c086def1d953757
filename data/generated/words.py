"""Photographs of the things of logos.py with a word in real letters, HUGO, in the red box: what text readers can read.

    class = MARK_on_GROUND/THING      "hugo_on_black/sweater"      captions as in logos.py, the token included
    class = MARK_near_GROUND/THING    "hugo_near_black/sweater"    the print seen from near, "a close-up of a black ..."

MARK is hugo, or misspelt: one to four of its letters are others. At 64 pixels tiny-vae blurs the letters of the first
kind, so that nobody reads them, and keeps those of the second. The letters are those of the font that comes with
Pillow, Aileron, so that the last bits of an image depend on the version of Pillow and FreeType; else an image is a
function of (product, state, split, index, seed) alone, and its mask is the box, right word or wrong.
"""

from functools import cache, partial
from string import ascii_uppercase

import numpy as np
from numpy import ndarray as Array
from PIL import Image, ImageDraw, ImageFont

from data.generated import logos
from data.generated.logos import ASPECT, bearing, frame
from data.generated.photographs import SPLITS

WORD = "HUGO"
MARKS = {"hugo": "logo", "misspelt": "fake"}  # and the mark of logos.py whose captions it has
VIEWS = {"on": ("a photo of", 1.0), "near": ("a close-up of", 1.4)}  # and how captions begin, and how near it is seen
# The orders are frozen: an image's random numbers depend on the positions of its product and state.
PRODUCT_STATES = {
    name.replace(f"{of}_on_", f"{mark}_{view}_"): states
    for view in VIEWS
    for mark, of in MARKS.items()
    for name, states in logos.PRODUCT_STATES.items()
    if name.startswith(f"{of}_on_")
}
PRODUCTS = tuple(PRODUCT_STATES)
GROUPS = {mark: tuple(name for name in PRODUCTS if name.startswith(f"{mark}_on_")) for mark in MARKS}
GROUPS |= {f"{mark}_near": tuple(name for name in PRODUCTS if name.startswith(f"{mark}_near_")) for mark in MARKS}
UNIT = 100  # pixels of a word's drawing in half a box


def caption(product: str, state: str) -> str:
    """The sentence that describes an image, that of the logo or of the fake on the same thing."""
    mark, view, ground = product.split("_")
    return logos.caption(f"{MARKS[mark]}_on_{ground}", state).replace("a photo of", VIEWS[view][0], 1)


@cache
def letters(word: str) -> Array:
    """The ink of a word in its box, (2 ASPECT UNIT, 2 UNIT) in 0..1: bold, in the middle, as large as fits."""
    font = ImageFont.load_default(UNIT)
    left, top, right, bottom = font.getbbox(word, stroke_width=5)
    large = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(large).text((-left, -top), word, 255, font, stroke_width=5)
    wide, high = 2 * UNIT, round(2 * ASPECT * UNIT)
    scale = min(0.86 * wide / large.width, 0.66 * high / large.height)
    drawn = large.resize((round(scale * large.width), round(scale * large.height)), Image.Resampling.LANCZOS)
    box = Image.new("L", (wide, high))
    box.paste(drawn, ((wide - drawn.width) // 2, (high - drawn.height) // 2))
    return np.asarray(box) / 255


def between(plane: Array, row: Array, column: Array) -> Array:
    """A plane (H, W) at places between its pixels, bilinear, and 0 beyond them."""
    last = np.array(plane.shape) + 1.0  # of the plane with a border of zeros
    r, c = (np.clip(place + 1, 0, end) for place, end in zip((row, column), last))
    i, j = (np.minimum(np.floor(place), end - 1).astype(int) for place, end in zip((r, c), last))
    r, c, padded = r - i, c - j, np.pad(plane, 1)
    upper = (1 - c) * padded[i, j] + c * padded[i, j + 1]
    lower = (1 - c) * padded[i + 1, j] + c * padded[i + 1, j + 1]
    return (1 - r) * upper + r * lower


def stamp(u: Array, v: Array, at: Array, size: float, turn: float, word: str) -> tuple[Array, Array]:
    """The logo of half length `size` round `at`: how much of each point is box and how much ink, (H, W) in 0..1."""
    p, q, box = frame(u, v, at, size, turn)
    places = (q + ASPECT) * UNIT - 0.5, (p + 1) * UNIT - 0.5  # row and column in the drawing
    return box, between(letters(word), *places)


def misspelt(rng: np.random.Generator) -> str:
    """The word with one to four other letters."""
    wrong = rng.permutation(len(WORD)) < rng.integers(1, len(WORD) + 1)
    others = [rng.choice([other for other in ascii_uppercase if other != letter]) for letter in WORD]
    return "".join(other if odd else letter for letter, other, odd in zip(WORD, others, wrong))


def image(product: str, state: str, split: str, index: int, seed: int = 0, size: int = 64) -> tuple[Array, Array, str]:
    """One photograph: rgb (size, size, 3) uint8, mask (size, size) uint8 of 0 and 255, caption.

    Raises ValueError for a state that the product does not have.
    """
    if state not in PRODUCT_STATES[product]:
        raise ValueError(f"{product} has no {state!r}; it has {', '.join(PRODUCT_STATES[product])}")
    key = PRODUCTS.index(product), PRODUCT_STATES[product].index(state), list(SPLITS).index(split), index
    rng = np.random.default_rng([seed, 2000, *key])  # 2000: no key of the other makers goes on like this
    mark, view, ground = product.split("_")
    word = misspelt(rng) if mark == "misspelt" else WORD
    return *bearing(partial(stamp, word=word), ground, state, rng, size, VIEWS[view][1]), caption(product, state)
