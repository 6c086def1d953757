"""The wider world: 16 kinds of object and 10 of plain surface, a row of a table each. A kind is a stack of parts.

Each part is laid over those before it: an outline, a solid that stands on it and a material. A part `on` the others
adds to the silhouette, one `in` them stays inside of it (a print, a rim, a recess), and a `hole` is cut out. A surface
is one part without an edge. Numbers are in the frame of products.py; of a pair (low, high) every image draws its own.
"""
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import materials
from .materials import BRIGHT, Material
from .products import Surface, soft
from .shapes import (
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
    material: Material | None = None     # None: that of what is below
    how: str = "on"                      # on | in | hole


class Kind(NamedTuple):
    parts: tuple[Part, ...]
    states: tuple[str, ...]


def draw(kind: Kind, u, v, rng, grain) -> Surface:
    """A kind as a function of its frame, like those of products.py."""
    distance, height, albedo, gloss = np.full_like(u, np.inf), 0 * u, 0 * u, 0 * u
    for outline, solid, material, how in kind.parts:
        edge = outline(u, v, rng)
        if how == "hole":
            distance = np.maximum(distance, -edge)
            continue
        cover, stands = soft(edge, .012), solid(edge, v)
        if material:
            colour, relief = materials.look(material, u, v, rng, grain)
            albedo, gloss = albedo + (colour - albedo) * cover, gloss + (material.gloss - gloss) * cover
            stands = stands + relief
        if how == "on":
            height, distance = height + (stands - height) * cover, np.minimum(distance, edge)
        else:
            height = height + stands * cover
    return Surface(distance, height, albedo, gloss)


METAL = Material("steel steel brass", materials.streaks(28), .10, .002, .9)
LATHED = Material("steel steel brass", materials.circles((40, 55)), .06, 0, .9)
ZINC = Material("steel", materials.stained, .06, 0, .9)
COINED = Material("copper brass steel", materials.stained, .07, 0, .8)
GLAZED = Material(f"{BRIGHT} cream white grey", materials.stained, .03, 0, .6)
DULL = Material("black soot", materials.noise(.8), .08, 0, .2)
INK = Material("white", materials.plain, 0, 0, .2)

OBJECTS = {
    "gear": Kind((
        Part(polar((.76, .82), (((9, 15), (.08, .11), 2.5),)), slab(.12, .06), METAL),
        Part(ring((.50, .56), (.07, .10)), slab(-.10, .05), ZINC._replace(colours="grey"), "in"),
        Part(polar((.14, .22)), how="hole")),
        ("good", "crack", "hole", "print", "contamination")),
    "spring": Kind((
        Part(rows(stroke((.10, -.42), (-.10, .42), .045), (7, 10), .20), pillow(.05, .05), DULL._replace(gloss=.5)),
        Part(rows(stroke((-.05, -.44), (.05, .44), .068), (7, 10), .20), pillow(.20, .07), ZINC)),
        ("good", "cut", "contamination", "bent")),
    "coin": Kind((
        Part(polar((.76, .84)), slab(.08, .04), COINED),
        Part(polar((.64, .70)), slab(-.06, .04), COINED, "in"),
        Part(polar((.34, .42), (((4, 7), (.10, .16), 1.),)), pillow(.13, .16), None, "in")),
        ("good", "crack", "cut", "scratch", "print")),
    "button": Kind((
        Part(polar((.72, .82)), pillow(.16, .14), GLAZED),
        Part(polar((.50, .56)), slab(-.10, .06), GLAZED, "in"),
        Part(around(polar(.085), 4, (.18, .22)), how="hole")),
        ("good", "crack", "cut", "scratch", "contamination")),
    "capsule": Kind((
        Part(box((.78, .88), .38, .38), pillow(.34, .38), GLAZED._replace(colours=BRIGHT)),
        Part(moved(box(.9, .9), .9), flat(.02), GLAZED._replace(colours="cream white yellow pink"), "in")),
        ("good", "crack", "hole", "scratch", "contamination")),
    "bearing": Kind((
        Part(polar((.80, .86)), slab(.14, .05), LATHED),
        Part(ring((.52, .54), (.14, .16)), slab(-.10, .03), DULL, "in"),
        Part(around(polar(.115), (8, 11), .53), pillow(.14, .115), ZINC, "in"),
        Part(polar((.22, .28)), how="hole")),
        ("good", "cut", "scratch", "contamination")),
    "key": Kind((
        Part(joined(moved(polar((.34, .40), ((3, (.0, .06), 1.),)), -.50), box(.92, (.10, .12)),
                    moved(rows(box((.045, .06), (.15, .22)), (3, 5), (.14, .16)), .55, .14)), slab(.12, .06), METAL),
        Part(moved(polar((.13, .17)), -.58), how="hole")),
        ("good", "cut", "print", "contamination", "bent")),
    "leaf": Kind((
        Part(oval(.95, (.42, .62), (.8, 1.2), (-.4, .2)), pillow(.14, .4),
             Material("green grass amber rust", materials.herringbone((16, 22), .6), .12, -.03, .25, "lime straw")),),
        ("good", "hole", "cut", "contamination", "bent")),
    "almond": Kind((
        Part(oval((.82, .92), (.46, .56), (.7, .8), (.3, .5)), rod(.7),
             Material("brown nut", materials.streaks(16), .20, .02, .15)),),
        ("good", "crack", "hole", "cut", "print")),
    "egg": Kind((
        Part(oval((.82, .92), (.58, .66), .5, (.16, .28)), rod(.9),
             Material("skin clay white duck", materials.spots(1.2, (1.2, 2.6)), .03, 0, .2, "brown dark_brown")),),
        ("good", "crack", "hole", "cut", "print")),
    "bottle_cap": Kind((
        Part(polar((.78, .82), ((21, .045, 1.),)), pillow(.34, .22), ZINC._replace(colours=f"{BRIGHT} steel brass")),
        Part(polar((.46, .54)), flat(.02), GLAZED, "in"),
        Part(polar((.20, .26), (((3, 7), (.06, .12), 1.),)), flat(), INK._replace(colours="white yellow red"), "in")),
        ("good", "hole", "cut", "scratch", "contamination")),
    "chip": Kind((
        Part(rows(box(.05, .76, .02), (5, 8), .20), slab(.05, .03), ZINC),
        Part(box((.80, .88), (.46, .52), .03), slab(.14, .06), DULL),
        Part(moved(rows(box(.05, .06), (5, 7), .15, 2, .26), .10), flat(), INK._replace(colours="grey white"), "in"),
        Part(moved(polar(.07), -.62, -.28), slab(-.06, .03), None, "in")),
        ("good", "cut", "scratch", "print", "contamination")),
    "connector": Kind((
        Part(joined(box((.82, .90), (.50, .58), .08), moved(box(.20, .10), 0, .60)), slab(.22, .08), GLAZED),
        Part(rows(box(.10, .10, .02), 5, .30, 2, .38), slab(-.14, .04), DULL, "in"),
        Part(rows(polar(.055), 5, .30, 2, .38), pillow(.06, .05), COINED._replace(colours="brass"), "in")),
        ("good", "crack", "cut", "scratch", "contamination")),
    "toothbrush": Kind((
        Part(box(.92, (.34, .42), .33), pillow(.16, .12), GLAZED),
        Part(rows(polar(.095), (6, 8), .205, 3, .20), pillow(.26, .09),
             Material("white cream sky rose", materials.noise(.8), .10, .004, .2), "in")),
        ("good", "hole", "cut", "contamination", "bent")),
    "cookie": Kind((
        Part(polar((.74, .80), ((5, (.02, .04), 1.), (8, (.01, .03), 1.))), pillow(.26, .24),
             Material("tan biscuit chocolate", materials.noise(1.3), .14, .04, .1)),
        Part(scattered(polar((.08, .12), ((3, .02, 1.),)), (5, 9), .58), pillow(.10, .10),
             Material("dark_brown cocoa", materials.stained, .1, 0, .4), "in")),
        ("good", "crack", "hole", "cut", "print")),
    "shell": Kind((
        Part(fan((1.45, 1.6), (.72, .92), (7, 11), .05), pillow(.42, .5),
             Material("cream pink peach lilac", materials.rays((22, 34), .75), .10, .035, .4)),),
        ("good", "crack", "hole", "cut", "contamination")),
}
MARKED, WOVEN = ("good", "crack", "hole", "scratch", "print"), ("good", "hole", "cut", "contamination")
PLANES = {
    "wood": (Material("tan brown cherry birch", materials.growth((9, 16)), .16, .004, .25),
             ("good", "hole", "cut", "scratch", "print")),
    "leather": (Material("brown coal ox tan navy", materials.cells((.18, .26)), .14, .05, .5),
                ("good", "hole", "cut", "scratch", "print")),
    "carpet": (Material("grey slate brick moss tan", materials.ribs((15, 20)), .16, .015, 0), WOVEN),
    "fabric": (Material("blue white sand wine teal", materials.weave((22, 30)), .22, .006, 0), WOVEN),
    "brushed_metal": (Material("steel iron nickel", materials.streaks(40), .14, .001, .9), MARKED),
    "concrete": (Material("cement ash stone", materials.spots(1.3, (1.4, 2.)), .10, -.03, .05, "pit"), MARKED),
    "paper": (Material("white cream mint blush", materials.squares((.30, .44), .06), .02, 0, 0, "azure coral lead"),
              WOVEN),
    "plastic": (Material(f"{BRIGHT} white grey", materials.raster((.38, .50), .30, .5), .02, .05, .8,
                         f"{BRIGHT} white"), ("good", "crack", "hole", "scratch")),
    "mesh": (Material("black tar", materials.squares((.32, .44), .14), .1, .06, .8, "steel copper green white"), WOVEN),
    "marble": (Material("white night jade dusk", materials.veins(2., (.10, .16)), .05, 0, .6, "grey white cream"),
               MARKED),
}
SURFACES = {name: Kind((Part(everywhere, flat(), material),), states) for name, (material, states) in PLANES.items()}
KINDS = OBJECTS | SURFACES
