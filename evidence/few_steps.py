"""A model distilled by consistency draws in 4 steps what it takes many for.

Claimed by LCM (Luo et al. 2023, arXiv 2310.04378; as a LoRA, arXiv 2311.05556), for text. Here: tiny-dit, fine-tuned
on 20 images of each state of a hazelnut, and that model with its guidance distilled into a LoRA on the same images.
An evaluation is one pass of the network for one image; guidance takes two a step.
"""

from evidence import compared, of, spread, table, verdicts

WAYS = {  # way -> what it is, evaluations an image
    "ddim-50": ("fine-tuned, DDIM", 100),
    "ddim-8": ("fine-tuned, DDIM", 16),
    "ddim-4": ("fine-tuned, DDIM", 8),
    "dpm++-4": ("fine-tuned, DPM-Solver++", 8),
    "lcm-8": ("distilled", 8),
    "lcm-4": ("distilled", 4),
    "lcm-2": ("distilled", 2),
}


def numbers(work, quick):
    return compared("few_steps", work, quick)


def section(rows):
    lines = [
        [
            f"{what}, {way.rpartition('-')[2]} steps",
            str(evaluations),
            *(
                spread(of(rows, key, way=way), 1 if key == "kid_x1000" else 2)
                for key in ("class_accuracy", "kid_x1000", "coverage", "diversity")
            ),
        ]
        for way, (what, evaluations) in WAYS.items()
    ]
    asked, coverage = ({way: of(rows, key, way=way) for way in WAYS} for key in ("class_accuracy", "coverage"))
    head = ["model, sampler", "evaluations", "class accuracy", "KID x1000", "coverage", "diversity"]
    return table(head, lines) + verdicts(
        {
            "4 distilled steps show the asked class more often than 4 of the undistilled model": (
                asked["lcm-4"],
                asked["ddim-4"],
            ),
            "they cover more of the real images": (coverage["lcm-4"], coverage["ddim-4"]),
            "at 8 evaluations, 8 distilled steps show the asked class more often than 4 undistilled ones": (
                asked["lcm-8"],
                asked["ddim-4"],
            ),
            "they cover more of the real images, too": (coverage["lcm-8"], coverage["ddim-4"]),
            "4 distilled steps show the asked class as often as 50, or more": (asked["lcm-4"], asked["ddim-50"]),
        }
    )
