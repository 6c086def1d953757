"""The settings of sample.py by part; its table says which kind of model reads which part."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from border import number_hint
from config.option import option
from ops.attention import BACKENDS
from ops.device import PRECISIONS, choose_device
from sampling import SAMPLERS, NoisePath, Schedule
from sampling.flow import OBJECTIVES
from sampling.samplers.ddpm import VARIANCES

WEIGHT = r"\d+\.?\d*|\.\d+"


@dataclass
class Source:
    """The fine-tuned model"""

    run: str = option("", "run folder of train.py: its model, autoencoder and adapter")
    adapter: list[str] = option([], "adapter or LoRA file, FILE or FILE:strength; repeat to stack")
    like: str = option("", "PNG of sample.py: sample it again; further flags change what it says of itself")
    weights: str = option(
        "mean", "Gaussian weights (bnn): their mean, or a sample at every step", choices=("mean", "sampled")
    )

    def files(self) -> list[tuple[str, float]]:
        """The adapter files, each with its strength."""
        return [with_strength(text) for text in self.adapter]


@dataclass
class Checkpoint:
    """The pretrained model, where no run is given"""

    model: str = option("tiny-dit", "checkpoint: a file, a folder, a shipped or downloaded name")


@dataclass
class Unsaid:
    """What its file does not say"""

    objective: str = option(
        "", "noise (diffusion) or a velocity (flow), where the file does not say", choices=("", *OBJECTIVES)
    )
    heads: int = option(0, "attention heads, of a size that nobody published; 0: known", at_least=0)


@dataclass
class Autoencoder:
    """Its autoencoder"""

    vae: str = option("tiny-vae", "autoencoder of a DiT's latents")


@dataclass
class Classes:
    """What to sample: classes"""

    classes: str = option("", "names or ids with commas between; empty: all (at most 12)")


@dataclass
class Prompts:
    """What to sample: prompts"""

    prompt: list[str] = option([], "what the images show, (word:1.3) weighs a word; repeat")
    prompts: str = option("", "text file of prompts, one a line")
    negative: str = option("", "prompt that guidance leads away from; empty: the empty prompt")
    superclass: str = option(
        "", 'prompt of what all prompts are a kind of, as "a hazelnut", which guidance leads away from'
    )
    embedding: list[str] = option([], "Textual Inversion file, FILE or WORD=FILE; repeat")
    attend: list[str] = option([], "word of every prompt that its images must show (Attend-and-Excite); repeat")


@dataclass
class Size:
    """The size"""

    size: str = option(
        "0", "pixels a side, or WIDTHxHEIGHT of a Stable Diffusion; 0: of the run, else what the model was made for"
    )

    def check(self) -> None:
        self.sides()

    def sides(self) -> tuple[int, int] | None:
        """(height, width) in pixels, None for 0."""
        if re.fullmatch(r"-\d+", self.size):
            raise ValueError(f"--size must be at least 0, found {self.size}")
        return None if self.size == "0" else pair_of(self.size, "size")

    def side(self) -> int:
        """The side of a square, 0 for the model's own. ValueError for another shape."""
        height, width = self.sides() or (0, 0)
        if height != width:
            raise ValueError(f"a DiT samples squares, --size must be one number, found {self.size!r}")
        return height


@dataclass
class ImageSizes:
    """What Stable Diffusion XL is told of the image"""

    original_size: str = option("", "WIDTHxHEIGHT of the photograph that it looks like a crop of; empty: the size")
    crop_offset: str = option("", "TOP,LEFT of that crop; empty: 0,0")
    target_size: str = option("", "WIDTHxHEIGHT of that crop; empty: the size")

    def check(self) -> None:
        self.six(1, 1)

    def six(self, height: int, width: int) -> list[int]:
        """Height and width of the original, top and left of the crop, height and width of the crop.

        height, width: of the image in pixels.
        """
        original, target = (
            list(pair_of(getattr(self, name), name) if getattr(self, name) else (height, width))
            for name in ("original_size", "target_size")
        )
        if not re.fullmatch(r"(\d{1,6},\d{1,6})?", self.crop_offset):
            raise ValueError(f"--crop-offset must be TOP,LEFT in pixels, found {self.crop_offset!r}")
        return original + [int(number) for number in (self.crop_offset or "0,0").split(",")] + target

    @property
    def given(self) -> bool:
        """Whether any of them is asked for."""
        return bool(self.original_size or self.crop_offset or self.target_size)


