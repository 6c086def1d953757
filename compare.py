"""Compare methods on the same few images: python compare.py CONFIG.toml [--flag value]...

The config gives settings of train.py and sample.py, those that all methods share and those that each changes:

    seeds = 3                                    # runs of each method
    real = "generated:hazelnut/test/20"          # images that none of them trains on
    unrelated = ["a photo of a bottle"]          # optional, of a text model: prompts whose pictures it is to keep
    [train]                                      # settings of every run
    data = "generated:hazelnut/few/20"
    [sample]                                     # settings of every sampling
    count = 20
    [methods.lora]                               # one row of the table
    adapter = ["lora:rank=8"]
    [methods.fast]                               # {lora} is the run of lora with the same seed
    recipe = "consistency"
    init = ["{lora}/adapter.safetensors"]
    [variants.unguided]                          # optional: sampling variants of every method, or of those in `of`
    guidance = 1.0
    of = ["lora"]
    [scorers]                                    # optional: functions of the samples, see metrics/alignment/scores.py
    logo = "examples/logo_scorer.py:score"
    [styles]                                     # optional: what each sample looks like, by the network of that name
    network = "clip-vit-base-patch32"            # a CLIP reads texts, tiny-features names of classes as "bottle/*"
    realistic = "a realistic photograph"
    cartoon = "a cartoon"
    [classes_of_prompts]                         # of a text model: prompt = the class of its samples
    "a photo of a sks nut with a crack" = "hazelnut/crack"

Every run is a process of its own, one after the other, in OUT/METHOD-SEED; what is finished there is not done again.
Writes index.html (one file, with the pictures), table.md and numbers.json into --out.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from config import option, read, run_script
from experiments.comparison import compare
from experiments.plan import read_plan


@dataclass
class Comparison:
    """The comparison"""

    out: str = option("", "folder of runs and results; empty: runs/ and the config's name")
    seeds: int = option(0, "runs of each method; 0: as the config says", at_least=0)
    quick: bool = option(False, "20 steps, 1 seed, 2 samples of each: does everything run")
    features: str = option(
        "", "network that the numbers are measured in, as of evaluate.py; empty: patches for photographs of one's own"
    )


def main(argv: list[str] | None = None) -> None:
    """Compare the methods of one file."""
    argv = list(sys.argv[1:] if argv is None else argv)
    path = argv.pop(0) if argv and not argv[0].startswith("-") else ""
    settings = read(argv, Comparison, title=__doc__)[Comparison]
    if not path:
        raise ValueError("name a config, as in python compare.py configs/compare_methods.toml")
    plan = read_plan(path)
    plan.seeds = settings.seeds or plan.seeds
    out = Path(settings.out or f"runs/{Path(path).stem}")
    compare(plan.shortened() if settings.quick else plan, out, settings.features)
    print(f"index.html, table.md and numbers.json are in {out}")


if __name__ == "__main__":
    run_script(main)
