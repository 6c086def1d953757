"""Draw images from a fine-tuned model: python sample.py --run RUN, or --model PATH [--adapter FILE[:strength]]...

--classes says what to draw with a class-conditional model, --prompt (repeated) or --prompts FILE with Stable Diffusion.
Writes a grid (columns = classes or prompts, rows = samples) and single PNGs.
"""
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

import launch
import weights
from data.grid import grid, save_image
from data.images import decode
from data.transforms import Transform, to_tensor, to_uint8
from sampling import Schedule, draw
from unet import VAE, TextConditioned, encode_prompts


@dataclass
class Config:
    run: str = ""  # run folder of train.py: its model, autoencoder and adapter
    model: str = "tiny-dit"  # checkpoint, if no run is given
    vae: str = "tiny-vae"  # autoencoder of the model's latents, if no run is given; Stable Diffusion has its own
    adapter: list[str] = field(default_factory=list)  # adapter or LoRA file, FILE or FILE:strength; repeat to stack
    embedding: list[str] = field(default_factory=list)  # textual inversion file, FILE or WORD=FILE; repeat
    classes: str = ""  # names or ids with commas between; empty: all (at most 12)
    prompt: list[str] = field(default_factory=list)  # what to draw with Stable Diffusion, (word:1.3) weighs; repeat
    prompts: str = ""  # text file of prompts, one a line
    negative: str = ""  # what guidance leads away from; empty: the empty prompt
    image: str = ""  # picture to start from instead of noise
    strength: float = 0.8  # how much of the way to noise it goes first: 1 keeps nothing of it
    size: int = 0  # side of the images in pixels, Stable Diffusion only; 0: what the model was made for
    count: int = 8  # images of each class or prompt
    sampler: str = "ddim"  # ddpm | ddim | dpm++
    steps: int = 50  # steps of the sampler
    guidance: float = 3.0  # classifier-free guidance scale; 1: none
    channels: int = 0  # latent channels that guidance acts on; 0: all; 3: as in DiT's released samples
    seed: int = 0  # image i of the list has the noise of (seed, i), whatever the batch
    batch: int = 16  # images drawn at once
    precision: str = "auto"  # auto | fp32 | bf16
    device: str = "auto"  # auto | cpu | cuda | mps
    out: str = ""  # folder for the images; empty: RUN/drawn or ./drawn


class Job(NamedTuple):
    """What there is to draw: one name a column, and a condition for each."""
    model: nn.Module
    vae: VAE
    schedule: Schedule
    shape: tuple[int, int, int]     # of a latent
    names: list[str]
    cond: Tensor                    # labels (K,) or text states (K, L, D)
    null: int | Tensor | None       # the condition that guidance leads away from


@torch.no_grad()
def main(argv=None):
    cfg = launch.configure(Config, argv)
    device, settings = launch.device(cfg.device), run_settings(cfg)
    by_text = cfg.prompt or cfg.prompts or settings.get("recipe") in ("text", "dreambooth", "textual_inversion")
    with torch.autocast(device.type, torch.bfloat16, enabled=launch.bf16(cfg.precision, device)):
        job = (prompted if by_text else labelled)(cfg, settings, device)
        start = None if not cfg.image else encoded(cfg, job, device)
    out = Path(cfg.out or (Path(cfg.run) / "drawn" if cfg.run else "drawn"))
    out.mkdir(parents=True, exist_ok=True)
    files, columns = file_names(job.names), [[] for _ in job.names]
    cond = job.cond.repeat_interleave(cfg.count, 0)
    for first in tqdm(range(0, len(cond), cfg.batch), desc="batches"):
        with torch.autocast(device.type, torch.bfloat16, enabled=launch.bf16(cfg.precision, device)):
            z = draw(job.model, job.shape, cond[first:first + cfg.batch], job.null, job.schedule, cfg.sampler,
                     cfg.steps, cfg.guidance, cfg.channels or None, cfg.seed, cfg.batch, first, start, cfg.strength)
            images = to_uint8(job.vae.images(z))                                                 # (B, H, W, 3)
        for i, image in enumerate(images, first):
            column, row = divmod(i, cfg.count)
            save_image(out / f"{files[column]}_{row:03d}.png", image)
            columns[column].append(image)
    save_image(out / "grid.png", grid(dict(zip(job.names, columns))))
    print(f"{len(cond)} images and grid.png in {out}")


