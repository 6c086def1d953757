"""Are samples copies? The distance to the nearest training image, beside that of real images held out of training.

    d(x) = min_i || f(x) - f(train_i) ||,  over the training images and all their flips and quarter turns

f is a feature network or the pixels themselves. A generator that copies has smaller distances than real images have;
the share of samples nearer than the nearest 5 % of real held-out images is its copy rate (5 % if it does not copy).
"""
import torch
from torch import Tensor


def turned(x: Tensor) -> Tensor:
    """(N, C, S, S) -> (8 N, C, S, S): the four quarter turns of every image and of its mirror image."""
    both = torch.cat([x, x.flip(-1)])
    return torch.cat([both.rot90(quarter, (-2, -1)) for quarter in range(4)])


def nearest(x: Tensor, train: Tensor) -> Tensor:
    """Euclidean distance of each row of x (N, D) to its nearest row of train (M, D) -> (N,)."""
    return torch.cdist(x.double(), train.double()).min(1).values


def copy_report(fake: Tensor, held_out: Tensor, train: Tensor) -> dict[str, float]:
    """Features (N, D) of samples, of real held-out images, of the turned training images -> numbers for the table."""
    ours, real = nearest(fake, train), nearest(held_out, train)
    return {"nearest": ours.median().item(), "nearest_real": real.median().item(),
            "copies": (ours < real.quantile(0.05)).double().mean().item()}
