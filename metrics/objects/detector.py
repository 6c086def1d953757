"""A small detector of one kind of object: one grid of cells, as YOLO's (Redmon et al. 2016, arXiv 1506.02640).

    image (B, 3, S, S) in [-1, 1] -> o, a, b, c, d of each cell of CELL pixels, (B, 5, S / CELL, S / CELL)

    p = sigmoid(o)                                                      an object's middle lies in this cell
    x = CELL (column + sigmoid(a)),  y = CELL (row + sigmoid(b))        its middle
    w = S sigmoid(c),  h = S sigmoid(d)                                 its sides

    L = sum over cells of BCE(p, is a middle here), per image  +  mean over objects of 1 - GIoU(box, truth)

Half of each batch shows objects, the other half none: badly written logos and bare cloth, without which a red box is
enough (De Man, sec. 4.2). Images are turned, zoomed, moved and lightened at random, and boxes are those of the mask,
which goes the same way.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from border import checked
from data.transforms import to_tensor
from metrics.objects.boxes import boxes_of, giou, iou
from metrics.objects.precision import Found
from weights.formats import safe

CELL = 8  # pixels
BATCH, LR = 32, 3e-3
APART = 0.5  # of two boxes with a larger IoU the surer one stays
LEAST = 0.01  # the least confidence of a detection


class Detector(nn.Module):
    """Nine convolutions, three of which halve the side."""

    def __init__(self, side: int = 64, width: int = 24) -> None:
        super().__init__()
        self.config = {"side": side, "width": width}
        widths = [(3, width, 2), (width, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1)]
        widths += [(2 * width, 4 * width, 2), *[(4 * width, 4 * width, 1)] * 3]
        self.body = nn.Sequential(
            *(
                layer
                for a, b, stride in widths
                for layer in (nn.Conv2d(a, b, 3, stride, 1), nn.GroupNorm(4, b), nn.ReLU())
            )
        )
        self.head = nn.Conv2d(4 * width, 5, 1)
        nn.init.constant_(self.head.bias[:1], -4.0)  # objects are rare

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, S, S) -> (B, 5, S / CELL, S / CELL)."""
        return self.head(self.body(x))


def boxes_in(out: Tensor) -> Tensor:
    """The network's output (B, 5, R, R) -> the box of each cell, (B, R, R, 4) in pixels."""
    rows = out.shape[-1]
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(rows), indexing="ij")
    a, b, c, d = out[:, 1:].sigmoid().unbind(1)  # (B, R, R) each
    x, y, half_w, half_h = CELL * (column + a), CELL * (row + b), CELL * rows * c / 2, CELL * rows * d / 2
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1)


def detection_loss(out: Tensor, truths: list[Tensor]) -> Tensor:
    """The module's L, of the network's output (B, 5, R, R) and the boxes (K, 4) of each image."""
    is_middle, boxes, overlap = torch.zeros_like(out[:, 0]), boxes_in(out), []
    for i, truth in enumerate(truths):
        if len(truth):
            column, row = ((truth[:, :2] + truth[:, 2:]) / 2 / CELL).long().clamp(0, out.shape[-1] - 1).unbind(1)
            is_middle[i, row, column] = 1
            overlap.append(giou(boxes[i, row, column], truth))
    loss = F.binary_cross_entropy_with_logits(out[:, 0], is_middle, reduction="sum") / len(out)
    return loss + (1 - torch.cat(overlap)).mean() if overlap else loss


def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images and masks as a fourth channel (B, 4, S, S): turned by up to 8 degrees, zoomed by 0.8 to 1.25, moved by up
    to an eighth of the side; the images' contrast times 0.7 to 1.4, and up to 0.2 lighter or darker."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(x), generator=generator)

    turn, zoom = uniform(-0.14, 0.14), 1.25 ** uniform(-1, 1)
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    theta = torch.stack([cos, -sin, uniform(-0.25, 0.25), sin, cos, uniform(-0.25, 0.25)], 1).view(-1, 2, 3)
    x = F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), padding_mode="border", align_corners=False)
    contrast, light = uniform(0.7, 1.4)[:, None, None, None], uniform(-0.2, 0.2)[:, None, None, None]
    return torch.cat([(contrast * x[:, :3] + light).clamp(-1, 1), x[:, 3:]], 1)


