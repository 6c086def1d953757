"""control: a ControlNet beside a frozen model learns to draw where a mask says (Zhang et al. 2023, arXiv 2302.05543).

    loss(model(z_t, t, cond, hint), eps or v)        hint: the image's mask, turned and mirrored as the image is

For Stable Diffusion the hint is the mask itself, one channel of 0 and 1, read by a copy of the UNet's encoder
(unet/control.py). For a DiT it is the latent of the mask as a white shape on black, read by copies of the first blocks
(dit/control.py). The model stays as it is loaded, with the adapter files of --init merged into it: what to draw is
learned before, here only where.
"""

from pathlib import Path

import adapters
import weights
from config import Config
from config import training as part
from dit import ControlledDiT
from ops.device import Compute
from recipes.conditions.captions import Captions
from recipes.conditions.classes import Classes, known_classes
from recipes.images.masks import Computed, check_masks
from recipes.job import Job, header_settings
from recipes.models.loading import Checkpoint, load_sd
from recipes.models.path import training_path
from recipes.models.store import for_training
from recipes.objectives.denoise import denoising
from recipes.samples.masked import conditions_of, evaluate_masks
from unet import ControlledText, ControlNet

SPEC = ["control.full"]  # what trains


def control(config: Config, compute: Compute) -> Job:
    """A new ControlNet for a DiT or a Stable Diffusion, on images with masks.

    Leaves control.safetensors for a DiT; for Stable Diffusion control/, a folder that diffusers opens.
    """
    loss_options, captioned = config[part.Denoising], part.Captions in config
    condition = (with_captions if captioned else with_classes)(config, compute)
    for_training(adapters.attach(condition.model, SPEC), compute, config[part.Blocks])
    base, schedule = config[part.Base].model, condition.schedule
    path = (lambda progress: schedule) if captioned else training_path(condition.model, base, config[part.Objective])
    loss = denoising(condition.model, path, loss_options.noise_offset, loss_options.min_snr, loss_options.robust)
    batches = condition.batches(loss_options, {"hint": condition.hints})
    hints = Computed(lambda rows: condition.hints[rows, 0])
    sampling, count, seed = config[part.Sampling], config[part.Grid].count, config[part.Run].seed
    evaluate = evaluate_masks(condition, conditions_of(condition), hints, sampling, count, seed)

    def finish(run: Path) -> None:
        if captioned:
            weights.save_control(condition.model.control, run / "control", "controlnet-diffusers")
        else:
            header = {"adapter": SPEC, "base": condition.header["base"], "config": header_settings(config)}
            weights.save_adapter(run / "control.safetensors", condition.model, header)

    made_of = condition.made_of(config[part.StartFiles].init)
    return Job(condition.model, SPEC, condition.names, batches, loss, evaluate, finish, made_of=made_of)


def with_classes(config: Config, compute: Compute) -> Classes:
    """A DiT that knows the classes of the images, with a new ControlNet."""
    init, cache, images = config[part.StartFiles].init, config[part.Latents].cache, config[part.Images]
    base, vae = config[part.Base].model, config[part.Autoencoder].vae
    checkpoint = Checkpoint(base, config[part.Objective].objective, config[part.Heads].heads)
    condition = known_classes(checkpoint, vae, images, None, init, cache, compute)
    check_masks(condition.images, images.data, "control")
    condition.model = ControlledDiT(condition.model)
    condition.header = {"base": weights.fingerprint(condition.model)}
    return condition


def with_captions(config: Config, compute: Compute) -> Captions:
    """A Stable Diffusion with a new ControlNet, and captioned images."""
    sd, init, images = load_sd(config[part.Base].model, compute), config[part.StartFiles].init, config[part.Images]
    template, cache = config[part.Captions].template, config[part.Latents].cache
    condition = Captions(sd, images, template, cache, compute, init=init)
    check_masks(condition.images, images.data, "control")
    condition.model = ControlledText(sd.unet, sd.text, ControlNet.of(sd.unet, 1, sd.vae.factor))
    return condition
