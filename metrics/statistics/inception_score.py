"""Inception score: are the samples of clear classes, and of all of them (Salimans 2016, arXiv 1606.03498)?

    IS = exp mean_n KL(p(y | x_n) || p(y)) = exp(H(mean_n p_n) - mean_n H(p_n)),    1 <= IS <= number of classes K

It reads no real images, so it neither sees a copy nor an image that is unlike them. Inception's classes are those of
ImageNet; a classifier of one's own gives the score over one's own classes.
"""

import torch
from torch import Tensor


def inception_score(logits: Tensor, splits: int = 1, generator: torch.Generator | None = None) -> tuple[float, float]:
    """logits (N, K) -> mean and standard deviation of the score over `splits` equal parts of the shuffled samples.

    One part by default: the score of ten samples says nothing. The papers' ten parts suit 50,000 samples.
    Raises ValueError for parts without a sample or without a generator that shuffles them.
    """
    n = len(logits)
    if logits.dim() != 2:
        raise ValueError(f"the inception score needs logits (N, K), found {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise ValueError("the inception score needs finite logits, found NaN or infinity")
    if not 1 <= splits <= n:
        raise ValueError(f"the inception score of {splits} parts needs as many samples, found {n}")
    if splits > 1 and generator is None:
        raise ValueError(f"the inception score of {splits} parts needs a generator that shuffles the samples")
    p = logits.cpu().double().softmax(1)  # (N, K)
    if splits > 1:
        p = p[torch.randperm(n, generator=generator, device=generator.device).cpu()]
    scores = torch.stack([score(p[i * n // splits : (i + 1) * n // splits]) for i in range(splits)])
    return scores.mean().item(), scores.std(correction=0).item()


def score(p: Tensor) -> Tensor:
    """Probabilities (N, K) -> the exponential of the information that a sample has about its class."""
    entropy = torch.special.entr  # -p log p, 0 at 0
    return (entropy(p.mean(0)).sum() - entropy(p).sum(1).mean()).exp()
