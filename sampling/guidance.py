"""Guidance: functions that turn a model and its conditions into a denoiser.

    guided = uncond + s (cond - uncond)        classifier-free guidance (Ho 2022, arXiv 2207.12598, eq. 6, s = 1 + w)

A denoiser is denoise(x, t) -> out with everything else bound; samplers know nothing more.
"""
from collections.abc import Callable

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
        raise ValueError(f"null conditions of shape {tuple(null.shape)} do not fit "
                         f"conditions of shape {tuple(cond.shape)}") from None


def cfg(model: Callable, cond: Tensor, null: int | Tensor, scale: float, channels: int | None = None) -> Denoiser:
    """denoise(x, t) = out(null) + scale (out(cond) - out(null)), in one doubled batch.

    cond (B,) or (B,L,D); null: the model's null id, or a tensor that broadcasts to cond. x (B,C,H,W), t (B,).
    Guidance acts on the first `channels` latent channels, all C by default; the others, and the second half of an
    output with learned variance, are those of cond. channels=3 is what DiT's released code does (its fourth latent
    channel stays conditional). It may act on eps, v or x0 alike, because each is linear in the output at fixed x.

    Superclass guidance (FineDiffusion, arXiv 2402.18331) is this function with null = the superclass row of each label:
    scale 1 is the subclass alone, scale 0 the superclass alone.
    Raises ValueError if null does not fit cond, or if channels exceeds C.
    """
    both = torch.cat([cond, like(null, cond)])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        C = x.shape[1]
        guide = C if channels is None else channels
        if not 0 < guide <= C:
            raise ValueError(f"guidance on {guide} channels of latents that have {C}")
        yes, no = model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)     # (B, C or 2C, H, W)
        guided = no[:, :guide] + scale * (yes[:, :guide] - no[:, :guide])
        return torch.cat([guided, yes[:, guide:]], dim=1)

    return denoise