def labelled(cfg, settings, device) -> Job:
    """A DiT with its adapters folded in, and the classes that were asked for."""
    model, files = fine_tuned(cfg, settings)
    model = weights.load(model, expect="dit", dtype=torch.float32)
    if files:
        weights.apply_adapters(model, files)
    vae = weights.load(settings.get("vae", cfg.vae), expect="vae", dtype=torch.float32)
    names, labels = choose(cfg, model)
    null = model.null if cfg.guidance != 1 else None
    return Job(model.to(device), vae.to(device), Schedule.linear(), model.latent_shape, names,
               torch.tensor(labels, device=device), null)


def prompted(cfg, settings, device) -> Job:
    """A Stable Diffusion with its adapters folded in and its new words known, and the prompts, read in one go."""
    path, files = fine_tuned(cfg, settings)
    sd = weights.load_sd(path, dtype=torch.float32)
    model = TextConditioned(sd.unet, sd.text)
    for file, _ in files:
        recipe = {} if weights.is_foreign(file) else weights.load_adapter(file)[1]
        for token, vectors in (recipe.get("tokens") or {}).items():
            sd.tokenizer.add(token, vectors)
    if files:
        weights.apply_adapters(model, files)
    for text in cfg.embedding:
        word, _, file = text.rpartition("=")
        weights.add_embedding(sd.tokenizer, sd.text, file, word or None)
    names = read_prompts(cfg) or settings.get("prompts") or None
    if not names:
        raise ValueError("what shall be drawn? give --prompt, or --prompts with a file of them")
    states = encode_prompts(sd.text.to(device), sd.tokenizer, [*names, cfg.negative]).float()
    side = (cfg.size or settings.get("size") or sd.unet.config.input_size * sd.vae.factor) // sd.vae.factor
    return Job(model.to(device), sd.vae.to(device), sd.schedule, (model.latent_shape[0], side, side), names,
               states[:-1], states[-1:])


def run_settings(cfg) -> dict:
    """The config of the run to draw from, {} without one."""
    stored = Path(cfg.run) / "config.toml"
    if cfg.run and not stored.is_file():
        raise ValueError(f"{cfg.run}: not a run folder, it has no config.toml")
    return tomllib.loads(stored.read_text()) if cfg.run else {}


def fine_tuned(cfg, settings) -> tuple[str, list[tuple[str, float]]]:
    """The checkpoint to load, and the adapter files that go onto it, each with its strength."""
    files = [with_strength(text) for text in cfg.adapter]
    if not cfg.run:
        return cfg.model, files
    run = Path(cfg.run)
    for whole in (run / "model.safetensors", run / "model"):
        if whole.exists():
            return str(whole), files
    if not (run / "adapter.safetensors").exists():
        raise ValueError(f"{cfg.run}: neither adapter.safetensors nor model.safetensors; did the run finish?")
    return settings["model"], [(str(run / "adapter.safetensors"), 1.0), *files]


def with_strength(text):
    """"FILE" or "FILE:0.7" -> (file, strength)."""
    file, colon, strength = text.rpartition(":")
    try:
        return (file, float(strength)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def choose(cfg, model):
    """Class names as asked, by name or id, and their labels; ValueError for one not there."""
    classes = getattr(model, "classes", None) or [str(i) for i in range(model.config.num_classes)]
    asked = [name.strip() for name in cfg.classes.split(",") if name.strip()] or classes[:12]
    labels = []
    for name in asked:
        same = [i for i, known in enumerate(classes) if name in (known, known.rsplit("/", 1)[-1], str(i))]
        if len(same) != 1:
            raise ValueError(f"class {name!r} is {'one of several' if same else 'unknown'}: the classes are "
                             f"{', '.join(classes[:20])}{', ...' if len(classes) > 20 else ''}")
        labels += same
    return [classes[label] for label in labels], labels


def read_prompts(cfg) -> list[str]:
    """The prompts of the command line, then those of the file, each once."""
    try:
        lines = Path(cfg.prompts).read_text("utf-8").splitlines() if cfg.prompts else []
    except UnicodeDecodeError as error:
        raise ValueError(f"{cfg.prompts}: not UTF-8 ({error})") from None
    return list(dict.fromkeys([*cfg.prompt, *(line.strip() for line in lines if line.strip())]))


def encoded(cfg, job: Job, device) -> Tensor:
    """The picture to start from as a latent of the job's shape (C, H, W), scaled."""
    pixels = Transform(job.shape[1] * job.vae.factor)(decode(cfg.image))                         # (S, S, 3)
    return job.vae.config.scaling_factor * job.vae.encode(to_tensor(pixels)[None].to(device))[0][0].float()


def file_names(names) -> list[str]:
    """Names that a file may have, different for different columns."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60] for name in names]
    return [f"{i:03d}_{name}" if plain.count(name) > 1 or not name else name for i, name in enumerate(plain)]


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