def train_detector(x: Tensor, masks: Tensor, without: Tensor, steps: int, seed: int = 0) -> Detector:
    """A detector from random weights, in eval mode. x (N, 3, S, S) in [-1, 1], masks (N, S, S), without (M, 3, S, S).

    `steps` steps of BATCH images by AdamW, whose rate rises to LR in a tenth of them and falls to 0, both along a
    cosine. Raises ValueError for no image of one of the two, and for images whose side is no multiple of CELL.
    """
    if not len(x) or not len(without) or x.shape[1:] != without.shape[1:] or x.shape[-1] % CELL:
        raise ValueError(
            f"a detector learns from images with and without the object, of one size, a multiple of {CELL} pixels, "
            f"found {tuple(x.shape)} and {tuple(without.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Detector(x.shape[-1])
    shown = torch.cat([x, masks[:, None].to(x)], 1)
    bare = torch.cat([without, torch.zeros_like(without[:, :1])], 1)
    optimizer = torch.optim.AdamW(network.parameters(), LR)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps, pct_start=0.1)
    for _ in range(steps):
        parts = [some[torch.randint(len(some), (BATCH // 2,), generator=generator)] for some in (shown, bare)]
        batch = moved(torch.cat(parts), generator)
        loss = detection_loss(network(batch[:, :3]), [boxes_of(mask) for mask in (batch[:, 3] > 0.5).numpy()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return network.eval()


@torch.no_grad()
def detect(network: Detector, x: Tensor) -> list[Found]:
    """Images (N, 3, H, W) in [-1, 1], brought to the network's side -> boxes there and confidences, the surest first.

    Of two boxes with more than APART in common the surer one stays.
    """
    side, found = network.config["side"], []
    if x.shape[-2:] != (side, side):
        x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
    for part in x.split(64):
        out = network(part)
        for p, boxes in zip(out[:, 0].sigmoid().flatten(1), boxes_in(out).flatten(1, 2)):
            order = p.argsort(descending=True)
            order = order[p[order] >= LEAST]
            overlap, kept = iou(boxes[order], boxes[order]), []
            for k in range(len(order)):
                if not any(overlap[k, j] > APART for j in kept):
                    kept.append(k)
            found.append((boxes[order[kept]], p[order[kept]]))
    return found


def confidences(network: Detector, images: np.ndarray) -> np.ndarray:
    """Images uint8 (N, H, W, 3) -> the best confidence in each, (N,); 0 where nothing is detected."""
    found = detect(network, to_tensor(images))
    return np.array([own[0].item() if len(own) else 0.0 for _, own in found])


def save_detector(network: Detector, path: str | Path, data: str) -> None:
    """Write a safetensors file. data: what it was trained on, for the header."""
    header = {"kind": "detector", "config": network.config, "card": {"data": data}}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), path, {"format": "pt", "graft": json.dumps(header)})


def load_detector(path: str | Path) -> Detector:
    """A file of `save_detector` -> the network, in eval mode. ValueError without it and for a file of another kind."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; python -m metrics.objects trains a detector")
    tensors, metadata = safe.read(path)
    header = safe.graft_header(metadata, path)
    if header.get("kind") != "detector":
        raise ValueError(f"{path}: expected a detector of this package, found {header.get('kind', 'no header')}")
    config = checked(header.get("config"), dict[str, int], f"{path}: config in its header", 1, 100_000)
    try:
        network = Detector(**config)
        network.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: its tensors do not fit the config in its header: {error}") from None
    return network.eval()
