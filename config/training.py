"""The settings of train.py by part. recipes/__init__.py says which recipe reads which part."""

from dataclasses import dataclass

import adapters
from config.option import option
from data.transforms import variants
from ops.attention import BACKENDS
from ops.device import PRECISIONS, choose_device
from sampling import SAMPLERS
from sampling.flow import DENSITIES, OBJECTIVES
from sampling.huber import SCHEDULES, Huber
from sampling.progressive import NOISE_SCHEDULES


@dataclass
class Run:
    """The run"""

    recipe: str = option("class_label", "what conditions the model and which loss it learns by")
    seed: int = option(0, "seed of everything random", at_least=0)
    precision: str = option(
        "auto", "bf16 computes in bfloat16 and stores frozen weights so; what trains stays float32", choices=PRECISIONS
    )
    device: str = option("auto", "auto, or a device of torch: cpu, cuda, cuda:1, mps")
    attention: str = option("auto", "how attention is computed, see ops/attention.py", choices=BACKENDS)
    out: str = option("", "run folder; empty: the next free runs/NNN")
    resume: bool = option(False, "continue the run in --out")
    allow_change: list[str] = option(
        [], "what may be other than at the start of the run that is continued", choices=("data",), needs="resume"
    )
    dry_run: bool = option(False, "one step and a few samples in a temporary folder: what the run takes")

    def check(self) -> None:
        choose_device(self.device)
        if self.dry_run and self.resume:
            raise ValueError("--dry-run is of a run that is not begun, so it takes no --resume")


@dataclass
class Origin:
    """Where a run was started: in its config.toml alone, no flag sets it"""

    started_in: str = option("", "the folder that its relative paths begin in")


@dataclass
class Base:
    """The pretrained model"""

    model: str = option("tiny-dit", "checkpoint: a file, a folder, a shipped or downloaded name; new:SIZE is random")


@dataclass
class Heads:
    """Its attention"""

    heads: int = option(
        0, "heads, of a DiT whose file does not say and whose size nobody published; 0: known", at_least=0
    )


@dataclass
class Autoencoder:
    """The autoencoder"""

    vae: str = option("tiny-vae", "autoencoder whose latents the model lives in")


@dataclass
class Images:
    """The images"""

    data: str = option("generated:hazelnut/few/20", "folder of images, or generated:PRODUCTS/SPLIT[/COUNT]")
    size: int = option(0, "side in pixels; 0: what the model was made for", at_least=0)
    crop: int = option(0, "centre crop to this many pixels before resizing; 0: none", at_least=0)
    resize: str = option(
        "resize", "resize the short side and crop the centre, or as DiT did", choices=("resize", "adm")
    )
    flips: str = option("hv", "mirror images: h left to right, v upside down too", choices=("none", "h", "hv"))
    rotations: str = option("0,90,180,270", "angles to turn images by, in degrees with commas between")

    def check(self) -> None:
        self.variants()

    def variants(self) -> list:
        """Every image's variants: all flips at all rotations, the plain image first."""
        try:
            degrees = tuple(float(text) for text in self.rotations.split(","))
        except ValueError:
            raise ValueError(f"rotations must be degrees with commas between, found {self.rotations!r}") from None
        return variants(self.flips, degrees)


@dataclass
class Buckets:
    """The shape of the images"""

    buckets: bool = option(False, "images keep their aspect ratio, near that of a shape as large as the square of size")


@dataclass
class HeldOut:
    """Held-out images"""

    val: str = option(
        "",
        "images of the same classes that are not trained on; 0.2 or 4: that share or number of each class of --data, "
        "0.2:PATTERN keeps objects together (data/split.py); empty: the val split of generated data",
    )


@dataclass
class Latents:
    """Encoded images"""

    cache: str = option(".cache", "folder that encoded images are kept in; empty: memory only")


