"""Sample images from a fine-tuned model: python sample.py --run RUN, or --model PATH [--adapter FILE[:strength]]...

--classes says what a class-conditional model shows, --prompt (repeated) or --prompts FILE what Stable Diffusion shows.
Writes a grid (columns = classes or prompts, rows = samples) and single PNGs.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import weights
from border import checked, read_text
from config import Config, check_unread, given, run_script, usage
from config import sampling as part
from config.option import default_of
from config.read import fields, read_flags
from config.sampling import with_strength
from config.training import Images
from data.images import SUFFIXES, decode, decode_mask
from data.output.about import read_about
from data.output.grid import grid, save_image
from data.output.samples import GRID, file_names
from data.transforms import Transform, Variant, to_tensor, to_uint8
from dit.classes import row_of, split_names
from ops.attention import set_backend
from ops.device import Compute, choose_device
from ops.memory import memory_in_a_sentence
from ops.progress import progress
from recipes.conditions.classes import load_autoencoder, load_dit
from recipes.masks import mask_hints, mask_images
from recipes.pixels import transform
from recipes.settings import settings_from_here
from sampling import Schedule, batched_cfg, dit_schedule, limited_interval, sample_latents, timesteps_of
from unet import VAE, ControlledText, TextConditioned, encode_prompts
from unet.attend import attend_and_excite, token_indices
from unet.prompt import added_words

_ALL = (part.Source, part.Guidance, part.Hints, part.Start, part.Sampler, part.Output)
PARTS = {  # what is sampled from -> the parts of the settings that are read
    "a DiT": (*_ALL, part.Checkpoint, part.Autoencoder, part.Classes, part.Size),
    "a DiT of a run": (*_ALL, part.Classes, part.Size),
    "a Stable Diffusion": (*_ALL, part.Checkpoint, part.Prompts, part.Size),
    "a Stable Diffusion of a run": (*_ALL, part.Prompts, part.Size),
}
CLASSES = 12  # columns at most, where no class is named
OF_A_CALL = ("out", "replace", "like")  # settings that say nothing about an image
IDLE = ("batch", "device", "precision", "attention")  # those that change at most its last bit
PATHS = ("run", "adapter", "model", "vae", "embedding", "control", "hint", "image")  # those that may be paths
LEVERS = "a smaller --batch or --size, or --precision bf16, takes less memory"


@dataclass
class Request:
    """What there is to sample: one name a column, and a condition for each of its images."""

    model: nn.Module
    vae: VAE
    schedule: Schedule
    shape: tuple[int, int, int]  # of a latent
    names: list[str]
    cond: Tensor  # labels (N,) or text states (N, L, D), of the columns' images in a row
    null: int | Tensor | None  # the condition that guidance leads away from
    extra_conditions: list[tuple[int | Tensor, float]]  # further conditions, each with its weight
    superclass: Tensor | None = None  # of each image, where guidance leads away from it
    on_step: Callable | None = None  # what changes the latents before each step
    hint: Tensor | None = None  # what a ControlNet reads, for each image


@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    """Settings, model and conditions, then batches of samples, each into its file."""
    config, path, files, stored, only = configure(argv)
    with memory_in_a_sentence(LEVERS):
        draw(config, path, files, stored, only)


def draw(config: Config, path: str, files: list[tuple[str, float]], stored: dict, only: int | None) -> None:
    """Sample the images of all columns, or the one numbered `only`, each into its file."""
    output = config[part.Output]
    compute = Compute(choose_device(output.device), output.precision)
    if output.attention != "auto":
        set_backend(output.attention)
    torch.manual_seed(output.seed)  # of sampled weights: the images of one batch share them
    with compute.autocast():
        prepare = prepare_dit if part.Classes in config else prepare_sd
        request = prepare(config, path, files, stored, compute)
        start = encode_image(config[part.Start].image, request, compute.device) if config[part.Start].image else None
    run = config[part.Source].run
    out = Path(output.out or (Path(run) / "drawn" if run else "drawn"))
    stems, columns = file_names(request.names), [[] for _ in request.names]
    denoiser, total = guided_denoisers(request, config[part.Guidance]), len(request.cond)
    sampler, strength = config[part.Sampler], config[part.Start].strength
    about = about_call(config, path, files, request)
    names = {f"{stems[i // output.count]}_{i % output.count:03d}.png" for i in range(total)}
    what = f"{len(columns)} {'classes' if part.Classes in config else 'prompts'} x {output.count}"
    amount = f"{total} images ({what})" if only is None else f"image {only} of {total}"
    print(f"{amount} of {about['model']} by {sampler.sampler}, {sampler.steps} steps, into {out}")
    check_folder(out, names, about["settings"], output.replace)
    out.mkdir(parents=True, exist_ok=True)
    needless = only is not None and config[part.Source].weights != "sampled"  # batches of other images
    for first in progress(range(0, total, output.batch), "batches"):
        numbers = range(first, min(first + output.batch, total))
        if needless and only not in numbers:
            continue
        with compute.autocast():
            z = sample_latents(
                denoiser,
                numbers,
                request.shape,
                request.schedule,
                sampler.sampler,
                sampler.steps,
                output.seed,
                output.batch,
                start,
                strength,
                compute.device,
                request.on_step,
            )
            images = to_uint8(request.vae.images(z))  # (B, H, W, 3)
        for i, image in enumerate(images, first):
            if only in (None, i):
                column, row = divmod(i, output.count)
                shows = {"class" if part.Classes in config else "prompt": request.names[column], "number": i}
                save_image(out / f"{stems[column]}_{row:03d}.png", image, shows | about)
                columns[column].append(image)
    if only is None:
        save_image(out / GRID, grid(dict(zip(request.names, columns))))
    print(f"{total} images and grid.png in {out}" if only is None else f"1 image in {out}")


def about_call(config: Config, path: str, files: list[tuple[str, float]], request: Request) -> dict:
    """What every image of a call says about itself: what is asked for most, and all settings, paths from the root."""
    values = {name: value for name, value in config.values.items() if name not in OF_A_CALL}
    if part.Prompts in config:
        values |= {"prompt": request.names, "prompts": ""}
    return {
        "seed": values["seed"],
        "steps": values["steps"],
        "guidance": values["guidance"],
        "sampler": values["sampler"],
        "model": anchored(path),
        "adapters": [[anchored(file), strength] for file, strength in files],
        "settings": {name: anchored(value, name) for name, value in values.items()},
    }


def anchored(value: Any, name: str = "model") -> Any:
    """A setting with the paths in it absolute, where they are of files that exist."""
    if isinstance(value, list):
        return [anchored(item, name) for item in value]
    if name not in PATHS or not value:
        return value
    word, equals, file = value.rpartition("=") if name == "embedding" else ("", "", value)
    file, strength = with_strength(file) if name == "adapter" and not Path(file).exists() else (file, 1.0)
    absolute = os.path.abspath(file) if Path(file).exists() else file
    return f"{word}{equals}{absolute}" + (f":{strength}" if strength != 1 else "")


def settings_like(path: str) -> tuple[dict, int]:
    """The settings of the call that sampled a PNG, and the number of that image in it. ValueError without them."""
    about = read_about(path)
    settings, number = about.get("settings"), about.get("number")
    if not isinstance(settings, dict) or type(number) is not int:
        raise ValueError(f"{path}: does not say how it was sampled; --like takes a PNG of sample.py as it was written")
    lists = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
    words = [f"--{name}={value}" for name, items in lists.items() for value in items]
    given_then = read_flags(words, all_parts())
    defaults = {name: default_of(field) for name, (field, _) in fields(all_parts()).items()}
    return {name: value for name, value in given_then.items() if value != defaults[name]}, number


def check_folder(out: Path, names: set[str], settings: dict, replace: bool) -> None:
    """ValueError for a folder that holds images other than those of a call with these settings.

    names: the files that the call writes. replace: samples of other settings are removed instead.
    """

    def deciding(values: dict) -> dict:
        return {name: value for name, value in values.items() if name not in IDLE}

    for path in sorted(out.iterdir()) if out.is_dir() else []:
        if path.suffix.lower() not in SUFFIXES or path.name == GRID:
            continue
        about = read_about(path) if path.suffix.lower() == ".png" else {}
        own = about.get("settings")
        if deciding(own) == deciding(settings) if isinstance(own, dict) else path.name in names:
            continue  # of this call, or of an earlier version and written anew
        if not replace or not isinstance(own, dict):
            kind = "a sample of other settings" if isinstance(own, dict) else "which is no sample of this call"
            way = "name another folder by --out" + (", or let its samples go by --replace" if own else "")
            raise ValueError(f"{out} holds {path.name}, {kind}: {way}")
        path.unlink()


def guided_denoisers(request: Request, guidance: part.Guidance) -> Callable:
    """denoiser(here) of the images numbered `here`: guided, and outside of the interval the model alone."""
    inside = batched_cfg(
        request.model,
        request.cond,
        request.null,
        guidance.guidance,
        guidance.channels or None,
        request.extra_conditions,
        request.hint,
        request.superclass,
        guidance.superclass_guidance,
    )
    limits = guidance.limits(len(request.schedule.alpha_bar) - 1)
    if limits is None:
        return inside
    outside = batched_cfg(request.model, request.cond, None, 1.0, hint=request.hint)
    return lambda here: limited_interval(*limits, inside(here), outside(here))


def prepare_dit(config: Config, path: str, files: list, stored: dict, compute: Compute) -> Request:
    """A DiT with its adapters merged in, and the labels of the classes."""
    count, guidance = config[part.Output].count, config[part.Guidance]
    vae = stored.get("vae", "tiny-vae") if part.Autoencoder not in config else config[part.Autoencoder].vae
    vae, control = load_autoencoder(vae, compute), control_of(config)
    size = config[part.Size].size or stored.get("size", 0) or trained_side(files, control) * vae.factor
    model, side = load_dit(path, size, vae, Compute(torch.device("cpu"), compute.precision))
    apply_adapters(model, files, config[part.Source].weights)
    classes = model.classes or [str(i) for i in range(model.config.num_classes)]
    wanted = split_names(config[part.Classes].classes, classes)
    wanted = wanted or [name for name in classes if name not in model.parents.values()][:CLASSES]
    labels = [row_of(name, classes) for name in wanted]
    names = [classes[label] for label in labels]
    extra = [(row_of(name, classes), weight) for name, weight in guidance.extra()]
    orphan = next((name for name in names if name not in model.parents), "")
    missing = orphan and f"the model has no superclass of {orphan!r}; train.py --superclass 0.1 trains superclasses"
    superclass = None
    if guidance.leads_from_superclass("", missing):
        rows = torch.tensor([classes.index(model.parents[name]) for name in names], device=compute.device)
        superclass = rows.repeat_interleave(count)
    hint = None
    if control:
        model = weights.with_control(model, control)
        trained = stored or weights.load_adapter(control)[1]["config"] or {}
        shown = to_tensor(mask_images(read_masks(config[part.Hints].hint, side, trained)))  # (hints, 3, S, S)
        latents = vae.config.scaling_factor * vae.encode(shown.to(compute.device))[0].float()  # (hints, C, h, w)
        hint = in_turn(latents, count, len(names))
    cond = torch.tensor(labels, device=compute.device).repeat_interleave(count)
    null = model.null if model.config.class_dropout else None
    schedule, shape = dit_schedule(model.noise_schedule), model.latent_shape
    model = model.to(compute.device)
    return Request(model, vae, schedule, shape, names, cond, null, extra, superclass, hint=hint)


def prepare_sd(config: Config, path: str, files: list, stored: dict, compute: Compute) -> Request:
    """A Stable Diffusion with its adapters merged in and its new words known, and the states of the prompts."""
    count, guidance, texts = config[part.Output].count, config[part.Guidance], config[part.Prompts]
    device = compute.device
    sd = weights.load_sd(path, dtype=torch.float32, ema=not stored)  # a run goes on from the raw weights
    model = TextConditioned(sd.unet, sd.text)
    weights.add_words(sd.tokenizer, [file for file, _ in files])
    learned = list(sd.tokenizer.added)
    apply_adapters(model, files, config[part.Source].weights)
    files_of = {}
    for text in texts.embedding:
        word, _, file = text.rpartition("=")
        files_of[weights.add_embedding(sd.tokenizer, sd.text, file, word or None)] = file
    names = read_prompts(texts) or stored.get("prompts") or None
    if not names:
        raise ValueError("what shall the images show? give --prompt, or --prompts with a file of them")
    missing = "" if texts.superclass else "guidance from a superclass needs its prompt, --superclass TEXT"
    extra = guidance.extra()
    kinds = [texts.superclass] if guidance.leads_from_superclass(texts.superclass, missing) else []
    distinct = [*names, *(text for text, _ in extra), *kinds, texts.negative]
    weights.check_words(learned, files_of, added_words(distinct, sd.tokenizer))
    states = encode_prompts(sd.text.to(device), sd.tokenizer, distinct).float()  # (U, L, D)
    cond, others = states[: len(names)].repeat_interleave(count, 0), states[len(names) :]
    extra_conditions = [(state, weight) for state, (_, weight) in zip(others, extra)]
    on_step = None
    if texts.attend:
        tokens = [
            [token_indices(word, name, sd.tokenizer) for word in texts.attend] for name in names for _ in range(count)
        ]
        steps = timesteps_of(config[part.Sampler].sampler, sd.schedule, config[part.Sampler].steps)
        on_step = attend_and_excite(model.requires_grad_(False), cond, tokens, steps)
    size, hint = config[part.Size].size or stored.get("size", 0), None
    if control := control_of(config):
        model = ControlledText(sd.unet, sd.text, weights.load_control(control, dtype=torch.float32))
        shown, side = config[part.Hints].hint, sd.side(size)
        one_channel = model.control.config.hint_channels == 1  # of the control recipe
        shown = mask_hints(read_masks(shown, side, stored), [Variant()])[:, 0] if one_channel else pictures(shown, side)
        hint = in_turn(shown, count, len(names)).to(device)
    superclass = others[len(extra)] if kinds else None
    shape, vae = sd.latent_shape(size), sd.vae.to(device)
    return Request(
        model.to(device), vae, sd.schedule, shape, names, cond, states[-1:], extra_conditions, superclass, on_step, hint
    )


def configure(argv: list[str] | None) -> tuple[Config, str, list[tuple[str, float]], dict, int | None]:
    """The settings, the checkpoint, the adapter files with their strengths, and the run's settings, {} without one.

    The last is the number of the only image to sample, None for all: that of --like, where no flag changes it.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    everything = all_parts()
    if "-h" in argv or "--help" in argv:
        print(usage(__doc__, everything))
        sys.exit(0)
    values, only = given(argv, everything), None
    if values.get("like"):
        settings, only = settings_like(values["like"])
        only = only if values.keys() <= {*OF_A_CALL, *IDLE} else None
        values = settings | values
    source = part.Source(**{name: values[name] for name in ("run", "adapter") if name in values})
    stored = settings_from_here(Path(source.run)) if source.run else {}
    path, files = fine_tuned(source, stored, values.get("model", part.Checkpoint.model), values.get("control", ""))
    row = ("a Stable Diffusion" if weights.is_sd(path) else "a DiT") + (" of a run" if source.run else "")
    check_unread(values, PARTS, row)
    config = Config(PARTS[row], sampling_defaults(files) | values)
    if part.Prompts in config and config[part.Prompts].negative and config[part.Guidance].guidance == 1:
        raise ValueError("--negative has no effect at guidance 1")
    return config, path, files, stored, only


