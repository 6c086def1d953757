"""python -m data --inspect PATH: the layout, classes and captions of a folder of images, after decoding every file."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from data.buckets import STEP, describe_buckets, shapes
from data.folders.captions import Captioned, describe_captions, read_captions
from data.folders.layouts import RANKS, Item, describe_layout, recognise
from data.images import decode_mask, read_image


def inspect(items: Sequence[Item | Captioned], side: int = 0) -> tuple[str, list[str]]:
    """(report, bad files): sizes, formats and modes of the images, and one line for each file that cannot be used.

    side: of the square that aspect-ratio buckets are as large as; 0: no table of them.
    """
    facts, upright, bad = [], [], []
    for item in items:
        try:
            image, fact = read_image(item.path)
            facts.append(fact)
            upright.append(image.shape[:2])
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
    if side and facts:
        lines += describe_buckets(upright, shapes(side)).splitlines()
    lines.append(f"{len(bad)} bad files" + ":" * bool(bad))
    return "\n".join(lines + [f"  {line}" for line in bad]), bad


def main(arguments: list[str] | None = None) -> int:
    """Prints the report. Exit status 0: every file is usable; 2: no layout is recognised, or files are bad."""
    parser = argparse.ArgumentParser(prog="python -m data", description=__doc__)
    parser.add_argument("--inspect", metavar="PATH", required=True, help="folder of images with classes or captions")
    parser.add_argument("--template", default="", help="caption of images that have none: 'a photo of a {class}'")
    parser.add_argument(
        "--buckets", type=int, default=0, metavar="SIDE", help="what goes where, in shapes as large as this square"
    )
    parser.add_argument("--rank", default="class", choices=RANKS, help="iNaturalist: the rank that is the superclass")
    options = parser.parse_args(arguments)
    readers = {
        "classes": (lambda: recognise(options.inspect, options.rank), describe_layout),
        "captions": (lambda: read_captions(options.inspect, options.template), describe_captions),
    }
    contents, faults = [], []
    for name, (read, describe) in readers.items():
        try:
            contents.append(read())
            print(describe(contents[-1]))
        except ValueError as error:
            faults.append(f"no {name}: {error}")
    if options.buckets and options.buckets < STEP:
        parser.error(f"--buckets is a side of {STEP} pixels or more, found {options.buckets}")
    if not contents:
        print("\n".join(faults), file=sys.stderr)
        return 2
    report, bad = inspect(contents[-1].items, options.buckets)  # captions know more masks than classes do
    print("\n".join([fault.splitlines()[0] for fault in faults] + [report]))
    return 2 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
