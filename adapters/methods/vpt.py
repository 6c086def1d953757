"""Visual prompt tuning: a few learned tokens among those of the image (Jia et al. 2022, arXiv 2203.12119).

    deep      [_, x_{i+1}] = block_i([P_i, x_i])               every block its own P_i (n, D), its output dropped
    shallow   [x_{i+1}, p_{i+1}] = block_i([x_i, p_i])         p_0 = P (n, D), dropped after the last block

[a, b] is one sequence of tokens. Prompts have no positions, so their place in it does not matter, and adaLN modulates
them as it does the others. They start uniform in +-sqrt(6 / (3 p^2 + D)), p the side of a patch: Xavier's for patches
of three colours. Only they train.

From the first step on the tokens of the image attend to the prompts too, and no value of a prompt hides it from them.
So this method alone changes the output before training, and its file has no strength but 1. It does not merge.
"""

import math
import re

import torch
from torch import nn

from adapters.core import specialize


class DeepPrompts:
    """[_, y] = block([P, x]), y as long as x."""

    added = ("deep_prompts",)

    def setup(self, prompts: torch.Tensor) -> None:
        """prompts (n, D)."""
        self.deep_prompts = nn.Parameter(prompts)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """x (B, T, D), c (B, D) -> (B, T, D)."""
        prompts = self.deep_prompts.to(x.dtype).expand(len(x), -1, -1)  # (B, n, D)
        return super().forward(torch.cat([prompts, x], 1), c)[:, len(self.deep_prompts) :]


class ShallowPrompts:
    """block([x, P]), on the first block."""

    added = ("shallow_prompts",)

    def setup(self, prompts: torch.Tensor) -> None:
        """prompts (n, D)."""
        self.shallow_prompts = nn.Parameter(prompts)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """x (B, T, D), c (B, D) -> (B, T + n, D)."""
        prompts = self.shallow_prompts.to(x.dtype).expand(len(x), -1, -1)  # (B, n, D)
        return super().forward(torch.cat([x, prompts], 1), c)


class WithoutPrompts:
    """block(x) without its last n tokens, on the last block."""

    added = ("prompts_dropped",)

    def setup(self, tokens: int) -> None:
        self.prompts_dropped = tokens

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """x (B, T + n, D), c (B, D) -> (B, T, D)."""
        return super().forward(x, c)[:, : -self.prompts_dropped]


def vpt(model: nn.Module, generator: torch.Generator | None, *, tokens: int = 10, form: str = "deep") -> None:
    """So many prompts in each block of a DiT, or `form=shallow` before the first.

    Raises ValueError for tokens < 1, another form, or a model that is no DiT.
    """
    if tokens < 1 or form not in ("deep", "shallow"):
        raise ValueError(f"needs tokens >= 1 and form deep or shallow, found tokens {tokens}, form {form!r}")
    layers = dict(model.named_modules())
    blocks = [layer for name, layer in layers.items() if re.fullmatch(r"blocks\.\d+", name)]
    patches = layers.get("x_embedder.proj")
    if not blocks or patches is None:
        missing = f"prompts stand beside the tokens of a DiT's patches, and this {type(model).__name__} has none"
        raise ValueError(f"{missing}: a UNet's maps have no place beside their pixels, a text's new tokens are words")
    like = patches.weight  # (D, C, p, p)
    bound = math.sqrt(6 / (3 * like[0, 0].numel() + len(like)))

    def prompts() -> torch.Tensor:
        # sampled in float32 on the generator's device: one seed gives one adapter on every device and dtype
        uniform = torch.rand(tokens, len(like), generator=generator, device=generator.device if generator else "cpu")
        return (bound * (2 * uniform - 1)).to(like)

    if form == "shallow":
        specialize(blocks[0], ShallowPrompts, prompts=prompts())
        specialize(blocks[-1], WithoutPrompts, tokens=tokens)
        return
    for block in blocks:
        specialize(block, DeepPrompts, prompts=prompts())
