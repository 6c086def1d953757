"""Is a model being corrupted? Its samples grow unlike the training images while noise grows in them.

    r = mean over pixels of (x - median_3x3 x)^2         grain of a sample, which a median takes away; edges stay
    f = max_j cos(phi(x), phi(train_j))                  its likeness to the nearest training image of its class
    the look at t is corrupted:   f_b - f_t > 3 s_f  and  r_t - r_b > 3 s_r,      b = argmax_{u < t} f_u

f_t, r_t are means over the N samples of a look and s the deviation of their difference over other samples: s^2 is the
sum of both looks' var / N, which is what drawing N samples again and again from the N (the bootstrap) comes to. Looks
draw the same seeds, so the change that other seeds would bring is smaller than that.

Fine-tuning on few images first makes samples alike to them, then for a while noisy and unlike, then copies: the
corruption stage (Wu et al. 2024, arXiv 2405.19931), of which the training loss tells nothing. It lasts from the first
corrupted look to the last one before a look that is not.
"""

from itertools import takewhile

import torch
from torch import Tensor
from torch.nn import functional as F

SIGMAS = 3.0
ROUNDING = (2 / 255) ** 2 / 12  # energy of what 8 bits round away, in [-1, 1]: no picture has less grain than that


def residual(x: Tensor) -> Tensor:
    """r of images x (N, 3, S, S) in [-1, 1], at least `ROUNDING` -> (N,)."""
    return (x - median(x)).square().mean((1, 2, 3)).clamp(min=ROUNDING)


def median(x: Tensor) -> Tensor:
    """Of each 3x3 neighbourhood of x (N, C, H, W), border pixels repeated -> (N, C, H, W).

    med(max of the columns' lowest, med of their middles, min of their highest): whole images are compared, which is far
    quicker than sorting at each pixel.
    """
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")  # (N, C, H+2, W+2)
    column = torch.stack([x[..., :-2, :], x[..., 1:-1, :], x[..., 2:, :]])  # (3, N, C, H, W+2)
    lowest, middle, highest = (
        torch.stack([y[..., :-2], y[..., 1:-1], y[..., 2:]])  # (3, N, C, H, W)
        for y in (column.amin(0), middle_of(column), column.amax(0))
    )
    return middle_of(torch.stack([lowest.amax(0), middle_of(middle), highest.amin(0)]))


def middle_of(x: Tensor) -> Tensor:
    """The middle one of three: (3, ...) -> (...)."""
    a, b, c = x
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def fidelity(samples: Tensor, train: Tensor, same: Tensor) -> Tensor:
    """f of features samples (N, D) and train (M, D) -> (N,). same (N, M): whether two are of a class, for each some."""
    alike = F.normalize(samples) @ F.normalize(train).T  # (N, M)
    return alike.where(same, -1).max(1).values


def deviation(values: Tensor) -> float:
    """Of the mean of values (N,): sqrt(var / N), the bootstrap's in closed form."""
    return (values.double().std(correction=0) / len(values) ** 0.5).item()


def corrupted(fidelity: list[float], residual: list[float], noise: list[tuple[float, float]]) -> list[bool]:
    """For each look whether it is corrupted; noise: the deviations of its fidelity and of its residual."""
    found, b = [], 0
    for t in range(len(fidelity)):
        s_f, s_r = (SIGMAS * (x**2 + y**2) ** 0.5 for x, y in zip(noise[b], noise[t]))
        found.append(fidelity[b] - fidelity[t] > s_f and residual[t] - residual[b] > s_r)
        b = t if fidelity[t] > fidelity[b] else b
    return found


def stage(
    steps: list[int], fidelity: list[float], residual: list[float], noise: list[tuple[float, float]]
) -> tuple[int, int] | None:
    """(first, last) step of the corruption stage, the first stage if there are several; None if there is none."""
    looks = list(zip(steps, corrupted(fidelity, residual, noise)))
    first = next((i for i, (_, bad) in enumerate(looks) if bad), len(looks))
    inside = [step for step, _ in takewhile(lambda look: look[1], looks[first:])]
    return (inside[0], inside[-1]) if inside else None


def best(steps: list[int], fidelity: list[float], residual: list[float], noise: list[tuple[float, float]]) -> int:
    """The step of the highest fidelity among the looks that are not corrupted, the first of equals.

    Step 0, which has learned nothing yet, is it only if all others are corrupted.
    """
    looks = zip(steps, fidelity, corrupted(fidelity, residual, noise))
    return max(looks, key=lambda look: (not look[2], look[0] > 0, look[1]))[0]