def all_parts() -> list[type]:
    """All parts that any kind of model reads, each once."""
    return list(dict.fromkeys(part for parts in PARTS.values() for part in parts))


def fine_tuned(source: part.Source, stored: dict, model: str, control: str) -> tuple[str, list[tuple[str, float]]]:
    """The checkpoint to load, and the adapter files to merge into it, each with its strength."""
    if not source.run:
        return model, source.files()
    run = Path(source.run)
    for whole in (run / "model.safetensors", run / "model"):
        if whole.exists():
            return str(whole), source.files()
    own = [str(path) for path in [run / "adapter.safetensors"] if path.exists()]
    if not own and not control and not any((run / name).exists() for name in ("control", "control.safetensors")):
        raise ValueError(f"{run}: neither adapter.safetensors nor model.safetensors; did the run finish?")
    if "model" not in stored:
        raise ValueError(f"{run}: its config.toml names no model")
    return stored["model"], [(file, 1.0) for file in stored.get("init", []) + own] + source.files()


def trained_side(files: list[tuple[str, float]], control: Path | None) -> int:
    """The latents' side that adapter files of this package, or a DiT's ControlNet, were trained at; 0 if none says."""
    own = [file for file, _ in files if not weights.is_foreign(file)] + ([control] if control else [])
    sides = [(weights.load_adapter(file)[1]["base"].get("config") or {}).get("input_size") for file in own]
    return next((side for side in sides if isinstance(side, int)), 0)


