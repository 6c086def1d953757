"""DreamBooth writes the logo best and copies most; LoRA carries it to other things; a new word comes only near.

Found by the logo study of De Man with Stable Diffusion 1.5, 49 photographs of black clothes, a detector and a text
reader. Here: tiny-sd, first taught garments, a billboard and a perfume, with no logo or with wrong ones, then shown 48
photographs of black garments with the logo, and asked for it on those and on what it never saw with it. The scores are
the study's (metrics/scores.py), by a detector and a reader of the generated logo (docs/logo_scorer.py).
"""
from statistics import mean

import compare
import train
from metrics.scores import normalised

from . import planned, spread, table, verdicts

BASE = ["--model", "tiny-sd", "--recipe", "text", "--data", "generated:nothing+fake/base/60", "--adapter", "unet.full",
        "--adapter", "text.full", "--flips", "none", "--rotations", "0", "--steps", "2500", "--lr", "4e-4", "--warmup",
        "100", "--ema", "0.999", "--mask_weight", "4", "--sample_every", "500", "--sample_steps", "20", "--count", "1"]
METHODS = {"dreambooth": "DreamBooth", "lora-4": "LoRA, rank 4", "lora-16": "LoRA, rank 16",
           "textual_inversion": "a new word"}
SCORES = ("detector", "text", "combined")


def numbers(work, quick):
    base = work.resolve() / "logo" / "base"
    if not (base / "model").exists():
        train.main([*BASE, "--out", str(base), *(["--resume"] if (base / "config.toml").exists() else []),
                    *(["--steps", "2"] if quick else [])])
    plan = planned("logo", quick)
    plan.train["model"] = str(base / "model")
    plan.methods["dreambooth"] |= {"class_images": 2} if quick else {}
    rows = compare.compare(plan, work / "logo")
    return [row | {name: row["scores"][f"logo, {name}"] for name in SCORES} for row in rows]


def section(rows):
    values = {key: {method: [row[key] for row in rows if row["method"] == method] for method in METHODS}
              for key in (*SCORES, "copies", "copies_pixels", "authentic", "coverage")}
    means = [[mean(values[key][method]) for method in METHODS] for key in ("detector", "text")]
    ranked = dict(zip(METHODS, normalised(*means)))
    lines = [[text, *(spread(values[key][method]) for key in SCORES), f"{ranked[method]:.2f}",
              *(spread(values[key][method]) for key in list(values)[len(SCORES):])] for method, text in METHODS.items()]
    both = values["combined"]
    return (table(["", *SCORES, "normalised", "copies", "copies, pixels", "authentic", "coverage"], lines)
            + verdicts({"DreamBooth scores above LoRA of rank 16": (both["dreambooth"], both["lora-16"]),
                        "above a new word": (both["dreambooth"], both["textual_inversion"]),
                        "DreamBooth copies more than LoRA of rank 16": (values["copies"]["dreambooth"],
                                                                        values["copies"]["lora-16"]),
                        "LoRA of rank 16 scores above rank 4": (both["lora-16"], both["lora-4"])}))
