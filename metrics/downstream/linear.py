"""A linear probe: logistic regression on the activations of a trained network, for few images.

    p(class | x) = softmax(W (h(x) - mean) / std + b),    W, b = argmin  sum_i a_i CE_i + PENALTY |W|^2

h(x) is the mean and the largest value of every channel at four depths of a network of metrics/networks/features.py,
whose weights stay as they are. The largest value shows a small defect. a_i gives every class of a source equal weight
and every source its share. The probe reads each image in all flips and quarter turns. The loss has one minimum, so no
seed decides it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.networks.features import Features
from metrics.statistics.nearest import turned

PENALTY = 0.01


class Linear(nn.Module):
    """logits = W (h(x) - mean) / std + b; W and b are zero at first."""

    def __init__(self, network: Features, mean: Tensor, std: Tensor, classes: int):
        super().__init__()
        self.network, self.mean, self.std = network, mean, std
        self.head = nn.Linear(len(mean), classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, S, S) in [-1, 1] -> logits (B, classes)."""
        return self.head((activations(self.network, x) - self.mean) / self.std)


def linear_probe(network: Features, sources: list[tuple[Tensor, Tensor]], shares: list[float], classes: int) -> Linear:
    """The trained probe. sources: one pair of `views` each; shares: of the loss, one for each source."""
    weight = torch.cat(
        [share / classes / torch.bincount(y, minlength=classes)[y] for share, (_, y) in zip(shares, sources)]
    )
    h, y = (torch.cat(parts) for parts in zip(*sources))
    probe = Linear(network, h.mean(0), h.std(0).clamp(min=1e-4), classes)
    z, head = (h - probe.mean) / probe.std, probe.head
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = (weight * F.cross_entropy(head(z), y, reduction="none")).sum() + PENALTY * head.weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return probe.eval()


def views(network: Features, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, 3, S, S) and labels (N,) -> h (8 N, D), labels (8 N,) of all flips and quarter turns."""
    return activations(network, turned(x)), y.repeat(8)


@torch.no_grad()
def activations(network: Features, x: Tensor, batch: int = 64) -> Tensor:
    """h of images (N, 3, S, S) in [-1, 1] -> (N, 2 sum of widths)."""
    rows = []
    for part in x.split(batch):
        h, pooled = F.relu(network.stem(part)), []
        for i, block in enumerate(network.blocks):
            h = block(h)
            if i % 2:  # the second block of a size
                pooled += [h.mean((2, 3)), h.amax((2, 3))]  # (B, width) each
        rows.append(torch.cat(pooled, 1))
    return torch.cat(rows)
