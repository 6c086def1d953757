"""What a call of sample.py asks for: a model, a condition for each image, and what guidance leads away from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import weights
from border import read_text
from config import Config
from config import sampling as part
from data.images import decode
from data.transforms import Transform, to_tensor
from dit.classes import row_of, split_names
from dit.table import tabulate, worthwhile
from inference.chosen import Chosen, each
from inference.hints import Control, controls_of, in_latents, in_pixels, in_turn
from ops.device import Compute
from recipes.models.loading import Checkpoint, load_autoencoder, load_dit
from recipes.models.store import for_sampling
from sampling import NoisePath, dit_schedule, sample_seeds, timesteps_of
from sampling.latents import cleanest
from unet import VAE, ControlledText, ControlNet, ControlNets, TextConditioned, encode_prompts
from unet.attend import attend_and_excite, token_indices
from unet.inpaint import take_mask
from unet.row import nothing, sized
from unet.text.prompt import added_words

CLASSES = 12  # columns at most, where no class is named


@dataclass
class Request:
    """What there is to sample: one name a column, and a condition for each of its images."""

    model: nn.Module
    vae: VAE
    schedule: NoisePath
    shape: tuple[int, int, int]  # of a latent
    names: list[str]
    cond: Tensor | Chosen  # labels (N,), text states (N, L, D) or XL's rows (N, M), of the columns' images in a row
    null: int | Tensor | None  # the condition that guidance leads away from
    extra_conditions: list[tuple[int | Tensor, float]]  # further conditions, each with its weight
    superclass: Tensor | None = None  # of each image, where guidance leads away from it
    on_step: Callable | None = None  # what changes the latents before each step
    hint: Tensor | Chosen | None = None  # what a ControlNet reads, for each image

    def seeds(self, seed: int) -> list[tuple[int, int, int]]:
        """What the noise of each image is made of (sampling/seeds.py)."""
        count = len(self.cond) // len(self.names)
        return sample_seeds(seed, [name for name in self.names for _ in range(count)])


def prepare_dit(config: Config, path: str, files: list, stored: dict, compute: Compute) -> Request:
    """A DiT with its adapters merged in, and the labels of the classes."""
    count, guidance = config[part.Output].count, config[part.Guidance]
    vae = stored.get("vae", "tiny-vae") if part.Autoencoder not in config else config[part.Autoencoder].vae
    vae, controls = load_autoencoder(vae, compute), controls_of(config)
    size = config[part.Size].side() or stored.get("size", 0) or trained_side(files, controls) * vae.factor
    unsaid = config[part.Unsaid] if part.Unsaid in config else of_run(stored)
    checkpoint, objective = Checkpoint(path, unsaid.objective, unsaid.heads), unsaid.objective
    model, side = load_dit(checkpoint, size, vae, Compute(torch.device("cpu"), compute.precision))
    if objective not in ("", model.objective):
        raise ValueError(f"{path} is a {model.objective} model, found --objective {objective}")
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
    if controls:
        model = weights.with_controls(model, [(control.path, control.strength) for control in controls])
        hint = torch.cat([in_latents(control, side, stored, vae, compute) for control in controls], dim=1)
        hint = in_turn(hint, count, len(names))  # (N, k C, h, w)
    cond = torch.tensor(labels, device=compute.device).repeat_interleave(count)
    null = model.null if model.config.class_dropout else None
    schedule, shape = dit_schedule(model.noise_schedule, objective=model.objective), model.latent_shape
    steps = visited_steps(config, schedule)
    for_sampling(model, compute, config[part.Output].compile)
    conditions = {*labels, *(label for label, _ in extra), *([] if null is None else [null])}
    conditions |= set() if superclass is None else set(superclass.tolist())
    if compute.dtype != torch.float32 and worthwhile(model, steps, conditions):  # in float32 the last bits would differ
        tabulate(model, steps, conditions)
    return Request(model, vae, schedule, shape, names, cond, null, extra, superclass, hint=hint)


def prepare_sd(config: Config, path: str, files: list, stored: dict, compute: Compute) -> Request:
    """A Stable Diffusion with its adapters merged in and its new words known, and the states of the prompts."""
    count, guidance, texts = config[part.Output].count, config[part.Guidance], config[part.Prompts]
    names = read_prompts(texts) or stored.get("prompts") or None
    if not names:
        raise ValueError("what shall the images show? give --prompt, or --prompts with a file of them")
    missing = "" if texts.superclass else "guidance from a superclass needs its prompt, --superclass TEXT"
    kinds = [texts.superclass] if guidance.leads_from_superclass(texts.superclass, missing) else []
    extra = guidance.extra()
    distinct = [*names, *(text for text, _ in extra), *kinds, texts.negative]
    sd, model = with_new_words(config, path, files, stored, distinct)
    sides = sides_of(config, sd, path, stored)
    states = encode_prompts(sd.text.to(compute.device), sd.tokenizer, distinct).float()  # (U, L, D), XL's rows (U, M)
    null = states[-1:] if texts.negative else nothing(states[-1:])
    states, null = (sized(of, config[part.ImageSizes].six(*sides)) for of in (states, null))
    cond, others = each(states[: len(names)], count), states[len(names) :]
    extra_conditions = [(state, weight) for state, (_, weight) in zip(others, extra)]
    on_step = hint = None
    if texts.attend:
        words = [[token_indices(word, name, sd.tokenizer) for word in texts.attend] for name in names]
        tokens = [own for own in words for _ in range(count)]
        on_step = attend_and_excite(model.requires_grad_(False), cond, tokens, visited_steps(config, sd.schedule))
    if controls := controls_of(config):
        nets = [weights.load_control(control.path, dtype=torch.float32) for control in controls]
        model = ControlledText(sd.unet, sd.text, together(nets, controls))
        shown = [in_pixels(control, net, sides, stored) for control, net in zip(controls, nets)]
        hint = in_turn(torch.cat(shown, dim=1).to(compute.device), count, len(names))
    superclass = others[len(extra)] if kinds else None
    visited_steps(config, sd.schedule)
    shape, vae = sd.latent_shape(*sides), sd.vae.to(compute.device)
    for_sampling(model, compute, config[part.Output].compile, gradient=bool(texts.attend))
    return Request(model, vae, sd.schedule, shape, names, cond, null, extra_conditions, superclass, on_step, hint)


def with_new_words(
    config: Config, path: str, files: list, stored: dict, prompts: list[str]
) -> tuple[weights.StableDiffusion, TextConditioned]:
    """The Stable Diffusion and its model, with adapters merged in and the words that they and --embedding learned.

    ValueError for a learned word that no prompt holds.
    """
    # a run goes on from the raw weights
    sd = weights.load_sd(path, dtype=torch.float32, ema=not stored, inpainting=True)
    model = TextConditioned(sd.unet, sd.text)
    if sd.unet.config.in_channels != sd.unet.config.out_channels:
        take_mask(model)
    weights.add_words(sd.tokenizer, [file for file, _ in files])
    learned, files_of = list(sd.tokenizer.added), {}
    apply_adapters(model, files, config[part.Source].weights)
    for text in config[part.Prompts].embedding:
        word, _, file = text.rpartition("=")
        files_of[weights.add_embedding(sd.tokenizer, sd.text, file, word or None)] = file
    weights.check_words(learned, files_of, added_words(prompts, sd.tokenizer))
    return sd, model


def sides_of(config: Config, sd: weights.StableDiffusion, path: str, stored: dict) -> tuple[int, int]:
    """Height and width of the images, in pixels. ValueError for sizes of the image that the model does not read."""
    if config[part.ImageSizes].given and not sd.unet.config.pooled:
        raise ValueError(f"{path}: sizes of the image are read by Stable Diffusion XL alone, not by version 1 or 2")
    return tuple(sd.side(side) for side in config[part.Size].sides() or [stored.get("size", 0)] * 2)


def together(nets: list[ControlNet], controls: list[Control]) -> ControlNet | ControlNets:
    """Control nets as one, each with its strength."""
    if len(controls) == 1 and controls[0].strength == 1:
        return nets[0]
    return ControlNets(nets, [control.strength for control in controls])


def of_run(stored: dict) -> part.Unsaid:
    """What the model's file did not say when the run began."""
    return part.Unsaid(stored.get("objective", ""), stored.get("heads", 0))


