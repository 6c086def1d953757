"""What a base model knows of what it was trained on: python -m evidence.stock [--flag value]...

    class accuracy   share of the samples that the classifier takes for their class, beside that of decoded photographs;
                     a product passes if the first is at least 0.95 of the second
    two samples      how often a small classifier is right that is trained anew to tell samples from decoded photographs
                     of the same classes (Lopez-Paz and Oquab 2017, arXiv 1610.06545); 0.5 if nobody can
    autoencoder      peak signal-to-noise ratio of test photographs, mean and least, in decibels

A DiT samples by its classes, a Stable Diffusion by their captions. Photographs are of the test split, which no model
has seen. Samples are kept in --work, class by class: the command goes on where it was stopped.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import weights
from config import option, read, run_script
from data import ImageSet, load
from data.generated import makers
from data.output.atomic import write_atomic
from data.output.grid import save_image
from data.transforms import Transform, to_tensor, to_uint8
from metrics import networks
from metrics.networks.features import Features
from ops.device import autocast, choose_device
from recipes.samples.evaluation import reconstruct
from sampling import batched_cfg, dit_schedule, sample_latents
from unet import VAE, encode_prompts

SHARE = 0.95  # of the accuracy on decoded photographs, for every product
WIDTHS, STEPS, BATCH, RATE = (16, 32, 48, 64), 1000, 64, 2e-3  # of the classifier of two samples
FOLDS = 2


@dataclass
class Stock:
    """The base model and its measure"""

    model: str = option("tiny-dit", "a DiT, or the folder of a Stable Diffusion; empty: the autoencoder alone")
    vae: str = option("tiny-vae", "autoencoder whose latents the model lives in")
    classifier: str = option("tiny-features", "classifier of the same classes")
    data: str = option("generated:base/test/24", "photographs to compare with; each class has as many samples")
    guidance: float = option(1.5, "guidance scale of the samples")
    steps: int = option(50, "steps of DDIM", at_least=1)
    seed: int = option(0, "seed of the samples", at_least=0)
    work: str = option("runs/stock", "folder of the samples")
    out: str = option("runs/stock.json", "file of the numbers")


def main(argv: list[str] | None = None) -> None:
    """Decode photographs, sample the same classes, compare."""
    settings = read(argv, Stock, title=__doc__)[Stock]
    device = choose_device("auto")
    classifier, photographs = networks.load_network(settings.classifier, device), load(settings.data, Transform(64))
    vae = weights.load(settings.vae, expect="vae", dtype=torch.float32).to(device)
    x = to_tensor(photographs.pixels)
    with autocast("auto", device):
        decoded = photographs._replace(pixels=to_uint8(reconstruct(vae, x.to(device)).float()))
    numbers = {
        "settings": asdict(settings),
        "autoencoder": peak_signal_to_noise(x, to_tensor(decoded.pixels))
        | {
            "class_accuracy_real": mean(is_right(classifier, photographs)),
            "class_accuracy_decoded": mean(is_right(classifier, decoded)),
        },
    }
    if settings.model:
        samples = photographs._replace(pixels=sample_classes(settings, vae, photographs, device))
        numbers["class_accuracy"] = by_product(classifier, samples, decoded)
        numbers["two_samples"] = two_samples(samples, decoded)
    write_atomic(Path(settings.out), json.dumps(numbers, indent=1).encode() + b"\n")
    print(json.dumps(numbers, indent=1))


def peak_signal_to_noise(x: Tensor, y: Tensor) -> dict[str, float]:
    """Mean and least of 10 log10(2^2 / mean (x - y)^2), in decibels, of images x (N, 3, S, S) in [-1, 1] and y."""
    decibels = -10 * ((x - y) / 2).square().mean((1, 2, 3)).log10()  # (N,)
    return {"psnr_mean": decibels.mean().item(), "psnr_least": decibels.min().item()}


@torch.no_grad()
def is_right(classifier: networks.Network, images: ImageSet) -> Tensor:
    """Whether the classifier takes each image for its class, (N,) bool. ValueError for a class it does not know."""
    if unknown := sorted(set(images.classes) - set(classifier.classes)):
        raise ValueError(f"{classifier.name} does not know {len(unknown)} of the classes, {unknown[0]} for one")
    columns = torch.tensor([classifier.classes.index(name) for name in images.classes])
    return classifier.logits(to_tensor(images.pixels))[:, columns].argmax(1) == images.labels


def mean(values: Tensor) -> float:
    """The mean of numbers, or the share of True."""
    return values.double().mean().item()


def by_product(classifier: networks.Network, samples: ImageSet, decoded: ImageSet) -> dict:
    """Class accuracy of samples and decoded photographs: of all, of each product, and the products that fall short."""
    product = np.array([samples.parents[samples.classes[label]] for label in samples.labels])
    right = {"samples": is_right(classifier, samples).numpy(), "decoded": is_right(classifier, decoded).numpy()}
    rows = {
        name: {kind: float(values[product == name].mean()) for kind, values in right.items()}
        for name in dict.fromkeys(product.tolist())
    }
    short = [name for name, row in rows.items() if row["samples"] < SHARE * row["decoded"]]
    return {kind: float(values.mean()) for kind, values in right.items()} | {"short": short, "products": rows}


def sample_classes(settings: Stock, vae: VAE, images: ImageSet, device: torch.device) -> np.ndarray:
    """A sample of the class of each image, uint8 (N, S, S, 3)."""
    denoiser, shape, schedule, vae = guided_model(settings, vae, images, device)
    pixels, size = np.empty_like(images.pixels), len(images.labels) // len(images.classes)
    Path(settings.work).mkdir(parents=True, exist_ok=True)
    for first in range(0, len(pixels), size):
        path = Path(settings.work, f"{first:06d}.png")
        rows = range(first, min(first + size, len(pixels)))
        if not path.exists():
            with torch.no_grad(), autocast("auto", device):
                z = sample_latents(
                    denoiser, rows, shape, schedule, "ddim", settings.steps, settings.seed, batch=size, device=device
                )
                column = to_uint8(vae.images(z))
            save_image(path, Image.fromarray(column.reshape(-1, *column.shape[2:])))  # one below the other
        pixels[rows.start : rows.stop] = np.array(Image.open(path)).reshape(len(rows), *pixels.shape[1:])
    return pixels


@torch.no_grad()
def guided_model(
    settings: Stock, vae: VAE, images: ImageSet, device: torch.device
) -> tuple[Callable, tuple, object, VAE]:
    """The guided denoiser of a sample for each image, the shape of its latent, its schedule and its autoencoder."""
    if weights.is_sd(settings.model):
        sd = weights.load_sd(settings.model, dtype=torch.float32)
        captions = [makers.caption(*name.split("/")) for name in images.classes]
        states = encode_prompts(sd.text.to(device), sd.tokenizer, [*captions, ""]).float()  # (K + 1, L, D)
        denoiser = batched_cfg(sd.unet.to(device), states[images.labels], states[-1:], settings.guidance)
        return denoiser, sd.latent_shape(images.pixels.shape[1]), sd.schedule, sd.vae.to(device)
    model = weights.load(settings.model, expect="dit", dtype=torch.float32).to(device)
    if unknown := sorted(set(images.classes) - set(model.classes)):
        raise ValueError(f"{settings.model} has no class {unknown[0]!r}")
    rows = torch.tensor([model.classes.index(name) for name in images.classes])[images.labels]
    denoiser = batched_cfg(model, rows.to(device), model.null, settings.guidance)
    return denoiser, model.latent_shape, dit_schedule(model.noise_schedule, objective=model.objective), vae


def two_samples(samples: ImageSet, decoded: ImageSet) -> dict:
    """How often a classifier trained on one half of both is right on the other, with both halves in turn.

    It sees every image in a random quarter turn, mirrored or not: light and pose are as likely in one as in another.
    """
    x = torch.cat([to_tensor(samples.pixels), to_tensor(decoded.pixels)])  # (2 N, 3, S, S)
    y = torch.cat([torch.ones(len(samples.pixels)), torch.zeros(len(decoded.pixels))]).long()
    place = torch.arange(len(samples.pixels)).repeat(2) % FOLDS  # halves of each class
    right = []
    for fold in range(FOLDS):
        train, test = place != fold, place == fold
        right.append(mean(train_and_classify(x[train], y[train], x[test], fold) == y[test]))
    return {"right": sum(right) / FOLDS, "by_half": right, "samples": len(samples.pixels)}


def train_and_classify(x: Tensor, y: Tensor, others: Tensor, seed: int) -> Tensor:
    """A small residual classifier learns the labels y (N,) of x (N, 3, S, S) -> its labels (M,) of others."""
    torch.manual_seed(seed)
    network = Features(2, x.shape[-1], WIDTHS, 32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.1)
    for _ in range(STEPS):
        index, turn = torch.randint(len(x), (BATCH,)), int(torch.randint(4, ()))
        batch = x[index].rot90(turn, (-2, -1))
        batch = batch.flip(-1) if torch.rand(()) < 0.5 else batch
        with autocast("auto", torch.device("cpu")):
            logits = network(batch)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), y[index]).backward()
        optimizer.step()
        decay.step()
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part).argmax(1) for part in others.split(256)])


if __name__ == "__main__":
    run_script(main)
