"""python -m data --inspect PATH: what a folder of images is taken for, after decoding every file in it."""

import argparse
import sys
from collections import Counter

from data.folders import captions
from data.folders.layouts import RANKS, describe, recognise
from data.images import decode_mask, read


def inspect(items) -> tuple[str, list[str]]:
    """(report, bad files) of items with path and mask: size, format, mode of the images; a line for each bad file."""
    facts, bad = [], []
    for item in items:
        try:
            image, fact = read(item.path)
            facts.append(fact)
            if item.mask is not None and (mask := decode_mask(item.mask)).shape != image.shape[:2]:
                bad.append(
                    f"{item.mask}: the mask is {mask.shape[1]}x{mask.shape[0]}, "
                    f"its image {image.shape[1]}x{image.shape[0]}"
                )
        except ValueError as error:
            bad.append(str(error))
    lines = []
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
    parser.add_argument("--inspect", metavar="PATH", required=True, help="folder of images with classes or captions")
    parser.add_argument("--template", default="", help="caption of images that have none: 'a photo of a {class}'")
    parser.add_argument("--rank", default="class", choices=RANKS, help="iNaturalist: the rank that is the superclass")
    options = parser.parse_args(arguments)
    readers = {
        "classes": (lambda: recognise(options.inspect, options.rank), describe),
        "captions": (lambda: captions.read_captions(options.inspect, options.template), captions.describe),
    }
    found, faults = [], []
    for name, (read_folder, describe_it) in readers.items():
        try:
            found.append(read_folder())
            print(describe_it(found[-1]))
        except ValueError as error:
            faults.append(f"no {name}: {error}")
    if not found:
        print("\n".join(faults), file=sys.stderr)
        return 2
    report, bad = inspect(found[-1].items)  # captions know more masks than classes do
    print("\n".join([fault.splitlines()[0] for fault in faults] + [report]))
    return 2 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
