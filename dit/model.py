"""DiT: a transformer over the patches of a noisy latent, conditioned on timestep and class through adaLN-Zero.

Peebles and Xie 2023, "Scalable Diffusion Models with Transformers", arXiv 2212.09748. Parameter names are the official
ones (facebookresearch/DiT), so its checkpoints load without a rename.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from dit.block import Block, FinalLayer
from dit.embed import LabelEmbedder, PatchEmbed, TimestepEmbedder, position_table

_SHAPES = {  # letter: depth, width, heads. S..XL: the paper's table 1
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
SIZES = {
    f"DiT-{letter}/{patch}": dict(depth=depth, width=width, heads=heads, patch=patch)
    for letter, (depth, width, heads) in _SHAPES.items()
    for patch in (2, 4, 8)
} | {f"DiT-T/{patch}": dict(depth=8, width=192, heads=6, patch=patch) for patch in (1, 2)}  # T: this package's own


@dataclass(frozen=True)
class DiTConfig:
    """The shape of a DiT. Raises ValueError for a width or a side that its parts do not divide."""

    depth: int  # number of blocks
    width: int  # D
    heads: int  # N; K = D / N
    patch: int  # side of a patch, in latent pixels
    input_size: int  # side of the latent
    in_channels: int = 4  # channels of the latent
    num_classes: int = 1000  # rows of the class table: classes and superclasses, without the null row
    class_dropout: float = 0.1  # share of labels that training replaces by null; 0: the class table has no null row
    mlp_ratio: float = 4.0  # hidden width of the MLP over D
    learn_sigma: bool = True  # whether the output also has a variance value for each latent channel

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.input_size % self.patch:
            raise ValueError(f"input size {self.input_size} is not a multiple of patch {self.patch}")


class DiT(nn.Module):
    """out = final(blocks(patches(x) + pos, c), c),  c = mlp(sinusoid(t)) + row(y)."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        # not part of the function; the model's file and its training set these
        self.classes: list[str] | None = None  # names of the rows of the class table
        self.parents: dict[str, str] = {}  # class -> superclass
        self.noise_schedule = "fixed"  # see sampling/progressive.py
        self.objective = "diffusion"  # or "flow", see sampling/flow.py
        grid = config.input_size // config.patch
        self.x_embedder = PatchEmbed(config.in_channels, config.width, config.patch)
        self.t_embedder = TimestepEmbedder(config.width)
        self.y_embedder = LabelEmbedder(config.num_classes + (config.class_dropout > 0), config.width)
        # a Parameter that never trains, because official checkpoints hold it
        self.pos_embed = nn.Parameter(torch.zeros(1, grid**2, config.width), requires_grad=False)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.width, config.patch, config.in_channels * (1 + config.learn_sigma))
        if not self.pos_embed.is_meta:
            initialise(self)

    @classmethod
    def from_name(cls, name: str, image_size: int = 256, num_classes: int = 1000, **fields) -> "DiT":
        """A new DiT of one of the SIZES. The latent's side is image_size / 8 (the official VAE), or `input_size`.

        fields: any other field of DiTConfig. Raises ValueError for an unknown name or an image size that does not fit.
        """
        if name not in SIZES:
            raise ValueError(f"unknown size {name!r}, the sizes are {', '.join(SIZES)}")
        if "input_size" not in fields:
            if image_size % 8:
                raise ValueError(f"image size {image_size} is not a multiple of 8, the VAE's reduction")
            fields = fields | {"input_size": image_size // 8}
        return cls(DiTConfig(**SIZES[name] | {"num_classes": num_classes} | fields))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a latent."""
        return self.config.in_channels, self.config.input_size, self.config.input_size

    @property
    def null(self) -> int:
        """The id of the null class, the last row of the class table. Raises ValueError if the table has none."""
        if not self.config.class_dropout:
            raise ValueError(f"class_dropout is 0: the class table has {self.config.num_classes} rows and no null row")
        return self.config.num_classes

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x (B, C, H, W), t (B,) steps of the 1000-step chain, y (B,) class ids -> (B, C or 2C, H, W).

        The first C channels are the prediction (epsilon), the next C, with learn_sigma, the variance value. What a flow
        hears and answers instead: sampling/flow.py.
        """
        side = self.config.input_size
        if x.shape[1:] != (self.config.in_channels, side, side):
            raise ValueError(f"x must be (B, {self.config.in_channels}, {side}, {side}), found {tuple(x.shape)}")
        x = self.x_embedder(x) + self.pos_embed  # (B, T, D)
        c = self.t_embedder(t, x.dtype) + self.y_embedder(y)  # (B, D)
        for block in self.blocks:
            x = block(x, c)  # (B, T, D)
        return self.unpatchify(x, c)

    def unpatchify(self, x: Tensor, c: Tensor) -> Tensor:
        """The last block's tokens x (B, T, D) and c (B, D) -> the output (B, C or 2C, H, W), a patch a token."""
        p, side = self.config.patch, self.config.input_size // self.config.patch
        return rearrange(self.final_layer(x, c), "b (h w) (p q c) -> b c (h p) (w q)", h=side, w=side, p=p, q=p)

    def forward_with_cfg(
        self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: float, channels: int | None = 3, *hint: Tensor
    ) -> Tensor:
        """null + s (cond - null) on the first output channels, the rest as computed: the official code's guidance.

        x (2B, C, H, W) holds the same batch twice, and only its first half is read; t (2B,); y (2B,) = [labels; null].
        Returns both halves (2B, C or 2C, H, W), their guided channels equal. channels: guided ones; 3 is the official
        code's, which leaves the fourth latent channel of the first half conditional; None guides all C. hint: that of a
        ControlledDiT. Raises ValueError for an odd number of samples.
        """
        if len(x) % 2:
            raise ValueError(f"x must hold the batch twice, found an odd number of samples, {len(x)}")
        half = x[: len(x) // 2]
        out = self(torch.cat([half, half]), t, y, *hint)  # (2B, C or 2C, H, W)
        first, rest = out.tensor_split([self.config.in_channels if channels is None else channels], dim=1)
        cond, null = first.chunk(2)  # (B, channels, H, W) each
        guided = null + cfg_scale * (cond - null)
        return torch.cat([torch.cat([guided, guided]), rest], dim=1)


def initialise(model: DiT) -> None:
    """The official initialisation: Xavier-uniform Linears and patches, N(0, 0.02) embedders, zeros for adaLN-Zero.

    Zero modulation makes every block the identity, and a zero final Linear makes the output exactly 0.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    patches = model.x_embedder.proj
    nn.init.xavier_uniform_(patches.weight.data.flatten(1))  # a convolution over patches is a Linear
    nn.init.zeros_(patches.bias)
    for layer in (model.y_embedder.embedding_table, model.t_embedder.mlp[0], model.t_embedder.mlp[2]):
        nn.init.normal_(layer.weight, std=0.02)
    zeros = [block.adaLN_modulation[1] for block in model.blocks]
    for layer in (*zeros, model.final_layer.adaLN_modulation[1], model.final_layer.linear):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    grid = model.config.input_size // model.config.patch
    with torch.no_grad():
        model.pos_embed.copy_(position_table(model.config.width, grid, grid))
