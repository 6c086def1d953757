"""Sliced Wasserstein distance of image patches, scale by scale: a distance of textures that needs no network.

    L_s = x_s - up(down x_s),  x_{s+1} = down x_s,  and the coarsest x_s itself          (Burt and Adelson 1983)
    SWD_s(X, Y) = mean over directions w of  integral_0^1 | Q_{w.X}(q) - Q_{w.Y}(q) | dq

X and Y are patches of 7 x 7 pixels of L_s, each colour less the mean and over the deviation of the real images; Q are
the quantiles of their projections on random unit vectors w (Karras et al. 2018, arXiv 1710.10196, sec. 5). The paper
scales either set by its own deviation, after which fog has as much contrast as a photograph; by that of the real images
it has none. Places and directions come from one seed, so that equal images have a distance of exactly 0.

How far is far? A few photographs differ among themselves, most at the coarsest scale, where the light is. So

    distance(X, Y) = mean_s SWD_s(X, Y) / own_s,     own_s = mean of SWD_s(Y_a, Y_b),  Y_a a few of Y, Y_b its others

is 1 for samples as unlike the images as some of these are unlike the others, and large for noise, fog and blur.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH, PATCHES, DIRECTIONS = 7, 64, 64  # pixels a side; patches of an image, and directions, on each scale
COARSEST = 16  # pixels a side of the last scale, at least
QUANTILES = 256
DRAWS = 10  # of a few of the real images
KERNEL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16


def pyramid(x: Tensor) -> list[Tensor]:
    """Images x (N, 3, H, W) -> their Laplacian pyramid, finest scale first, down to a short side of 16 to 31 pixels."""
    scales = []
    while min(x.shape[-2:]) >= 2 * COARSEST:
        small = blur(x)[..., ::2, ::2]
        scales.append(x - F.interpolate(small, x.shape[-2:], mode="bilinear", align_corners=False))
        x = small
    return [*scales, x]


def blur(x: Tensor) -> Tensor:
    """x (N, C, H, W) by the binomial filter of 5 x 5, borders mirrored."""
    kernel = KERNEL.to(x).expand(x.shape[1], 1, 1, 5)
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(F.conv2d(x, kernel, groups=x.shape[1]), kernel.mT, groups=x.shape[1])


class Projections:
    """Images as the projections of their patches, in the contrast of the real images.

    ValueError for images below 7 pixels a side.
    """

    def __init__(self, real: Tensor, seed: int = 0):
        """real (M, 3, S, S), whose means and deviations, of each colour on each scale, patches are measured in."""
        if min(real.shape[-2:]) < PATCH:
            raise ValueError(f"patches of {PATCH} pixels a side need images as large, found {min(real.shape[-2:])}")
        self.seed = seed
        self.moments = [(x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp(min=1 / 255)) for x in pyramid(real)]

    def __call__(self, x: Tensor) -> Tensor:
        """x (N, 3, S, S) -> (N, scales, PATCHES, DIRECTIONS)."""
        generator, scales = torch.Generator().manual_seed(self.seed), []
        for scale, (mean, deviation) in zip(pyramid(x), self.moments):
            top, left = (torch.randint(n - PATCH + 1, (PATCHES,), generator=generator) for n in scale.shape[-2:])
            w = F.normalize(torch.randn(3 * PATCH**2, DIRECTIONS, generator=generator), dim=0)  # (147, W)
            scale = (scale - mean[:, None, None]) / deviation[:, None, None]
            windows = scale.unfold(2, PATCH, 1).unfold(3, PATCH, 1)[:, :, top, left]  # (N, 3, PATCHES, 7, 7)
            scales.append(windows.transpose(1, 2).flatten(2) @ w.to(x))
        return torch.stack(scales, 1)


def quantiles(p: Tensor) -> Tensor:
    """Projections (N, scales, PATCHES, W) -> (scales, QUANTILES, W), at the middles of QUANTILES equal shares."""
    values = p.transpose(0, 1).flatten(1, 2).sort(1).values  # (scales, N PATCHES, W)
    at = (torch.arange(QUANTILES, device=p.device) + 0.5) / QUANTILES * values.shape[1] - 0.5
    low = at.floor().long().clamp(0, values.shape[1] - 2)
    return values[:, low].lerp(values[:, low + 1], (at - low).clamp(0, 1)[:, None].to(p))


def by_scale(q: Tensor, q_real: Tensor) -> Tensor:
    """SWD_s of quantiles q and q_real (scales, QUANTILES, W) -> (scales,), finest first."""
    return (q - q_real).abs().mean((1, 2))


def swd(x: Tensor, real: Tensor, seed: int = 0) -> Tensor:
    """SWD_s of images x (N, 3, S, S) and real (M, 3, S, S) -> (scales,), finest first."""
    project = Projections(real, seed)
    return by_scale(quantiles(project(x)), quantiles(project(real)))


def own_distances(p: Tensor, few: int, drawn: Tensor | None = None) -> Tensor:
    """SWD_s between `few` of M images, at most half of them, and the others, in DRAWS draws -> (DRAWS, scales).

    p (M, scales, PATCHES, W): projections of the images. drawn, likewise: of what stands for those that are drawn, such
    as the images as an autoencoder decodes them, which no sample surpasses. ValueError for a single image.
    """
    if len(p) < 2:
        raise ValueError("how far images are from one another needs 2 of them, found 1")
    generator, few = torch.Generator().manual_seed(0), max(1, min(few, len(p) // 2))
    orders = [torch.randperm(len(p), generator=generator) for _ in range(DRAWS)]
    drawn = p if drawn is None else drawn
    return torch.stack([by_scale(quantiles(drawn[order[:few]]), quantiles(p[order[few:]])) for order in orders])
