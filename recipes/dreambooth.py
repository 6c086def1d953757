"""DreamBooth: a subject from a few images, without forgetting its class (Ruiz et al. 2023, arXiv 2208.12242, eq. 2).

    loss = |out(z_t, "a photo of sks dog") - eps|^2 + prior_weight |out(z'_t, "a photo of a dog") - eps'|^2

z' are images that the model itself drew of the class before it was trained.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import weights
from data import ImageSet
from data.images import decode
from data.output.grid import save_image
from recipes import Recipe
from recipes.text import captioned, fine_tune, load, painter
from unet import TextConditioned

AT_ONCE = 8  # images drawn in one batch
SEED_APART = 2000  # between the seeds of these images and of those that are looked at


def dreambooth(cfg, device) -> Recipe:
    """Images captioned by cfg.template ("a photo of sks dog"), and as many a step of what cfg.class_prompt draws."""
    sd = load(cfg, device)
    data = captioned(cfg, sd, cfg.data)
    if not cfg.prior_weight:
        return fine_tune(cfg, device, sd, data)
    if not cfg.class_prompt.strip() or cfg.class_images < 1:
        raise ValueError(
            "dreambooth keeps the class by images that it draws: give --class_prompt (and --class_images "
            "above 0), or --prior_weight 0 for none"
        )
    drawn = class_images(cfg, sd, device)
    return fine_tune(cfg, device, sd, data, prior=(drawn, [cfg.class_prompt] * len(drawn.names)))


def class_images(cfg, sd, device) -> ImageSet:
    """cfg.class_images pictures of cfg.class_prompt, kept in cfg.cache and drawn only where they lack there."""
    model = TextConditioned(sd.unet, sd.text)
    pictures, folder = painter(cfg, model, sd, device), None
    if cfg.cache:
        facts = [weights.fingerprint(model), cfg.class_prompt, cfg.sampler, cfg.sample_steps, cfg.guidance, cfg.seed]
        digest = hashlib.sha256(json.dumps([*facts, sd.side(cfg.size)]).encode()).hexdigest()
        folder = Path(cfg.cache) / f"class-{digest[:16]}"
    pixels, names = [], [f"class image {i}" for i in range(cfg.class_images)]
    for first in tqdm(range(0, cfg.class_images, AT_ONCE), desc=cfg.class_prompt):
        wanted = range(first, min(first + AT_ONCE, cfg.class_images))
        files = [folder / f"{i:05d}.png" for i in wanted] if folder else []
        if files and all(file.exists() for file in files):
            pixels += [decode(file) for file in files]
            continue
        found = pictures([cfg.class_prompt] * cfg.class_images, SEED_APART, wanted)
        for file, image in zip(files, found):
            file.parent.mkdir(parents=True, exist_ok=True)
            save_image(file, image)
        pixels += list(found)
    labels, masks = torch.zeros(len(pixels), dtype=torch.long), np.zeros((len(pixels), *pixels[0].shape[:2]), bool)
    return ImageSet(np.stack(pixels), labels, [cfg.class_prompt], names, masks)
