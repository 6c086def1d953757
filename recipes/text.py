"""Fine-tuning a Stable Diffusion on captioned images, by denoising their latents under their captions.

    text                 the methods of --adapter
    dreambooth           the same, beside images of the subject's class that keep it (Ruiz et al. 2023)
    textual_inversion    a new word alone:  row* = argmin E |out(z_t, t, text("a photo of *")) - eps|^2
                         (Gal et al. 2022, arXiv 2208.01618)

To train more than the word (pivotal tuning), give --token to text or dreambooth, beside their adapters.
"""

from pathlib import Path

import numpy as np

import adapters
from config import Config
from config import training as part
from ops.device import Compute
from ops.random import generator_for
from recipes.conditions.captions import Captions
from recipes.job import Job, header_settings
from recipes.models.loading import load_sd, new_sd
from recipes.models.new_word import add_word, word_report
from recipes.models.saving import save_trained
from recipes.models.store import for_training
from recipes.objectives.denoise import denoising
from recipes.objectives.prior import prior_preservation, with_prior
from recipes.samples.class_images import sample_class
from recipes.samples.evaluation import evaluation, show_captioned, watched
from unet import TextConditioned


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
    """min E |out(z_t, t, text(caption)) - eps|^2, and with a prior the same of the class. specs: beside the word's.

    Leaves adapter.safetensors, or model/, a folder that diffusers opens, where all of a part trains.
    """
    options, sampling, seed = config[part.Denoising], config[part.Sampling], config[part.Run].seed
    condition = with_captions(config, compute)
    model, class_images = condition.model, None
    if prior is not None and prior.prior_weight:
        class_images = sample_class(condition, prior, sampling, seed)

    learned, tokens = add_word(config[part.NewWord], condition.sd, condition.texts)
    specs = condition.methods(specs) + learned
    adapters.attach(model, specs, generator_for(seed, -2))
    check_text_rate(model, config[part.TextRate].text_lr)
    for_training(model, compute, config[part.Blocks], specs)

    batches = condition.batches(options)
    loss = denoising(model, lambda progress: condition.schedule, options.noise_offset, options.min_snr, options.robust)
    if class_images is not None:
        captions, variants = [prior.class_prompt] * len(class_images.names), config[part.Images].variants()
        of_class = condition.batches_of(class_images, captions, variants, options.cond_dropout)
        batches = with_prior(batches, of_class, len(captions))
        loss = prior_preservation(loss, prior.prior_weight)

    held_out, count = condition.held_out(config[part.HeldOut].val), config[part.Grid].count
    similarity = watched(condition, count, config[part.Stopping], config[part.Features], config[part.Scores])

    def measure(samples: np.ndarray) -> dict:
        return word_report(model, condition.sd.tokenizer, tokens) | similarity(samples)

    def finish(run: Path) -> None:
        show_captioned(run, condition, sampling, seed + 1)
        header = condition.header | {"tokens": tokens, "adapter": specs, "config": header_settings(config)}
        save_trained(run, condition.sd, model, header)

    evaluate = evaluation(condition, loss, held_out, sampling, count, seed, measure)
    made_of, turns = condition.made_of(), condition.turns
    return Job(model, specs, condition.names, batches, loss, evaluate, finish, condition.rates, made_of, turns)


def with_captions(config: Config, compute: Compute) -> Captions:
    """A Stable Diffusion, or a new one, and captioned images."""
    base, images, template = config[part.Base].model, config[part.Images], config[part.Captions].template
    if base.startswith("new:"):
        sd = new_sd(base, config[part.Autoencoder].vae, images.data, template, compute)
    else:
        sd = load_sd(base, compute)
    prompts, text_lr, cache = config[part.Prompts].prompts, config[part.TextRate].text_lr, config[part.Latents].cache
    return Captions(sd, images, template, cache, compute, prompts, text_lr, (), config[part.Buckets].buckets)


def check_text_rate(model: TextConditioned, text_lr: float) -> None:
    """ValueError for a learning rate of the text encoder where nothing of it trains."""
    if text_lr and not any(p.requires_grad for p in model.text.parameters()):
        raise ValueError(f"text_lr = {text_lr} has no effect: nothing in the text encoder trains")