def sampling_defaults(files: list[tuple[str, float]]) -> dict:
    """The settings that the header of a distilled adapter among the files asks for; {} if there is none."""
    for file, _ in files:
        stored = {} if weights.is_foreign(file) else weights.load_adapter(file)[1]["config"] or {}
        if stored.get("recipe") == "consistency":
            kinds = {"sampler": ("sampler", str), "steps": ("sample_steps", int), "guidance": ("guidance", float)}
            return {
                name: checked(stored.get(key), kind, f"{file}: {key} in its header")
                for name, (key, kind) in kinds.items()
            }
    return {}


def apply_adapters(model: nn.Module, files: list[tuple[str, float]], kind: str) -> None:
    """The adapter files merged into the model; Gaussian weights that are to be sampled stay as they are."""
    if files or kind == "sampled":
        weights.apply_adapters(model, files, sampled=kind == "sampled")


def control_of(config: Config) -> Path | None:
    """The ControlNet, None without one. ValueError for one without a hint, and for hints that no ControlNet reads."""
    run, hints, count = config[part.Source].run, config[part.Hints], config[part.Output].count
    own = [path for name in ("control", "control.safetensors") if run and (path := Path(run) / name).exists()]
    control = Path(hints.control) if hints.control else next(iter(own), None)
    if control and not hints.hint:
        raise ValueError(f"{control}: a ControlNet reads an image, give --hint FILE")
    if hints.hint and not control:
        raise ValueError(f"--hint {hints.hint[0]} is read by a ControlNet, give --control or the --run of one")
    if hints.hint and count % len(hints.hint):
        raise ValueError(f"--count must be a multiple of the {len(hints.hint)} hints, found {count}")
    return control


