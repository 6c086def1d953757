"""classifier: the network behind the default metrics is trained on labelled images, by cross-entropy."""

from pathlib import Path

from torch import Generator, Tensor

import adapters
from config import Config
from config import training as part
from data.output.atomic import write_atomic
from metrics.networks.features import Features, to_bytes
from ops.device import Compute
from recipes.images.made_of import made_of
from recipes.images.pixels import pixel_batches, train_and_val
from recipes.job import Batch, HeldOut, Job
from recipes.objectives.classify import classification


def classifier(config: Config, compute: Compute) -> Job:
    """The model is new:Features. Leaves model.safetensors."""
    settings, base = config[part.Images], config[part.Base].model
    if base != "new:Features":
        raise ValueError(f"the classifier recipe trains new:Features, found model {base!r}")
    side, specs = settings.size or 64, config[part.Adapter].adapter
    images, val = train_and_val(settings, config[part.HeldOut].val, side)
    model = adapters.attach(Features(len(images.classes), side).to(compute.device), specs)
    loss = classification(model)
    held_out = val and HeldOut(pixel_batches(val, settings.variants()[:1]), len(val.names))

    def evaluate(run: Path, step: int) -> dict:
        if not held_out:
            return {"step": step}
        right = []

        def counted(batch: Batch, generator: Generator, progress: float) -> tuple[Tensor, dict]:
            value, numbers = loss(batch, generator, progress)
            right.append(numbers["accuracy"] * len(batch["y"]))
            return value, numbers

        value = held_out.loss(counted, compute.device)
        return {"step": step, "val": value, "val_accuracy": sum(right) / held_out.count}

    def finish(run: Path) -> None:
        write_atomic(run / "model.safetensors", to_bytes(model, images.classes, settings.data))

    batches = pixel_batches(images, settings.variants())
    return Job(model, specs, images.names, batches, loss, evaluate, finish, made_of=made_of(images, settings.data, {}))
