"""Aspect-ratio buckets: images keep their shape, and those of one batch have one size.

The shapes have about as many pixels as the square of the asked side: of every width from half to twice the side, in
steps, the largest height that does not exceed its area. An image goes to the shape whose aspect ratio is nearest to its
own, on a logarithmic scale, is resized until it covers it, and what is left over is cut off evenly. None is left out.
After kohya's sd-scripts and NovelAI's description of 2022, save that a small bucket does not shorten its batches.
"""

import math
from collections.abc import Sequence

import numpy as np

Shape = tuple[int, int]  # (height, width) in pixels
STEP = 64  # in the published trainers


def shapes(side: int, step: int = STEP) -> list[Shape]:
    """All shapes for images of about side x side pixels, whose sides are multiples of `step`, the widest last."""
    found = {(side, side)} if side % step == 0 else set()
    for width in range(max(side // 2 // step, 1) * step, 2 * side + 1, step):
        height = min(side * side // width // step * step, 2 * side)
        if height >= max(side // 2 // step, 1) * step:
            found.add((height, width))
    return sorted(found, key=lambda shape: (shape[1] / shape[0], shape[1]))


def nearest(image: Shape, choice: Sequence[Shape]) -> Shape:
    """The shape with the aspect ratio nearest to that of an image of these sides; of two, the larger."""
    ratio = math.log(image[1] / image[0])
    return min(choice, key=lambda shape: (abs(math.log(shape[1] / shape[0]) - ratio), -shape[0] * shape[1]))


def sorted_out(images: Sequence[Shape], choice: Sequence[Shape]) -> dict[Shape, list[int]]:
    """{shape: the numbers of its images}, the narrowest shape first; every image is in one."""
    of = [nearest(image, choice) for image in images]
    return {shape: [i for i, own in enumerate(of) if own == shape] for shape in choice if shape in of}


def cut(image: Shape, shape: Shape) -> float:
    """The share of an image's pixels that is cut off once it covers the shape."""
    scale = max(shape[0] / image[0], shape[1] / image[1])
    return 1 - shape[0] * shape[1] / (image[0] * image[1] * scale * scale)


def describe_buckets(images: Sequence[Shape], choice: Sequence[Shape]) -> str:
    """A table of what goes where: for each bucket its images, what is cut off on average and at most, what grows."""
    lines = [f"{'bucket':>11} {'images':>7} {'cut off':>8} {'at most':>8} {'enlarged':>9}"]
    for shape, numbers in sorted_out(images, choice).items():
        shares = [cut(images[i], shape) for i in numbers]
        enlarged = sum(max(shape[0] / images[i][0], shape[1] / images[i][1]) > 1 for i in numbers)
        name = f"{shape[1]}x{shape[0]}"
        lines.append(f"{name:>11} {len(numbers):>7} {np.mean(shares):>8.1%} {max(shares):>8.1%} {enlarged:>9}")
    return "\n".join([*lines, f"{len(images)} images in {len(lines) - 1} buckets, none left out"])
