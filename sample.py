"""Draw images from a fine-tuned model: python sample.py --run RUN, or --model PATH [--adapter FILE[:strength]]...

Writes a grid (columns = classes, rows = samples) and single PNGs.
"""
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

import launch
import weights
from data.grid import grid, save_image
from data.transforms import to_uint8
from sampling import Schedule, draw


@dataclass
class Config:
    run: str = ""  # run folder of train.py: its model, autoencoder and adapter
    model: str = "tiny-dit"  # checkpoint, if no run is given
    vae: str = "tiny-vae"  # autoencoder of the model's latents, if no run is given
    adapter: list[str] = field(default_factory=list)  # adapter file, FILE or FILE:strength; repeat to stack
    classes: str = ""  # names or ids with commas between; empty: all (at most 12)
    count: int = 8  # images of each class
    sampler: str = "ddim"  # ddpm | ddim | dpm++
    steps: int = 50  # steps of the sampler
    guidance: float = 4.0  # classifier-free guidance scale; 1: none
    channels: int = 0  # latent channels that guidance acts on; 0: all; 3: as in DiT's released samples
    seed: int = 0  # image i of the list has the noise of (seed, i), whatever the batch
    batch: int = 16  # images drawn at once
    precision: str = "auto"  # auto | fp32 | bf16
    device: str = "auto"  # auto | cpu | cuda | mps
    out: str = ""  # folder for the images; empty: RUN/drawn or ./drawn


def main(argv=None):
    cfg = launch.configure(Config, argv)
    device = launch.device(cfg.device)
    model, vae = load(cfg)
    model, vae = model.to(device), vae.to(device)
    names, labels = choose(cfg, model)
    out = Path(cfg.out or (Path(cfg.run) / "drawn" if cfg.run else "drawn"))
    out.mkdir(parents=True, exist_ok=True)
    null = model.null if cfg.guidance != 1 else None
    schedule = Schedule.linear()
    columns = {name: [] for name in names}
    for first in tqdm(range(0, len(labels), cfg.batch), desc="batches"):
        y = torch.tensor(labels[first:first + cfg.batch], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=launch.bf16(cfg.precision, device)):
            z = draw(model, model.latent_shape, y, null, schedule, cfg.sampler, cfg.steps, cfg.guidance,
                     cfg.channels or None, cfg.seed, cfg.batch, first)                           # (B, C, h, w)
            images = to_uint8(vae.images(z))                                                     # (B, H, W, 3)
        for i, image in enumerate(images, first):
            name = names[i // cfg.count]
            save_image(out / f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}_{i % cfg.count:03d}.png", image)
            columns[name].append(image)
    save_image(out / "grid.png", grid(columns))
    print(f"{len(labels)} images and grid.png in {out}")


def load(cfg):
    """The DiT with its adapters folded in, and the VAE: from a run folder, or from the paths given."""
    model, vae, files = cfg.model, cfg.vae, list(cfg.adapter)
    if cfg.run:
        stored = Path(cfg.run) / "config.toml"
        if not stored.is_file():
            raise ValueError(f"{cfg.run}: not a run folder, it has no config.toml")
        settings = tomllib.loads(stored.read_text())
        model, vae = settings["model"], settings["vae"]
        whole, adapter = Path(cfg.run) / "model.safetensors", Path(cfg.run) / "adapter.safetensors"
        if whole.exists():
            model = whole
        elif adapter.exists():
            files = [str(adapter)] + files
        else:
            raise ValueError(f"{cfg.run}: neither adapter.safetensors nor model.safetensors; did the run finish?")
    model = weights.load(model, expect="dit", dtype=torch.float32)
    if files:
        weights.apply_adapters(model, [with_strength(text) for text in files])
    return model, weights.load(vae, expect="vae", dtype=torch.float32)


def with_strength(text):
    """"FILE" or "FILE:0.7" -> (file, strength)."""
    file, colon, strength = text.rpartition(":")
    try:
        return (file, float(strength)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def choose(cfg, model):
    """Class names as asked, by name or id, and the label of every image to draw; ValueError for one not there."""
    classes = getattr(model, "classes", None) or [str(i) for i in range(model.config.num_classes)]
    asked = [name.strip() for name in cfg.classes.split(",") if name.strip()] or classes[:12]
    labels = []
    for name in asked:
        same = [i for i, known in enumerate(classes) if name in (known, known.rsplit("/", 1)[-1], str(i))]
        if len(same) != 1:
            raise ValueError(f"class {name!r} is {'one of several' if same else 'unknown'}: the classes are "
                             f"{', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}")
        labels += same * cfg.count
    return [classes[labels[i]] for i in range(0, len(labels), cfg.count)], labels


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
