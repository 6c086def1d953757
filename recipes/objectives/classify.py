"""Classification: loss = cross-entropy(logits(x), label)."""

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from recipes.job import Batch, Loss


def classification(model: nn.Module) -> Loss:
    """loss(batch, generator, progress) of batches of images x (B, 3, S, S) and labels y (B,); logs the accuracy."""

    def loss(batch: Batch, generator: Generator, progress: float) -> tuple[Tensor, dict]:
        logits = model(batch["x"]).float()  # (B, classes)
        accuracy = (logits.argmax(1) == batch["y"]).float().mean()
        return F.cross_entropy(logits, batch["y"]), {"accuracy": accuracy.item()}

    return loss
