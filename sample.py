"""Draw images from a fine-tuned model: python sample.py --run RUN, or --model PATH [--adapter FILE[:strength]]...

--classes says what to draw with a class-conditional model, --prompt (repeated) or --prompts FILE with Stable Diffusion.
Writes a grid (columns = classes or prompts, rows = samples) and single PNGs.
"""

import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

import launch
import weights
from data.drawn import GRID, file_names
from data.grid import grid, save_image
from data.images import decode
from data.transforms import Transform, to_tensor, to_uint8
from dit.classes import row_of
from ops.device import autocast, choose_device
from recipes.consistency import few_steps
from sampling import Schedule, batched_cfg, dit_schedule, limited_interval, sample_latents, timesteps_of
from sampling.request import from_superclass, interval, weighed
from unet import VAE, ControlledText, TextConditioned, encode_prompts
from unet.attend import attend_and_excite, token_indices


@dataclass
class Config:
    run: str = ""  # run folder of train.py: its model, autoencoder and adapter
    model: str = "tiny-dit"  # checkpoint, if no run is given
    vae: str = "tiny-vae"  # autoencoder of the model's latents, if no run is given; Stable Diffusion has its own
    adapter: list[str] = field(default_factory=list)  # adapter or LoRA file, FILE or FILE:strength; repeat to stack
    weights: str = "mean"  # Gaussian weights (bnn): mean | sampled, drawn at every step of the sampler
    embedding: list[str] = field(default_factory=list)  # textual inversion file, FILE or WORD=FILE; repeat
    control: str = ""  # ControlNet to draw with, file or folder; empty: that of the run, if it has one
    hint: list[str] = field(default_factory=list)  # image that it reads, as a mask; repeat: one row of samples for each
    classes: str = ""  # names or ids with commas between; empty: all (at most 12)
    prompt: list[str] = field(default_factory=list)  # what to draw with Stable Diffusion, (word:1.3) weighs; repeat
    prompts: str = ""  # text file of prompts, one a line
    attend: list[str] = field(default_factory=list)  # word of every prompt that must be seen in its images; repeat
    negative: str = ""  # what guidance leads away from; empty: the empty prompt
    also: list[str] = field(default_factory=list)  # class or prompt that every image shows besides, WHAT:WEIGHT; repeat
    without: list[str] = field(default_factory=list)  # class or prompt that no image shows, WHAT:WEIGHT; repeat
    image: str = ""  # picture to start from instead of noise
    strength: float = 0.8  # how much of the way to noise it goes first: 1 keeps nothing of it
    size: int = 0  # side of the images in pixels, Stable Diffusion only; 0: what the model was made for
    count: int = 8  # images of each class or prompt
    sampler: str = "ddim"  # ddpm | ddim | dpm++ | lcm; of a distilled adapter: its own, as steps and guidance
    steps: int = 50  # steps of the sampler
    guidance: float = 3.0  # guidance scale; 1: none
    guidance_from: str = ""  # null (class, or --negative) | superclass; empty: superclass where one is known, else null
    superclass: str = ""  # Stable Diffusion: what all prompts are a kind of, as "a hazelnut"; DiT knows its classes'
    superclass_guidance: float = 1.0  # with guidance from superclass: the scale from null to there; 1: none of null
    interval: str = ""  # LOW,HIGH: guidance only at these timesteps, of 0 (clean) to 999 (noise); empty: all
    channels: int = 0  # latent channels that guidance acts on; 0: all; 3: as in DiT's released samples
    seed: int = 0  # image i of the list has the noise of (seed, i), whatever the batch
    batch: int = 16  # images drawn at once
    precision: str = "auto"  # auto | fp32 | bf16
    device: str = "auto"  # auto | cpu | cuda | mps
    out: str = ""  # folder for the images; empty: RUN/drawn or ./drawn


class Job(NamedTuple):
    """What there is to draw: one name a column, and a condition for each of its images."""

    model: nn.Module
    vae: VAE
    schedule: Schedule
    shape: tuple[int, int, int]  # of a latent
    names: list[str]
    cond: Tensor  # labels (N,) or text states (N, L, D), of the columns' images in a row
    null: int | Tensor | None  # the condition that guidance leads away from
    more: list[tuple[int | Tensor, float]]  # further conditions that it weighs, for all images or for each
    before: Callable | None = None  # what moves the latents before each step
    hint: Tensor | None = None  # what a ControlNet reads, for each image


