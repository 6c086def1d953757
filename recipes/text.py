"""Fine-tune Stable Diffusion on images with captions (Rombach et al. 2022, arXiv 2112.10752, sec. 3.3).

    z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps,    loss(unet(z_t, t, text(caption)), eps or v)

The caption is replaced by the empty one with probability `drop`, which is what guidance leads away from.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

import adapters
import weights
from data import ImageSet
from data.captions import Captions
from data.grid import grid, save_image, sections
from data.latents import LatentCache
from data.source import captions_of, held_out, load_captioned
from data.transforms import to_uint8
from ops.device import autocast
from ops.random import generator_for
from recipes import Recipe
from recipes.latent import denoising_loss, encode, latent_batches, settings
from recipes.masks import mask_weights
from recipes.pixels import augmentations, held_out_loss, transform
from recipes.tokens import learn_token, token_report
from recipes.watch import watcher
from sampling import batched_cfg, sample_latents
from unet import TextConditioned, TextEncoder, Tokenizer, UNet, encode_prompts
from unet.model import SIZES as UNETS
from unet.text import SIZES as TOWERS

COLUMNS, ROWS = 8, 4  # prompts and images of each in a picture


def text(cfg, device) -> Recipe:
    """Batches of latents with captions. A method is for one part of the model: unet.lora, text.lora; lora is unet.lora.

    Leaves adapter.safetensors, or model/, a folder that diffusers opens, where all of a part trains.
    """
    sd = load(cfg, device)
    return fine_tune(cfg, device, sd, captioned(cfg, sd, cfg.data))


def fine_tune(cfg, device, sd, data: tuple[ImageSet, Captions], specs: list[str] | None = None, prior=None) -> Recipe:
    """What all text-conditional recipes share. specs: methods in place of the config's.

    prior: images that shall not be forgotten and their captions; as many a step as of the others, their loss weighing
    cfg.prior_weight.
    """
    images, captions = data
    texts = [item.caption for item in captions.items]
    model = TextConditioned(sd.unet, sd.text)
    header = {"base": weights.fingerprint(model)}
    learned, header["tokens"] = learn_token(cfg, sd, texts)
    chosen = cfg.adapter if specs is None else specs
    header["adapter"] = [spec if adapters.split(spec)[0] else f"unet.{spec}" for spec in chosen] + learned
    adapters.attach(model, header["adapter"], generator_for(cfg.seed, -2))
    batches = batcher(cfg, sd, model, device)
    places = torch.tensor(captions.places)
    own, kept = batches(images, texts), batches(*prior) if prior else None

    def batch(index, generator):
        found = own(places[index], generator)
        if prior is None:
            return found
        drawn = kept(torch.randint(len(prior[1]), (len(index),), generator=generator), generator)
        return found | {f"prior_{key}": value for key, value in drawn.items()}

    def loss(batch, generator, progress):
        value, numbers = denoising_loss(
            cfg, model, sd.schedule, generator, batch["x0"], batch["cond"], batch.get("weight")
        )
        if "prior_x0" not in batch:
            return value, numbers
        of_prior, _ = denoising_loss(cfg, model, sd.schedule, generator, batch["prior_x0"], batch["prior_cond"])
        return value + cfg.prior_weight * of_prior, numbers | {"prior": of_prior.detach()}

    pictures = painter(cfg, model, sd, device)
    prompts = (cfg.prompts or list(dict.fromkeys(texts)))[:COLUMNS]
    watch = watcher(cfg, images.pixels, texts, [prompt for prompt in prompts for _ in range(cfg.count)], device)
    source, plain, held = held_out(cfg.data, cfg.val), None, []
    if source:
        val, found = captioned(cfg, sd, source)
        plain, held = batches(val, [item.caption for item in found.items], held_out=True), val.names

    def draw_grid(count, seed):
        drawn = pictures([prompt for prompt in prompts for _ in range(count)], seed)
        return drawn, grid({prompt: drawn[i * count : (i + 1) * count] for i, prompt in enumerate(prompts)})

    def look(run, step):
        drawn, picture = draw_grid(cfg.count, 0)
        save_image(run / "samples" / f"step_{step:06d}.png", picture)
        numbers = {"step": step} | token_report(model, sd.tokenizer, header["tokens"]) | watch(drawn)
        return numbers | ({"val": held_out_loss(plain, loss, len(held), device)} if plain else {})

    def finish(run):
        few = {name: [image] for name, image in zip(texts[:COLUMNS], images.pixels)}
        save_image(run / "grid.png", sections({"images": grid(few), "samples": draw_grid(ROWS, 1)[1]}, beside=False))
        leave(cfg, run, sd, model, header)

    names, rates = [images.names[i] for i in places], {"text.": cfg.text_lr} if cfg.text_lr else {}
    return Recipe(model, header["adapter"], names, batch, loss, look, finish, rates)


def leave(cfg, run, sd, model: TextConditioned, header: dict) -> None:
    """The run's model/, the folder of a whole Stable Diffusion, where all of a part trained, else its adapter file."""
    if any(adapters.split(spec)[1] == "full" for spec in header["adapter"]):
        adapters.merge(model)
        sd.text.config = replace(sd.text.config, vocab_size=sd.text.token_embedding.num_embeddings)
        weights.save_sd(sd, run / "model", "sd-diffusers")
    else:
        weights.save_adapter(run / "adapter.safetensors", model, header | {"config": settings(cfg)})


