"""Prior preservation: a subject is learned and its class is not forgotten (DreamBooth, Ruiz et al. 2023, eq. 2).

    loss = |out(z_t, "a photo of sks dog") - eps|^2 + weight |out(z'_t, "a photo of a dog") - eps'|^2

z' are images of the class that the model itself sampled before training. arXiv 2208.12242.
"""

import torch
from torch import Generator, Tensor

from recipes.job import Batch, Batches, Loss


def prior_preservation(denoising: Loss, weight: float) -> Loss:
    """`denoising` of the batch, plus `weight` times that of its prior_x0 and prior_cond, where it has them."""

    def loss(batch: Batch, generator: Generator, progress: float) -> tuple[Tensor, dict]:
        instance, numbers = denoising(batch, generator, progress)
        if "prior_x0" not in batch:  # held-out images stand alone
            return instance, numbers
        prior, _ = denoising({"x0": batch["prior_x0"], "cond": batch["prior_cond"]}, generator, progress)
        return instance + weight * prior, numbers | {"prior": prior.detach()}

    return loss


def with_prior(batches: Batches, prior: Batches, count: int) -> Batches:
    """Batches of the images, and in each as many of the `count` images of the class, as prior_x0 and prior_cond."""

    def batch(index: Tensor, generator: Generator) -> Batch:
        own = batches(index, generator)
        of_class = prior(torch.randint(count, (len(index),), generator=generator), generator)
        return own | {f"prior_{key}": value for key, value in of_class.items()}

    return batch
