"""A subject learned and the rest kept: CLIP-I, DINO, and the drift of pictures that have nothing to do with it.

    score = mean_ij cos(f(x_i), f(y_j))            samples x, the subject's photographs y   (Ruiz et al. 2023, sec. 4.1)
    real  = mean_{i != j} cos(f(y_i), f(y_j))      the same of the photographs among themselves
    drift = mean_i (1 - cos(f(b_i), f(a_i))) / mean_{i != j} (1 - cos(f(b_i), f(b_j)))

The score is called CLIP-I in a CLIP and DINO in a DINO. Above `real` it is one of copies. b_i and a_i are pictures of
one prompt or class and one seed by the model before and after it was trained; a drift of 0 leaves them as they were,
one of 1 makes them as different as two of the pictures are.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.statistics.rows import pair


def subject_score(f: Tensor, f_real: Tensor) -> tuple[float, float]:
    """Features of samples (N, D) and photographs (M, D) -> the score, and that of the photographs, nan for one.

    Raises ValueError for no image, other shapes, NaN and infinity.
    """
    f, f_real = (F.normalize(x) for x in pair("a subject's score", f, f_real, (1, 1)))
    among = 1 - apart(f_real, f_real)
    return (f @ f_real.T).mean().item(), among[~torch.eye(len(f_real), dtype=torch.bool)].mean().item()


def drift(f_before: Tensor, f_after: Tensor) -> dict[str, float]:
    """Features (N, D) of the same pictures before and after training -> the drift, and its numerator.

    Raises ValueError for fewer than 2 pictures, and for sets of different sizes.
    """
    f_before, f_after = pair("drift", f_before, f_after, (2, 2))
    if len(f_before) != len(f_after):
        raise ValueError(f"drift compares pictures one by one, found {len(f_before)} before and {len(f_after)} after")
    between = apart(f_before, f_before)
    others = between[~torch.eye(len(between), dtype=torch.bool)].mean()
    moved = apart(f_before, f_after).diagonal().mean()
    return {"drift": (moved / others.clamp(min=1e-12)).item(), "drift_cosine": moved.item()}


def apart(x: Tensor, y: Tensor) -> Tensor:
    """1 - cos of the rows of x (N, D) and y (M, D) -> (N, M)."""
    return 1 - F.normalize(x) @ F.normalize(y).T
