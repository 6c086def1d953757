"""Guidance: functions that turn a model and its conditions into a denoiser.

    cfg             null + s (cond - null)                          classifier-free guidance (Ho 2022, arXiv 2207.12598,
                                                                    where s = 1 + w)
    superclass_cfg  super + s (cond - super)                        superclass guidance (FineDiffusion, Pan et al. 2024,
                                                                    arXiv 2402.18331)
    two_stage       null + s1 (super - null) + s2 (cond - super)    both in a row
    composed        null + sum_i w_i (cond_i - null)                composition (Liu et al. 2022, arXiv 2206.01714)

Each word stands for the model's output under that condition. `composed` has the others as cases: w_i > 0 leads towards
a condition, w_i < 0 away from it (NOT). A denoiser is denoise(x, t) -> out with everything else bound; samplers know
nothing more. Guidance may act on eps, v or x0 alike, because each is linear in the output at fixed x.

Every function here evaluates the model once a step, on one batch with each condition once. A condition without weight
is not evaluated.

channels: guidance acts on so many of the first latent channels, None for all C; the other channels, and the second half
of an output with learned variance, are those of cond. channels=3 is what DiT's released code does (its fourth latent
channel stays conditional).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]


def conditional(model: Callable, cond: Tensor) -> Denoiser:
    """denoise(x, t) = model(x, t, cond): no guidance. cond (B,) labels or (B,L,D) text states."""
    return lambda x, t: model(x, t, cond)


def cfg(
    model: Callable, cond: Tensor, null: int | Tensor | None, scale: float, channels: int | None = None
) -> Denoiser:
    """denoise(x, t) = null + scale (cond - null), in the words of the module; scale 1 evaluates cond alone.

    cond (B,) labels or (B,L,D) text states; null: the model's null id, or a tensor that broadcasts to cond.
    x (B,C,H,W), t (B,). Raises ValueError for a null that does not fit or is missing, or channels outside 1 .. C.
    """
    if math.isclose(scale, 1):
        return conditional(model, cond)
    conditions = torch.cat([cond, broadcast_to(_required(null, scale), cond)])  # (2B,) or (2B, L, D)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        cond, null = model(torch.cat([x, x]), torch.cat([t, t]), conditions).chunk(2)  # (B, C or 2C, H, W) each
        guided = null + scale * (cond - null)
        return _first_channels(guided, cond, x.shape[1], channels)

    return denoise


def superclass_cfg(
    model: Callable, cond: Tensor, superclass: int | Tensor, scale: float, channels: int | None = None
) -> Denoiser:
    """denoise(x, t) = superclass + scale (cond - superclass): `cfg` whose null is the superclass of cond.

    It leads from what a class shares with its siblings to what is its own. The null condition is not evaluated.
    superclass: the superclass's id, or a tensor that broadcasts to cond. Raises ValueError as `cfg`.
    """
    return cfg(model, cond, superclass, scale, channels)


def two_stage(
    model: Callable,
    cond: Tensor,
    superclass: int | Tensor,
    null: int | Tensor | None,
    scale: float,
    superclass_scale: float,
    channels: int | None = None,
    extra_conditions: Sequence[tuple[int | Tensor, float]] = (),
) -> Denoiser:
    """denoise(x, t) = null + s1 (superclass - null) + s2 (cond - superclass),   s1 = superclass_scale, s2 = scale

    computed as null + s2 (cond - null) + (s1 - s2) (superclass - null), one difference a condition. s1 = 1 has no share
    of null and is superclass_cfg; s1 = s2 has none of superclass and is cfg. extra_conditions: [(cond_i, w_i)], further
    terms w_i (cond_i - null). Raises ValueError as `composed`.
    """
    return composed(model, [(cond, scale), *extra_conditions, (superclass, superclass_scale - scale)], null, channels)


def composed(
    model: Callable, terms: Sequence[tuple[Tensor | int, float]], null: int | Tensor | None, channels: int | None = None
) -> Denoiser:
    """denoise(x, t) = null + sum_i w_i (cond_i - null).

    terms: [(cond_i, w_i)]. The first, cond_0 (B,) or (B,L,D), is always evaluated; the other conditions and null are
    ids or tensors that broadcast to it. If the weights add up to 1, null has no share: it is not evaluated, and the
    last condition takes its place in the sum. x (B,C,H,W), t (B,).
    Raises ValueError for a condition that does not fit, a null that is missing, or channels outside 1 .. C.
    """
    (cond, scale), *others = terms
    terms = [(cond, scale), *((broadcast_to(other, cond), weight) for other, weight in others if weight)]
    if not math.isclose(sum(weight for _, weight in terms), 1):
        terms.append((broadcast_to(_required(null, scale), cond), 0.0))
    conditions, weights = zip(*terms)
    K, conditions = len(terms), torch.cat(conditions)  # (K B,) or (K B, L, D)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        outs = model(torch.cat([x] * K), torch.cat([t] * K), conditions).chunk(K)  # K of (B, C or 2C, H, W)
        guided = base = outs[-1]  # null, or the condition in its place
        for weight, out in zip(weights, outs[:-1]):
            guided = guided + weight * (out - base)
        return _first_channels(guided, outs[0], x.shape[1], channels)

    return denoise


def batched_cfg(
    model: Callable,
    cond: Tensor,
    null: int | Tensor | None,
    scale: float,
    channels: int | None = None,
    extra_conditions: Sequence[tuple[int | Tensor, float]] = (),
    hint: Tensor | None = None,
    superclass: int | Tensor | None = None,
    superclass_scale: float = 1.0,
) -> Callable[[slice], Denoiser]:
    """denoiser(here): the guided denoiser of the samples numbered `here` of a list, cond (N,) or (N,L,D).

    `cfg`; with extra_conditions [(cond_i, w_i)] `composed`; with a superclass `two_stage`. null, superclass and each
    cond_i may be one for all or one for each sample. hint (N,C,H,W): what a ControlNet reads for each, in
    model(x, t, cond, hint=hint). Raises ValueError as `composed`.
    """
    null = None if null is None else broadcast_to(null, cond)
    superclass = None if superclass is None else broadcast_to(superclass, cond)
    extra_conditions = [(broadcast_to(other, cond), weight) for other, weight in extra_conditions]

    def denoiser(here: slice) -> Denoiser:
        hinted = model if hint is None else partial(model, hint=hint[here])
        own, away = cond[here], None if null is None else null[here]
        extra = [(other[here], weight) for other, weight in extra_conditions]
        if superclass is not None:
            return two_stage(hinted, own, superclass[here], away, scale, superclass_scale, channels, extra)
        return (
            composed(hinted, [(own, scale), *extra], away, channels)
            if extra
            else cfg(hinted, own, away, scale, channels)
        )

    denoiser(slice(0))  # an early error for a null that is needed and missing
    return denoiser


def limited_interval(low: float, high: float, inside: Denoiser, outside: Denoiser) -> Denoiser:
    """denoise(x, t) = inside(x, t) for low <= t <= high, else outside(x, t); the step t is the same for all samples.

    With `cfg` inside and `conditional` outside it is guidance in a limited interval (Kynkaanniemi et al. 2024,
    arXiv 2404.07724), which also spares the larger batch in all other steps.
    """
    return lambda x, t: (inside if low <= t[0] <= high else outside)(x, t)


def broadcast_to(null: int | Tensor, cond: Tensor) -> Tensor:
    """`null` repeated to the shape of cond: an id, one row, or one row per sample. ValueError if it does not fit.

    A row that is shorter goes on as cond does: what a text is guided away from has the same sizes (unet/row.py).
    """
    null = torch.as_tensor(null, device=cond.device).to(cond.dtype)
    if null.dim() and cond.dim() == 2 and null.shape[-1] < cond.shape[1]:
        null = torch.cat([null.expand(len(cond), -1), cond[:, null.shape[-1] :]], dim=1)
    try:
        return null.expand(cond.shape)
    except RuntimeError:
        raise ValueError(
            f"null conditions of shape {tuple(null.shape)} do not fit conditions of shape {tuple(cond.shape)}"
        ) from None


def _required(null: int | Tensor | None, scale: float) -> int | Tensor:
    """null itself, or a ValueError for None."""
    if null is None:
        raise ValueError(f"guidance {scale} needs a null condition; without one use guidance 1")
    return null


def _first_channels(guided: Tensor, cond: Tensor, C: int, channels: int | None) -> Tensor:
    """The first `channels` of guided, all C of the latent by default, then those of cond: (B, C or 2C, H, W)."""
    channels = C if channels is None else channels
    if not 0 < channels <= C:
        raise ValueError(f"guidance on {channels} channels of latents that have {C}")
    return torch.cat([guided[:, :channels], cond[:, channels:]], dim=1)
