"""Samples beside the training images that are most like them: whoever looks sees what is a copy."""

import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from data.lazy import Lazy
from data.transforms import to_tensor, to_uint8
from metrics.networks import features
from metrics.statistics.nearest import turned
from training.monitor import KNOWN
from weights.formats.published import SHIPPED

NEAREST = "nearest.png"  # in a run's folder
SIDE = 256  # pixels, at most, of each of the two
GAP = 2  # pixels between them
AT_ONCE = 64
MOST = 5_000  # training images that are looked at


def beside_nearest(pixels: np.ndarray | Lazy, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """pairs(samples) -> uint8 (N, S, 2 S + GAP, 3): each sample (N, S, S, 3), and right of it its nearest image.

    pixels (M, S, S, 3): the training images. Nearest is the highest cosine of the features of tiny-features, to an
    image as it is or, with up to KNOWN images, in any of its eight turned and mirrored views; so it is shown. The
    images are embedded at the first call; of more than MOST every n-th is, and so it is said.
    """
    if (every := -(-len(pixels) // MOST)) > 1:
        print(f"note: the nearest image is looked for among one in {every} of {len(pixels)}", file=sys.stderr)
        pixels = pixels.every(every) if isinstance(pixels, Lazy) else pixels[::every]
    network = features.load_classifier(SHIPPED / "tiny-features" / "model.safetensors")[0].to(device)

    def embed(images: np.ndarray | Lazy, views: Callable[[Tensor], Tensor]) -> Tensor:
        """Directions (V, N, D) of N images in V views."""
        parts = (images[i : i + AT_ONCE] for i in range(0, len(images), AT_ONCE))
        found = [features.embed(network, views(to_tensor(x).to(device)))[0].unflatten(0, (-1, len(x))) for x in parts]
        return F.normalize(torch.cat(found, 1), dim=-1)

    views = turned if len(pixels) <= KNOWN else torch.Tensor.contiguous

    @cache
    def known() -> Tensor:
        return embed(pixels, views)  # (V, M, D)

    def pairs(samples: np.ndarray) -> np.ndarray:
        f = embed(samples, torch.Tensor.contiguous)[0]  # (N, D)
        place = (known() @ f.T).flatten(0, 1).argmax(0).tolist()  # (N,) of V M
        found = [turned(to_tensor(pixels[[i % len(pixels)]]))[i // len(pixels)] for i in place]
        return np.stack([side_by_side(a, to_uint8(b)) for a, b in zip(samples, found)])

    return pairs


def side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two images (S, S, 3) in one (S', 2 S' + GAP, 3), S' at most SIDE, white between them."""
    small = [np.array(Image.fromarray(x).resize((SIDE, SIDE))) if len(x) > SIDE else x for x in (left, right)]
    gap = np.full((len(small[0]), GAP, 3), 255, np.uint8)
    return np.concatenate([small[0], gap, small[1]], 1)
