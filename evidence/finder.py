"""A small network that finds defects: image (B, 3, S, S) in [-1, 1] -> the logit of a defect at each pixel (B, S, S).

It has learned from generated photographs of the oracle split, half of them seen through the autoencoder, as samples
are. Its answers are judged beside those that it gives for real photographs of the test split.
"""

import torch
from recipes.latent import through
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import weights
from data import load
from data.transforms import Transform, to_tensor

BATCH, RARE = 32, 4.0  # images a step; weight of the loss at defects, which are few pixels


class Finder(nn.Module):
    """Two convolutions at each of three sizes, down and up again, what was seen on the way down added on the way up."""

    def __init__(self, width: int = 16):
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(twice(a, b) for a, b in zip([3, *widths], widths))
        self.up = nn.ModuleList(twice(b, a) for a, b in zip(widths, widths[1:]))
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x):
        seen = []
        for i, level in enumerate(self.down):
            x = level(x if i == 0 else F.max_pool2d(x, 2))
            seen.append(x)  # (B, width 2^i, S/2^i)
        for level, before in zip(reversed(self.up), reversed(seen[:-1])):
            x = level(F.interpolate(x, scale_factor=2)) + before
        return self.out(x)[:, 0]  # (B, S, S)


def twice(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, padding=1),
        nn.GroupNorm(4, b),
        nn.ReLU(),
        nn.Conv2d(b, b, 3, padding=1),
        nn.GroupNorm(4, b),
        nn.ReLU(),
    )


def trained(product: str, path, steps: int, count: int) -> Finder:
    """The finder for a product's defects: read from `path`, else trained on `count` images of a state."""
    torch.manual_seed(0)
    finder = Finder()
    if path.exists():
        finder.load_state_dict(load_file(path))
        return finder.eval()
    images = load(f"generated:{product}/oracle/{count}", Transform(64))
    vae = weights.load("tiny-vae", expect="vae", dtype=torch.float32)
    plain = to_tensor(images.pixels)  # (N, 3, S, S)
    x, masks = torch.cat([plain, through(vae, plain)]), torch.from_numpy(images.masks).float().repeat(2, 1, 1)
    optimizer = torch.optim.AdamW(finder.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        index = torch.randint(len(x), (BATCH,), generator=generator)
        turn, mirror = torch.randint(4, (), generator=generator).item(), torch.rand((), generator=generator) < 0.5
        shown, wanted = (picture[index].rot90(turn, (-2, -1)) for picture in (x, masks))
        shown, wanted = (picture.flip(-1) if mirror else picture for picture in (shown, wanted))
        loss = F.binary_cross_entropy_with_logits(finder(shown), wanted, pos_weight=torch.tensor(RARE))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(finder.state_dict(), path)
    return finder.eval()


@torch.no_grad()
def overlap(finder: Finder, pixels, masks) -> tuple[float, float]:
    """Images (N, S, S, 3) uint8 and where a defect was asked for (N, S, S) bool -> how well the found ones agree.

    Mean intersection over union of the found pixels with the asked ones, and the share of images whose likeliest
    pixel lies in the mask or within 2 pixels of it (the pointing game, Zhang et al. 2016, arXiv 1608.00507).
    """
    logits = torch.cat([finder(part) for part in to_tensor(pixels).split(64)])  # (N, S, S)
    found, asked = logits > 0, torch.as_tensor(masks)
    union = (found | asked).sum((1, 2)).clamp(min=1)
    iou = ((found & asked).sum((1, 2)) / union).mean().item()
    near = F.max_pool2d(asked[:, None].float(), 5, stride=1, padding=2).flatten(1) > 0  # (N, S S)
    hit = near.gather(1, logits.flatten(1).argmax(1, keepdim=True)).double().mean().item()
    return iou, hit


def share_near(masks: Tensor) -> float:
    """The share of pixels that `overlap` counts as hits: what a finder that points anywhere would reach."""
    return (F.max_pool2d(torch.as_tensor(masks)[:, None].float(), 5, stride=1, padding=2) > 0).double().mean().item()
