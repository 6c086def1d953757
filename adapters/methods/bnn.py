"""BNN fine-tuning: weights become Gaussian variables (Wu et al. 2024, arXiv 2405.19931).

    theta = mu + sigma eps,   eps ~ N(0, 1)                 mu is the layer's own parameter, sigma = 0.01 at the start
    loss + kl * KL(N(mu, sigma^2) || N(mu_0, sigma_0^2))    mu_0 and sigma_0 are those of the start

mu and sigma train, one of each for every entry. In training mode a forward draws eps anew, once for its whole batch:
the noise widens what is learned from a few images, too narrow without it (the paper's corruption stage). In eval mode
theta is mu, at no cost, and merging drops sigma. `parts` says what is Gaussian:

    linear      the Linears of all blocks but for cross-attention and adaLN, as in the paper's DreamBooth script
    norm        weight and bias of every norm; DiT's get theirs first, as in adapters/methods/in_place/norm.py
    crossattn   the Linears of the cross-attentions
    lora, oft   B of a `lora`, M of an `oft` that was attached before: `lora:rank=4`, then `bnn:parts=lora`

As in the published code sigma is stored as it is, not as its logarithm, read as at least 1e-7, and under the weight
decay of all that trains. That code's scripts have kl = 0, and its KL is the other one, `direction=reverse`.
"""

import math
from typing import NamedTuple

import torch
from torch import nn

from adapters.core import match, specialize
from adapters.methods.in_place.norm import add_affine
from adapters.methods.low_rank.lora import LoRA
from adapters.methods.oft import OFT

SMALLEST = 1e-7  # sigma


class Prior(NamedTuple):
    """P = N(mu_0, sigma^2), to which the loss draws a layer: kl times KL(Q || P), or KL(P || Q) if `reverse`."""

    sigma: float
    kl: float
    reverse: bool


