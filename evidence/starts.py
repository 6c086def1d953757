"""A class row that starts near the right one needs fewer steps.

Claimed for DiT by the defect study (rows of ImageNet's "buckeye" for a hazelnut) and by DriveDiTFit (Tu et al. 2024,
arXiv 2407.15661: the class whose images look most alike). Here: tiny-dit, 20 images of each state of a hazelnut, 100
steps, rows that start at random, from the mean of all, or from an old class chosen by features, by the model's own
denoising error, or by its name.
"""

from statistics import mean

from evidence import compared, of, spread, table, verdicts

STARTS = {
    "random": "random numbers",
    "mean": "the mean of all rows",
    "features": "the class most alike by features",
    "nearest": "the class that denoises it best",
    "name": "the same state of other products",
}


def numbers(work, quick):
    return compared("starts", work, quick)


def section(rows):
    lines = [
        [
            text,
            spread(of(rows, "class_accuracy", method=start)),
            spread(of(rows, "kid_x1000", method=start), 1),
            spread(of(rows, "coverage", method=start)),
        ]
        for start, text in STARTS.items()
    ]
    asked = {start: of(rows, "class_accuracy", method=start) for start in STARTS}
    chosen = max(("features", "nearest", "name"), key=lambda start: mean(asked[start]))
    return table(["rows start from", "class accuracy", "KID x1000", "coverage"], lines) + verdicts(
        {
            f"{STARTS[chosen]} is better than random numbers": (asked[chosen], asked["random"]),
            f"{STARTS[chosen]} is better than the mean of all rows": (asked[chosen], asked["mean"]),
            f"{STARTS['features']} is better than random numbers": (asked["features"], asked["random"]),
            f"{STARTS['features']} is better than the mean of all rows": (asked["features"], asked["mean"]),
        }
    )
