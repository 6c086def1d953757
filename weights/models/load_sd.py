"""A whole Stable Diffusion from one file or a diffusers folder: UNet, text encoder, tokenizer, VAE and schedule."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from border import read_json
from sampling import Schedule
from unet import VAE, UNet
from unet.bytepair import END
from unet.text import TextEncoder
from unet.tokenizer import Tokenizer
from weights.formats import published
from weights.formats.files import read
from weights.formats.published import resolve
from weights.layouts import scheduler_json
from weights.layouts.detect import layouts_in
from weights.layouts.families import describe_file, unet_widths
from weights.layouts.kinds import KINDS
from weights.models.load import assemble, load

PIPELINES = (  # diffusers' classes that these five components are all of
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
)
MASKED = 9  # input channels of an inpainting model's UNet
TOKENIZER = "clip-tokenizer"  # its name in weights/formats/published.py


class StableDiffusion(NamedTuple):
    """The five parts that turn a prompt into an image. Only `read_single` leaves the tokenizer None."""

    unet: UNet
    text: TextEncoder
    tokenizer: Tokenizer
    vae: VAE
    schedule: Schedule

    def side(self, size: int = 0) -> int:
        """Side of the images in pixels, 0 for the UNet's own. ValueError unless each level can halve the latents."""
        size = size or self.unet.config.input_size * self.vae.factor
        step = self.unet.factor * self.vae.factor
        if size < 1 or size % step:
            raise ValueError(f"size must be a multiple of {step} pixels, found {size}")
        return size

    def latent_shape(self, size: int = 0) -> tuple[int, int, int]:
        """(C, H, W) of the latents of images with that `side`."""
        side = self.side(size) // self.vae.factor
        return self.unet.config.out_channels, side, side


def load_sd(
    path: str | Path,
    *,
    prediction: str | None = None,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype | None = None,
    ema: bool = True,
    variant: str | None = None,
    check: bool | None = None,
    unet: dict | None = None,
    text: dict | None = None,
    vae: dict | None = None,
    inpainting: bool = False,
) -> StableDiffusion:
    """The Stable Diffusion 1 or 2 in `path`, its models in eval mode, on the CPU, mapped from the file as by `load`.

    path: a single file (.safetensors, .ckpt), a diffusers folder, or a downloaded name ("stable-diffusion-1.5").
    prediction: "eps", "v" or "x0" of the UNet, in place of the scheduler's config or of what a single file suggests.
    tokenizer: for a single file, which holds none: a folder with vocab.json and merges.txt, or OpenAI's
    bpe_simple_vocab_16e6.txt.gz; None takes the downloaded one.
    unet, text, vae: fields of the three configs that the file does not hold or that shall differ, such as
    unet={"in_channels": 9}, without which an inpainting model is refused. inpainting: whether one is read as it is, as
    any other is. dtype, ema, variant, check: as in `load`.
    A folder's safety checker is not read. Raises ValueError in one sentence with the file, what was expected and found.
    """
    path = resolve(path)
    given = {"unet": unet or {}, "text": text or {}, "vae": vae or {}}
    if inpainting and reads_masks(path):
        given["unet"] = {"in_channels": MASKED} | given["unet"]
    if not path.is_dir():
        pipeline = read_single(path, prediction, given, ema, dtype=dtype, check=check)
        pipeline = pipeline._replace(tokenizer=find_tokenizer(tokenizer, pipeline, path))
    elif tokenizer is None:
        pipeline = read_folder(path, prediction, given, ema=ema, dtype=dtype, check=check, variant=variant)
    else:
        raise ValueError(f"{path}: a folder has a tokenizer of its own, found tokenizer={str(tokenizer)!r} as well")
    return checked(pipeline, path)


def is_sd(path: str | Path) -> bool:
    """Whether `path` (a file, folder or name as for `load_sd`) holds a Stable Diffusion, and not another model.

    A published name tells it before the file is downloaded.
    """
    if str(path) in published.FILES:
        return str(path).startswith("stable-diffusion")
    path = resolve(path)
    if path.is_dir():
        index = path / "model_index.json"
        return index.is_file() and read_json(index).get("_class_name") in PIPELINES
    return "unet" in layouts_in(read(path)[0])


def reads_masks(path: Path) -> bool:
    """Whether the UNet of a Stable Diffusion in `path` has the input channels of an inpainting model."""
    config = path / "unet" / "config.json"
    if path.is_dir():
        return config.is_file() and read_json(config).get("in_channels") == MASKED
    return unet_widths(read(path)[0])[0] == MASKED