class Gaussian:
    """y = layer(x) with theta = mu + sigma eps in place of the parameters that `gaussian` names. Merges to mu."""

    gaussian = ("weight", "bias")
    added = ("weight_sigma", "weight_prior", "bias_sigma", "bias_prior", "bnn_prior")

    def setup(self, prior: Prior) -> None:
        self.bnn_prior = prior
        for name in self.gaussian:
            mean, sigma, start = getattr(self, name), None, None
            if mean is not None:
                mean.requires_grad_(True)
                sigma = nn.Parameter(torch.full_like(mean, prior.sigma))
                # mu_0 in a resumed run too: its state is loaded after this. In no file, for the base has it
                start = mean.detach().clone() if prior.kl else None
            self.register_parameter(f"{name}_sigma", sigma)
            self.register_buffer(f"{name}_prior", start, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer."""
        if not self.training:
            return super().forward(x)
        thetas = {name: self.theta(name) for name in self.names()}
        try:
            self.__dict__.update(thetas)  # an attribute hides the parameter of its name from all that runs underneath
            return super().forward(x)
        finally:
            for name in thetas:
                del self.__dict__[name]

    def theta(self, name: str) -> torch.Tensor:
        """mu + sigma eps, of mu's shape."""
        mean = getattr(self, name)
        return mean + self.sigma(name) * torch.randn_like(mean)

    def sigma(self, name: str) -> torch.Tensor:
        """sigma, at least SMALLEST, of mu's shape."""
        return getattr(self, f"{name}_sigma").clamp(min=SMALLEST)

    def names(self) -> list[str]:
        """`gaussian` without what the layer lacks, such as a bias."""
        return [name for name in self.gaussian if getattr(self, name) is not None]

    def auxiliary_loss(self) -> tuple[str, torch.Tensor]:
        """("kl", kl times the divergence of all entries), 0 without kl."""
        total = getattr(self, self.gaussian[0]).new_zeros(())
        for name in self.names() if self.bnn_prior.kl else []:
            q = getattr(self, name), self.sigma(name)
            p = getattr(self, f"{name}_prior"), self.bnn_prior.sigma
            total = total + (divergence(*p, *q) if self.bnn_prior.reverse else divergence(*q, *p))
        return "kl", self.bnn_prior.kl * total

    def merge(self) -> None:
        """mu is in its place already."""


class GaussianLoRA(Gaussian):
    """y = W x + b + s (B + sigma eps) A x. Only B is Gaussian, and its mu_0 is 0."""

    gaussian = ("lora_up",)
    added = ("lora_up_sigma", "lora_up_prior", "bnn_prior")


class GaussianOFT(Gaussian):
    """y = W R^T x + b with the R of M + sigma eps, orthogonal for every draw. mu_0 is 0."""

    gaussian = ("oft_m",)
    added = ("oft_m_sigma", "oft_m_prior", "bnn_prior")


PARTS = {  # name: (mixin, what it goes onto, the regex that names those)
    "linear": (Gaussian, nn.Linear, r"^(?!.*(attn2|adaLN)).*\b(attentions|blocks|layers)\.\d"),
    "norm": (Gaussian, (nn.LayerNorm, nn.GroupNorm), ""),
    "crossattn": (Gaussian, nn.Linear, r"\battn2\.to_\w+(\.0)?$"),
    "lora": (GaussianLoRA, LoRA, ""),
    "oft": (GaussianOFT, OFT, ""),
}


def bnn(
    model: nn.Module,
    generator: torch.Generator | None,
    *,
    parts: str = "linear",
    targets: str | None = None,
    sigma: float = 0.01,
    kl: float = 0.0,
    direction: str = "forward",
) -> None:
    """Gaussian weights in the layers that `parts` names, or in those of its kind whose name the regex `targets` finds.

    sigma: at the start, and of the prior. kl: weight of the KL, which is a sum over all entries; direction: forward is
    KL(Q || P), reverse KL(P || Q), with P the prior. Raises ValueError for options out of range, no such layer, and a
    layer with Gaussian weights already.
    """
    if parts not in PARTS or direction not in ("forward", "reverse"):
        known = f"parts is one of {', '.join(PARTS)} and direction forward or reverse"
        raise ValueError(f"{known}, found {parts!r} and {direction!r}")
    if not SMALLEST <= sigma < math.inf or not 0 <= kl < math.inf:
        raise ValueError(f"needs a finite sigma >= {SMALLEST} and a finite kl >= 0, found sigma {sigma}, kl {kl}")
    mixin, kinds, pattern = PARTS[parts]
    if mixin is not Gaussian and not any(isinstance(layer, kinds) for layer in model.modules()):
        raise ValueError(f"parts={parts} draws what {parts} has added: attach {parts} before it")
    for name, layer in match(model, pattern if targets is None else targets, kinds):
        if isinstance(layer, Gaussian):
            raise ValueError(f"{name} has Gaussian weights already: {', '.join(layer.names())}")
        if isinstance(layer, nn.LayerNorm):
            add_affine(layer, next(model.parameters()))
        specialize(layer, mixin, prior=Prior(sigma, kl, direction == "reverse"))


def divergence(
    mean: torch.Tensor, sigma: torch.Tensor | float, mean_p: torch.Tensor, sigma_p: torch.Tensor | float
) -> torch.Tensor:
    """KL(N(mean, sigma^2) || N(mean_p, sigma_p^2)), in nats, summed over the entries."""
    ratio, gap = sigma / sigma_p, (mean - mean_p) / sigma_p
    return ((ratio**2 + gap**2 - 1) / 2 - torch.log(ratio)).sum()


def sampled(model: nn.Module) -> nn.Module:
    """From now on eval mode samples the Gaussian weights too. In place; ValueError if the model has none."""
    layers = [layer for layer in model.modules() if isinstance(layer, Gaussian)]
    if not layers:
        raise ValueError("sampled weights need an adapter of bnn, and none of this model's weights is Gaussian")
    for layer in layers:
        layer.train()
    return model
