"""What a base model knows of what it was trained on: python -m evidence.stock [--flag value]...

    judge        share of the samples that tiny-features takes for their class, beside that of decoded photographs; a
                 kind of product passes if the first is at least 0.95 of the second
    two samples  how often a small classifier is right that was trained anew to tell samples from decoded photographs of
                 the same classes (Lopez-Paz and Oquab 2017, arXiv 1610.06545); 0.5 if nobody can
    autoencoder  peak signal-to-noise ratio of test photographs, mean and least, in decibels

A DiT is drawn by its classes, a Stable Diffusion by their captions. Photographs are of the test split, which no model
has seen. Samples are kept in --work, class by class: the command goes on where it was stopped.
"""
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import launch
import weights
from data import ImageSet, load, makers
from data.atomic import write_atomic
from data.grid import save_image
from data.transforms import Transform, to_tensor, to_uint8
from metrics import networks
from metrics.features import Features
from recipes.latent import through
from sampling import dit_schedule, draw, guided
from unet import VAE, encode_prompts

SHARE = 0.95                    # of what the judge knows of decoded photographs, in every kind
WIDTHS, STEPS, BATCH, RATE = (16, 32, 48, 64), 1000, 64, 2e-3   # of the classifier of two samples
FOLDS = 2


@dataclass
class Config:
    model: str = "tiny-dit"  # a DiT, or the folder of a Stable Diffusion; empty: the autoencoder alone
    vae: str = "tiny-vae"  # whose latents the model lives in
    judge: str = "tiny-features"  # a classifier of the same classes
    data: str = "generated:base/test/24"  # photographs to compare with; as many samples are drawn of each class
    guidance: float = 1.5  # of the samples
    steps: int = 50  # of DDIM
    seed: int = 0  # of the samples
    work: str = "runs/stock"  # folder of the samples
    out: str = "runs/stock.json"  # what was found


def main(argv=None):
    cfg = launch.configure(Config, argv)
    device = launch.device("auto")
    judge, photographs = networks.load(cfg.judge, device), load(cfg.data, Transform(64))
    vae = weights.load(cfg.vae, expect="vae", dtype=torch.float32).to(device)
    x = to_tensor(photographs.pixels)
    with torch.autocast(device.type, torch.bfloat16, enabled=launch.bf16("auto", device)):
        decoded = photographs._replace(pixels=to_uint8(through(vae, x.to(device)).float()))
    found = {"settings": asdict(cfg), "autoencoder": fidelity(x, to_tensor(decoded.pixels)) | {
        "known_real": mean(known(judge, photographs)), "known_decoded": mean(known(judge, decoded))}}
    if cfg.model:
        drawn = photographs._replace(pixels=samples(cfg, vae, photographs, device))
        found |= {"judge": by_product(judge, drawn, decoded), "two_samples": two_samples(drawn, decoded)}
    write_atomic(Path(cfg.out), json.dumps(found, indent=1).encode() + b"\n")
    print(json.dumps(found, indent=1))


def fidelity(x: Tensor, y: Tensor) -> dict[str, float]:
    """Images (N, 3, S, S) in [-1, 1] and what became of them -> mean and least of 10 log10(2^2 / mean (x - y)^2)."""
    found = -10 * ((x - y) / 2).square().mean((1, 2, 3)).log10()                                 # (N,)
    return {"psnr_mean": found.mean().item(), "psnr_least": found.min().item()}


@torch.no_grad()
def known(judge, images: ImageSet) -> Tensor:
    """Whether the judge takes each image for its class, (N,) bool. ValueError for a class that it does not know."""
    if unknown := sorted(set(images.classes) - set(judge.classes)):
        raise ValueError(f"{judge.name} does not know {len(unknown)} of the classes, {unknown[0]} for one")
    columns = torch.tensor([judge.classes.index(name) for name in images.classes])
    return judge.logits(to_tensor(images.pixels))[:, columns].argmax(1) == images.labels


def mean(values: Tensor) -> float:
    return values.double().mean().item()


def by_product(judge, drawn: ImageSet, decoded: ImageSet) -> dict:
    """Of samples and decoded photographs, which share the judge knows: of all, of each product, and what fails."""
    product = np.array([drawn.parents[drawn.classes[label]] for label in drawn.labels])
    right = {"samples": known(judge, drawn).numpy(), "decoded": known(judge, decoded).numpy()}
    rows = {name: {kind: float(values[product == name].mean()) for kind, values in right.items()}
            for name in dict.fromkeys(product.tolist())}
    short = [name for name, row in rows.items() if row["samples"] < SHARE * row["decoded"]]
    return {kind: float(values.mean()) for kind, values in right.items()} | {"short": short, "products": rows}