@dataclass
class Blocks:
    """The blocks of the network"""

    checkpoint: str = option(
        "none", "blocks: each is computed twice and keeps its input alone, for less memory", choices=("none", "blocks")
    )
    shard: bool = option(False, "divide what --adapter full trains over the processes of torchrun, for less memory")
    compile: bool = option(False, "compile one block of each shape by torch.compile; its first call takes long")

    def check(self) -> None:
        if self.shard and self.compile:
            raise ValueError("--shard divides blocks that torch calls by itself, so that it takes no --compile")


@dataclass
class Adapter:
    """What trains"""

    adapter: list[str] = option(["bitfit", "norm"], "[part.]METHOD[:option=value,...]; repeat to stack")

    def check(self) -> None:
        for spec in self.adapter:
            adapters.parse(adapters.split(spec)[1])


@dataclass
class StartFiles:
    """What the model has learned before"""

    init: list[str] = option([], "adapter file that is merged into the model first; repeat")


@dataclass
class ClassRows:
    """New classes"""

    class_init: str = option(
        "name", "new rows start from: name | nearest | features[:DATA] | mean | random | CLASS, as buckeye", old="start"
    )


@dataclass
class Superclasses:
    """Superclasses"""

    superclass: float = option(0.0, "how often a label is replaced by its superclass", at_least=0, at_most=1)
    hierarchy: str = option(
        "", ".toml or .json file of class = superclass; empty: superclass/class folders", needs="superclass"
    )


@dataclass
class NoiseSchedule:
    """The noise schedule"""

    noise_schedule: str = option(
        "fixed", "progressive adds less noise in each sixth of the steps", choices=NOISE_SCHEDULES
    )


@dataclass
class Objective:
    """What the model predicts"""

    objective: str = option(
        "", "noise (diffusion) or a velocity (flow); empty: what the model's file says", choices=("", *OBJECTIVES)
    )
    times: str = option("", "density of a flow's training times; empty: uniform", choices=("", DENSITIES[1]))
    time_mean: float = option(
        0.0, "logit of the usual training time, above 0: more noise", needs="times", at_least=-10, at_most=10
    )
    time_std: float = option(1.0, "deviation of the logits of the training times", needs="times", above=0)
    time_shift: float = option(1.0, "above 1 shifts a flow's training times towards noise", above=0)


@dataclass
class Captions:
    """Captions"""

    template: str = option("", 'caption of images that have none, as "a photo of a {class}"')


@dataclass
class Prompts:
    """Prompts of the samples"""

    prompts: list[str] = option([], "what the samples show; none: the first captions; repeat")


@dataclass
class NewWord:
    """A new word"""

    token: str = option("", "new word in the captions, to be learned (Textual Inversion)")
    token_init: str = option("", "known word that it starts from", needs="token", old="token_start")
    vectors: int = option(1, "rows of the token table that the new word has", needs="token", at_least=1)


@dataclass
class TextRate:
    """The text encoder"""

    text_lr: float = option(0.0, "learning rate of what trains in the text encoder; 0: lr", at_least=0)


@dataclass
class Prior:
    """Prior preservation"""

    class_prompt: str = option(
        "", 'what the images are without their own name, as "a photo of a dog"', needs="prior_weight"
    )
    class_images: int = option(
        100, "images of the class that the model samples before training", needs="prior_weight", at_least=1
    )
    prior_weight: float = option(1.0, "weight of their loss; 0: no such images", at_least=0)

    def check(self) -> None:
        if self.prior_weight and not self.class_prompt.strip():
            raise ValueError(
                "dreambooth keeps the class by samples of it: give --class_prompt, or --prior_weight 0 for none"
            )


@dataclass
class Denoising:
    """The loss"""

    cond_dropout: float = option(
        0.1, "how often the null condition replaces the condition", at_least=0, at_most=1, old="drop"
    )
    noise_offset: float = option(0.0, "strength of the noise that a whole channel shares", at_least=0)
    mask_weight: float = option(1.0, "weight of the loss where the images' masks are", above=0)
    min_snr: float = option(0.0, "gamma of the min-SNR loss weight; 0: off", at_least=0)
    huber: float = option(0.0, "threshold of the pseudo-Huber loss; 0: the squared error", at_least=0, at_most=1)
    huber_schedule: str = option("snr", "how it falls with the noise", choices=SCHEDULES, needs="huber")

    @property
    def robust(self) -> Huber | None:
        """The loss in the place of the squared error."""
        return Huber(self.huber, self.huber_schedule) if self.huber else None