def pair_of(text: str, name: str) -> tuple[int, int]:
    """ "832x1216" -> (1216, 832), height and width; "832" is a square. ValueError that names the setting."""
    match = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", text)
    if not match:
        raise ValueError(f"--{name.replace('_', '-')} must be a number of pixels or WIDTHxHEIGHT, found {text!r}")
    width, height = match[1], match[2] or match[1]
    return int(height), int(width)


@dataclass
class Guidance:
    """Guidance"""

    guidance: float = option(3.0, "guidance scale; 1: none")
    guidance_from: str = option(
        "",
        "what guidance leads away from; empty: superclass where one is known, else null",
        choices=("", "null", "superclass"),
    )
    superclass_guidance: float = option(1.0, "scale from null to the superclass; 1: none of null")
    also: list[str] = option([], "class or prompt that every image shows besides, WHAT:WEIGHT; repeat")
    without: list[str] = option([], "class or prompt that no image shows, WHAT:WEIGHT; repeat")
    interval: str = option(
        "", "LOW,HIGH: guidance only at these timesteps, of 0 (clean) to 999 (noise), a flow's to 1; empty: all"
    )
    channels: int = option(
        0, "latent channels that guidance acts on; 0: all; 3: as in DiT's released samples", at_least=0
    )

    def check(self) -> None:
        self.extra()
        self.limits()
        unguided = self.guidance == 1 and not self.also and not self.without and self.guidance_from != "superclass"
        for name in ("interval", "channels"):
            if unguided and getattr(self, name):
                raise ValueError(f"--{name} has no effect at guidance 1")

    def extra(self) -> list[tuple[str, float]]:
        """What `also` and `without` name, each with its weight, below 0 for `without`."""
        terms = []
        for name, sign in (("also", 1), ("without", -1)):
            for text in getattr(self, name):
                what, _, weight = text.rpartition(":")
                if not what.strip() or not re.fullmatch(WEIGHT, weight):
                    raise ValueError(f"--{name} must be WHAT:WEIGHT with a number of 0 or more, found {text!r}")
                terms.append((what.strip(), sign * float(weight)))
        return terms

    def limits(self, last: float | None = None) -> tuple[float, float] | None:
        """The two timesteps of `interval`, of 0 to `last`, whole numbers unless that is 1.0; None for all steps."""
        if not self.interval:
            return None
        match = re.fullmatch(rf"({WEIGHT}),({WEIGHT})", self.interval)
        low, high = map(float, match.groups()) if match else (1, 0)
        whole = low.is_integer() and high.is_integer() if match else False
        if not low <= high or last is not None and high > last or isinstance(last, int) and not whole:
            end = "the last timestep" if last is None else last
            raise ValueError(f"interval must be LOW,HIGH with 0 <= LOW <= HIGH <= {end}, found {self.interval!r}")
        return low, high

    def heard_limits(self, path: NoisePath) -> tuple[float, float] | None:
        """The interval as the network hears it, which counts a flow's time from noise to data; None for all steps."""
        limits = self.limits(len(path.alpha_bar) - 1 if isinstance(path, Schedule) else 1.0)
        return limits and tuple(sorted(map(path.told, limits)))

    def leads_from_superclass(self, superclass: str, missing: str) -> bool:
        """Whether guidance leads away from superclasses: as guidance_from says, else wherever all are known.

        superclass: the prompt of one, if given. missing: the reason why one is not known, or "". Raises ValueError for
        superclasses that are needed and missing, and for those that have no effect.
        """
        if self.guidance_from == "null":
            if superclass or self.superclass_guidance != 1:
                raise ValueError("superclass and superclass_guidance have no effect on guidance from null")
            return False
        if missing and (self.guidance_from == "superclass" or self.superclass_guidance != 1):
            raise ValueError(missing)
        return not missing


@dataclass
class Hints:
    """ControlNet"""

    control: list[str] = option(
        [],
        "ControlNet, PATH, PATH:strength or :strength of the run's; repeat: they add up; none: that of the run, if any",
    )
    hint: list[str] = option(
        [],
        "image that it reads, as a mask; repeat: the samples of a column take them in turn, as do several ControlNets",
    )


