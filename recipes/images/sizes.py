"""The six sizes of each training image in each variant, which Stable Diffusion XL is told (unet/row.py)."""

import torch
from torch import Tensor

from data import ImageSet
from data.transforms import Variant, covering


def image_sizes(images: ImageSet, variants: list[Variant]) -> Tensor:
    """(N, V, 6): height and width of the file, top and left of the crop of the resized file, height and width of that.

    What a variant turns or mirrors is turned in the numbers too: of a mirrored image the left margin is the right one.
    An angle between quarter turns counts as the quarter turn before it.
    """
    height, width = images.pixels.shape[1:3]
    whole = [(height, width, 0, 0)] * len(images.names)
    origins = whole if images.origins is None else images.origins.tolist()
    rows = [[sizes_of(origin, (height, width), variant) for variant in variants] for origin in origins]
    return torch.tensor(rows, dtype=torch.float32)


def sizes_of(origin: tuple[int, int, int, int], sides: tuple[int, int], variant: Variant) -> list[int]:
    """The six numbers of one image. origin: as in an ImageSet; sides: (height, width) of the crop."""
    *original, top, left = origin
    covered = covering(original, sides)
    margins = [top, covered[1] - sides[1] - left, covered[0] - sides[0] - top, left]  # top, right, bottom, left
    if variant.hflip:
        margins[1], margins[3] = margins[3], margins[1]
    if variant.vflip:
        margins[0], margins[2] = margins[2], margins[0]
    quarters = int(variant.degrees % 360 // 90)  # counter-clockwise: what was right is on top
    margins = margins[quarters:] + margins[:quarters]
    turned = -1 if quarters % 2 else 1
    return [*original[::turned], margins[0], margins[3], *sides[::turned]]
