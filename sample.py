"""Sample images from a fine-tuned model: python sample.py --run RUN, or --model PATH [--adapter FILE[:strength]]...

--classes says what a class-conditional model shows, --prompt (repeated) or --prompts FILE what Stable Diffusion shows.
Writes a grid (columns = classes or prompts, rows = samples) and single PNGs.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

import weights
from border import checked, read_text
from config import Config, check_unread, given, read_toml, run_script, usage
from config import sampling as part
from data.images import decode
from data.output.grid import grid, save_image
from data.output.samples import GRID, file_names
from data.transforms import Transform, to_tensor, to_uint8
from dit.classes import row_of
from ops.attention import set_backend
from ops.device import Compute, choose_device
from recipes.settings import all_parts as training_parts
from sampling import Schedule, batched_cfg, dit_schedule, limited_interval, sample_latents, timesteps_of
from unet import VAE, ControlledText, TextConditioned, encode_prompts
from unet.attend import attend_and_excite, token_indices
from unet.prompt import added_words

_ALL = (part.Source, part.Guidance, part.Hints, part.Start, part.Sampler, part.Output)
PARTS = {  # what is sampled from -> the parts of the settings that are read
    "a DiT": (*_ALL, part.Checkpoint, part.Autoencoder, part.Classes),
    "a DiT of a run": (*_ALL, part.Classes),
    "a Stable Diffusion": (*_ALL, part.Checkpoint, part.Prompts),
    "a Stable Diffusion of a run": (*_ALL, part.Prompts),
}
CLASSES = 12  # columns at most, where no class is named


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
    config, path, files, stored = configure(argv)
    output, compute = (
        config[part.Output],
        Compute(choose_device(config[part.Output].device), config[part.Output].precision),
    )
    if output.attention != "auto":
        set_backend(output.attention)
    torch.manual_seed(output.seed)  # of sampled weights: the images of one batch share them
    with compute.autocast():
        prepare = prepare_dit if part.Classes in config else prepare_sd
        request = prepare(config, path, files, stored, compute.device)
        start = encode_image(config[part.Start].image, request, compute.device) if config[part.Start].image else None
    run = config[part.Source].run
    out = Path(output.out or (Path(run) / "drawn" if run else "drawn"))
    out.mkdir(parents=True, exist_ok=True)
    stems, columns = file_names(request.names), [[] for _ in request.names]
    denoiser, total = guided_denoisers(request, config[part.Guidance]), len(request.cond)
    sampler, strength = config[part.Sampler], config[part.Start].strength
    for first in tqdm(range(0, total, output.batch), desc="batches"):
        numbers = range(first, min(first + output.batch, total))
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
            column, row = divmod(i, output.count)
            save_image(out / f"{stems[column]}_{row:03d}.png", image)
            columns[column].append(image)
    save_image(out / GRID, grid(dict(zip(request.names, columns))))
    print(f"{total} images and grid.png in {out}")


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


def prepare_dit(config: Config, path: str, files: list, stored: dict, device: torch.device) -> Request:
    """A DiT with its adapters merged in, and the labels of the classes."""
    count, guidance = config[part.Output].count, config[part.Guidance]
    model = weights.load(path, expect="dit", dtype=torch.float32)
    apply_adapters(model, files, config[part.Source].weights)
    vae = stored.get("vae", "tiny-vae") if part.Autoencoder not in config else config[part.Autoencoder].vae
    vae = weights.load(vae, expect="vae", dtype=torch.float32).to(device)
    classes = model.classes or [str(i) for i in range(model.config.num_classes)]
    wanted = [name.strip() for name in config[part.Classes].classes.split(",") if name.strip()]
    wanted = wanted or [name for name in classes if name not in model.parents.values()][:CLASSES]
    labels = [row_of(name, classes) for name in wanted]
    names = [classes[label] for label in labels]
    extra = [(row_of(name, classes), weight) for name, weight in guidance.extra()]
    orphan = next((name for name in names if name not in model.parents), "")
    missing = orphan and f"the model has no superclass of {orphan!r}; train.py --superclass 0.1 trains superclasses"
    superclass = None
    if guidance.leads_from_superclass("", missing):
        rows = torch.tensor([classes.index(model.parents[name]) for name in names], device=device)
        superclass = rows.repeat_interleave(count)
    hint = None
    if control := control_of(config):
        model = weights.with_control(model, control)
        shown = load_hints(config, model.config.input_size * vae.factor, len(names))
        hint = vae.config.scaling_factor * vae.encode(2 * shown.to(device) - 1)[0].float()  # (N, C, h, w)
    cond = torch.tensor(labels, device=device).repeat_interleave(count)
    null = model.null if model.config.class_dropout else None
    schedule, shape = dit_schedule(model.noise_schedule), model.latent_shape
    return Request(model.to(device), vae, schedule, shape, names, cond, null, extra, superclass, hint=hint)


def prepare_sd(config: Config, path: str, files: list, stored: dict, device: torch.device) -> Request:
    """A Stable Diffusion with its adapters merged in and its new words known, and the states of the prompts."""
    count, guidance, texts = config[part.Output].count, config[part.Guidance], config[part.Prompts]
    sd = weights.load_sd(path, dtype=torch.float32)
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
    size, hint = texts.size or stored.get("size", 0), None
    if control := control_of(config):
        model = ControlledText(sd.unet, sd.text, weights.load_control(control, dtype=torch.float32))
        shown = load_hints(config, sd.side(size), len(names)).to(device)
        hint = shown.mean(1, keepdim=True) if model.control.config.hint_channels == 1 else shown
    superclass = others[len(extra)] if kinds else None
    shape, vae = sd.latent_shape(size), sd.vae.to(device)
    return Request(
        model.to(device), vae, sd.schedule, shape, names, cond, states[-1:], extra_conditions, superclass, on_step, hint
    )


def configure(argv: list[str] | None) -> tuple[Config, str, list[tuple[str, float]], dict]:
    """The settings, the checkpoint, the adapter files with their strengths, and the run's settings, {} without one."""
    argv = list(sys.argv[1:] if argv is None else argv)
    everything = all_parts()
    if "-h" in argv or "--help" in argv:
        print(usage(__doc__, everything))
        sys.exit(0)
    values = given(argv, everything)
    source = part.Source(**{name: values[name] for name in ("run", "adapter") if name in values})
    stored = read_run(source.run) if source.run else {}
    path, files = fine_tuned(source, stored, values.get("model", part.Checkpoint.model), values.get("control", ""))
    row = ("a Stable Diffusion" if weights.is_sd(path) else "a DiT") + (" of a run" if source.run else "")
    check_unread(values, PARTS, row)
    config = Config(PARTS[row], sampling_defaults(files) | values)
    if part.Prompts in config and config[part.Prompts].negative and config[part.Guidance].guidance == 1:
        raise ValueError("--negative has no effect at guidance 1")
    return config, path, files, stored


def read_run(folder: str) -> dict:
    """The settings of the run to sample from."""
    if not (Path(folder) / "config.toml").is_file():
        raise ValueError(f"{folder}: not a run folder, it has no config.toml")
    return read_toml(Path(folder) / "config.toml", training_parts(), stored=True)


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


def load_hints(config: Config, side: int, columns: int) -> Tensor:
    """The hints from 0 to 1, for the images of a column in turn: (N, 3, side, side)."""
    images = [Transform(side)(decode(file)) for file in config[part.Hints].hint]
    hints = torch.stack([to_tensor(image) for image in images]) / 2 + 0.5
    return hints[torch.arange(config[part.Output].count) % len(hints)].repeat(columns, 1, 1, 1)


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