@dataclass
class Start:
    """An image to start from"""

    image: str = option("", "image to start from instead of noise; with --mask, or a folder of them")
    strength: float = option(
        0.8, "how much of the way to noise it goes first: 1 keeps nothing of it", needs="image", above=0, at_most=1
    )


@dataclass
class Fill:
    """A mask to fill in the photograph that --image names"""

    mask: str = option(
        "", "mask, or folder of masks: only there the image changes, from noise unless --strength says otherwise"
    )
    window: float = option(
        0.0,
        "side of the square that is drawn, in sides of the mask's box; 0: the largest square",
        needs="mask",
        at_least=0,
    )
    resample: int = option(1, "times that each block of --jump steps is gone through", needs="mask", at_least=1)
    jump: int = option(10, "steps in a block that --resample repeats", needs="mask", at_least=1)
    product: str = option(
        "", "pairs of photograph and mask are written, as an MVTec tree of this product in --out", needs="mask"
    )
    defect: str = option("", "folder of the pairs in it; empty: the class or prompt", needs="product")
    candidates: int = option(1, "samples of each pair, of which the strongest is kept", needs="product", at_least=1)
    least: float = option(
        0.1, "share of its mask that a pair must have changed", needs="product", at_least=0, at_most=1
    )

    def check(self) -> None:
        if 0 < self.window < 1:
            raise ValueError(f"--window must be 0 or at least 1, found {self.window}")
        for name in ("product", "defect"):
            if re.search(r"[/\\]|^\.", getattr(self, name)):
                raise ValueError(f"--{name} is the name of a folder, without / and not hidden")
        if self.jump != 10 and self.resample == 1:
            raise ValueError("--jump has no effect without --resample")


@dataclass
class Sampler:
    """The sampler"""

    sampler: str = option(
        "ddim", "sampler; of a distilled adapter: its own, as steps and guidance", choices=lambda: list(SAMPLERS)
    )
    steps: int = option(50, "steps of the sampler", at_least=1)
    eta: float = option(0.0, "ddim: share of ddpm's noise in each step, 0: none", at_least=0, at_most=1)
    variance: str = option(
        "",
        "ddpm: of the noise in each step; empty: learned where the model has it, else small",
        choices=("", *VARIANCES),
    )

    def check(self) -> None:
        for name, reader in (("eta", "ddim"), ("variance", "ddpm")):
            if getattr(self, name) and self.sampler != reader:
                raise ValueError(f"--{name} is read by --sampler {reader}, not by {self.sampler}")

    def own(self) -> str | Callable:
        """The sampler as sample_latents takes it: its name, or the function with its own setting bound."""
        bound = {name: getattr(self, name) for name in ("eta", "variance") if getattr(self, name)}
        return partial(SAMPLERS[self.sampler], **bound) if bound else self.sampler


@dataclass
class Output:
    """The images"""

    count: int = option(8, "images of each class or prompt", at_least=1)
    seed: int = option(0, "image i of a class or prompt has the noise of (seed, its name, i)", at_least=0)
    batch: int = option(16, "images sampled at once", at_least=1)
    precision: str = option("auto", "bf16 computes in bfloat16 by autocast", choices=PRECISIONS)
    device: str = option("auto", "auto, or a device of torch: cpu, cuda, cuda:1, mps")
    attention: str = option("auto", "how attention is computed, see ops/attention.py", choices=BACKENDS)
    compile: bool = option(False, "compile one block of each shape by torch.compile; its first call takes long")
    out: str = option("", "folder for the images; empty: RUN/drawn or ./drawn")
    replace: bool = option(False, "samples of other settings that the folder holds are removed; without it, refused")

    def check(self) -> None:
        choose_device(self.device)


def with_strength(text: str) -> tuple[str, float]:
    """ "FILE" or "FILE:0.7" -> (file, strength). ValueError for a strength that is written in another way."""
    file, colon, strength = text.rpartition(":")
    try:
        return (file, float(strength)) if colon else (text, 1.0)
    except ValueError:
        if hint := number_hint(strength, float):
            raise ValueError(f"{text}: the strength of an adapter must be a number, found {strength!r}{hint}") from None
        return text, 1.0
