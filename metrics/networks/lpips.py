"""LPIPS, the perceptual distance of two images (Zhang et al. 2018, arXiv 1801.03924).

    d(x, y) = sum_k mean_hw sum_c w_kc (f_kc(x) - f_kc(y))^2

f_k are five layers of an ImageNet classifier, VGG16 or AlexNet, after their ReLU, each position scaled to length 1 over
the channels. The weights w_k >= 0 were fitted to the judgement of people (version 0.1). So d is the squared Euclidean
distance of vectors sqrt(w_kc / (H_k W_k)) f_kc: the distances of all pairs need each image in the network once.

Two files: the linear weights, `vgg.pth` or `alex.pth`, and beside them torchvision's classifier, `vgg16*.pth` or
`alexnet*.pth`; or one file with both. Images are compared at their own size.
"""

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from metrics.networks.build import build_network
from weights.formats.files import read
from weights.formats.published import resolve
from weights.layouts.exchange import Layout

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SIGN = "lin0.model.1.weight"
COLUMNS = 2**16  # of the vectors, in float64 at a time
# an int is a 3x3 convolution with so many channels, a tuple (channels, kernel, stride, padding); a tap is no layer
TRUNKS = {
    "vgg": (64, 64, "tap", "pool", 128, 128, "tap", "pool", 256, 256, 256, "tap", "pool")
    + (512, 512, 512, "tap", "pool", 512, 512, 512, "tap"),
    "alex": ((64, 11, 4, 2), "tap", "pool", (192, 5, 1, 2), "tap", "pool", 384, "tap", 256, "tap", 256, "tap"),
}
POOLS = {"vgg": 2, "alex": 3}  # kernel, of stride 2
FILES = {"vgg": "vgg16", "alex": "alexnet"}  # torchvision's file names begin so; names in weights/formats/published.py
LAYOUT = Layout(
    "LPIPS network", lambda size: [(r"^lins\.(\d)", r"lin\1.model.1.weight")], r"^(classifier|lins|scaling_layer)\."
)


class LPIPS(nn.Module):
    """d(x, y) = || embed(x) - embed(y) ||^2. trunk: "vgg" or "alex"."""

    def __init__(self, trunk: str):
        super().__init__()
        layers, widths, self.taps, channels = [], [], [], 3
        for row in TRUNKS[trunk]:
            if row == "tap":
                self.taps.append(len(layers) - 1)
                widths.append(channels)
            elif row == "pool":
                layers.append(nn.MaxPool2d(POOLS[trunk], 2))
            else:
                out, *shape = (row, 3, 1, 1) if isinstance(row, int) else row
                layers += [nn.Conv2d(channels, out, *shape), nn.ReLU()]
                channels = out
        self.features = nn.Sequential(*layers)
        self.lins = nn.ParameterList(torch.ones(1, width, 1, 1) for width in widths)

    def embed(self, x: Tensor) -> Tensor:
        """x (N, 3, H, W) in [-1, 1] -> (N, D). D grows with H W: VGG has 0.5 million at 64 px, 8 million at 256."""
        shift, scale = (x.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))  # (3, 1, 1)
        x, lins, parts = (x - shift) / scale, iter(self.lins), []
        for i, layer in enumerate(self.features):
            x = layer(x)  # (N, C_k, H_k, W_k)
            if i in self.taps:
                f = x / (x.norm(dim=1, keepdim=True) + 1e-10)
                parts.append((f * (next(lins) / f[0, 0].numel()).sqrt()).flatten(1))
        return torch.cat(parts, 1)  # (N, D)


def distance(network: LPIPS, x: Tensor, y: Tensor) -> Tensor:
    """d of x (N, 3, H, W) and y (N, 3, H, W) in [-1, 1], each image with one -> (N,)."""
    with torch.no_grad():
        return (network.embed(x) - network.embed(y)).square().sum(1)


def pairwise(network: LPIPS, x: Tensor, y: Tensor | None = None, batch: int = 16) -> Tensor:
    """d of all pairs of x (N, 3, H, W) and y (M, 3, H, W), or of x with itself -> (N, M), float64.

    All vectors are in memory: 2 MB an image at 64 px, 34 MB at 256 px (VGG). Differences of large sums lose digits, so
    they are taken in float64, where equal images have a distance below 1e-12.
    """
    with torch.no_grad():
        a = torch.cat([network.embed(part) for part in x.split(batch)])
        b = a if y is None else torch.cat([network.embed(part) for part in y.split(batch)])
        total = a.new_zeros(len(a), len(b), dtype=torch.float64)
        for p, q in zip(a.split(COLUMNS, 1), b.split(COLUMNS, 1)):
            p, q = p.double(), q.double()
            total += p.square().sum(1)[:, None] + q.square().sum(1) - 2 * p @ q.T
    return total.clamp(min=0)


def load_lpips(path: str | Path) -> LPIPS:
    """The network of a file with linear weights and the classifier beside it, or of one file with both.

    path: a file or a downloaded name ("lpips-vgg"). Raises ValueError for other files and without the classifier.
    """
    path = resolve(path)
    tensors, _ = read(path)
    trunk = {128: "vgg", 192: "alex"}.get(tensors["lin1.model.1.weight"].shape[1] if SIGN in tensors else None)
    if trunk is None:
        what = "squeezenet or another trunk" if SIGN in tensors else f"{len(tensors)} tensors ({next(iter(tensors))})"
        raise ValueError(f"{path}: expected the linear weights of LPIPS on VGG16 or AlexNet, found {what}")
    tensors = {re.sub(r"^net\.slice\d\.", "features.", name): tensor for name, tensor in tensors.items()}
    if not any(name.startswith("features.") for name in tensors):
        tensors = read(beside(path, trunk))[0] | tensors
    network = build_network(lambda: LPIPS(trunk), tensors, LAYOUT, path)
    if any((weight < 0).any() for weight in network.lins):
        raise ValueError(f"{path}: expected weights of 0 or more, found negative ones")
    return network


def beside(path: Path, trunk: str) -> Path:
    """The file of the classifier in the folder of the linear weights. ValueError if there is none."""
    name = FILES[trunk]
    files = sorted(file for file in path.parent.glob(f"{name}*") if file.suffix in (".pth", ".pt", ".safetensors"))
    if not files:
        raise ValueError(
            f"{path}: expected the classifier that these weights are for beside it, found no {name}*.pth; "
            f"`python -m weights.download {name}` fetches it"
        )
    return files[0]
