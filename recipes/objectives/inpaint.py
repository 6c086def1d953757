"""Filling masks, the objective of DefectFill (Song et al. 2025, arXiv 2503.13985), of a model that reads masks.

Two passes see the same image, noise and step, with m the defect's mask in the latent and z(u) the latent of the image
without the mask u:

    L_defect = mean m (eps - eps_hat)^2                      eps_hat = model([x_t, m, z(m)], t, "a photo of sks")
    L_object = mean m'^2 (eps - eps_hat')^2                  eps_hat' = model([x_t, b, z(b)], t, "a hazelnut with sks")
    L_attention = mean (A - m)^2                             A: attention of the decoder's places to the word, in pass 1
    loss = 0.5 L_defect + 0.2 L_object + 0.05 L_attention

b is a union of random boxes, so that the model learns the whole product, and m' = m + outside (1 - m). A model of class
labels has no words: its two passes have the same label, and L_attention is left out.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from ops.random import offset_noise
from recipes.job import Batch, Loss
from sampling import Huber, NoisePath, diffusion_loss
from unet import VAE
from unet.attend import decoder_layers, recorded, word_attention
from unet.inpaint import hint_of, touched

BOXES, SIDES = 30, (0.03, 0.25)  # of b: how many, and their sides as shares of the image's


class Terms(NamedTuple):
    """Weights of the three terms, and m' outside of the mask."""

    defect: float = 0.5
    object: float = 0.2
    attention: float = 0.05
    outside: float = 0.3


def filling(
    model: nn.Module,
    vae: VAE,
    schedule: NoisePath,
    terms: Terms,
    word: list[int] | None = None,
    noise_offset: float = 0.0,
    min_snr: float = 0.0,
    huber: Huber | None = None,
) -> Loss:
    """loss(batch, generator, progress) of the module. word: token indices in "defect_cond"; None: no L_attention.

    The batch holds x0 (B, C, h, w) scaled latents, cond and defect_cond, pixels (B, 3, S, S) uint8, mask (B, 1, S, S).
    """

    def loss(batch: Batch, generator: Generator, progress: float) -> tuple[Tensor, dict]:
        x0, pixels, mask = batch["x0"], batch["pixels"].float() / 127.5 - 1, batch["mask"].float()
        t = schedule.random_times(len(x0), generator).to(x0.device)  # (B,)
        eps = offset_noise(x0, noise_offset, generator)
        x_t, shape, b = schedule.add_noise(x0, eps, t), x0.shape[-2:], random_boxes(mask.shape, generator).to(mask)
        m = touched(mask, shape)  # (B, 1, h, w)

        def error(out: Tensor, weight: Tensor) -> Tensor:
            return diffusion_loss(out, x0, eps, x_t, t, schedule, min_snr or None, weight, huber)[0]

        layers = decoder_layers(model.unet) if word else []
        with recorded(layers) as projections:
            out = model(x_t, schedule.told(t), batch["defect_cond"], hint=hint_of(vae, pixels, mask, shape))
        defect = error(out, m)
        out = model(x_t, schedule.told(t), batch["cond"], hint=hint_of(vae, pixels, b, shape))
        of_object = error(out, (m + terms.outside * (1 - m)) ** 2)
        total = terms.defect * defect + terms.object * of_object
        numbers = {"mse": defect.detach(), "object": of_object.detach()}
        if word:
            attention = ((word_attention(layers, projections, word, shape) - m) ** 2).mean()
            total, numbers["attention"] = total + terms.attention * attention, attention.detach()
        return total, numbers

    return loss


def random_boxes(shape: tuple[int, int, int, int], generator: Generator) -> Tensor:
    """b (B, 1, S, S) of 0 and 1: in each row a union of BOXES boxes with sides of SIDES, somewhere inside."""
    B, _, S, _ = shape
    b, (low, high) = torch.zeros(shape), SIDES
    sides = (S * (low + (high - low) * torch.rand(B, BOXES, 2, generator=generator))).round().clamp(min=1).long()
    corners = (torch.rand(B, BOXES, 2, generator=generator) * (S - sides + 1)).long()
    for row, boxes in enumerate(torch.cat([corners, corners + sides], 2).tolist()):
        for top, left, bottom, right in boxes:
            b[row, :, top:bottom, left:right] = 1
    return b