def read_masks(files: list[str], side: int, trained: dict) -> np.ndarray:
    """The hints of a ControlNet of this package, read as its training read masks: (hints, side, side) bool.

    trained: the settings of its training, whose crop is for masks that are as large. ValueError as data.images raises.
    """
    masks = [decode_mask(file) for file in files]
    crop = trained.get("crop", 0)
    ways = [
        transform(Images(crop=crop if min(mask.shape) >= crop else 0, resize=trained.get("resize", "resize")), side)
        for mask in masks
    ]
    return np.stack([way.mask(mask) > 0 for way, mask in zip(ways, masks)])


def pictures(files: list[str], side: int) -> Tensor:
    """The hints of a ControlNet that reads pictures: (hints, 3, side, side) from 0 to 1."""
    return torch.stack([to_tensor(Transform(side)(decode(file))) for file in files]) / 2 + 0.5


def in_turn(hints: Tensor, count: int, columns: int) -> Tensor:
    """The hints for the images of all columns, the `count` of each in turn: (N, ...)."""
    return hints[torch.arange(count) % len(hints)].repeat(columns, 1, 1, 1)


def read_prompts(texts: part.Prompts) -> list[str]:
    """The prompts of the command line, then those of the file, each once."""
    lines = read_text(texts.prompts).splitlines() if texts.prompts else []
    lines = [line.strip() for line in lines if line.strip()]
    if texts.prompts and not lines:
        raise ValueError(f"{texts.prompts}: expected a prompt in each line, found none")
    return list(dict.fromkeys([*texts.prompt, *lines]))


def encode_image(file: str, request: Request, device: torch.device) -> Tensor:
    """The image to start from as a latent of the request's shape (C, H, W), scaled."""
    pixels = Transform(request.shape[1] * request.vae.factor)(decode(file))  # (S, S, 3)
    return request.vae.config.scaling_factor * request.vae.encode(to_tensor(pixels)[None].to(device))[0][0].float()


if __name__ == "__main__":
    run_script(main)
