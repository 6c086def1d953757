"""The published file layouts, and the exchange of tensors between a file and a model: `fill` reads, `spread` writes.

Reading and writing use the same table of renames (weights/layouts/renames.py). Every tensor of the file is used, or
ignored by its name; every tensor of the model is filled; every shape is equal. One error counts all that does not fit.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from weights.layouts import renames
from weights.layouts.renames import Size

ROUNDING = {torch.float16: 1e-3, torch.bfloat16: 8e-3}  # of numbers up to 1 stored in this type, else 1e-5
NEVER = r"(?!)"
ATTENTION = re.compile(r"\.mid\.1\.to_\w+\.weight$")  # the VAE's: Linear, or in some files 1x1 convolutions
SCHEDULE = (  # buffers of the original training code, all derived from the noise schedule
    r"betas|alphas_cumprod|alphas_cumprod_prev|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|scale_factor|logvar|denoiser\.sigmas|v_pred|ztsnr"
)


class Layout(NamedTuple):
    """One published layout of one kind of model.

    rows(size) is its table of renames, with size as in `kinds.size_of`. ignore: a regex of the names in the file that
    are not of this model, in which {size} stands for the size.
    """

    kind: str
    rows: Callable[..., list[tuple]]
    ignore: str = NEVER
    convolutions: bool = False  # the VAE's attention Linears are 1x1 convolutions in the file


OTHER_PARTS = r"^(model\.diffusion_model|model_ema|cond_stage_model|conditioner|first_stage_model\.loss)\.|"
BESIDE_UNET = rf"^(model_ema|cond_stage_model|conditioner|first_stage_model)\.|^({SCHEDULE})$"
BESIDE_CONTROL = rf"^model\.diffusion_model\.|{BESIDE_UNET}"
BESIDE_TEXT = rf"^(model\.diffusion_model|model_ema|first_stage_model)\.|^({SCHEDULE})$"
# position_ids count from 0 to 76, in some merges with rounding errors; the rest compares texts with images
CLIP_ONLY = r"(^|\.)(embeddings\.position_ids|text_projection(\.weight)?|logit_scale|attn_mask)$"
WHOLE_CLIP = rf"{CLIP_ONLY}|^(vision_model|visual_projection)\."
CLIP_IN_SD = rf"{BESIDE_TEXT}|{CLIP_ONLY}"
OPENCLIP_IN_SD = rf"{CLIP_IN_SD}|\.resblocks\.{{size}}\."  # the last block never runs
LAYOUTS = {f"{kind}-native": Layout(kind, renames.same) for kind in ("dit", "vae", "unet", "controlnet", "text")} | {
    "dit-official": Layout("dit", renames.same),
    "dit-repa": Layout("dit", renames.same, r"^projectors\."),  # heads that training alone reads
    "dit-diffusers": Layout("dit", renames.dit_diffusers),
    "vae-compvis": Layout("vae", renames.vae_compvis, r"^(loss|model_ema)\.", convolutions=True),
    "vae-diffusers": Layout("vae", renames.vae_diffusers),
    "vae-diffusers-old": Layout("vae", renames.vae_diffusers_old),
    "vae-in-sd": Layout("vae", renames.vae_in_sd, rf"{OTHER_PARTS}^({SCHEDULE})$", convolutions=True),
    "unet-diffusers": Layout("unet", renames.unet_diffusers),
    "unet-in-sd": Layout("unet", renames.unet_in_sd, BESIDE_UNET),
    "controlnet-diffusers": Layout("controlnet", renames.controlnet_diffusers),
    "controlnet-compvis": Layout("controlnet", renames.controlnet_compvis("control_model."), BESIDE_CONTROL),
    "controlnet-compvis-bare": Layout("controlnet", renames.controlnet_compvis("")),
    "text-transformers": Layout("text", renames.text_transformers("text_model."), WHOLE_CLIP),
    "text-transformers-bare": Layout("text", renames.text_transformers(""), WHOLE_CLIP),
    "text-transformers-double": Layout("text", renames.text_transformers("text_model.text_model."), WHOLE_CLIP),
    "text-in-sd": Layout("text", renames.text_transformers("cond_stage_model.transformer.text_model."), CLIP_IN_SD),
    "text-in-sd-bare": Layout("text", renames.text_transformers("cond_stage_model.transformer."), CLIP_IN_SD),
    "text-openclip": Layout("text", renames.text_openclip(""), CLIP_ONLY),
    "text-openclip-in-sd": Layout("text", renames.text_openclip("cond_stage_model.model."), OPENCLIP_IN_SD),
    "text-openclip-in-sgm": Layout("text", renames.text_openclip("conditioner.embedders.0.model."), OPENCLIP_IN_SD),
}


def file_names(name: str, layout: Layout, size: Size) -> list[str]:
    """The names under which the file holds our tensor `name`: one, three for {part}, `size` for {block}, none for "".

    A name that ends in #0, #1 or #2 means that third of the file's tensor, one that ends in #T its transpose.
    """
    for pattern, replacement in layout.rows(size):
        name = re.sub(pattern, replacement, name, count=1)
    if "{block}" in name:
        return [name.replace("{block}", str(block)) for block in range(size)]
    if "{part}" in name:
        return [name.replace("{part}", part) for part in "qkv"]
    return [name] if name else []


def fill(
    tensors: dict[str, Tensor], shapes: dict[str, tuple], layout: Layout, size: Size, source: str | Path
) -> dict[str, Tensor]:
    """Our {name: tensor} from a file's {name: tensor}, for a model whose tensors have these shapes.

    Only q, k, v that are stored apart are copied (into one); everything else stays a map of the file. The position
    table may be absent from the file, and then it is absent from the result. `source` is named in errors. Raises one
    ValueError for everything that does not fit.
    """
    missing, wrong, used, state = [], [], set(), {}
    for name, shape in shapes.items():
        names = file_names(name, layout, size)
        keys = [key.partition("#")[0] for key in names]
        used.update(keys)
        absent = [key for key in keys if key not in tensors]
        if name == "pos_embed" and (absent or not names):
            continue
        missing += [key for key in absent if key not in missing]
        if not absent:
            state[name] = join(name, names, tensors, source)
            if tuple(state[name].shape) != shape:
                wrong.append(f"{keys[0]} expected {list(shape)}, found {list(state[name].shape)}")
    ignore = layout.ignore.replace("{size}", str(size))
    unknown = [key for key in tensors if key not in used and not re.search(ignore, key)]
    counts = count_reasons((missing, "missing"), (unknown, "unknown"), (wrong, "of another shape"))
    if counts:
        raise ValueError(f"{source}: expected {len(shapes)} tensors of our {layout.kind}, found {', '.join(counts)}")
    return state


def count_reasons(*reasons: tuple[list[str], str]) -> list[str]:
    """ "4 missing (a; b; c; ...)" for every reason (names, what is wrong with them) that has names."""
    return [
        f"{len(names)} {what} ({'; '.join(names[:3])}{'; ...' if len(names) > 3 else ''})"
        for names, what in reasons
        if names
    ]


def join(name: str, names: list[str], tensors: dict[str, Tensor], source: str | Path) -> Tensor:
    """Our tensor `name` from the tensors of the file that hold it, under `names`."""
    key, _, third = names[0].partition("#")
    first = tensors[key]
    if third == "T":
        return first.T if first.dim() == 2 else first
    if third and first.dim() and len(first) % 3 == 0:
        rows = len(first) // 3
        return first[int(third) * rows : (int(third) + 1) * rows]
    if ".attn.qkv." in name and len(names) == 3:
        return torch.cat([tensors[key] for key in names])
    for key in names[1:]:
        if not torch.equal(tensors[key], first):
            other = tensors[key]
            by = (other.float() - first.float()).abs().max().item() if other.shape == first.shape else "its shape"
            raise ValueError(
                f"{source}: expected {key} equal to the copy in block 0, found a difference of {by}; this model was "
                "fine-tuned with an embedder of its own in each block, which a DiT with one embedder cannot express"
            )
    if ATTENTION.search(name) and first.dim() > 2 and first.shape[2:].numel() == 1:
        return first.flatten(1)
    return first


def spread(state: dict[str, Tensor], layout: Layout, size: Size) -> dict[str, Tensor]:
    """A file's {name: tensor} from ours: the inverse of `fill`. Equal copies share the memory of one tensor."""
    tensors, thirds = {}, {}
    for name, tensor in state.items():
        if layout.convolutions and ATTENTION.search(name):
            tensor = tensor[:, :, None, None]
        names = file_names(name, layout, size)
        parts = tensor.chunk(3) if ".attn.qkv." in name and len(names) == 3 else [tensor] * len(names)
        for key, part in zip(names, parts, strict=True):
            if key.endswith("#T"):
                tensors[key.removesuffix("#T")] = part.T.contiguous()
            else:
                (thirds if "#" in key else tensors)[key] = part
    for key in dict.fromkeys(key.partition("#")[0] for key in thirds):
        tensors[key] = torch.cat([thirds[f"{key}#{third}"] for third in range(3)])
    return tensors