def visited_steps(config: Config, schedule: NoisePath) -> list[float]:
    """The sampler's timesteps. ValueError for more than the chain has, and where a start image leaves none of them."""
    steps = timesteps_of(config[part.Sampler].sampler, schedule, config[part.Sampler].steps)
    if config[part.Start].image:
        cleanest(steps, config[part.Start].strength)
    return steps


def apply_adapters(model: nn.Module, files: list[tuple[str, float]], kind: str) -> None:
    """The adapter files merged into the model; Gaussian weights that are to be sampled stay as they are."""
    if files or kind == "sampled":
        weights.apply_adapters(model, files, sampled=kind == "sampled")


def trained_side(files: list[tuple[str, float]], controls: list[Control]) -> int:
    """The latents' side that adapter files of this package, or a DiT's ControlNet, were trained at; 0 if none says."""
    own = [file for file, _ in files if not weights.is_foreign(file)] + [control.path for control in controls]
    sides = [(weights.load_adapter(file)[1]["base"].get("config") or {}).get("input_size") for file in own]
    return next((side for side in sides if isinstance(side, int)), 0)


def read_prompts(texts: part.Prompts) -> list[str]:
    """The prompts of the command line, then those of the file, each once."""
    lines = read_text(texts.prompts).splitlines() if texts.prompts else []
    lines = [line.strip() for line in lines if line.strip()]
    if texts.prompts and not lines:
        raise ValueError(f"{texts.prompts}: expected a prompt in each line, found none")
    return list(dict.fromkeys([*texts.prompt, *lines]))


def encode_image(file: str, request: Request, device: torch.device) -> Tensor:
    """The image to start from as a latent of the request's shape (C, H, W), scaled."""
    height, width = (side * request.vae.factor for side in request.shape[1:])
    pixels = Transform((height, width))(decode(file))  # (H, W, 3)
    return request.vae.config.scaling_factor * request.vae.encode(to_tensor(pixels)[None].to(device))[0][0].float()
