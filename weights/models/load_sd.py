"""A whole Stable Diffusion from one file or a diffusers folder: UNet, text encoder, tokenizer, VAE and schedule.

Of XL the text encoder and the tokenizer are pairs (unet/text/pair.py). Its single file has OpenCLIP's names for the
second encoder, its folder text_encoder_2/ and tokenizer_2/ beside the others. Its autoencoder overflows in float16,
unless its config.json says otherwise, and is float32 then.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from border import read_json
from sampling import Schedule
from unet import VAE, TextPair, TokenizerPair, UNet
from unet.text.bytepair import END
from unet.text.encoder import TextEncoder
from unet.text.pair import encoders
from unet.text.tokenizer import Tokenizer
from weights.formats import published
from weights.formats.files import read
from weights.formats.published import resolve
from weights.layouts import scheduler_json
from weights.layouts.detect import layouts_in
from weights.layouts.families import describe_file, unet_widths
from weights.layouts.kinds import KINDS
from weights.models.load import assemble, load

PIPELINES = tuple(  # diffusers' classes that these five components are all of, two of them pairs in XL
    f"StableDiffusion{version}{task}Pipeline" for version in ("", "XL") for task in ("", "Img2Img", "Inpaint")
)
MASKED = 9  # input channels of an inpainting model's UNet
TOWERS = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")  # XL's text encoders in one file
TOKENIZER = "clip-tokenizer"  # its name in weights/formats/published.py


class StableDiffusion(NamedTuple):
    """The five parts that turn a prompt into an image. Only `read_single` leaves the tokenizer None."""

    unet: UNet
    text: TextEncoder | TextPair
    tokenizer: Tokenizer  # XL's a TokenizerPair
    vae: VAE
    schedule: Schedule

    @property
    def step(self) -> int:
        """What the sides of an image are multiples of, in pixels, so that each level can halve the latents."""
        return self.unet.factor * self.vae.factor

    def side(self, size: int = 0) -> int:
        """A side of the images in pixels, 0 for the UNet's own. ValueError unless each level can halve the latents."""
        size = size or self.unet.config.input_size * self.vae.factor
        if size < 1 or size % self.step:
            raise ValueError(f"size must be a multiple of {self.step} pixels, found {size}")
        return size

    def latent_shape(self, height: int = 0, width: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the latents of images with these sides, by default squares of the UNet's own side."""
        sides = height, height if width is None else width
        return self.unet.config.out_channels, *(self.side(side) // self.vae.factor for side in sides)


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
    """The Stable Diffusion 1, 2 or XL in `path`, its models in eval mode, on the CPU, mapped as by `load`.

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
    xl, config = kind.startswith("StableDiffusionXL"), path / "scheduler" / "scheduler_config.json"
    if xl and options.get("dtype") == torch.float16 and upcasts(path / "vae" / "config.json"):
        given = given | {"vae": given["vae"] | {"dtype": torch.float32}}
    models = {part: load(path, expect=part, **options | given[part]) for part in given}
    folders = [path / "tokenizer"] + [path / "tokenizer_2"] * xl
    for needed in (config, *folders, *[path / "text_encoder_2"] * xl):
        if not needed.exists():
            raise ValueError(f"{path}: expected {needed.relative_to(path)}, found no such file or folder")
    words = [Tokenizer.from_folder(folder) for folder in folders]
    if xl:
        second = load(path / "text_encoder_2", expect="text", **options | given["text"])
        models["text"], words = pair(models["text"], second, path), [TokenizerPair(*words)]
    noise = scheduler_json.from_json(read_json(config), config, prediction)
    return StableDiffusion(tokenizer=words[0], schedule=noise, **models)


def upcasts(config: Path) -> bool:
    """Whether the autoencoder of this config.json needs float32 where the others compute in float16."""
    return not config.is_file() or read_json(config).get("force_upcast") is not False


def pair(first: TextEncoder, second: TextEncoder, source: str | Path) -> TextPair:
    """XL's two text encoders, which are read at their penultimate layers, without the norm."""
    try:
        both = TextPair(first, second)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    for encoder in (first, second):
        encoder.config = replace(encoder.config, skip=1, norm=False)
    return both.eval()


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
    xl = any(name.startswith(TOWERS[1]) for name in tensors)
    for kind in ("vae",) if xl else ("text", "vae"):
        if "-in-" not in layouts.get(kind, ""):
            raise ValueError(f"{path}: expected a whole Stable Diffusion, found no {KINDS[kind].words[2:]} in it")
        own = {"dtype": torch.float32} if xl and options.get("dtype") == torch.float16 else {}
        models[kind] = assemble(layouts[kind], tensors, metadata, path, given[kind], ema, **options | own)
    if xl:
        models["text"] = towers(tensors, metadata, path, given["text"], **options)
    unet, second = models["unet"], "openclip" in layouts.get("text", "")
    bias = unet.up[-1].attentions[-1].transformer_blocks[0].norm1.bias if unet.config.text[0] else None
    noise = scheduler_json.of_single_file(tensors, metadata, path, second, bias, prediction)
    if second and noise.prediction == "v" and "input_size" not in given["unet"]:
        unet.config = replace(unet.config, input_size=96)  # those that predict v were made for 768 pixels
    return StableDiffusion(tokenizer=None, schedule=noise, **models)


def towers(tensors: dict[str, Tensor], metadata: dict, source: str | Path, given: dict, **options) -> TextPair:
    """XL's text encoders among the tensors of a single file, each under its prefix."""
    encoders = []
    for prefix, layout in zip(TOWERS, ("text-transformers", "text-openclip")):
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if not own:
            raise ValueError(f"{source}: expected both text encoders of Stable Diffusion XL, found none at {prefix}")
        encoders.append(assemble(layout, own, metadata, source, given, **options))
    return pair(*encoders, source)


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
    if isinstance(pipeline.text, TextPair):
        return TokenizerPair(padded_with(END, words), padded_with("!", words))
    return padded_with("!" if pipeline.text.config.activation == "gelu" else END, words)  # Stable Diffusion 2, and 1


def padded_with(pad: str, words: Tokenizer) -> Tokenizer:
    """The same tokenizer with this token to fill a row."""
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
    if unet.pooled or isinstance(pipeline.text, TextPair):
        made = text.projection if isinstance(pipeline.text, TextPair) else 0
        pairs.append(("a UNet that reads a pooled text", unet.pooled, "the text encoder makes one", made))
    for what, one, other_way, two in pairs:
        if one != two:
            raise ValueError(f"{source}: {what} of {one}, {other_way} of {two}")
    words = pipeline.tokenizer
    both = [] if words is None else [words, words.second] if isinstance(words, TokenizerPair) else [words]
    for words, encoder in zip(both, encoders(pipeline.text).values(), strict=bool(both)):
        config = encoder.config
        if len(words) > config.vocab_size or words.length > config.max_length:
            raise ValueError(
                f"{source}: a tokenizer of {len(words)} tokens and rows of {words.length}, the text encoder has "
                f"{config.vocab_size} tokens and {config.max_length} positions"
            )
    return pipeline
