"""Two questions apart: do samples look real, and do they show all that is real? Balls around images answer both.

    ball(x) = { z : |z - x| <= distance of x to its k-th nearest other image of the same set }

    precision   share of samples that lie in the ball of a real image          (Kynkaanniemi 2019, arXiv 1904.06991)
    recall      share of real images that lie in the ball of a sample
    density     balls of real images that a sample lies in, over k, on average       (Naeem 2020, arXiv 2002.09797)
    coverage    share of real images with a sample in their ball

A real image far from the others has a wide ball and raises the precision; such a sample raises the recall. Density and
coverage read the balls of real images only, and density, which may exceed 1, weighs one ball as 1 / k. Copies of one
real image have a precision of 1 and a recall and coverage near 0. The rim of a ball is inside for precision and recall,
as in torch-fidelity, and outside for density and coverage, as in prdc. The balls of few real images reach far: use
held-out images, and equally many in all comparisons.
"""

from torch import Tensor

from metrics.statistics.rows import distances, pair


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Features real (N, D) and fake (M, D) -> precision, recall. ValueError unless N and M are above k."""
    real, fake = pair("precision", real, fake, (k + 1, k + 1))
    between = distances(real, fake)  # (N, M)
    precision = (between <= radii(real, k)[:, None]).any(0)  # (M,)
    recall = (between <= radii(fake, k)).any(1)  # (N,)
    return precision.double().mean().item(), recall.double().mean().item()


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Features real (N, D) and fake (M, D) -> density, coverage. ValueError unless N is above k."""
    real, fake = pair("density", real, fake, (k + 1, 1))
    inside = (distances(real, fake) < radii(real, k)[:, None]).double()  # (N, M)
    return inside.sum(0).mean().item() / k, inside.amax(1).mean().item()


def radii(x: Tensor, k: int) -> Tensor:
    """Distance of each row of x (N, D) to its k-th nearest other row -> (N,). ValueError for k below 1."""
    if k < 1:
        raise ValueError(f"a ball reaches to a neighbour, k at least 1, found {k}")
    return distances(x, x).kthvalue(k + 1).values  # the nearest of all is the row itself