@dataclass
class Filling:
    """The terms of the loss"""

    defect_weight: float = option(0.5, "weight of the loss where the mask is, with that mask given", at_least=0)
    object_weight: float = option(0.2, "weight of the loss with random boxes given", at_least=0)
    outside: float = option(0.3, "of it, how much counts what lies outside of the mask", at_least=0, at_most=1)


@dataclass
class Window:
    """What is trained on of a photograph"""

    window: float = option(
        0.0,
        "side of the square around the mask that is trained on, in sides of the mask's box; 0: the photograph",
        at_least=0,
    )

    def check(self) -> None:
        if 0 < self.window < 1:
            raise ValueError(f"--window must be 0 or at least 1, found {self.window}")


@dataclass
class DefectWord:
    """The defect's word"""

    word: str = option("", 'word of the captions that stands for the defect, as "sks"')
    attention_weight: float = option(
        0.05, "weight of the loss that its attention lies in the mask", needs="word", at_least=0
    )


@dataclass
class Sampling:
    """The samples of a run"""

    sampler: str = option("ddim", "sampler", choices=lambda: list(SAMPLERS))
    sample_steps: int = option(50, "steps of the sampler", at_least=1)
    guidance: float = option(3.0, "guidance scale; 1: none")


@dataclass
class Teacher:
    """The teacher"""

    guidance: float = option(3.0, "guidance scale of the teacher, which the student learns; 1: none")


@dataclass
class Grid:
    """The grid of samples"""

    count: int = option(4, "samples of each class or prompt in a grid", at_least=1)


@dataclass
class Stopping:
    """When to stop"""

    keep: str = option(
        "last", "weights that the run leaves: the last, or those whose samples were best", choices=("last", "best")
    )
    stop_corrupted: bool = option(False, "end the run when its samples reach the corruption stage")

    @property
    def acts(self) -> bool:
        """Whether anything depends on what the evaluations of the samples say."""
        return self.keep == "best" or self.stop_corrupted


@dataclass
class Features:
    """What samples are measured in, and class_init "features" """

    features: str = option(
        "", "network, or file of one, as of evaluate.py; patches: none; empty: patches for photographs of one's own"
    )


@dataclass
class Scores:
    """Scores of the samples"""

    scorer: str = option("", "function of the samples of every evaluation, module:NAME or file.py:NAME (scorers.md)")


@dataclass
class Measure:
    """The metrics at the end"""

    measure: int = option(20, "samples of each class behind the metrics; 0: no metrics", at_least=0)


@dataclass
class Loop:
    """The training loop"""

    steps: int = option(900, "optimizer steps", at_least=1)
    epochs: int = option(0, "passes over the images, whose steps take the place of --steps; 0: those", at_least=0)
    batch: int = option(32, "images in a micro-batch; may exceed the number of images", at_least=1)
    accumulate: int = option(1, "micro-batches in a step", at_least=1)
    lr: float = option(3e-3, "peak learning rate of AdamW", above=0)
    weight_decay: float = option(0.0, "weight decay of AdamW", at_least=0)
    lr_schedule: str = option("cosine", "learning rate after the warm-up", choices=("constant", "cosine", "cooldown"))
    warmup: int = option(20, "steps of linear warm-up", at_least=0)
    clip: float = option(
        1.0, "largest norm of the gradient; 0: no limit, and many weights update in the backward pass", at_least=0
    )
    ema: float = option(0.99, "decay of the averaged weights, reached gradually; 0: none", at_least=0, below=1)
    save_every: int = option(150, "steps between checkpoints", at_least=1)
    sample_every: int = option(300, "steps between evaluations: samples and held-out loss", at_least=1)
