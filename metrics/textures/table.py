"""The table of samples without a network: like real images in texture, of their class, varied, and no copies?"""

import torch
from torch import Tensor

from data import ImageSet
from data.source import GENERATED
from data.transforms import to_tensor
from metrics.textures.copies import patch_distances
from metrics.textures.swd import Projections, by_scale, own_distances, quantiles

PATCHES, NAME = "patches", "patches, no network"  # as a setting, and beside numbers
MOST = 200  # images of a set whose patches are compared one by one; more are thinned out evenly
COPIED = 0.05  # share of the real images that counts as a copy


def features_of(features: str, data: str) -> str:
    """What samples are measured in: as asked for, else tiny-features for the generated products, which it knows."""
    return features or ("tiny-features" if data.startswith(GENERATED) else PATCHES)


def measure_patches(fake: ImageSet, real: ImageSet, train: ImageSet | None = None) -> dict:
    """The numbers of the samples `fake` beside images held out of training and the training images.

    swd: sliced Wasserstein distance of patches, a mean over scales; swd_real: that of the real images among themselves
    (of a few to the others), and patch_distance their ratio, scale by scale. varied: how far samples of a class are
    from one another, over the same of real images. nearest_class: the share of samples whose nearest training image is
    of their own class. copies_patches: the share nearer to a training image than the nearest 5 % of real ones are.
    """
    x, x_real = (to_tensor(images.pixels) for images in (fake, real))
    project = Projections(x_real)
    p, p_real = project(x), project(x_real)
    scales = by_scale(quantiles(p), quantiles(p_real))
    numbers = {"network": NAME, "samples": len(x), "real": len(x_real), "swd": scales.mean().item()}
    if len(x_real) > 1:
        own = own_distances(p_real, len(x)).mean(0)
        numbers |= {"swd_real": own.mean().item(), "patch_distance": (scales / own).mean().item()}
    few, few_real = thinned(fake), thinned(real)
    spread, spread_real = apart(few), apart(few_real)
    if spread is not None and spread_real:
        numbers["varied"] = spread / spread_real
    if train is None:
        return numbers
    few_train = thinned(train)
    to_train, real_to_train = (
        patch_distances(to_tensor(images.pixels), to_tensor(few_train.pixels)) for images in (few, few_real)
    )
    near, near_real = to_train.min(1).values, real_to_train.min(1).values
    numbers |= {"train": len(train.pixels), "nearest_patches": near.median().item()}
    numbers["nearest_patches_real"] = near_real.median().item()
    numbers["copies_patches"] = (near < near_real.quantile(COPIED)).double().mean().item()
    if len(train.classes) > 1:
        numbers["nearest_class"] = share_right(to_train, few.labels, few_train.labels)
        numbers["nearest_class_real"] = share_right(real_to_train, few_real.labels, few_train.labels)
    return numbers


def thinned(images: ImageSet) -> ImageSet:
    """MOST images at most, evenly spread over the set."""
    index = torch.arange(0, len(images.pixels), -(-len(images.pixels) // MOST))
    return images._replace(pixels=images.pixels[index.numpy()], labels=images.labels[index])


def apart(images: ImageSet) -> float | None:
    """Mean patch distance between two images of one class, None without such two."""
    x = to_tensor(images.pixels)
    same = (images.labels[:, None] == images.labels).fill_diagonal_(False)
    return patch_distances(x, x)[same].mean().item() if same.any() else None


def share_right(distances: Tensor, labels: Tensor, train_labels: Tensor) -> float:
    """The share of N images whose nearest training image, by distances (N, M), has their label."""
    return (train_labels[distances.argmin(1)] == labels).double().mean().item()
