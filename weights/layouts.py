"""Where every tensor of a model lies in each published file layout: one table of renames per layout.

A table is a list of (regex, replacement), applied in order to a name of ours; what comes out is the name in the file.
    {block}   in the result: the file holds one equal copy per block
    {part}    in the result: the file holds three tensors, q, k and v, stacked in ours along dimension 0
    ""        the file does not hold it
Reading and writing use the same table, strictly: every tensor of the file is used or ignored by name, every tensor of
the model is filled, every shape is equal; otherwise one error counts what is wrong.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NEVER = r"(?!)"
ATTENTION = re.compile(r"\.mid\.1\.to_\w+\.weight$")  # the VAE's: Linear, or in some files 1x1 convolutions
SCHEDULE = (  # buffers of the original training code, all derived from the noise schedule
    r"betas|alphas_cumprod|alphas_cumprod_prev|(sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|scale_factor|logvar|denoiser\.sigmas|v_pred|ztsnr"
)


class Layout(NamedTuple):
    """rows(size) is the table, size the number of blocks (DiT) or levels (VAE); ignore: names to pass over."""

    kind: str
    rows: Callable[[int], list[tuple]]
    ignore: str = NEVER
    convolutions: bool = False  # the VAE's attention Linears are 1x1 convolutions in the file


def same(size: int) -> list[tuple]:
    return []


def dit_diffusers(depth: int) -> list[tuple]:
    """DiTTransformer2DModel, which calls the class Transformer2DModel in older files."""
    embedders = "transformer_blocks.{block}.norm1.emb"
    return [
        (r"^pos_embed$", ""),
        (r"^x_embedder\.", "pos_embed."),
        (r"^t_embedder\.mlp\.0\.", f"{embedders}.timestep_embedder.linear_1."),
        (r"^t_embedder\.mlp\.2\.", f"{embedders}.timestep_embedder.linear_2."),
        (r"^y_embedder\.", f"{embedders}.class_embedder."),
        (r"^blocks\.", "transformer_blocks."),
        (r"^(transformer_blocks\.\d+)\.adaLN_modulation\.1\.", r"\1.norm1.linear."),
        (r"\.attn\.qkv\.", ".attn1.to_{part}."),
        (r"\.attn\.proj\.", ".attn1.to_out.0."),
        (r"\.mlp\.fc1\.", ".ff.net.0.proj."),
        (r"\.mlp\.fc2\.", ".ff.net.2."),
        (r"^final_layer\.adaLN_modulation\.1\.", "proj_out_1."),
        (r"^final_layer\.linear\.", "proj_out_2."),
    ]


def vae_compvis(levels: int) -> list[tuple]:
    """The original Stable Diffusion code, whose decoder counts levels from the last to run."""
    return [
        (r"^decoder\.up\.(\d+)\.", lambda match: f"decoder.up.{levels - 1 - int(match[1])}."),
        (r"\.res\.", ".block."),
        (r"\.(up|down)sample\.", r".\1sample.conv."),
        (r"\.mid\.0\.", ".mid.block_1."),
        (r"\.mid\.1\.to_([qkv])\.", r".mid.attn_1.\1."),
        (r"\.mid\.1\.to_out\.", ".mid.attn_1.proj_out."),
        (r"\.mid\.1\.", ".mid.attn_1."),
        (r"\.mid\.2\.", ".mid.block_2."),
        (r"\.shortcut\.", ".nin_shortcut."),
    ]


def vae_diffusers(levels: int) -> list[tuple]:
    """AutoencoderKL."""
    return [
        (r"^encoder\.down\.", "encoder.down_blocks."),
        (r"^decoder\.up\.", "decoder.up_blocks."),
        (r"\.res\.", ".resnets."),
        (r"\.(up|down)sample\.", r".\1samplers.0.conv."),
        (r"\.mid\.0\.", ".mid_block.resnets.0."),
        (r"\.mid\.1\.norm\.", ".mid_block.attentions.0.group_norm."),
        (r"\.mid\.1\.to_out\.", ".mid_block.attentions.0.to_out.0."),
        (r"\.mid\.1\.", ".mid_block.attentions.0."),
        (r"\.mid\.2\.", ".mid_block.resnets.1."),
        (r"\.shortcut\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
    ]


def vae_diffusers_old(levels: int) -> list[tuple]:
    """AutoencoderKL as saved before 2023, the state of most first Stable Diffusion repositories."""
    words = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), (r"to_out\.0", "proj_attn")]
    return vae_diffusers(levels) + [
        (rf"\.attentions\.0\.{ours}\.", f".attentions.0.{theirs}.") for ours, theirs in words
    ]


def vae_in_sd(levels: int) -> list[tuple]:
    """The VAE inside a single-file Stable Diffusion checkpoint."""
    return vae_compvis(levels) + [(r"^", "first_stage_model.")]


OTHER_PARTS = r"^(model\.diffusion_model|model_ema|cond_stage_model|conditioner|first_stage_model\.loss)\.|"
LAYOUTS = {
    "dit-native": Layout("dit", same),
    "vae-native": Layout("vae", same),
    "dit-official": Layout("dit", same),
    "dit-diffusers": Layout("dit", dit_diffusers),
    "vae-compvis": Layout("vae", vae_compvis, r"^(loss|model_ema)\.", convolutions=True),
    "vae-diffusers": Layout("vae", vae_diffusers),
    "vae-diffusers-old": Layout("vae", vae_diffusers_old),
    "vae-in-sd": Layout("vae", vae_in_sd, rf"{OTHER_PARTS}^({SCHEDULE})$", convolutions=True),
}


def file_names(name: str, layout: Layout, size: int) -> list[str]:
    """The names under which the file holds our tensor: one, three for {part}, `size` for {block}, none for ""."""
    for pattern, replacement in layout.rows(size):
        name = re.sub(pattern, replacement, name, count=1)
    if "{block}" in name:
        return [name.replace("{block}", str(block)) for block in range(size)]
    if "{part}" in name:
        return [name.replace("{part}", part) for part in "qkv"]
    return [name] if name else []


def fill(tensors: dict[str, Tensor], shapes: dict[str, tuple], layout: Layout, size: int, source) -> dict[str, Tensor]:
    """Our {name: tensor} out of a file's, for a model whose tensors have these shapes; `source` is named in errors.

    Only q, k, v that are stored apart are copied (into one); everything else stays a map of the file. The position
    table may be absent from the file, and then is from the result. Raises one ValueError for all that does not fit.
    """
    missing, wrong, used, state = [], [], set(), {}
    for name, shape in shapes.items():
        names = file_names(name, layout, size)
        used.update(names)
        absent = [key for key in names if key not in tensors]
        if name == "pos_embed" and (absent or not names):
            continue
        missing += absent
        if not absent:
            state[name] = joined(name, names, tensors, source)
            if tuple(state[name].shape) != shape:
                wrong.append(f"{names[0]} expected {list(shape)}, found {list(state[name].shape)}")
    unknown = [key for key in tensors if key not in used and not re.search(layout.ignore, key)]
    counted = [
        f"{len(names)} {what} ({'; '.join(names[:3])}{'; ...' if len(names) > 3 else ''})"
        for names, what in ((missing, "missing"), (unknown, "unknown"), (wrong, "of another shape"))
        if names
    ]
    if counted:
        raise ValueError(f"{source}: expected {len(shapes)} tensors of our {layout.kind}, found {', '.join(counted)}")
    return state


def joined(name: str, names: list[str], tensors: dict[str, Tensor], source) -> Tensor:
    """One tensor of ours from those of the file that hold it."""
    first = tensors[names[0]]
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


def spread(state: dict[str, Tensor], layout: Layout, size: int) -> dict[str, Tensor]:
    """A file's {name: tensor} out of ours: `fill` the other way round. Copies share the memory of the one tensor."""
    tensors = {}
    for name, tensor in state.items():
        if layout.convolutions and ATTENTION.search(name):
            tensor = tensor[:, :, None, None]
        names = file_names(name, layout, size)
        parts = tensor.chunk(3) if ".attn.qkv." in name and len(names) == 3 else [tensor] * len(names)
        tensors |= dict(zip(names, parts, strict=True))
    return tensors