def read_folder(path: Path, prediction: str | None, given: dict[str, dict], **options) -> StableDiffusion:
    """A diffusers folder. given: {"unet": fields, "text": fields, "vae": fields}; options: those of `load`."""
    index, single = path / "model_index.json", path / "config.json"
    kind = read_json(index).get("_class_name") if index.is_file() else None
    if kind not in PIPELINES:
        found = f"{kind}, another kind of pipeline" if kind else "no model_index.json"
        if single.is_file() and read_json(single).get("_class_name") == "ControlNetModel":
            found = "a ControlNet, which weights.load_control reads"
        raise ValueError(f"{path}: expected a folder of {', '.join(PIPELINES)}, found {found}")
    models = {part: load(path, expect=part, **options, **given[part]) for part in given}
    config, words = path / "scheduler" / "scheduler_config.json", path / "tokenizer"
    for needed in (config, words):
        if not needed.exists():
            raise ValueError(f"{path}: expected {needed.relative_to(path)}, found no such file or folder")
    noise = scheduler_json.from_json(read_json(config), config, prediction)
    return StableDiffusion(tokenizer=Tokenizer.from_folder(words), schedule=noise, **models)


def read_single(path: Path, prediction: str | None, given: dict[str, dict], ema: bool, **options) -> StableDiffusion:
    """A single file's models and schedule, tokenizer None, from one map of the file; arguments as for `read_folder`."""
    tensors, metadata = read(path, ema=ema)
    layouts = layouts_in(tensors)
    if "unet" not in layouts:
        found = " and ".join(KINDS[kind].words for kind in layouts) or describe_file(tensors)
        found += ", which weights.load_control reads" if "controlnet" in layouts else ""
        raise ValueError(f"{path}: expected a whole Stable Diffusion, found {found}")
    # the UNet comes first: its error is the one that tells which other model a file is of
    models = {"unet": assemble(layouts["unet"], tensors, metadata, path, given["unet"], ema, **options)}
    for kind in ("text", "vae"):
        if "-in-" not in layouts.get(kind, ""):
            raise ValueError(f"{path}: expected a whole Stable Diffusion, found no {KINDS[kind].words[2:]} in it")
        models[kind] = assemble(layouts[kind], tensors, metadata, path, given[kind], ema, **options)
    unet, second = models["unet"], "openclip" in layouts["text"]
    bias = unet.up[-1].attentions[-1].transformer_blocks[0].norm1.bias if unet.config.text[0] else None
    noise = scheduler_json.of_single_file(tensors, metadata, path, second, bias, prediction)
    if second and noise.prediction == "v" and "input_size" not in given["unet"]:
        unet.config = replace(unet.config, input_size=96)  # those that predict v were made for 768 pixels
    return StableDiffusion(tokenizer=None, schedule=noise, **models)


def find_tokenizer(place: str | Path | None, pipeline: StableDiffusion, source: str | Path) -> Tokenizer:
    """The tokenizer in `place`, or the downloaded one, with the padding that this text encoder was trained with."""
    place = published.target(TOKENIZER) if place is None else Path(place)
    if not place.exists():
        raise ValueError(
            f"{source}: a single file holds no tokenizer, and {place} does not exist: run `python -m "
            f"weights.download {TOKENIZER}`, or give tokenizer= a folder with vocab.json and merges.txt "
            "or OpenAI's bpe_simple_vocab_16e6.txt.gz"
        )
    words = Tokenizer.from_folder(place) if place.is_dir() else Tokenizer.from_openai(place)
    pad = "!" if pipeline.text.config.activation == "gelu" else END  # Stable Diffusion 2, and 1
    if words.pad_token == pad:
        return words
    padded = Tokenizer(words.vocab, words.merges, pad, words.length)
    for token, ids in words.added.items():
        padded.add(token, len(ids))
    return padded


def checked(pipeline: StableDiffusion, source: str | Path) -> StableDiffusion:
    """The same pipeline; ValueError where its parts do not fit each other."""
    unet, text, vae = pipeline.unet.config, pipeline.text.config, pipeline.vae.config
    pairs = [
        ("a UNet that reads text states", unet.text_width, "the text encoder makes them", text.width),
        ("a UNet that makes latent channels", unet.out_channels, "the VAE has", vae.latent_channels),
    ]
    for what, one, other_way, two in pairs:
        if one != two:
            raise ValueError(f"{source}: {what} of {one}, {other_way} of {two}")
    words = pipeline.tokenizer
    if words is not None and (len(words) > text.vocab_size or words.length > text.max_length):
        raise ValueError(
            f"{source}: a tokenizer of {len(words)} tokens and rows of {words.length}, the text encoder has "
            f"{text.vocab_size} tokens and {text.max_length} positions"
        )
    return pipeline