@torch.no_grad()
def main(argv=None):
    given = launch.given(Config, argv)
    settings = run_settings(Config(**given))
    path, files = fine_tuned(Config(**given), settings)
    cfg = Config(**few_steps(files) | given)
    if min(cfg.count, cfg.batch) < 1:
        raise ValueError(f"count and batch must be at least 1, found {cfg.count} and {cfg.batch}")
    device = choose_device(cfg.device)
    torch.manual_seed(cfg.seed)  # of sampled weights: the images of one batch share them
    by_text = cfg.prompt or cfg.prompts or weights.is_sd(path)
    with autocast(cfg.precision, device):
        job = (prompted if by_text else labelled)(cfg, settings, path, files, device)
        start = None if not cfg.image else encoded(cfg, job, device)
    out = Path(cfg.out or (Path(cfg.run) / "drawn" if cfg.run else "drawn"))
    out.mkdir(parents=True, exist_ok=True)
    stems, columns = file_names(job.names), [[] for _ in job.names]
    denoiser, total = denoisers(cfg, job), len(job.cond)
    for first in tqdm(range(0, total, cfg.batch), desc="batches"):
        numbers = range(first, min(first + cfg.batch, total))
        with autocast(cfg.precision, device):
            z = sample_latents(
                denoiser,
                numbers,
                job.shape,
                job.schedule,
                cfg.sampler,
                cfg.steps,
                cfg.seed,
                cfg.batch,
                start,
                cfg.strength,
                device,
                job.before,
            )
            images = to_uint8(job.vae.images(z))  # (B, H, W, 3)
        for i, image in enumerate(images, first):
            column, row = divmod(i, cfg.count)
            save_image(out / f"{stems[column]}_{row:03d}.png", image)
            columns[column].append(image)
    save_image(out / GRID, grid(dict(zip(job.names, columns))))
    print(f"{total} images and grid.png in {out}")


def denoisers(cfg, job: Job) -> Callable:
    """denoiser(here) of the images numbered `here`: guided, and outside of the interval the model alone."""
    inside = batched_cfg(job.model, job.cond, job.null, cfg.guidance, cfg.channels or None, job.more, job.hint)
    if not cfg.interval:
        return inside
    low, high = interval(cfg.interval, len(job.schedule.alpha_bar) - 1)
    outside = batched_cfg(job.model, job.cond, None, 1.0, hint=job.hint)
    return lambda here: limited_interval(low, high, inside(here), outside(here))


def labelled(cfg, settings, path, files, device) -> Job:
    """A DiT with its adapters folded in, and the classes that were asked for."""
    if cfg.attend:
        raise ValueError(f"--attend {cfg.attend[0]!r} is for a word of a prompt of Stable Diffusion, found no prompt")
    model = weights.load(path, expect="dit", dtype=torch.float32)
    put_on(cfg, model, files)
    vae = weights.load(settings.get("vae", cfg.vae), expect="vae", dtype=torch.float32).to(device)
    names, labels, more = choose(cfg, model)
    hint = None
    if control := control_of(cfg):
        model = weights.with_control(model, control)
        shown = hints(cfg, model.config.input_size * vae.factor, len(names))
        hint = vae.config.scaling_factor * vae.encode(2 * shown.to(device) - 1)[0].float()  # (N, C, h, w)
    cond = torch.tensor(labels, device=device).repeat_interleave(cfg.count)
    null = model.null if model.config.class_dropout else None
    schedule = dit_schedule(model.noise_schedule)
    return Job(model.to(device), vae, schedule, model.latent_shape, names, cond, null, more, hint=hint)


def prompted(cfg, settings, path, files, device) -> Job:
    """A Stable Diffusion with its adapters folded in and its new words known, and the prompts, read in one go."""
    if cfg.classes:
        raise ValueError(f"--classes {cfg.classes!r} is for a DiT; Stable Diffusion draws prompts, --prompt")
    sd = weights.load_sd(path, dtype=torch.float32)
    model = TextConditioned(sd.unet, sd.text)
    weights.add_words(sd.tokenizer, [file for file, _ in files])
    put_on(cfg, model, files)
    for text in cfg.embedding:
        word, _, file = text.rpartition("=")
        weights.add_embedding(sd.tokenizer, sd.text, file, word or None)
    names = read_prompts(cfg) or settings.get("prompts") or None
    if not names:
        raise ValueError("what shall be drawn? give --prompt, or --prompts with a file of them")
    more = weighed(cfg)
    if from_superclass(cfg, "" if cfg.superclass else "guidance from a superclass needs its prompt, --superclass TEXT"):
        more.append((cfg.superclass, cfg.superclass_guidance - cfg.guidance))
    texts = [*names, *(text for text, _ in more), cfg.negative]
    states = encode_prompts(sd.text.to(device), sd.tokenizer, texts).float()  # (U, L, D)
    cond = states[: len(names)].repeat_interleave(cfg.count, 0)
    before = None
    if cfg.attend:
        words = [
            [token_indices(word, name, sd.tokenizer) for word in cfg.attend] for name in names for _ in range(cfg.count)
        ]
        before = attend_and_excite(
            model.requires_grad_(False), cond, words, timesteps_of(cfg.sampler, sd.schedule, cfg.steps)
        )
    size, hint = cfg.size or settings.get("size", 0), None
    if control := control_of(cfg):
        model = ControlledText(sd.unet, sd.text, weights.load_control(control, dtype=torch.float32))
        shown = hints(cfg, sd.side(size), len(names)).to(device)
        hint = shown.mean(1, keepdim=True) if model.control.config.hint_channels == 1 else shown
    return Job(
        model.to(device),
        sd.vae.to(device),
        sd.schedule,
        sd.latent_shape(size),
        names,
        cond,
        states[-1:],
        [(state, weight) for state, (_, weight) in zip(states[len(names) :], more)],
        before,
        hint,
    )


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
    own = [str(path) for path in [run / "adapter.safetensors"] if path.exists()]
    if not own and not control_of(cfg):
        raise ValueError(f"{cfg.run}: neither adapter.safetensors nor model.safetensors; did the run finish?")
    return settings["model"], [(file, 1.0) for file in settings.get("init", []) + own] + files


