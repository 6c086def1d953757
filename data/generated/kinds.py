"""The wider world: 16 kinds of object and 10 of plain surface, a row of a table each. A kind is a stack of parts.

Each part is laid over those before it: an outline, a solid that stands on it and a material. A part `on` the others
adds to the silhouette, one `in` them stays inside of it (a print, a rim, a recess), and a `hole` is cut out. A surface
is one part without an edge. Numbers are in the frame of products.py; of a pair (low, high) every image draws its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data.generated import materials
from data.generated.materials import BRIGHT, Material
from data.generated.products import Array, Rng, Surface, soft
from data.generated.shapes import (
    around,
    box,
    everywhere,
    fan,
    flat,
    joined,
    moved,
    oval,
    pillow,
    polar,
    ring,
    rod,
    rows,
    scattered,
    slab,
    stroke,
)


class Part(NamedTuple):
    outline: Callable
    solid: Callable = flat()
    material: Material | None = None  # None: that of what is below
    how: str = "on"  # on | in | hole


class Kind(NamedTuple):
    parts: tuple[Part, ...]
    states: tuple[str, ...]


def draw(kind: Kind, u: Array, v: Array, rng: Rng, grain: Array) -> Surface:
    """A kind as a function of its frame, like those of products.py."""
    distance, height, albedo, gloss = np.full_like(u, np.inf), 0 * u, 0 * u, 0 * u
    for outline, solid, material, how in kind.parts:
        edge = outline(u, v, rng)
        if how == "hole":
            distance = np.maximum(distance, -edge)
            continue
        cover, stands = soft(edge, 0.012), solid(edge, v)
        if material:
            colour, relief = materials.look(material, u, v, rng, grain)
            albedo, gloss = albedo + (colour - albedo) * cover, gloss + (material.gloss - gloss) * cover
            stands = stands + relief
        if how == "on":
            height, distance = height + (stands - height) * cover, np.minimum(distance, edge)
        else:
            height = height + stands * cover
    return Surface(distance, height, albedo, gloss)


METAL = Material("steel steel brass", materials.streaks(28), 0.10, 0.002, 0.9)
LATHED = Material("steel steel brass", materials.circles((40, 55)), 0.06, 0, 0.9)
ZINC = Material("steel", materials.stained, 0.06, 0, 0.9)
COINED = Material("copper brass steel", materials.stained, 0.07, 0, 0.8)
GLAZED = Material(f"{BRIGHT} cream white grey", materials.stained, 0.03, 0, 0.6)
DULL = Material("black soot", materials.noise(0.8), 0.08, 0, 0.2)
INK = Material("white", materials.plain, 0, 0, 0.2)

OBJECTS = {
    "gear": Kind(
        (
            Part(polar((0.76, 0.82), (((9, 15), (0.08, 0.11), 2.5),)), slab(0.12, 0.06), METAL),
            Part(ring((0.50, 0.56), (0.07, 0.10)), slab(-0.10, 0.05), ZINC._replace(colours="grey"), "in"),
            Part(polar((0.14, 0.22)), how="hole"),
        ),
        ("good", "crack", "hole", "print", "contamination"),
    ),
    "spring": Kind(
        (
            Part(
                rows(stroke((0.10, -0.42), (-0.10, 0.42), 0.045), (7, 10), 0.20),
                pillow(0.05, 0.05),
                DULL._replace(gloss=0.5),
            ),
            Part(rows(stroke((-0.05, -0.44), (0.05, 0.44), 0.068), (7, 10), 0.20), pillow(0.20, 0.07), ZINC),
        ),
        ("good", "cut", "contamination", "bent"),
    ),
    "coin": Kind(
        (
            Part(polar((0.76, 0.84)), slab(0.08, 0.04), COINED),
            Part(polar((0.64, 0.70)), slab(-0.06, 0.04), COINED, "in"),
            Part(polar((0.34, 0.42), (((4, 7), (0.10, 0.16), 1.0),)), pillow(0.13, 0.16), None, "in"),
        ),
        ("good", "crack", "cut", "scratch", "print"),
    ),
    "button": Kind(
        (
            Part(polar((0.72, 0.82)), pillow(0.16, 0.14), GLAZED),
            Part(polar((0.50, 0.56)), slab(-0.10, 0.06), GLAZED, "in"),
            Part(around(polar(0.085), 4, (0.18, 0.22)), how="hole"),
        ),
        ("good", "crack", "cut", "scratch", "contamination"),
    ),
    "capsule": Kind(
        (
            Part(box((0.78, 0.88), 0.38, 0.38), pillow(0.34, 0.38), GLAZED._replace(colours=BRIGHT)),
            Part(moved(box(0.9, 0.9), 0.9), flat(0.02), GLAZED._replace(colours="cream white yellow pink"), "in"),
        ),
        ("good", "crack", "hole", "scratch", "contamination"),
    ),
    "bearing": Kind(
        (
            Part(polar((0.80, 0.86)), slab(0.14, 0.05), LATHED),
            Part(ring((0.52, 0.54), (0.14, 0.16)), slab(-0.10, 0.03), DULL, "in"),
            Part(around(polar(0.115), (8, 11), 0.53), pillow(0.14, 0.115), ZINC, "in"),
            Part(polar((0.22, 0.28)), how="hole"),
        ),
        ("good", "cut", "scratch", "contamination"),
    ),
    "key": Kind(
        (
            Part(
                joined(
                    moved(polar((0.34, 0.40), ((3, (0.0, 0.06), 1.0),)), -0.50),
                    box(0.92, (0.10, 0.12)),
                    moved(rows(box((0.045, 0.06), (0.15, 0.22)), (3, 5), (0.14, 0.16)), 0.55, 0.14),
                ),
                slab(0.12, 0.06),
                METAL,
            ),
            Part(moved(polar((0.13, 0.17)), -0.58), how="hole"),
        ),
        ("good", "cut", "print", "contamination", "bent"),
    ),
    "leaf": Kind(
        (
            Part(
                oval(0.95, (0.42, 0.62), (0.8, 1.2), (-0.4, 0.2)),
                pillow(0.14, 0.4),
                Material(
                    "green grass amber rust", materials.herringbone((16, 22), 0.6), 0.12, -0.03, 0.25, "lime straw"
                ),
            ),
        ),
        ("good", "hole", "cut", "contamination", "bent"),
    ),
    "almond": Kind(
        (
            Part(
                oval((0.82, 0.92), (0.46, 0.56), (0.7, 0.8), (0.3, 0.5)),
                rod(0.7),
                Material("brown nut", materials.streaks(16), 0.20, 0.02, 0.15),
            ),
        ),
        ("good", "crack", "hole", "cut", "print"),
    ),
    "egg": Kind(
        (
            Part(
                oval((0.82, 0.92), (0.58, 0.66), 0.5, (0.16, 0.28)),
                rod(0.9),
                Material("skin clay white duck", materials.spots(1.2, (1.2, 2.6)), 0.03, 0, 0.2, "brown dark_brown"),
            ),
        ),
        ("good", "crack", "hole", "cut", "print"),
    ),
    "bottle_cap": Kind(
        (
            Part(
                polar((0.78, 0.82), ((21, 0.045, 1.0),)),
                pillow(0.34, 0.22),
                ZINC._replace(colours=f"{BRIGHT} steel brass"),
            ),
            Part(polar((0.46, 0.54)), flat(0.02), GLAZED, "in"),
            Part(
                polar((0.20, 0.26), (((3, 7), (0.06, 0.12), 1.0),)),
                flat(),
                INK._replace(colours="white yellow red"),
                "in",
            ),
        ),
        ("good", "hole", "cut", "scratch", "contamination"),
    ),
    "chip": Kind(
        (
            Part(rows(box(0.05, 0.76, 0.02), (5, 8), 0.20), slab(0.05, 0.03), ZINC),
            Part(box((0.80, 0.88), (0.46, 0.52), 0.03), slab(0.14, 0.06), DULL),
            Part(
                moved(rows(box(0.05, 0.06), (5, 7), 0.15, 2, 0.26), 0.10),
                flat(),
                INK._replace(colours="grey white"),
                "in",
            ),
            Part(moved(polar(0.07), -0.62, -0.28), slab(-0.06, 0.03), None, "in"),
        ),
        ("good", "cut", "scratch", "print", "contamination"),
    ),
    "connector": Kind(
        (
            Part(
                joined(box((0.82, 0.90), (0.50, 0.58), 0.08), moved(box(0.20, 0.10), 0, 0.60)), slab(0.22, 0.08), GLAZED
            ),
            Part(rows(box(0.10, 0.10, 0.02), 5, 0.30, 2, 0.38), slab(-0.14, 0.04), DULL, "in"),
            Part(rows(polar(0.055), 5, 0.30, 2, 0.38), pillow(0.06, 0.05), COINED._replace(colours="brass"), "in"),
        ),
        ("good", "crack", "cut", "scratch", "contamination"),
    ),
    "toothbrush": Kind(
        (
            Part(box(0.92, (0.34, 0.42), 0.33), pillow(0.16, 0.12), GLAZED),
            Part(
                rows(polar(0.095), (6, 8), 0.205, 3, 0.20),
                pillow(0.26, 0.09),
                Material("white cream sky rose", materials.noise(0.8), 0.10, 0.004, 0.2),
                "in",
            ),
        ),
        ("good", "hole", "cut", "contamination", "bent"),
    ),
    "cookie": Kind(
        (
            Part(
                polar((0.74, 0.80), ((5, (0.02, 0.04), 1.0), (8, (0.01, 0.03), 1.0))),
                pillow(0.26, 0.24),
                Material("tan biscuit chocolate", materials.noise(1.3), 0.14, 0.04, 0.1),
            ),
            Part(
                scattered(polar((0.08, 0.12), ((3, 0.02, 1.0),)), (5, 9), 0.58),
                pillow(0.10, 0.10),
                Material("dark_brown cocoa", materials.stained, 0.1, 0, 0.4),
                "in",
            ),
        ),
        ("good", "crack", "hole", "cut", "print"),
    ),
    "shell": Kind(
        (
            Part(
                fan((1.45, 1.6), (0.72, 0.92), (7, 11), 0.05),
                pillow(0.42, 0.5),
                Material("cream pink peach lilac", materials.rays((22, 34), 0.75), 0.10, 0.035, 0.4),
            ),
        ),
        ("good", "crack", "hole", "cut", "contamination"),
    ),
}
MARKED, WOVEN = ("good", "crack", "hole", "scratch", "print"), ("good", "hole", "cut", "contamination")
PLANES = {
    "wood": (
        Material("tan brown cherry birch", materials.growth((9, 16)), 0.16, 0.004, 0.25),
        ("good", "hole", "cut", "scratch", "print"),
    ),
    "leather": (
        Material("brown coal ox tan navy", materials.cells((0.18, 0.26)), 0.14, 0.05, 0.5),
        ("good", "hole", "cut", "scratch", "print"),
    ),
    "carpet": (Material("grey slate brick moss tan", materials.ribs((15, 20)), 0.16, 0.015, 0), WOVEN),
    "fabric": (Material("blue white sand wine teal", materials.weave((22, 30)), 0.22, 0.006, 0), WOVEN),
    "brushed_metal": (Material("steel iron nickel", materials.streaks(40), 0.14, 0.001, 0.9), MARKED),
    "concrete": (Material("cement ash stone", materials.spots(1.3, (1.4, 2.0)), 0.10, -0.03, 0.05, "pit"), MARKED),
    "paper": (
        Material("white cream mint blush", materials.squares((0.30, 0.44), 0.06), 0.02, 0, 0, "azure coral lead"),
        WOVEN,
    ),
    "plastic": (
        Material(f"{BRIGHT} white grey", materials.raster((0.38, 0.50), 0.30, 0.5), 0.02, 0.05, 0.8, f"{BRIGHT} white"),
        ("good", "crack", "hole", "scratch"),
    ),
    "mesh": (
        Material("black tar", materials.squares((0.32, 0.44), 0.14), 0.1, 0.06, 0.8, "steel copper green white"),
        WOVEN,
    ),
    "marble": (
        Material("white night jade dusk", materials.veins(2.0, (0.10, 0.16)), 0.05, 0, 0.6, "grey white cream"),
        MARKED,
    ),
}
SURFACES = {name: Kind((Part(everywhere, flat(), material),), states) for name, (material, states) in PLANES.items()}
KINDS = OBJECTS | SURFACES
