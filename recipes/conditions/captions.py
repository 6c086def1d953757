"""Captions condition a Stable Diffusion (Rombach et al. 2022, arXiv 2112.10752, sec. 3.3).

The caption is replaced by the empty one with probability `cond_dropout`, which is what guidance leads away from.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import adapters
import weights
from config.training import Denoising, Images, Sampling
from data import ImageSet
from data.lazy import Strings
from data.source import describe_shared, held_out, load_captioned, tell
from ops.device import Compute
from recipes.images.buckets import bucketed, in_buckets, places_of
from recipes.images.latents import encode, latent_batches, sample_images
from recipes.images.made_of import made_of
from recipes.images.masks import Computed, mask_hints, mask_weights
from recipes.images.pixels import transform
from recipes.images.sizes import image_sizes
from recipes.job import Batches, HeldOut
from sampling import batched_cfg, sample_seeds
from unet import TextConditioned, encode_prompts
from unet.row import nothing, sized
from unet.text.pair import in_chunks
from unet.text.prompt import caption_tokens, escape, most_chunks

COLUMNS = 8  # prompts in a grid
STATES = 2**28  # bytes of text states that are kept; those of more captions are computed in each step


class Captions:
    """A Stable Diffusion, and the captioned images that it is trained on."""

    def __init__(
        self,
        sd: weights.StableDiffusion,
        settings: Images,
        template: str,
        cache: str,
        compute: Compute,
        prompts: Sequence[str] = (),
        text_lr: float = 0.0,
        init: Sequence[str] = (),
        buckets: bool = False,
        window: float = 0.0,
    ):
        """template: caption of images without one. prompts: of the samples, by default the first captions.

        text_lr: learning rate of the text encoder, 0 for that of the rest. init: adapter files to merge into the model.
        buckets: the images are trained on in their own shapes. window: see Transform.
        """
        self.sd, self.vae, self.schedule, self.window = sd, sd.vae, sd.schedule, window
        self.template, self.settings, self.cache, self.compute = template, settings, cache, compute
        self.model = TextConditioned(sd.unet, sd.text)
        self.header = {"base": weights.fingerprint(self.model)}
        if init:
            weights.add_words(sd.tokenizer, init)
            weights.apply_adapters(self.model, [(file, 1.0) for file in init])
        self.images, captions = self.load(settings.data)
        self.texts = Strings(item.caption for item in captions.items)
        self.places = torch.tensor(captions.places)  # the image at each place of a pass, repeats included
        self.buckets = in_buckets(settings, captions.items, self.images, sd) if buckets else []
        self.turns = places_of(self.buckets, self.places)
        self.names = Strings(self.images.names[i] for i in captions.places)
        self.columns = list(prompts or dict.fromkeys(self.texts))[:COLUMNS]
        # a caption is a text, in which no bracket weighs a word
        self.prompts = self.columns if prompts else [escape(text) for text in self.columns]
        self.rates = {"text.": text_lr} if text_lr else {}

    def load(self, source: str) -> tuple:
        """The images of a source, at the side that the model works at, and their captions."""
        side = self.sd.side(self.settings.size)
        return load_captioned(source, transform(self.settings, side, self.window), self.template)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents of images of the settings' size."""
        return self.sd.latent_shape(self.settings.size)

    @property
    def null(self) -> Tensor:
        """The empty caption as the model takes it: token ids (1, L), or states (1, L, D) where the text is frozen."""
        return self.read([])[0]

    def methods(self, specs: list[str]) -> list[str]:
        """The specs; one without a part is for the UNet."""
        return [spec if adapters.split(spec)[0] else f"unet.{spec}" for spec in specs]

    def batches(self, denoising: Denoising | None = None, maps: dict[str, Tensor] | None = None) -> Batches:
        """Batches of the training images. denoising: None replaces no caption and weighs no mask.

        maps: what else there is of every image in each of its variants (N, V, ...), such as hints.
        """
        variants, dropout = self.settings.variants(), 0.0 if denoising is None else denoising.cond_dropout

        def of(images: ImageSet, texts: list[str]) -> Batches:
            weight, source = 1.0 if denoising is None else denoising.mask_weight, self.settings.data
            weights_of = mask_weights(images, weight, variants, self.vae.factor, source)
            return self.batches_of(images, texts, variants, dropout, (maps or {}) | weights_of)

        batches = bucketed(self.buckets, self.texts, of) if self.buckets else of(self.images, self.texts)
        return lambda index, generator: batches(self.places[index], generator)

    @property
    def hints(self) -> Computed:
        """hints[index, variant]: the images' masks (B, 1, S, S) of 1 and 0."""
        return mask_hints(self.images.masks, self.settings.variants())

    def batches_of(
        self, images: ImageSet, texts: list[str], variants: list, dropout: float, maps: dict[str, Tensor] | None = None
    ) -> Batches:
        """Batches of any images with a caption for each, by the number of the image."""
        encoded = encode(self.vae, images, variants, self.cache, self.compute)
        if self.sd.unet.config.pooled:
            maps = (maps or {}) | {"sizes": image_sizes(images, variants)}
        table, rows = self.read(texts)
        scale, null_row = self.vae.config.scaling_factor, len(table) - 1
        return latent_batches(encoded, rows, scale, null_row, dropout, maps, table=table)

    def held_out(self, val: str) -> HeldOut | None:
        """Batches of the held-out images of the source `val`, None without any."""
        source = held_out(self.settings.data, val)
        if not source:
            return None
        images, captions = self.load(source)
        tell([], describe_shared(self.images, images))
        texts = [item.caption for item in captions.items]
        return HeldOut(self.batches_of(images, texts, self.settings.variants()[:1], 0.0), len(images.names))

    def read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """(one entry for each different text, the empty one the last; the entry of each text, (N,)).

        An entry is a row of token ids (L,), or, where nothing trains in the text encoder and there are few, the states
        (L, D) of them, L 77 for each chunk of the longest caption. Of XL both are rows without sizes (unet/row.py).
        """
        distinct = [text for text in dict.fromkeys(texts) if text] + [""]
        number = {text: i for i, text in enumerate(distinct)}
        rows = torch.tensor([number[text] for text in texts])
        tokens = caption_tokens(self.sd.tokenizer, distinct, most_chunks(self.sd.tokenizer, self.texts))  # (U, n L)
        text_encoder = self.model.text
        if any(p.requires_grad for p in text_encoder.parameters()):
            return tokens, rows
        with torch.no_grad(), self.compute.autocast():
            if len(tokens) * in_chunks(text_encoder, tokens[:1].to(self.compute.device)).nbytes > STATES:
                return tokens, rows
            states = [in_chunks(text_encoder, part.to(self.compute.device)).float().cpu() for part in tokens.split(16)]
        return torch.cat(states), rows  # (U, L, D)

    def sample(self, prompts: list[str], settings: Sampling, seed: int, numbers: range | None = None) -> np.ndarray:
        """One sample for each of the prompts, or for those of these numbers: uint8 (N, S, S, 3).

        A prompt is read as in sample.py, with weights in its brackets: a caption must be escaped.
        """
        with torch.no_grad(), self.compute.autocast():
            row = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
            states = encode_prompts(self.model.text, self.sd.tokenizer, [*row, ""]).float()  # (U + 1, L, D)
            cond = states[[row[prompt] for prompt in prompts]]  # (N, L, D)
            height, width = (side * self.vae.factor for side in self.latent_shape[1:])
            cond = sized(cond, (height, width, 0, 0, height, width))
            denoiser = batched_cfg(self.model, cond, nothing(states[-1:]), settings.guidance)
        numbers, seeds = numbers or range(len(prompts)), sample_seeds(seed, prompts)
        return sample_images(
            denoiser, numbers, self.latent_shape, self.schedule, self.vae, settings, seeds, self.compute
        )

    def sample_columns(self, count: int, settings: Sampling, seed: int) -> np.ndarray:
        """`count` samples for each of the columns, column by column: uint8 (N, S, S, 3)."""
        return self.sample([prompt for prompt in self.prompts for _ in range(count)], settings, seed)

    def made_of(self, init: Sequence[str] = ()) -> dict:
        """Digests of the images, their captions and the base, with the files `init` merged into it."""
        tokens = caption_tokens(self.sd.tokenizer, [*dict.fromkeys(self.texts), ""]).numpy().tobytes()
        captions = [*self.texts, str(self.places.tolist())]
        return made_of(self.images, self.settings.data, self.header["base"], self.vae, init, captions, tokens)

    def kinds(self) -> list[str]:
        """The caption of each training image."""
        return self.texts
