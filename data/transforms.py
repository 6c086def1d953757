"""Deterministic image geometry: crop, resize, and augmentation as a finite list of variants.

A random augmentation at every step costs a pass of the VAE encoder at every step. Here the augmentations are a list,
x -> R_degrees V^v H^h x, so that the latents of all variants are computed once and a training step samples an index.
The augmentation of the defect-generation study (random flips both ways, rotation by one of 45, 65 or 120 degrees) is
`variants("hv", (45, 65, 120))`: twelve variants.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

FLIPS = {  # name -> (hflip, vflip) of each variant
    "none": ((False, False),),
    "h": ((False, False), (True, False)),
    "hv": ((False, False), (True, False), (False, True), (True, True)),
}


def _pillow_resize(image: np.ndarray, width: int, height: int, how: Image.Resampling) -> np.ndarray:
    return np.array(Image.fromarray(image).resize((width, height), how))


Sides = int | tuple[int, int]  # of a square, or (height, width), in pixels


def both(size: Sides) -> tuple[int, int]:
    """(height, width)."""
    return (size, size) if isinstance(size, int) else size


def centre_crop(image: np.ndarray, size: Sides) -> np.ndarray:
    """(H, W, ...) -> the middle of that size. ValueError if the image is smaller: nothing is padded."""
    (height, width), (inner, across) = image.shape[:2], both(size)
    if min(inner, across) < 1 or height < inner or width < across:
        raise ValueError(f"a centre crop of {across}x{inner} does not fit in an image of {width}x{height}")
    top, left = (height - inner) // 2, (width - across) // 2
    return np.ascontiguousarray(image[top : top + inner, left : left + across])


def resize(image: np.ndarray, size: Sides, nearest: bool = False) -> np.ndarray:
    """(H, W, 3) or (H, W) uint8 -> `size`: antialiased bicubic, or nearest for masks."""
    height, width = both(size)
    return _pillow_resize(image, width, height, Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC)


def resize_short(image: np.ndarray, size: Sides, nearest: bool = False) -> np.ndarray:
    """(H, W, ...) uint8 -> just covers `size`, of a square the short side; the aspect stays, to the nearest pixel."""
    return resize(image, covering(image.shape[:2], size), nearest)


def covering(image: tuple[int, int], size: Sides) -> tuple[int, int]:
    """(height, width) of an image of these sides once it just covers `size`."""
    (height, width), (inner, across) = image, both(size)
    scale = max(inner / height, across / width)
    return round(height * scale), round(width * scale)


def adm_center_crop(image: np.ndarray, size: Sides, nearest: bool = False) -> np.ndarray:
    """ADM's crop, as DiT uses it (Dhariwal & Nichol 2021): halve by box average while it covers twice the size, bicubic
    down to it, centre crop. (H, W, 3) uint8 -> (size, size, 3)."""
    halve = Image.Resampling.NEAREST if nearest else Image.Resampling.BOX
    height, width = both(size)
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        image = _pillow_resize(image, image.shape[1] // 2, image.shape[0] // 2, halve)
    return centre_crop(resize_short(image, size, nearest), size)


@dataclass(frozen=True)
class Transform:
    """Callable (H, W, 3) uint8 -> `sides` and 3, uint8. ValueError for an image that is smaller than `crop`."""

    size: Sides
    crop: int | None = None  # a centre crop to so many pixels comes first (the study's hazelnuts: 800 of 1024)
    kind: str = "resize"  # "resize": until it just covers `size`, then a centre crop; "adm": `adm_center_crop`
    window: float = 0.0  # a square of so many sides of the mask's box comes first (window.py); 0: the whole photograph

    def __post_init__(self):
        if self.window and self.crop is not None:
            raise ValueError("an image is cropped to its middle or to a window around its mask, not both")
        if self.kind not in ("resize", "adm"):
            raise ValueError(f"kind of resizing must be 'resize' or 'adm'; found {self.kind!r}")
        if min(self.sides) < 1:
            raise ValueError(f"image size must be at least 1 pixel; found {self.size}")

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) of what comes out."""
        return both(self.size)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return self._apply(image, nearest=False)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The same geometry for a mask, (H, W) -> `sides`, by nearest neighbour: indices are never mixed."""
        return self._apply(mask, nearest=True)

    def original(self, image: tuple[int, int]) -> tuple[int, int, int, int]:
        """An image of these sides -> its height and width, and the top and left of the crop once it covers the size."""
        height, width = both(self.crop) if self.crop is not None else image
        covered = covering((height, width), self.size)
        return height, width, *((side - inner) // 2 for side, inner in zip(covered, self.sides))

    def lost(self, mask: np.ndarray) -> float:
        """The share of a mask's True pixels (H, W), of which it has some, that the crop to `sides` leaves outside."""
        inside = mask if self.crop is None else centre_crop(mask, self.crop)
        height, width = self.sides
        scale = min(inside.shape[0] / height, inside.shape[1] / width)
        inside = centre_crop(inside, (round(height * scale), round(width * scale)))
        return 1 - inside.sum() / mask.sum()

    def _apply(self, image: np.ndarray, nearest: bool) -> np.ndarray:
        if self.crop is not None:
            image = centre_crop(image, self.crop)
        if self.kind == "adm":
            return adm_center_crop(image, self.size, nearest)
        return centre_crop(resize_short(image, self.size, nearest), self.size)


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 (..., H, W, 3) -> float32 (..., 3, H, W): x / 127.5 - 1, in [-1, 1]."""
    if image.dtype != np.uint8:
        raise ValueError(f"an image has values of type uint8; found {image.dtype}")
    x = torch.from_numpy(np.array(image))  # a copy: later changes of the array do not reach the tensor
    return rearrange(x, "... h w c -> ... c h w").float() / 127.5 - 1


def to_uint8(x: Tensor) -> np.ndarray:
    """float (..., 3, H, W) in [-1, 1] -> uint8 (..., H, W, 3), values beyond the range clamped: inverse of `to_tensor`.

    Raises ValueError for NaN and infinity, which would come out black.
    """
    x = x.detach().float().cpu()
    if not x.isfinite().all():
        raise ValueError(
            "expected an image, found NaN or infinity in it: weights of the model or of an adapter are "
            "broken, or a strength, the guidance or a weight in a prompt is far too large"
        )
    x = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(x, "... c h w -> ... h w c").contiguous().numpy()


class Variant(NamedTuple):
    """One augmentation: left-right flip, then up-down flip, then counter-clockwise rotation by `degrees`."""

    hflip: bool = False
    vflip: bool = False
    degrees: float = 0

    @property
    def canonical(self) -> tuple[bool, float]:
        """(hflip, degrees), since V = R_180 H: two variants with the same pair give the same image."""
        return self.hflip != self.vflip, (self.degrees + 180 * self.vflip) % 360


def variants(flips: str = "none", rotations: tuple[float, ...] = (0,)) -> list[Variant]:
    """All combinations of `flips` ("none", "h", "hv") with `rotations` (degrees), without those that give equal images.

    Raises ValueError for other flips and for rotations that are none or not finite.
    """
    if flips not in FLIPS:
        raise ValueError(f"flips must be one of {', '.join(FLIPS)}; found {flips!r}")
    if not rotations or not all(math.isfinite(degrees) for degrees in rotations):
        raise ValueError(f"rotations must be one or more numbers of degrees (0 = upright); found {rotations}")
    distinct = {}
    for degrees in rotations:
        for hflip, vflip in FLIPS[flips]:
            variant = Variant(hflip, vflip, degrees)
            distinct.setdefault(variant.canonical, variant)
    return list(distinct.values())


def apply_variant(x: Tensor | np.ndarray, variant: Variant, nearest: bool = False) -> Tensor | np.ndarray:
    """A float tensor (..., C, H, W) or a uint8 array (H, W, 3) or (H, W), flipped and rotated; the type stays.

    Quarter turns and flips move pixels exactly (a quarter turn swaps H and W). Other angles are bilinear about the
    centre, and the image is mirrored at its edge: a model would learn black corners as part of the product.
    `nearest=True` is for masks.
    """
    if isinstance(x, np.ndarray):
        pixels = torch.from_numpy(np.array(x))  # (H, W[, 3])
        pixels = pixels[None] if x.ndim == 2 else rearrange(pixels, "h w c -> c h w")
        turned = _flip_and_turn(pixels, variant, nearest)  # (C, H, W)
        return turned[0].numpy() if x.ndim == 2 else rearrange(turned, "c h w -> h w c").contiguous().numpy()
    return _flip_and_turn(x, variant, nearest)


def _flip_and_turn(x: Tensor, variant: Variant, nearest: bool) -> Tensor:
    sides = [axis for axis, wanted in ((-1, variant.hflip), (-2, variant.vflip)) if wanted]
    x = x.flip(sides) if sides else x
    quarters, rest = divmod(variant.degrees % 360, 90)
    if rest == 0:
        return x.rot90(int(quarters), (-2, -1)) if quarters else x
    turned = _rotate(x.float(), variant.degrees, "nearest" if nearest else "bilinear")
    return (turned if x.is_floating_point() else turned.round()).to(x.dtype)


def _rotate(x: Tensor, degrees: float, mode: str) -> Tensor:
    """out(p) = x(R^-1 p), p measured from the centre in pixels, rows pointing down. (..., C, H, W) -> same shape."""
    height, width = x.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    down = torch.arange(height, dtype=torch.float64)[:, None] - (height - 1) / 2  # (H, 1)
    right = torch.arange(width, dtype=torch.float64)[None, :] - (width - 1) / 2  # (1, W)
    source = torch.stack([(cos * right - sin * down) * 2 / width, (sin * right + cos * down) * 2 / height], -1)
    flat = x.reshape(-1, *x.shape[-3:])  # (B, C, H, W)
    source = source.to(x)[None].expand(len(flat), -1, -1, -1)  # (B, H, W, 2)
    return F.grid_sample(flat, source, mode, padding_mode="reflection", align_corners=False).reshape(x.shape)
