"""Inception score: is each sample clearly of one class, and all together of many (Salimans 2016, arXiv 1606.03498)?

    IS = exp mean_n KL(p(y | x_n) || p(y)) = exp(H(mean_n p_n) - mean_n H(p_n)),    1 <= IS <= number of classes K

It reads no real images, so it sees neither copies nor images that are unlike them. Inception's classes are those of
ImageNet; another classifier gives the score over its own classes.
"""

import torch
from torch import Tensor


def inception_score(logits: Tensor, splits: int = 1, generator: torch.Generator | None = None) -> tuple[float, float]:
    """logits (N, K) -> mean and standard deviation of the score over `splits` equal parts of the shuffled samples.

    One part by default: the score of ten samples says nothing. The papers' ten parts suit 50,000 samples. Raises
    ValueError for other shapes, NaN, parts without a sample, and several parts without a generator to shuffle by.
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
    """Probabilities (N, K) -> exp(H(mean_n p_n) - mean_n H(p_n)), a scalar."""
    entropy = torch.special.entr  # -p log p, 0 at 0
    return (entropy(p.mean(0)).sum() - entropy(p).sum(1).mean()).exp()
