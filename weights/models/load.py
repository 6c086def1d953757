"""A model from any file: find its layout and config, build it empty, and make its parameters maps of the file."""

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from border import checked, read_json
from dit import DiTConfig
from dit.embed import position_table
from weights.formats.files import read
from weights.formats.published import resolve
from weights.formats.safe import graft_header
from weights.layouts import kinds
from weights.layouts.detect import detect
from weights.layouts.exchange import LAYOUTS, ROUNDING, fill
from weights.layouts.infer import Source
from weights.layouts.objective import in_sits_convention, objective_of

POSITIONS = ("pos_embed", "pos_embed.pos_embed")  # the official name, and that of some diffusers files
SCANNED = 1_000_000_000  # bytes: larger models are searched for NaN only on request, because that reads every page
PIECE = 2**22  # numbers that are searched at a time: the search itself takes memory
EMA = "model_ema."  # in single files: averaged weights, their names without dots


def load(
    path: str | Path,
    *,
    expect: str | None = None,
    dtype: torch.dtype | None = None,
    ema: bool = True,
    variant: str | None = None,
    check: bool | None = None,
    objective: str | None = None,
    **overrides,
) -> nn.Module:
    """The model in `path`, in eval mode, on the CPU. Weights that are not converted stay maps of the file.

    path: a file or folder in any known layout, or the name of a shipped or downloaded model ("tiny-dit").
    expect: "dit", "vae", "unet", "controlnet" or "text"; required where a file holds several, else checked.
    dtype: of the weights; None keeps the file's, or float32 where the file mixes several.
    ema: averaged or raw weights of a training checkpoint. variant: infix of a folder's file names, such as "fp16".
    check: search for NaN and infinity, which reads the whole file; None does so up to 1 GB of weights.
    overrides: fields of the model's config that the file does not hold or that shall differ (heads=, input_size=, ...).
    objective: "diffusion" or "flow", of a DiT whose file does not say (weights/layouts/objective.py).
    A DiT gets the attributes `classes` (names, None where none are known), `parents` ({class: superclass}),
    `noise_schedule` (the name of its betas) and `objective`.
    Raises ValueError in one sentence with the file, what was expected and what was found.
    """
    if expect not in (None, *kinds.KINDS):
        raise ValueError(f"expect must be one of {', '.join(kinds.KINDS)}, found {expect!r}")
    path = resolve(path)
    tensors, metadata = read(path, ema=ema, variant=variant, component=component(path, expect))
    layout_name = detect(tensors, metadata, path, expect)
    return assemble(layout_name, tensors, metadata, path, overrides, ema, dtype, check, objective)


def assemble(
    layout_name: str,
    tensors: dict[str, Tensor],
    metadata: dict,
    source: str | Path,
    overrides: dict,
    ema: bool = True,
    dtype: torch.dtype | None = None,
    check: bool | None = None,
    objective: str | None = None,
) -> nn.Module:
    """The model of this layout among the tensors of a file; the other arguments are those of `load`."""
    layout = LAYOUTS[layout_name]
    if layout_name == "unet-in-sd":
        tensors = averaged(tensors, ema, source)
    config = configure(layout_name, tensors, metadata, overrides, source)
    try:
        model = kinds.empty(layout.kind, config)
    except (ValueError, RuntimeError, IndexError) as error:  # numbers that do not fit each other
        raise ValueError(f"{source}: no model can be of this shape: {error}") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    positions = {name: tensors.pop(name) for name in POSITIONS if name in tensors}
    state = in_one_dtype(fill(tensors, shapes, layout, kinds.size_of(config), source), dtype)
    if layout.kind == "dit":
        table = position_parameter(positions, config, "input_size" in overrides, source)
        state["pos_embed"] = table.to(state["x_embedder.proj.weight"].dtype)
        model.objective = objective_of(state, config, layout_name, graft_header(metadata, source), objective, source)
        state = in_sits_convention(state) if layout_name == "dit-repa" else state
    elif objective is not None:
        raise ValueError(f"{source}: objective={objective!r} is for a DiT, found {kinds.KINDS[layout.kind].words}")
    model.load_state_dict(state, assign=True)
    if check or check is None and sum(tensor.nbytes for tensor in state.values()) <= SCANNED:
        check_finite(state, source)
    card = checked_card(graft_header(metadata, source).get("card"), source)
    model.classes = class_names(metadata, card, source, config.num_classes) if layout.kind == "dit" else None
    model.parents, model.noise_schedule = card["parents"] or {}, card["noise_schedule"] or "fixed"
    return model.eval()


def averaged(tensors: dict[str, Tensor], ema: bool, source: str | Path) -> dict[str, Tensor]:
    """A single file's tensors, the UNet's raw weights replaced by the averaged ones if `ema` and the file holds them.

    The name of an averaged weight is "model_ema." + the raw name without "model." and without dots.
    """
    raw = [name for name in tensors if name.startswith("model.diffusion_model.")]
    twins = {name: EMA + name.removeprefix("model.").replace(".", "") for name in raw}
    averages = [name for name, twin in twins.items() if twin in tensors]
    if not averages:
        return tensors
    print(f"{source}: {'averaged' if ema else 'raw'} weights of the UNet, ema={not ema} takes the others")
    if ema and len(averages) < len(raw):
        raise ValueError(
            f"{source}: expected {len(raw)} averaged weights of the UNet, found {len(averages)}; ema=False "
            "takes the raw ones"
        )
    return tensors | {name: tensors[twins[name]] for name in averages} if ema else tensors


