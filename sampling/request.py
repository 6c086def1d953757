"""What a command line says about guidance, and one sentence where that makes no sense. `cfg` is its config."""

import re


def weighed(cfg) -> list[tuple[str, float]]:
    """What cfg.also and cfg.without name, each WHAT:WEIGHT, with its weight: that of `without` is below 0."""
    found = []
    for flag, sign in (("also", 1), ("without", -1)):
        for text in getattr(cfg, flag):
            what, _, weight = text.rpartition(":")
            if not what.strip() or not re.fullmatch(r"\d+\.?\d*|\.\d+", weight):
                raise ValueError(f"--{flag} must be WHAT:WEIGHT with a number of 0 or more, found {text!r}")
            found.append((what.strip(), sign * float(weight)))
    return found


def from_superclass(cfg, missing: str) -> bool:
    """Whether guidance leads away from superclasses: as cfg.guidance_from says, else wherever all are known.

    missing: the reason why one is not known, or "". Raises ValueError for another guidance_from, for superclasses that
    are needed and missing, and for a cfg.superclass or cfg.superclass_guidance without effect.
    """
    if cfg.guidance_from not in ("", "null", "superclass"):
        raise ValueError(f"guidance_from must be null or superclass, found {cfg.guidance_from!r}")
    if cfg.guidance_from == "null":
        if cfg.superclass or cfg.superclass_guidance != 1:
            raise ValueError("superclass and superclass_guidance have no effect on guidance from null")
        return False
    if missing and (cfg.guidance_from == "superclass" or cfg.superclass_guidance != 1):
        raise ValueError(missing)
    return not missing


def interval(text: str, last: int) -> tuple[int, int]:
    """ "LOW,HIGH" -> the two timesteps, of 0 to `last`."""
    match = re.fullmatch(r"(\d+),(\d+)", text)
    low, high = map(int, match.groups()) if match else (1, 0)
    if not low <= high <= last:
        raise ValueError(f"interval must be LOW,HIGH with 0 <= LOW <= HIGH <= {last}, found {text!r}")
    return low, high
