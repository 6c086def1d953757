"""Class labels condition a DiT (Peebles and Xie 2023, sec. 3 and 4).

The label is replaced by the null row with probability `cond_dropout`, here and not inside the network: guidance needs
both. With probability `superclass` it is replaced by the row of its superclass, which the class table has after those
of the classes (the TieredEmbedder of FineDiffusion, Pan et al. 2024, arXiv 2402.18331); guidance then leads from there.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

import adapters
import weights
from config.training import Denoising, Images, Sampling, Superclasses
from data import ImageSet
from data.folders.hierarchy import with_parents
from data.latents import LatentCache
from dit import DiT
from dit.classes import class_names
from ops.device import Compute
from recipes.images.latents import encode, latent_batches, sample_images
from recipes.images.made_of import made_of
from recipes.images.masks import Computed, mask_images, mask_weights
from recipes.images.pixels import train_and_val
from recipes.job import Batches, HeldOut
from recipes.models.class_rows import fit_classes, row_names
from recipes.models.loading import Checkpoint, load_autoencoder, load_dit, new_dit
from sampling import NoisePath, batched_cfg, dit_schedule, sample_seeds
from unet import VAE

COLUMNS = 8  # classes in a grid


class Classes:
    """A DiT, its autoencoder, and the labelled images that it is trained on, encoded."""

    rates: dict[str, float] = {}

    def __init__(
        self,
        model: DiT,
        vae: VAE,
        data: tuple[ImageSet, ImageSet | None],
        encoded: LatentCache,
        header: dict,
        settings: Images,
        cache: str,
        compute: Compute,
    ):
        """data: training images, whose classes the model knows, and held-out ones. encoded: the training images'."""
        self.model, self.vae, self.encoded, self.header = model, vae, encoded, header
        self.settings, self.cache, self.compute = settings, cache, compute
        self.images, self.val = data
        self.names, self.columns = self.images.names, self.images.classes[:COLUMNS]
        row = {name: i for i, name in enumerate(class_names(model))}
        self.rows = torch.tensor([row[name] for name in self.images.classes])  # (classes,)

    @property
    def schedule(self) -> NoisePath:
        """The noise schedule that the model samples with."""
        return dit_schedule(self.model.noise_schedule, objective=self.model.objective)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the model's latents."""
        return self.model.latent_shape

    @property
    def null(self) -> int | None:
        """The null row of the class table, None without one."""
        return self.model.null if self.model.config.class_dropout else None

    @property
    def superclass_row(self) -> Tensor | None:
        """The row of each class's superclass (classes,), None without superclasses."""
        if not self.images.parents:
            return None
        row = {name: i for i, name in enumerate(self.model.classes)}
        return torch.tensor([row[self.images.parents[name]] for name in self.images.classes])

    def methods(self, specs: list[str]) -> list[str]:
        """The specs, and the class table with any of them: a new class needs its row, as DiffFit counts it."""
        named = {adapters.parse(adapters.split(spec)[1])[0] for spec in specs}
        return specs + ([] if named & {"full", "classes", "difffit"} else ["classes"])

    def batches(
        self, denoising: Denoising | None = None, maps: dict[str, Tensor] | None = None, superclass: float = 0.0
    ) -> Batches:
        """Batches of the training images. denoising: None replaces no label and weighs no mask.

        maps: what else there is of every image in each of its variants (N, V, ...), such as hints. superclass: how
        often a label is replaced by its superclass.
        """
        scale, variants, maps = self.vae.config.scaling_factor, self.settings.variants(), maps or {}
        if denoising is not None:
            weight, source = denoising.mask_weight, self.settings.data
            maps |= mask_weights(self.images, weight, variants, self.vae.factor, source)
        null, dropout = (0, 0.0) if denoising is None else (self.null, denoising.cond_dropout)
        rows = self.rows[self.images.labels]
        return latent_batches(self.encoded, rows, scale, null, dropout, maps, self.superclass_row, superclass)

    @cached_property
    def hints(self) -> Computed:
        """hints[index, variant]: the scaled latents (B, C, h, w) of the images' masks, as white shapes on black."""
        masks = self.images._replace(pixels=mask_images(self.images.masks))
        encoded = encode(self.vae, masks, self.settings.variants(), self.cache, self.compute)
        return Computed(lambda *which: self.vae.config.scaling_factor * encoded.mean[which].float())

    def held_out(self) -> HeldOut | None:
        """Batches of the held-out images, None without any."""
        if self.val is None:
            return None
        encoded = encode(self.vae, self.val, self.settings.variants()[:1], self.cache, self.compute)
        rows = self.rows[self.val.labels]
        return HeldOut(latent_batches(encoded, rows, self.vae.config.scaling_factor, None, 0.0), len(rows))

    def sample(self, labels: Tensor, settings: Sampling, seed: int) -> np.ndarray:
        """One sample for each of the labels (N,), positions in images.classes: uint8 (N, S, S, 3)."""
        null = self.null if self.superclass_row is None else self.superclass_row[labels]
        guidance = settings.guidance if null is not None else 1.0
        denoiser = batched_cfg(self.model, self.rows[labels].to(self.compute.device), null, guidance)
        seeds, numbers = sample_seeds(seed, [self.images.classes[i] for i in labels]), range(len(labels))
        return sample_images(
            denoiser, numbers, self.latent_shape, self.schedule, self.vae, settings, seeds, self.compute
        )

    def sample_columns(self, count: int, settings: Sampling, seed: int) -> np.ndarray:
        """`count` samples for each of the columns, column by column: uint8 (N, S, S, 3)."""
        return self.sample(torch.arange(len(self.columns)).repeat_interleave(count), settings, seed)

    def made_of(self, init: Sequence[str] = ()) -> dict:
        """Digests of the images, their classes and the base, with the files `init` merged into it."""
        return made_of(self.images, self.settings.data, self.header.get("base", {}), self.vae, init)

    def kinds(self) -> list[str]:
        """The class of each training image."""
        return [self.images.classes[label] for label in self.images.labels.tolist()]


