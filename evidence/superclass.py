"""Guidance from the superclass keeps what varies within a kind, guidance from the null class does not.

Claimed by FineDiffusion (Pan et al. 2024, arXiv 2402.18331). Here: tiny-dit with rows of superclasses beside those of
the classes, both left out of training equally often, drawn with both guidances at five scales, and in two stages (first
to the superclass, then to the class).
"""
from . import compared, mean, of, spread, table, verdict

COLUMNS = {"asked_state": "asked class", "kid_x1000": "KID x1000", "precision": "precision", "recall": "recall",
           "coverage": "coverage", "diversity": "diversity"}


def numbers(work, quick):
    return compared("superclass", work, quick)


def section(rows):
    ways = list(dict.fromkeys(row["way"] for row in rows))
    lines = [[way.replace("-", " "), *(spread(of(rows, key, way=way), 1 if key == "kid_x1000" else 2)
                                       for key in COLUMNS)] for way in ways]
    best = {kind: max((way for way in ways if way.startswith(kind)), key=lambda way: mean(of(rows, "asked_state", way=way)))
            for kind in ("null", "superclass")}
    said = [f"Each at the scale where most samples are of the asked class ({best['superclass']} against "
            f"{best['null']}), superclass guidance is better in"]
    for key, title, sign in (("asked_state", "the asked class", 1), ("kid_x1000", "KID", -1), ("coverage", "coverage", 1),
                             ("diversity", "diversity", 1)):
        pair = [[sign * value for value in of(rows, key, way=best[kind])] for kind in ("superclass", "null")]
        said.append(f"{title}: **{verdict(*pair)}**;")
    return table(["guidance, scale", *COLUMNS.values()], lines) + "\n" + " ".join(said)[:-1] + ".\n"
