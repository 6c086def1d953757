"""Guidance: functions that turn a model and its conditions into a denoiser.

    guided = out(null) + sum_i w_i (out(cond_i) - out(null))        composed (Liu et al. 2022, arXiv 2206.01714)

w_i > 0 leads towards a condition, w_i < 0 away from it (NOT). Three methods are cases of the equation:

    null + s (cond - null)                             classifier-free guidance (Ho 2022, arXiv 2207.12598, s = 1 + w)
    super + s (sub - super)                            superclass guidance (FineDiffusion, Pan et al. 2024,
                                                       arXiv 2402.18331): weights s and 1 - s, so none for null
    null + s1 (super - null) + s2 (sub - super)        both in a row: weights s2 of sub and s1 - s2 of super

A denoiser is denoise(x, t) -> out with everything else bound; samplers know nothing more.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]


def bind(model: Callable, cond: Tensor) -> Denoiser:
    """denoise(x, t) = model(x, t, cond): no guidance. cond (B,) labels or (B,L,D) text states."""
    return lambda x, t: model(x, t, cond)


def like(null: int | Tensor, cond: Tensor) -> Tensor:
    """`null` repeated to the shape of cond: an id, one row, or one row per sample.

    Raises ValueError if it does not fit.
    """
    null = torch.as_tensor(null, device=cond.device).to(cond.dtype)
    try:
        return null.expand_as(cond)
    except RuntimeError:
        raise ValueError(
            f"null conditions of shape {tuple(null.shape)} do not fit conditions of shape {tuple(cond.shape)}"
        ) from None


def cfg(
    model: Callable,
    cond: Tensor,
    null: int | Tensor | None,
    scale: float,
    channels: int | None = None,
    more: Sequence[tuple[int | Tensor, float]] = (),
) -> Denoiser:
    """denoise(x, t) = out(null) + scale (out(cond) - out(null)) + sum_i w_i (out(cond_i) - out(null)), in one batch.

    cond (B,) or (B,L,D); null: the model's null id, or a tensor that broadcasts to cond; more: [(cond_i, w_i)], each
    cond_i like null. x (B,C,H,W), t (B,). The model sees every condition once, but none of `more` whose weight is 0.
    If all weights add up to 1, null has no share: it is not read, and the last condition takes its place above. So at
    scale 1 alone this is bind, in a batch of its own size.

    Guidance acts on the first `channels` latent channels, all C by default; the others, and the second half of an
    output with learned variance, are those of cond. channels=3 is what DiT's released code does (its fourth latent
    channel stays conditional). It may act on eps, v or x0 alike, because each is linear in the output at fixed x.
    Raises ValueError if a condition does not fit cond, if null is None and needed, or if channels exceeds C.
    """
    terms = [(cond, scale), *((like(other, cond), weight) for other, weight in more if weight)]
    if not math.isclose(sum(weight for _, weight in terms), 1):
        if null is None:
            raise ValueError(f"guidance {scale} needs a null condition; without one use guidance 1")
        terms.append((like(null, cond), 0.0))
    conditions, weights = zip(*terms)  # the last is what all others lead away from, whatever its weight
    stacked = torch.cat(conditions)  # (K B,) or (K B, L, D)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        C, K = x.shape[1], len(conditions)
        guide = C if channels is None else channels
        if not 0 < guide <= C:
            raise ValueError(f"guidance on {guide} channels of latents that have {C}")
        outs = model(torch.cat([x] * K), torch.cat([t] * K), stacked).chunk(K)  # K of (B, C or 2C, H, W)
        away = guided = outs[-1][:, :guide]
        for weight, out in zip(weights, outs[:-1]):
            guided = guided + weight * (out[:, :guide] - away)
        return torch.cat([guided, outs[0][:, guide:]], dim=1)

    return denoise


def guided(
    model: Callable,
    cond: Tensor,
    null: int | Tensor | None,
    scale: float,
    channels: int | None = None,
    more: Sequence[tuple[int | Tensor, float]] = (),
    hint: Tensor | None = None,
) -> Callable[[slice], Denoiser]:
    """denoiser(here) = cfg for the conditions cond[here] of a list (N,) or (N,L,D).

    null and each of `more` may be one for all or one for each. hint (N,C,H,W): what a ControlNet reads for each, in
    model(x, t, cond, hint=hint). Raises ValueError as cfg.
    """
    away = None if null is None else like(null, cond)
    others = [(like(other, cond), weight) for other, weight in more]

    def denoiser(here: slice) -> Denoiser:
        null = None if away is None else away[here]
        told = model if hint is None else partial(model, hint=hint[here])
        return cfg(told, cond[here], null, scale, channels, [(other[here], weight) for other, weight in others])

    denoiser(slice(0))  # so that a missing null is missed now
    return denoiser


def within(low: int, high: int, inside: Denoiser, outside: Denoiser) -> Denoiser:
    """denoise(x, t) = inside(x, t) for low <= t <= high, else outside(x, t); the step t is the same for all samples.

    With a guided denoiser inside and bind outside: guidance in a limited interval (Kynkaanniemi et al. 2024,
    arXiv 2404.07724), which also spares the larger batch in all other steps.
    """
    return lambda x, t: (inside if low <= t[0] <= high else outside)(x, t)