def known_classes(
    checkpoint: Checkpoint, vae: str, settings: Images, val: str | None, init: list[str], cache: str, compute: Compute
) -> Classes:
    """A DiT, with the adapter files `init` merged into it, that knows the classes of the images.

    val: the source of held-out images, "" for the default one, None for none. ValueError for a class that it does not
    know.
    """
    autoencoder = load_autoencoder(vae, compute)
    dit, side = load_dit(checkpoint, settings.size, autoencoder, compute)
    header = {"base": weights.fingerprint(dit)}
    if init:
        weights.apply_adapters(dit, [(file, 1.0) for file in init])
    images, held = train_and_val(settings, val, side)
    if new := sorted(set(images.classes) - set(class_names(dit))):
        raise ValueError(
            f"{checkpoint.model} does not know the class {new[0]!r}, and this recipe teaches none: fine-tune it first, "
            f"and name the adapter file by --init"
        )
    encoded = encode(autoencoder, images, settings.variants(), cache, compute)
    # superclasses are for guidance, and neither the student nor the ControlNet is trained with any
    return Classes(dit, autoencoder, (images._replace(parents={}), held), encoded, header, settings, cache, compute)


def new_classes(
    checkpoint: Checkpoint,
    vae: str,
    settings: Images,
    val: str,
    superclasses: Superclasses,
    class_init: str,
    seed: int,
    cache: str,
    compute: Compute,
    features: str = "",
    window: float = 0.0,
) -> Classes:
    """A DiT with a class table for the images' classes: new rows in that of the checkpoint, unless they are its own.

    class_init: where new rows start, of `features` by a network of that name, see class_rows.py.
    """
    autoencoder, new = load_autoencoder(vae, compute), checkpoint.model.startswith("new:")
    dit, side = (None, settings.size) if new else load_dit(checkpoint, settings.size, autoencoder, compute)
    images, held = train_and_val(settings, val, side, window)
    images = with_parents(images, superclasses.hierarchy) if superclasses.superclass else images._replace(parents={})
    encoded = encode(autoencoder, images, settings.variants(), cache, compute)
    if new:
        dit, header = new_dit(checkpoint, autoencoder, side, row_names(images)).to(compute.device), {}
        dit.parents = images.parents
    else:
        header = {"base": weights.fingerprint(dit)}
        header["sources"] = fit_classes(dit, autoencoder, images, encoded, class_init, settings, seed, features)
    header |= {"classes": dit.classes, "parents": dit.parents or None}
    return Classes(dit, autoencoder, (images, held), encoded, header, settings, cache, compute)
