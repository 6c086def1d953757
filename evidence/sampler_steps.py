"""More sampler steps are better, up to a point.

Found by the defect study with DiT-XL/2: more than 100 steps drew better, 200 and 500 not much, and 1000 worse. Here:
tiny-dit, fine-tuned on 20 images of each state of a hazelnut, drawn with DDIM (and DDPM, of which the study may have
spoken) in ever more steps.
"""

from statistics import mean

from evidence import below, compared, of, spread, table, verdicts

COLUMNS = {
    "class_accuracy": "class accuracy",
    "kid_x1000": "KID x1000",
    "coverage": "coverage",
    "diversity": "diversity",
}


def numbers(work, quick):
    return compared("sampler_steps", work, quick)


def section(rows):
    ways = list(dict.fromkeys(row["way"] for row in rows))
    lines = [
        [
            way.replace("ddim-", "DDIM, ").replace("ddpm-", "DDPM, "),
            *(spread(of(rows, key, way=way), 1 if key == "kid_x1000" else 2) for key in COLUMNS),
        ]
        for way in ways
    ]
    kid = {way: [-value for value in of(rows, "kid_x1000", way=way)] for way in ways}
    best = max((way for way in ways if way.startswith("ddim")), key=lambda way: mean(kid[way]))
    return (
        table(["sampler, steps", *COLUMNS.values()], lines)
        + f"\nBy KID, DDIM is best in {best.rpartition('-')[2]} steps.\n"
        + verdicts(
            {
                "100 steps are better than 10": (kid["ddim-100"], kid["ddim-10"]),
                "100 are better than 50": (kid["ddim-100"], kid["ddim-50"]),
                "1000 are worse than 100": below(kid["ddim-1000"], kid["ddim-100"]),
            }
        )
    )
