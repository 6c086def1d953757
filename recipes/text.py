"""Fine-tuning a Stable Diffusion on captioned images, by denoising their latents under their captions.

    text                 the methods of --adapter
    dreambooth           the same, beside images of the subject's class that keep it (Ruiz et al. 2023)
    textual_inversion    a new word alone:  row* = argmin E |out(z_t, t, text("a photo of *")) - eps|^2
                         (Gal et al. 2022, arXiv 2208.01618)

To train more than the word (pivotal tuning), give --token to text or dreambooth, beside their adapters.
"""

from dataclasses import replace
from pathlib import Path

import adapters
import weights
from config import Config
from config import training as part
from ops.device import Compute
from ops.random import generator_for
<<<<<<< HEAD
from recipes.class_images import sample_class
from recipes.conditions.captions import Captions, load_sd, new_sd
from recipes.evaluation import evaluation, show_captioned
from recipes.job import Job, header_settings
from recipes.new_word import add_word, word_report
from recipes.objectives.denoise import denoising
from recipes.objectives.prior import prior_preservation, with_prior
from training.monitor import monitor
from unet import TextConditioned
=======
from recipes import Recipe
from recipes.latent import denoising_loss, encode, latent_batches, settings
from recipes.masks import mask_weights
from recipes.pixels import augmentations, held_out_loss, transform
from recipes.tokens import learn_token, token_report
from recipes.watch import watcher
from sampling import batched_cfg, sample_latents
from unet import TextConditioned, TextTower, Tokenizer, UNet, encode_prompts
from unet.model import SIZES as UNETS
from unet.text import SIZES as TOWERS

COLUMNS, ROWS = 8, 4  # prompts and images of each in a picture
>>>>>>> 28e97640aa78570e4401ebee0c5397035c61048d


def text(config: Config, compute: Compute) -> Job:
    """The methods of --adapter, on captioned images. The model is a checkpoint, or new:SD-T for random weights."""
    return fine_tune(config, compute, config[part.Adapter].adapter)


def textual_inversion(config: Config, compute: Compute) -> Job:
    """The rows of --token and nothing else. Leaves an adapter file of a few kB."""
    if not config[part.NewWord].token:
        raise ValueError("textual inversion learns a word: name it by --token, and its start by --token_init")
    return fine_tune(config, compute, [])


def dreambooth(config: Config, compute: Compute) -> Job:
    """As text, and in each batch as many images of the class, which the model samples first."""
    return fine_tune(config, compute, config[part.Adapter].adapter, config[part.Prior])


def fine_tune(config: Config, compute: Compute, specs: list[str], prior: part.Prior | None = None) -> Job:
    """What the three recipes share. specs: the methods beside the new word's.

    Leaves adapter.safetensors, or model/, a folder that diffusers opens, where all of a part trains.
    """
    loss_options, sampling, seed = config[part.Denoising], config[part.Sampling], config[part.Run].seed
    base, template, images = config[part.Base].model, config[part.Captions].template, config[part.Images]
    new = base.startswith("new:")
    sd = new_sd(base, config[part.Autoencoder].vae, images.data, template, compute) if new else load_sd(base, compute)
    prompts, text_lr, cache = config[part.Prompts].prompts, config[part.TextRate].text_lr, config[part.Latents].cache
    condition = Captions(sd, images, template, cache, compute, prompts, text_lr)
    model, class_images = condition.model, None
    if prior is not None and prior.prior_weight:
        class_images = sample_class(condition, prior, sampling, seed)
    learned, tokens = add_word(config[part.NewWord], sd, condition.texts)
    specs = condition.methods(specs) + learned
    adapters.attach(model, specs, generator_for(seed, -2))
    check_text_rate(model, text_lr)
    batches = condition.batches(loss_options)
    loss = denoising(model, lambda progress: sd.schedule, loss_options.noise_offset, loss_options.min_snr)
    if class_images is not None:
        captions = [prior.class_prompt] * len(class_images.names)
        of_class = condition.batches_of(class_images, captions, images.variants(), loss_options.cond_dropout)
        batches = with_prior(batches, of_class, len(captions))
        loss = prior_preservation(loss, prior.prior_weight)
    count, decides = config[part.Grid].count, config[part.Stopping].acts
    shown = [prompt for prompt in condition.columns for _ in range(count)]
    seen = monitor(condition.images.pixels, condition.kinds(), shown, decides, compute.device)

    def measure(samples):
        return word_report(model, sd.tokenizer, tokens) | seen(samples)

    held_out = condition.held_out(config[part.HeldOut].val)
    evaluate = evaluation(condition, loss, held_out, sampling, count, seed, measure)

    def finish(run):
        show_captioned(run, condition, sampling, seed + 1)
        header = condition.header | {"tokens": tokens, "adapter": specs, "config": header_settings(config)}
        save(run, condition, header)

    return Job(model, specs, condition.names, batches, loss, evaluate, finish, condition.rates)


def check_text_rate(model: TextConditioned, text_lr: float) -> None:
    """ValueError for a learning rate of the text encoder where nothing of it trains."""
    if text_lr and not any(p.requires_grad for p in model.text.parameters()):
        raise ValueError(f"text_lr = {text_lr} has no effect: nothing in the text encoder trains")


def save(run: Path, condition: Captions, header: dict) -> None:
    """The run's model/, the folder of a whole Stable Diffusion, where all of a part trained, else its adapter file."""
    sd = condition.sd
    if any(adapters.split(spec)[1] == "full" for spec in header["adapter"]):
<<<<<<< HEAD
        adapters.merge(condition.model)
        sd.text.config = replace(sd.text.config, vocab_size=sd.text.token_embedding.num_embeddings)
        weights.save_sd(sd, run / "model", "sd-diffusers")
    else:
        weights.save_adapter(run / "adapter.safetensors", condition.model, header)
=======
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
    text = TextTower(replace(TOWERS["Text-T"], vocab_size=len(tokenizer)))
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
>>>>>>> 28e97640aa78570e4401ebee0c5397035c61048d
