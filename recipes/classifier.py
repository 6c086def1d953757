"""Train a classifier on images: the network behind the default metrics, and the judge of generated states.

loss = cross-entropy(logits(x), label)
"""

from torch.nn import functional as F

import adapters
from data.output.atomic import write_atomic
from metrics.networks.features import Features, to_bytes
from recipes import Recipe
from recipes.pixels import augmentations, held_out_loss, pixel_batches, train_and_val


def classifier(cfg, device) -> Recipe:
    """Batches of augmented pixels with their labels; the model is new:Features. Leaves model.safetensors."""
    if cfg.model != "new:Features":
        raise ValueError(f"the classifier recipe trains new:Features, found model {cfg.model!r}")
    side = cfg.size or 64
    images, val = train_and_val(cfg, side)
    model = adapters.attach(Features(len(images.classes), side).to(device), cfg.adapter)

    def loss(batch, generator, progress):
        logits = model(batch["x"]).float()  # (B, classes)
        accuracy = (logits.argmax(1) == batch["y"]).float().mean()
        return F.cross_entropy(logits, batch["y"]), {"accuracy": accuracy.item()}

    def look(run, step):
        if val is None:
            return {"step": step}
        plain, right = pixel_batches(val, augmentations(cfg)[:1]), []

        def counted(batch, generator, progress):
            value, numbers = loss(batch, generator, progress)
            right.append(numbers["accuracy"] * len(batch["y"]))
            return value, numbers

        value = held_out_loss(plain, counted, len(val.names), device)
        return {"step": step, "val": value, "val_accuracy": sum(right) / len(val.names)}

    def finish(run):
        write_atomic(run / "model.safetensors", to_bytes(model, images.classes, cfg.data))

    return Recipe(model, cfg.adapter, images.names, pixel_batches(images, augmentations(cfg)), loss, look, finish)