def checked_card(card: object, source: str | Path) -> dict:
    """What a card says of the classes and the noise schedule of a model, each None where it says nothing."""
    card = card if isinstance(card, dict) else {}
    kinds = {"classes": list[str] | None, "parents": dict[str, str] | None, "noise_schedule": str | None}
    return {name: checked(card.get(name), kind, f"{source}: {name} in its header") for name, kind in kinds.items()}


def class_names(metadata: dict, card: dict, source: str | Path, count: int) -> list[str] | None:
    """Names of the classes in the order of their ids: from a pipeline's labels, or from our own header's card.

    A file of others that names none of its 1000 classes has ImageNet's, as every published DiT and SiT.
    """
    labels = metadata.get("model_index", {}).get("id2label")
    if labels is None:
        own = "config" in graft_header(metadata, source)
        return imagenet() if count == 1000 and not own else card["classes"]
    checked(labels, dict[str, str | list[str]], f"{source}: id2label")
    if sorted(labels, key=lambda key: (len(key), key)) != [str(i) for i in range(len(labels))]:
        raise ValueError(
            f"{source}: id2label must have the ids 0 .. {len(labels) - 1}, found {', '.join([*labels][:3])}"
        )
    return [str(labels[str(i)]) for i in range(len(labels))]


def imagenet() -> list[str]:
    """The names of ImageNet's 1000 classes: the words of their synsets in WordNet, "tench, Tinca tinca" the first."""
    return (Path(__file__).parent / "imagenet.txt").read_text().splitlines()


def component(path: Path, expect: str | None) -> str | None:
    """The subfolder of a diffusers pipeline to read, None for any other path."""
    index = path / "model_index.json"
    if not index.is_file():
        return None
    pipeline = read_json(index).get("_class_name")
    if expect is None and pipeline != "DiTPipeline":
        raise ValueError(
            f"{path}: a folder of {pipeline}; weights.load_sd reads a whole Stable Diffusion, "
            "expect='vae' and the like one part"
        )
    return kinds.KINDS[expect or "dit"].folder


def configure(
    layout_name: str, tensors: dict[str, Tensor], metadata: dict, overrides: dict, source: str | Path
) -> kinds.Config:
    """The model's config: from our own header, else from the shapes of its tensors and the JSON files beside them."""
    layout = LAYOUTS[layout_name]
    kind = kinds.KINDS[layout.kind]
    size, header = kind.measure(tensors), graft_header(metadata, source)
    if "config" in header:
        config = kinds.from_dict(layout.kind, header["config"], f"{source}: the config in its header does not fit")
        if kinds.size_of(config) != size:
            raise ValueError(f"{source}: expected {kinds.size_of(config)} blocks by its header, found {size}")
        if (layers := getattr(config, "layers", 0)) > len(tensors):  # a model of so many would take minutes to make
            raise ValueError(f"{source}: layers {layers} by its header, and the file has {len(tensors)} tensors")
    else:
        values = kind.infer(Source(layout, tensors, metadata, size, overrides, source))
        config = kinds.from_dict(layout.kind, values, str(source))
    return kinds.with_overrides(config, overrides)


def position_parameter(stored: dict[str, Tensor], config: DiTConfig, resized: bool, source: str | Path) -> Tensor:
    """The position table (1, T, D) for config.input_size: the file's own, or computed where the file holds none.

    In every published file the table is the same sinusoid, so that one for another latent side can be computed. Other
    positions are kept, with a warning, and cannot be resized.
    """
    side = config.input_size // config.patch
    for name, table in stored.items():
        edge = math.isqrt(table.shape[1]) if table.dim() == 3 else 0
        if table.shape != (1, edge**2, config.width) or not (resized or edge == side):
            expected = [1, side**2, config.width]
            raise ValueError(f"{source}: expected {name} of shape {expected}, found {list(table.shape)}")
        by = (table.float() - position_table(config.width, edge, edge)).abs().max().item()
        same = by <= ROUNDING.get(table.dtype, ROUNDING[torch.float16])  # float32 may have been float16 before
        if not same and edge != side:
            reason = f"its positions are no sinusoid (difference {by:.2g})"
            raise ValueError(f"{source}: {reason}, so they cannot be resized from {edge} to {side} patches a side")
        if not same:
            warnings.warn(f"{source}: its positions differ from the sinusoid by {by:.2g}; they are kept", stacklevel=3)
        if edge == side:
            return table
    return position_table(config.width, side, side)


def in_one_dtype(state: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Every tensor in `dtype`; None keeps the one dtype of all if torch computes in it, else it is float32."""
    dtypes = {tensor.dtype for tensor in state.values()}
    if dtype is None and len(dtypes) == 1 and dtypes <= {torch.float32, torch.float16, torch.bfloat16, torch.float64}:
        return state
    return {name: tensor.to(dtype or torch.float32) for name, tensor in state.items()}


def is_finite(part: Tensor) -> bool:
    return bool(torch.isfinite(part).all())


def check_finite(state: dict[str, Tensor], source: str | Path) -> None:
    """Raise ValueError that names the tensors with a NaN or an infinity."""
    broken = [name for name, tensor in state.items() if not all(map(is_finite, tensor.flatten().split(PIECE)))]
    if broken:
        raise ValueError(f"{source}: NaN or infinity in {len(broken)} tensors ({', '.join(broken[:3])})")