def load(cfg, device) -> weights.StableDiffusion:
    """The Stable Diffusion of cfg.model in float32 on the device, its autoencoder frozen.

    Of a file with raw and averaged weights the raw ones, which training goes on from.
    """
    new = cfg.model.startswith("new:")
    sd = new_sd(cfg) if new else weights.load_sd(cfg.model, dtype=torch.float32, ema=False)
    for part in (sd.unet, sd.text, sd.vae):
        part.to(device)
    sd.vae.requires_grad_(False)
    return sd


def new_sd(cfg) -> weights.StableDiffusion:
    """new:SD-T: UNet-T and Text-T with random weights, a vocabulary learned from the captions, and cfg.vae."""
    if cfg.model != "new:SD-T":
        raise ValueError(f"unknown size {cfg.model.removeprefix('new:')!r}; a new Stable Diffusion is new:SD-T")
    vae = weights.load(cfg.vae, expect="vae", dtype=torch.float32)
    shape = replace(UNETS["UNet-T"], in_channels=vae.config.latent_channels, out_channels=vae.config.latent_channels)
    tokenizer = Tokenizer.train(captions_of(cfg.data, cfg.template), TOWERS["Text-T"].vocab_size)
    text = TextEncoder(replace(TOWERS["Text-T"], vocab_size=len(tokenizer)))
    return weights.StableDiffusion(UNet(shape), text, tokenizer, vae, weights.schedule.stable_diffusion())


def captioned(cfg, sd, source: str) -> tuple[ImageSet, Captions]:
    """Images of the side that the model works at, and their captions."""
    return load_captioned(source, transform(cfg, sd.side(cfg.size)), cfg.template)


def batcher(cfg, sd, model: TextConditioned, device, maps: Callable = mask_weights) -> Callable:
    """batches(images, texts) -> the function batch(index, generator) of these images with these captions.

    held_out: without augmentation, dropped captions and `maps`, which else come along (see latent_batches).
    """

    def batches(images, texts, held_out=False):
        options = augmentations(cfg)[:1] if held_out else augmentations(cfg)
        encoded = encode(cfg, sd.vae, images, options, device)
        more = {} if held_out else maps(cfg, images, options, sd.vae.factor)
        conditions, row = read_once(model, sd.tokenizer, texts, device)
        drop = 0 if held_out else cfg.drop
        return caption_batches(encoded, conditions, row, sd.vae.config.scaling_factor, drop, more)

    return batches


def read_once(model: TextConditioned, tokenizer, texts: list[str], device) -> tuple[Tensor, Tensor]:
    """(one entry for each different text, the empty one the last; the entry of each text, (N,)).

    An entry is a row of token ids (L,), or, where nothing trains in the text tower, the states (L, D) made of them.
    """
    distinct = [text for text in dict.fromkeys(texts) if text] + [""]
    number = {text: i for i, text in enumerate(distinct)}
    row = torch.tensor([number[text] for text in texts])
    tokens = tokenizer.tokens(distinct)  # (U, L)
    if any(p.requires_grad for p in model.text.parameters()):
        return tokens, row
    with torch.no_grad():
        return torch.cat([model.text(part.to(device)).cpu() for part in tokens.split(16)]), row  # (U, L, D)


def caption_batches(encoded: LatentCache, conditions: Tensor, row: Tensor, scale: float, drop: float, maps=None):
    """`latent_batches` with cond (B, L) or (B, L, D) in place of labels, some of them those of the empty caption."""
    numbered = latent_batches(encoded, row, scale, len(conditions) - 1, drop, maps)

    def batch(index, generator):
        found = numbered(index, generator)
        return found | {"cond": conditions[found.pop("y")]}

    return batch


def painter(cfg, model: TextConditioned, sd, device):
    """pictures(prompts, seed, numbers) -> uint8 (N, S, S, 3): what sample.py draws for the same prompts and seed.

    numbers: which of the prompts, a range; all by default.
    """

    @torch.no_grad()
    def pictures(prompts, seed, numbers=None):
        with autocast(cfg.precision, device):
            row = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
            states = encode_prompts(model.text, sd.tokenizer, [*row, ""]).float()  # (U + 1, L, D)
            cond = states[[row[prompt] for prompt in prompts]]  # (N, L, D)
            z = sample_latents(
                batched_cfg(model, cond, states[-1:], cfg.guidance),
                numbers or range(len(prompts)),
                sd.latent_shape(cfg.size),
                sd.schedule,
                cfg.sampler,
                cfg.sample_steps,
                cfg.seed + seed,
                device=device,
            )
            return to_uint8(sd.vae.images(z))

    return pictures