def control_of(cfg) -> Path | None:
    """The ControlNet to draw with; None without one. ValueError for one without a hint, and for a hint without one."""
    own = [path for name in ("control", "control.safetensors") if cfg.run and (path := Path(cfg.run) / name).exists()]
    control = Path(cfg.control) if cfg.control else next(iter(own), None)
    if bool(control) != bool(cfg.hint):
        raise ValueError(
            f"{control}: a ControlNet reads an image, give --hint FILE"
            if control
            else f"--hint {cfg.hint[0]} is read by a ControlNet, give --control or the --run of one"
        )
    return control


def hints(cfg, side: int, columns: int) -> Tensor:
    """The pictures of cfg.hint from 0 to 1, for the images of a column in turn: (N, 3, side, side)."""
    shown = torch.stack([to_tensor(Transform(side)(decode(file))) for file in cfg.hint]) / 2 + 0.5
    return shown[torch.arange(cfg.count) % len(shown)].repeat(columns, 1, 1, 1)


def put_on(cfg, model, files):
    """The adapter files onto the model, folded into its weights; what is to be sampled stays as it is."""
    if cfg.weights not in ("mean", "sampled"):
        raise ValueError(f"weights must be mean or sampled, found {cfg.weights!r}")
    if files or cfg.weights == "sampled":
        weights.apply_adapters(model, files, sampled=cfg.weights == "sampled")


def with_strength(text):
    """ "FILE" or "FILE:0.7" -> (file, strength)."""
    file, colon, strength = text.rpartition(":")
    try:
        return (file, float(strength)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def choose(cfg, model) -> tuple[list[str], list[int], list[tuple]]:
    """Class names as asked, by name or id, their labels, and the further rows that guidance weighs."""
    classes = model.classes or [str(i) for i in range(model.config.num_classes)]
    asked = [name.strip() for name in cfg.classes.split(",") if name.strip()]
    asked = asked or [name for name in classes if name not in model.parents.values()][:12]
    labels = [row_of(name, classes) for name in asked]
    names = [classes[label] for label in labels]
    more = [(row_of(name, classes), weight) for name, weight in weighed(cfg)]
    alone = next((name for name in names if name not in model.parents), "")
    if cfg.superclass:
        raise ValueError("--superclass is a prompt, and this model draws classes, whose superclasses it knows or not")
    missing = alone and f"the model has no superclass of {alone!r}; train.py --superclass 0.1 trains superclasses"
    if from_superclass(cfg, missing):
        above = torch.tensor([classes.index(model.parents[name]) for name in names])
        more.append((above.repeat_interleave(cfg.count), cfg.superclass_guidance - cfg.guidance))
    return names, labels, more


def read_prompts(cfg) -> list[str]:
    """The prompts of the command line, then those of the file, each once."""
    try:
        lines = Path(cfg.prompts).read_text("utf-8").splitlines() if cfg.prompts else []
    except UnicodeDecodeError as error:
        raise ValueError(f"{cfg.prompts}: not UTF-8 ({error})") from None
    lines = [line.strip() for line in lines if line.strip()]
    if cfg.prompts and not lines:
        raise ValueError(f"{cfg.prompts}: expected a prompt in each line, found none")
    return list(dict.fromkeys([*cfg.prompt, *lines]))


def encoded(cfg, job: Job, device) -> Tensor:
    """The picture to start from as a latent of the job's shape (C, H, W), scaled."""
    pixels = Transform(job.shape[1] * job.vae.factor)(decode(cfg.image))  # (S, S, 3)
    return job.vae.config.scaling_factor * job.vae.encode(to_tensor(pixels)[None].to(device))[0][0].float()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
