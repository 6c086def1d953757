"""Images of a subject's class, sampled by the model itself before it is trained (DreamBooth, Ruiz et al. 2023)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

import weights
from config.training import Prior, Sampling
from data import ImageSet
from data.images import decode
from data.output.grid import save_image
from ops.machine.progress import progress
from recipes.conditions.captions import Captions
from unet.text.prompt import escape

AT_ONCE = 8  # images sampled in one batch
SEED_APART = 2000  # between the seeds of these images and of those of the evaluations


def sample_class(condition: Captions, prior: Prior, settings: Sampling, seed: int) -> ImageSet:
    """The images of the class, prior.class_images samples of prior.class_prompt, kept in the condition's cache."""
    prompt = escape(prior.class_prompt)  # it is trained on as a text
    folder, side = None, condition.sd.side(condition.settings.size)
    if condition.cache:
        base = weights.fingerprint(condition.model)
        facts = [base, prompt, settings.sampler, settings.sample_steps, settings.guidance, seed, side]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        folder = Path(condition.cache) / f"class-{digest[:16]}"
    pixels, count = [], prior.class_images
    for first in progress(range(0, count, AT_ONCE), prior.class_prompt):
        numbers = range(first, min(first + AT_ONCE, count))
        files = [folder / f"{i:05d}.png" for i in numbers] if folder else []
        if files and all(file.exists() for file in files):
            pixels += [decode(file) for file in files]
            continue
        samples = condition.sample([prompt] * count, settings, seed + SEED_APART, numbers)
        for file, image in zip(files, samples):
            file.parent.mkdir(parents=True, exist_ok=True)
            save_image(file, image)
        pixels += list(samples)
    names, labels = [f"class image {i}" for i in range(count)], torch.zeros(count, dtype=torch.long)
    return ImageSet(np.stack(pixels), labels, [prior.class_prompt], names, np.zeros((count, side, side), bool))
