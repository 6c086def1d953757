"""A ControlNet for DiT: trained copies of its first blocks read an image too and add to what the frozen blocks read.

The ControlNet-Transformer of PixArt-delta (Chen et al. 2024, arXiv 2401.05252). With z the latent of the image (the
hint), as large as x, and patches(.) those of the frozen DiT, positions added:

    x_1     = block_0(patches(x))
    h_0     = x_1 + before(patches(z))                  before and every after_i a Linear, 0 at the start
    h_i     = copy_{i-1}(h_{i-1})                       i = 1 .. N
    x_{i+1} = block_i(x_i + after_i(h_i))               block_i alone, without h_i, for i > N

Of several such branches, each with an image z_k and a strength s_k, the second to last line is
x_{i+1} = block_i(x_i + sum_k s_k after_ki(h_ki)).

The copies and the N + 1 Linears train, 329,362,560 numbers in DiT-XL/2 with N = 13, and a new branch changes nothing.
The copy of block 0 reads the output of block 0, as in the published model.
"""

from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor, nn

from dit.model import DiT


class ControlBranch(nn.Module):
    """The trained part: N copied blocks, the Linear `before` the first of them, and one Linear `after` each."""

    def __init__(self, base: DiT, copies: int):
        super().__init__()
        width, like = base.config.width, base.x_embedder.proj.weight
        self.blocks = deepcopy(base.blocks[:copies]).requires_grad_(True)
        self.before = nn.Linear(width, width).to(like)
        self.after = nn.ModuleList(nn.Linear(width, width) for _ in range(copies)).to(like)
        for layer in (self.before, *self.after):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


class ControlledDiT(DiT):
    """A DiT, its parts under their own names, with the control branch `control`, which alone trains and is saved.

    copies: N, by default half of the depth, as the encoder is half of a UNet, and at most the paper's 13 (of 28).
    Raises ValueError unless 0 < copies < depth.
    """

    def __init__(self, base: DiT, copies: int | None = None):
        nn.Module.__init__(self)  # not DiT's, which would make new weights: the parts of the base are taken over
        depth = base.config.depth
        copies = min(13, depth // 2) if copies is None else copies
        if not 0 < copies < depth:
            raise ValueError(f"copies must lie in 1..{depth - 1} for a DiT of {depth} blocks, found {copies}")
        plain = {name: value for name, value in vars(base).items() if not name.startswith("_")}
        for name, value in [*plain.items(), ("pos_embed", base.pos_embed), *base.named_children()]:
            setattr(self, name, value)
        self.control = ControlBranch(base, copies)
        self.others, self.strengths = nn.ModuleList(), [1.0]

    def with_others(self, others: Sequence["ControlledDiT"], strengths: Sequence[float]) -> "ControlledDiT":
        """Itself, with the branches of others on the same base too; strengths: of its own and of each of these."""
        self.others, self.strengths = nn.ModuleList(other.control for other in others), list(strengths)
        return self

    def forward(self, x: Tensor, t: Tensor, y: Tensor, hint: Tensor | None = None, strength: float = 1.0) -> Tensor:
        """x, t and y as for DiT, hint (b, k C, H, W) the scaled latents of k images -> (B, C or 2C, H, W).

        k is 1, or the number of branches. Guidance stacks a batch of b samples, B = n b: each part has the same hints.
        strength: of the control, 1 as trained. Without a hint the output is the DiT's. Raises ValueError for an x or
        hint of another shape.
        """
        if hint is None:
            return super().forward(x, t, y)
        branches = [self.control, *self.others]
        hint = hint.repeat(len(x) // len(hint) or 1, 1, 1, 1)  # (B, k C, H, W)
        C, *side = self.latent_shape
        shapes = (len(x), C, *side), (len(x), C * len(branches), *side)
        if (x.shape, hint.shape) != shapes:
            raise ValueError(
                f"x and hint must be {shapes[0]} and {shapes[1]}, found {tuple(x.shape)} and {tuple(hint.shape)}"
            )
        c = self.t_embedder(t, x.dtype) + self.y_embedder(y)  # (B, D)
        first, *blocks = self.blocks
        x = first(self.x_embedder(x) + self.pos_embed, c)  # (B, T, D)
        h = [x + branch.before(self.x_embedder(z) + self.pos_embed) for branch, z in zip(branches, hint.split(C, 1))]
        for i, block in enumerate(blocks):
            added = x
            for k, (branch, s) in enumerate(zip(branches, self.strengths)):
                if i < len(branch.blocks):
                    h[k] = branch.blocks[i](h[k], c)  # (B, T, D)
                    added = added + strength * s * branch.after[i](h[k])
            x = block(added, c)  # (B, T, D)
        return self.unpatchify(x, c)
