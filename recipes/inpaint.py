"""inpaint: a model that reads masks learns to fill them with defects (DefectFill, Song et al. 2025, arXiv 2503.13985).

    out = model([x_t, m, z(m)], t, cond)        z(m): the latent of the image without its mask m

Any Stable Diffusion or DiT gets the further input channels, whose weights are 0 at first and train beside the methods
of --adapter; one for inpainting has them. The loss is that of objectives/inpaint.py; sample.py --image --mask draws.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

import adapters
import dit.inpaint
import unet.inpaint
import weights
from config import Config
from config import training as part
from data import ImageSet
from data.transforms import Variant, apply_variant, to_tensor
from ops.device import Compute
from ops.random import generator_for
from recipes.conditions.captions import Captions
from recipes.conditions.classes import Classes, new_classes
from recipes.images.masks import Computed, areas, check_masks, mask_hints, say_small
from recipes.job import Batch, Job, header_settings
from recipes.models.loading import Checkpoint, load_sd
from recipes.models.store import for_training
from recipes.objectives.inpaint import Terms, filling
from recipes.samples.masked import conditions_of, evaluate_masks
from unet import VAE
from unet.attend import token_indices
from unet.inpaint import hint_of


def inpaint(config: Config, compute: Compute) -> Job:
    """On images with masks, and good ones beside them if there are any. Leaves adapter.safetensors."""
    options, terms, images = config[part.Denoising], config[part.Filling], config[part.Images]
    captioned = part.Captions in config
    if options.mask_weight != 1:
        raise ValueError("inpaint weighs what lies outside of the masks by --outside, and reads no --mask-weight")
    condition, first = (with_captions if captioned else with_classes)(config, compute)
    if not config[part.Window].window:
        say_small(condition.images.masks)
    model, specs = condition.model, condition.methods(config[part.Adapter].adapter)
    specs += [spec for spec in first if not {"full", f"{first[0].partition('.')[0]}.full"} & set(specs)]
    adapters.attach(model, specs, generator_for(config[part.Run].seed, -2))
    for_training(model, compute, config[part.Blocks], specs)
    word, of_defect = of_the_word(condition, config[part.DefectWord].word) if captioned else (None, None)
    attention = config[part.DefectWord].attention_weight if word else 0.0
    loss = filling(
        model,
        condition.vae,
        condition.schedule,
        Terms(terms.defect_weight, terms.object_weight, attention, terms.outside),
        word if attention else None,
        options.noise_offset,
        options.min_snr,
        options.robust,
    )
    batches = condition.batches(options, planes(condition.images, images.variants()))

    def batch(index: Tensor, generator: Generator) -> Batch:
        made = batches(index, generator)
        cond = made["cond"]
        if of_defect is not None:  # the sizes of the image, which end the rows of XL, stay
            same = of_defect.expand(len(index), *of_defect.shape)
            cond = torch.cat([same, cond[:, same.shape[1] :]], dim=1)
        return made | {"defect_cond": cond}

    hints = image_hints(condition.vae, condition.images, condition.latent_shape[1:], compute)
    sampling, count, seed = config[part.Sampling], config[part.Grid].count, config[part.Run].seed
    evaluate = evaluate_masks(condition, conditions_of(condition), hints, sampling, count, seed)

    def finish(run: Path) -> None:
        header = condition.header | {"adapter": specs, "config": header_settings(config)}
        weights.save_adapter(run / "adapter.safetensors", model, header)

    return Job(model, specs, condition.names, batch, loss, evaluate, finish, condition.rates, condition.made_of())


def with_classes(config: Config, compute: Compute) -> tuple[Classes, list[str]]:
    """A DiT with an input for masks, which learns the classes of the images, and what trains of that input."""
    images, vae, rows = config[part.Images], config[part.Autoencoder].vae, config[part.ClassRows].class_init
    base, seed, cache = config[part.Base].model, config[part.Run].seed, config[part.Latents].cache
    checkpoint, window = Checkpoint(base, heads=config[part.Heads].heads), config[part.Window].window
    condition = new_classes(
        checkpoint, vae, images, None, part.Superclasses(), rows, seed, cache, compute, window=window
    )
    check_masks(condition.images, images.data, "inpaint")
    dit.inpaint.take_mask(condition.model)
    return condition, ["x_embedder.full"]


def with_captions(config: Config, compute: Compute) -> tuple[Captions, list[str]]:
    """A Stable Diffusion with an input for masks, and captioned images; what trains of an input that is new."""
    sd = load_sd(config[part.Base].model, compute, inpainting=True)
    images, template, cache = config[part.Images], config[part.Captions].template, config[part.Latents].cache
    more = {"text_lr": config[part.TextRate].text_lr, "window": config[part.Window].window}
    condition = Captions(sd, images, template, cache, compute, **more)
    check_masks(condition.images, images.data, "inpaint")
    new = sd.unet.config.in_channels == sd.unet.config.out_channels
    unet.inpaint.take_mask(condition.model)
    return condition, ["unet.conv_in.full"] * new


def of_the_word(condition: Captions, word: str) -> tuple[list[int] | None, Tensor | None]:
    """The tokens of the defect's word in the prompt of the defect pass, and that prompt; both None without a word.

    Raises ValueError for a word that the caption of an image with a mask lacks.
    """
    if not word:
        return None, None
    masked = areas(condition.images.masks) > 0
    lost = next((text for text, has in zip(condition.texts, masked) if has and word.lower() not in text.lower()), None)
    if lost is not None:
        raise ValueError(f"--word {word} must stand in the caption of every image with a mask, found {lost!r}")
    prompt = f"a photo of {word}"
    return token_indices(word, prompt, condition.sd.tokenizer), condition.read([prompt])[0][0]


def planes(images: ImageSet, variants: list[Variant]) -> dict[str, Computed]:
    """What z(m) is made of: the images, uint8 (B, 3, S, S), and their masks (B, 1, S, S), in any of the variants."""

    def pixels(index: Tensor, variant: Tensor) -> Tensor:
        chosen = zip(images.pixels[index.numpy()], variant.tolist())
        turned = np.stack([apply_variant(image, variants[number]) for image, number in chosen])
        return torch.from_numpy(turned).permute(0, 3, 1, 2).contiguous()

    return {"pixels": Computed(pixels), "mask": mask_hints(images.masks, variants)}


def image_hints(vae: VAE, images: ImageSet, shape: tuple[int, int], compute: Compute) -> Computed:
    """hints[rows]: what the model reads of these images and their own masks, (B, 1 + C, h, w)."""

    @torch.no_grad()
    def at(rows: Tensor) -> Tensor:
        pixels, masks = images.pixels[rows.numpy()], images.masks[rows.numpy()]
        x, m = to_tensor(pixels).split(16), torch.from_numpy(masks)[:, None].float().split(16)
        with compute.autocast():
            parts = [hint_of(vae, a.to(compute.device), b.to(compute.device), shape) for a, b in zip(x, m)]
        return torch.cat(parts)

    return Computed(at)
