"""A small residual classifier: its last features are the space of the default metrics.

    image (B, 3, S, S) -> features (B, 64) -> logits (B, classes)

Pixels are in [-1, 1]. Features of such a low dimension suit few images: a few hundred samples give the covariance of 64
numbers, and not that of Inception's 2048.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from border import checked
from weights.formats import safe


class Residual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))); the side halves where the width grows."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.halve = nn.Conv2d(channels, out, 2, stride=2) if channels != out else nn.Identity()
        self.conv1, self.norm1 = nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(8, out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, padding=1), nn.GroupNorm(8, out)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, channels, H, W) -> (B, out, H, W), or half of H and W."""
        x = self.halve(x)
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Features(nn.Module):
    """Eight residual blocks over four sizes. GroupNorm keeps a prediction independent of its batch."""

    def __init__(self, num_classes: int, side: int = 64, widths: tuple[int, ...] = (24, 48, 96, 128), dim: int = 64):
        super().__init__()
        self.config = {"num_classes": num_classes, "side": side, "widths": list(widths), "dim": dim}
        self.stem = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        pairs = [pair for i, w in enumerate(widths) for pair in ((widths[max(i - 1, 0)], w), (w, w))]
        self.blocks = nn.Sequential(*(Residual(a, b) for a, b in pairs))
        self.project = nn.Linear(widths[-1], dim)
        self.head = nn.Linear(dim, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """x (B, 3, S, S) in [-1, 1] -> (B, dim)."""
        x = self.blocks(F.relu(self.stem(x)))  # (B, widths[-1], S/16, S/16)
        return self.project(x.mean((2, 3)))  # (B, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, S, S) in [-1, 1] -> logits (B, classes)."""
        return self.head(F.relu(self.features(x)))


@torch.no_grad()
def embed(network: Features, x: Tensor, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Images (N, 3, S, S) in [-1, 1] -> features (N, dim) of length sqrt(dim), logits (N, classes), in batches.

    Features are compared by direction, since their length is the certainty of the classifier. Images of another side
    than the network's are resized to it, antialiased.
    """
    side = network.config["side"]
    if x.shape[-1] != side:
        x = F.interpolate(x, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
    features = torch.cat([network.features(part) for part in x.split(batch)])
    return F.normalize(features) * features.shape[1] ** 0.5, network.head(F.relu(features))


def to_bytes(network: Features, classes: list[str], data: str) -> bytes:
    """The bytes of a safetensors file. The header holds the config, the names of the outputs and the training data."""
    graft = {"kind": "features", "config": network.config, "classes": classes, "card": {"data": data}}
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return save(tensors, {"format": "pt", "graft": json.dumps(graft)})


def load_classifier(path: str | Path) -> tuple[Features, list[str]]:
    """A file of `to_bytes` -> the network, in eval mode and float32, and the names of its outputs.

    Raises ValueError for a path without a file and for a file of another kind.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; expected a feature network such as weights/tiny-features")
    tensors, metadata = safe.read(path)
    graft = safe.graft_header(metadata, path)
    if graft.get("kind") != "features":
        found = graft.get("kind", "no header")
        raise ValueError(f"{path}: expected a feature network of this package, found {found}")
    config = checked(graft.get("config"), dict[str, int | list[int]], f"{path}: config in its header", 1, 100_000)
    classes = checked(graft.get("classes"), list[str], f"{path}: classes in its header")
    try:
        network = Features(**config)
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"{path}: its tensors do not fit the config in its header: {error}") from None
    return network.eval(), classes
