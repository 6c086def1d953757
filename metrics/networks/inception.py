"""The Inception network of FID (Szegedy et al. 2016, arXiv 1512.00567; Heusel et al. 2017, arXiv 1706.08500).

    image (N, 3, S, S) in [-1, 1] -> bilinear to 299 px, without antialiasing -> 64, 192, 768 or 2048 features
    logits = W features_2048         1008 of them, without their bias, as TensorFlow's Inception Score takes them

It differs from torchvision's: average pools do not count the padding, the last block pools by maximum, there is no
auxiliary head, and pixels are scaled to [-1, 1] only. Features of every depth are means over the image. The weights are
a conversion of TensorFlow's file of 2015-12-05. TensorFlow's own resizing differs slightly, and so do implementations
that antialias (clean-fid): do not mix their numbers.
"""

from functools import partial, reduce
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metrics.networks.build import build_network
from weights.layouts.exchange import Layout
from weights.layouts.renames import same

LAYOUT = Layout("FID Inception", same, r"\.num_batches_tracked$")
SIGN = "Mixed_5b.branch1x1.conv.weight"
SIDE = 299
POOLS = {
    "halve": partial(F.max_pool2d, kernel_size=3, stride=2),
    "max": partial(F.max_pool2d, kernel_size=3, stride=1, padding=1),
    "mean": partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False),
}

# A unit is (name, channels, kernel, stride, padding), by default of stride 1 and padded to keep the size. A block is
# (name, chains), a chain is a list of steps, a step is a unit, a block, a pool or a tuple of two units. The outputs of
# the chains of a block, and of the units of a tuple, are concatenated.


def mixed_5(pool: int) -> list:
    """Chains of a block at 35 x 35; pool: channels of the chain that pools."""
    return [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
        ["mean", ("branch_pool", pool, 1)],
    ]


MIXED_6A = [
    [("branch3x3", 384, 3, 2, 0)],
    [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2, 0)],
    ["halve"],
]


def mixed_6(inside: int) -> list:
    """Chains of a block at 17 x 17; inside: channels between its convolutions."""
    return [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", inside, 1), ("branch7x7_2", inside, (1, 7)), ("branch7x7_3", 192, (7, 1))],
        [
            ("branch7x7dbl_1", inside, 1),
            ("branch7x7dbl_2", inside, (7, 1)),
            ("branch7x7dbl_3", inside, (1, 7)),
            ("branch7x7dbl_4", inside, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        ],
        ["mean", ("branch_pool", 192, 1)],
    ]


MIXED_7A = [
    [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2, 0)],
    [
        ("branch7x7x3_1", 192, 1),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, 3, 2, 0),
    ],
    ["halve"],
]


def mixed_7(pool: str) -> list:
    """Chains of a block at 8 x 8; pool: "mean" or "max"."""
    return [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))],
        [
            ("branch3x3dbl_1", 448, 1),
            ("branch3x3dbl_2", 384, 3),
            (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
        ],
        [pool, ("branch_pool", 192, 1)],
    ]


NETWORK = [
    ("Conv2d_1a_3x3", 32, 3, 2, 0),
    ("Conv2d_2a_3x3", 32, 3, 1, 0),
    ("Conv2d_2b_3x3", 64, 3),
    "halve",
    ("Conv2d_3b_1x1", 80, 1),
    ("Conv2d_4a_3x3", 192, 3, 1, 0),
    "halve",
    ("Mixed_5b", mixed_5(32)),
    ("Mixed_5c", mixed_5(64)),
    ("Mixed_5d", mixed_5(64)),
    ("Mixed_6a", MIXED_6A),
    ("Mixed_6b", mixed_6(128)),
    ("Mixed_6c", mixed_6(160)),
    ("Mixed_6d", mixed_6(160)),
    ("Mixed_6e", mixed_6(192)),
    ("Mixed_7a", MIXED_7A),
    ("Mixed_7b", mixed_7("mean")),
    ("Mixed_7c", mixed_7("max")),
]


class Norm(nn.Module):
    """weight (x - mean) / sqrt(var + 0.001) + bias, mean and variance from the training."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-3)


class Unit(nn.Module):
    """relu(norm(conv(x)))."""

    def __init__(
        self, channels: int, out: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | str = "same"
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = Norm(out)
        self.out = out

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """cat over the chains of step_n(... step_2(step_1(x))). Modules have the names of the table."""

    def __init__(self, channels: int, chains: list):
        super().__init__()
        self.chains = chains
        self.out = sum(self.build(channels, chain) for chain in chains)

    def build(self, channels: int, chain: list) -> int:
        """Adds the modules of one chain for an input of so many channels -> the channels of its output."""
        for step in chain:
            if isinstance(step, str):
                continue
            for name, what, *shape in together(step):
                block = isinstance(what, list)
                self.add_module(name, Branches(channels, what) if block else Unit(channels, what, *shape))
            channels = sum(self.get_submodule(name).out for name, *_ in together(step))
        return channels

    def step(self, step: str | tuple, x: Tensor) -> Tensor:
        """One step of a chain: x (N, C, H, W) -> (N, C', H', W')."""
        if isinstance(step, str):
            return POOLS[step](x)
        return torch.cat([self.get_submodule(name)(x) for name, *_ in together(step)], 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, out, H', W')."""
        return torch.cat([reduce(lambda x, step: self.step(step, x), chain, x) for chain in self.chains], 1)


def together(step: tuple) -> tuple:
    """The units of a step, one or two."""
    return step if isinstance(step[0], tuple) else (step,)


class Inception(Branches):
    """image -> features, features -> logits = W features."""

    def __init__(self):
        super().__init__(3, [NETWORK])
        self.fc = nn.Linear(self.out, 1008)

    def taps(self, x: Tensor) -> dict[int, Tensor]:
        """x (N, 3, S, S) in [-1, 1] -> {C: the last map (N, C, H, W)}; 64, 192, 768 and 2048 are published."""
        x, maps = resized(x), {}
        for step in NETWORK:
            x = self.step(step, x)
            maps[x.shape[1]] = x
        return maps

    def features(self, x: Tensor, tap: int = 2048) -> Tensor:
        """x (N, 3, S, S) in [-1, 1] -> means over the map of `tap` channels (N, tap)."""
        return self.taps(x)[tap].mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 3, S, S) in [-1, 1] -> logits (N, 1008)."""
        return F.linear(self.features(x), self.fc.weight)


def resized(x: Tensor) -> Tensor:
    """x (N, 3, S, S) -> (N, 3, 299, 299), bilinear without antialiasing."""
    return F.interpolate(x, (SIDE, SIDE), mode="bilinear")


def build(tensors: dict[str, Tensor], source: str | Path) -> Inception:
    """The network of a published file's tensors. ValueError for tensors of another network."""
    return build_network(Inception, tensors, LAYOUT, source)
