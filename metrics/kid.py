"""Kernel inception distance: the squared maximum mean discrepancy under k(x, y) = (x.y / D + 1)^3 (Binkowski 2018).

Unbiased at any number of images, so it may be negative for equal distributions; it is not clipped.
"""
from torch import Tensor


def kid(x: Tensor, y: Tensor) -> float:
    """Features x (N, D) and y (M, D), N and M at least 2 -> MMD^2, by the unbiased estimator over all pairs."""
    if min(len(x), len(y)) < 2:
        raise ValueError(f"KID needs two images of each kind at least, found {len(x)} and {len(y)}")
    x, y = x.double(), y.double()

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def without_diagonal(k):
        return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))

    return (without_diagonal(kernel(x, x)) + without_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean()).item()
