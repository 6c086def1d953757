"""python -m data --inspect PATH: what a folder of images is taken for, after decoding every file in it."""

import argparse
import sys
from collections import Counter

from .folders import RANKS, Layout, describe, recognise
from .images import decode_mask, read


def inspect(layout: Layout) -> tuple[str, list[str]]:
    """(report, bad files): `describe`, then sizes, formats and modes of all images; each bad file in one line."""
    facts, bad = [], []
    for item in layout.items:
        try:
            image, fact = read(item.path)
            facts.append(fact)
            if item.mask is not None and (mask := decode_mask(item.mask)).shape != image.shape[:2]:
                bad.append(f"{item.mask}: the mask is {mask.shape[1]}x{mask.shape[0]}, "
                           f"its image {image.shape[1]}x{image.shape[0]}")
        except ValueError as error:
            bad.append(str(error))
    lines = [describe(layout)]
    if facts:
        width, height = zip(*(fact.size for fact in facts), strict=True)
        lines.append(f"sizes: {min(width)}..{max(width)} wide, {min(height)}..{max(height)} high (as stored)")
        kinds = Counter(f"{fact.format} {fact.mode}" for fact in facts)
        lines.append("stored as: " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
    animated = sum(fact.frames > 1 for fact in facts)
    if animated:
        lines.append(f"note: {animated} animated images, of which the first frame is taken")
    lines.append(f"{len(bad)} bad files" + ":" * bool(bad))
    return "\n".join(lines + [f"  {line}" for line in bad]), bad


def main(arguments: list[str] | None = None) -> int:
    """0: every file is usable. 2: the layout is not recognised, or files are bad."""
    parser = argparse.ArgumentParser(prog="python -m data", description=__doc__)
    parser.add_argument("--inspect", metavar="PATH", required=True, help="folder of labelled images")
    parser.add_argument("--rank", default="class", choices=RANKS, help="iNaturalist: the rank that is the superclass")
    options = parser.parse_args(arguments)
    try:
        report, bad = inspect(recognise(options.inspect, options.rank))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    return 2 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