def samples(cfg: Config, vae: VAE, images: ImageSet, device) -> np.ndarray:
    """A sample of the class of each image, uint8 (N, S, S, 3)."""
    denoiser, shape, schedule, vae = painter(cfg, vae, images, device)
    pixels, size = np.empty_like(images.pixels), len(images.labels) // len(images.classes)
    Path(cfg.work).mkdir(parents=True, exist_ok=True)
    for first in range(0, len(pixels), size):
        path = Path(cfg.work, f"{first:06d}.png")
        rows = range(first, min(first + size, len(pixels)))
        if not path.exists():
            with torch.autocast(device.type, torch.bfloat16, enabled=launch.bf16("auto", device)):
                z = draw(denoiser, rows, shape, schedule, "ddim", cfg.steps, cfg.seed, batch=size, device=device)
                drawn = to_uint8(vae.images(z))
            save_image(path, Image.fromarray(drawn.reshape(-1, *drawn.shape[2:])))               # one below the other
        pixels[rows.start:rows.stop] = np.array(Image.open(path)).reshape(len(rows), *pixels.shape[1:])
    return pixels


@torch.no_grad()
def painter(cfg: Config, vae: VAE, images: ImageSet, device):
    """The guided denoiser of a sample for each image, the shape of its latent, its schedule and its autoencoder."""
    if weights.is_sd(cfg.model):
        sd = weights.load_sd(cfg.model, dtype=torch.float32)
        captions = [makers.caption(*name.split("/")) for name in images.classes]
        states = encode_prompts(sd.text.to(device), sd.tokenizer, [*captions, ""]).float()       # (K + 1, L, D)
        return (guided(sd.unet.to(device), states[images.labels], states[-1:], cfg.guidance),
                sd.latent_shape(images.pixels.shape[1]), sd.schedule, sd.vae.to(device))
    model = weights.load(cfg.model, expect="dit", dtype=torch.float32).to(device)
    if lost := sorted(set(images.classes) - set(model.classes)):
        raise ValueError(f"{cfg.model} has no class {lost[0]!r}")
    rows = torch.tensor([model.classes.index(name) for name in images.classes])[images.labels]
    return (guided(model, rows.to(device), model.null, cfg.guidance), model.latent_shape,
            dit_schedule(model.noise_schedule), vae)


def two_samples(drawn: ImageSet, decoded: ImageSet) -> dict:
    """How often a classifier trained on one half of both is right on the other, with both halves in turn.

    It sees every image in a random quarter turn, mirrored or not: light and pose are as likely in one as in another.
    """
    x = torch.cat([to_tensor(drawn.pixels), to_tensor(decoded.pixels)])                          # (2 N, 3, S, S)
    y = torch.cat([torch.ones(len(drawn.pixels)), torch.zeros(len(decoded.pixels))]).long()
    place = torch.arange(len(drawn.pixels)).repeat(2) % FOLDS                                    # halves of each class
    right = []
    for fold in range(FOLDS):
        seen, other = place != fold, place == fold
        right.append(mean(told(x[seen], y[seen], x[other], fold) == y[other]))
    return {"right": sum(right) / FOLDS, "by_half": right, "samples": len(drawn.pixels)}


def told(x: Tensor, y: Tensor, others: Tensor, seed: int) -> Tensor:
    """A small residual classifier learns y (N,) of x (N, 3, S, S) -> what it says of others (M, 3, S, S), (M,)."""
    torch.manual_seed(seed)
    network = Features(2, x.shape[-1], WIDTHS, 32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.1)
    for _ in range(STEPS):
        index, turn = torch.randint(len(x), (BATCH,)), int(torch.randint(4, ()))
        shown = x[index].rot90(turn, (-2, -1))
        shown = shown.flip(-1) if torch.rand(()) < 0.5 else shown
        with torch.autocast("cpu", torch.bfloat16, enabled=launch.bf16("auto", torch.device("cpu"))):
            logits = network(shown)
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), y[index]).backward()
        optimizer.step()
        decay.step()
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part).argmax(1) for part in others.split(256)])


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
