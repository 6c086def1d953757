"""The names of every published file layout: one table of renames per layout, used in both directions.

A table is a list of (regex, replacement), applied in order to a name of ours; the result is the name in the file.
    {block}   in the result: the file holds one equal copy per block
    {part}    in the result: the file holds three tensors, q, k and v, stacked in ours along dimension 0
    #0        at the end of the result: ours is the first (#1 second, #2 third) of three stacked in the file's tensor
    #T        at the end of the result: ours is the transpose of the file's tensor
    ""        the file does not hold it

A function here takes the size of a model (`size_of` in weights/layouts/kinds.py) and returns the table.
"""

import re
from collections.abc import Callable

Size = int | tuple | None  # of a model, as far as its names depend on it; see weights/layouts/kinds.py
Rows = list[tuple]


def same(size: Size) -> Rows:
    return []


def dit_diffusers(depth: int) -> Rows:
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


def vae_compvis(levels: int) -> Rows:
    """The original Stable Diffusion code, whose decoder numbers its levels from the last that runs."""
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


def vae_diffusers(levels: int) -> Rows:
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


def vae_diffusers_old(levels: int) -> Rows:
    """AutoencoderKL as saved before 2023, the state of most first Stable Diffusion repositories."""
    words = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), (r"to_out\.0", "proj_attn")]
    return vae_diffusers(levels) + [
        (rf"\.attentions\.0\.{ours}\.", f".attentions.0.{theirs}.") for ours, theirs in words
    ]


def vae_in_sd(levels: int) -> Rows:
    """The VAE inside a single-file Stable Diffusion checkpoint."""
    return vae_compvis(levels) + [(r"^", "first_stage_model.")]


def unet_diffusers(size: Size) -> Rows:
    """UNet2DConditionModel; inside a transformer its names are ours."""
    return [
        (r"^time_embed\.0\.", "time_embedding.linear_1."),
        (r"^time_embed\.2\.", "time_embedding.linear_2."),
        (r"^vector_embed\.0\.", "add_embedding.linear_1."),
        (r"^vector_embed\.2\.", "add_embedding.linear_2."),
        (r"^(down|up)\.", r"\1_blocks."),
        (r"^mid\.", "mid_block."),
        (r"\.(down|up)sample\.", r".\1samplers.0.conv."),
        (r"\.shortcut\.", ".conv_shortcut."),
        (r"^norm_out\.", "conv_norm_out."),
    ]


def unet_compvis(size: Size) -> Rows:
    """The original Stable Diffusion code, which numbers rows through all levels.

    A level is n rows: in the encoder its residual blocks and its downsampling, in the decoder one more residual block.
    Within a row slot 0 is the residual block; the transformer and the upsampling follow, each only where there is one.
    """
    layers, text = size
    n = layers + 1

    def row(side: str, first: int, slot: int):
        return lambda match: f"{side}_blocks.{first + int(match[1]) * n + int(match[2])}.{slot}."

    def upsampling(match: re.Match) -> str:
        level = len(text) - 1 - int(match[1])
        return f"output_blocks.{int(match[1]) * n + n - 1}.{1 + (text[level] > 0)}.conv."

    inner = [
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("shortcut", "skip_connection"),
    ]
    return [
        *((rf"(\.resnets\.\d+)\.{ours}\.", rf"\1.{theirs}.") for ours, theirs in inner),
        (r"^vector_embed\.", "label_emb.0."),
        (r"^conv_in\.", "input_blocks.0.0."),
        (r"^norm_out\.", "out.0."),
        (r"^conv_out\.", "out.2."),
        (r"^down\.(\d+)\.resnets\.(\d+)\.", row("input", 1, 0)),
        (r"^down\.(\d+)\.attentions\.(\d+)\.", row("input", 1, 1)),
        (r"^down\.(\d+)\.downsample\.", lambda match: f"input_blocks.{(int(match[1]) + 1) * n}.0.op."),
        (r"^mid\.resnets\.0\.", "middle_block.0."),
        (r"^mid\.attentions\.0\.", "middle_block.1."),
        (r"^mid\.resnets\.1\.", "middle_block.2."),
        (r"^up\.(\d+)\.resnets\.(\d+)\.", row("output", 0, 0)),
        (r"^up\.(\d+)\.attentions\.(\d+)\.", row("output", 0, 1)),
        (r"^up\.(\d+)\.upsample\.", upsampling),
    ]


def unet_in_sd(size: Size) -> Rows:
    """The UNet inside a single-file checkpoint."""
    return unet_compvis(size) + [(r"^", "model.diffusion_model.")]


def controlnet_diffusers(size: Size) -> Rows:
    """ControlNetModel."""
    return unet_diffusers(size) + [
        (r"^hint\.", "controlnet_cond_embedding."),
        (r"^zero\.", "controlnet_down_blocks."),
        (r"^zero_mid\.", "controlnet_mid_block."),
    ]


def controlnet_compvis(prefix: str) -> Callable[[Size], Rows]:
    """The original ControlNet code, which numbers the activations between the hint's convolutions too."""

    def rows(size: Size) -> Rows:
        layers, text, widths = size
        return [
            *unet_compvis((layers, text)),
            (r"^hint\.conv_in\.", "input_hint_block.0."),
            (r"^hint\.blocks\.(\d+)\.", lambda match: f"input_hint_block.{2 * int(match[1]) + 2}."),
            (r"^hint\.conv_out\.", f"input_hint_block.{4 * widths - 2}."),
            (r"^zero\.(\d+)\.", r"zero_convs.\1.0."),
            (r"^zero_mid\.", "middle_block_out.0."),
            (r"^", prefix),
        ]

    return rows


def text_transformers(prefix: str) -> Callable[[Size], Rows]:
    """CLIPTextModel, whose files begin every name with text_model., with nothing, or by mistake with it twice."""
    return lambda size: [
        (r"^(token|position)_embedding\.", r"embeddings.\1_embedding."),
        (r"^layers\.", "encoder.layers."),
        (r"\.norm([12])\.", r".layer_norm\1."),
        (r"\.attn\.to_([qkv])\.", r".self_attn.\1_proj."),
        (r"\.attn\.to_out\.", ".self_attn.out_proj."),
        (r"^final_norm\.", "final_layer_norm."),
        (r"^(?!text_projection\.)", prefix),
    ]


def text_openclip(prefix: str) -> Callable[[Size], Rows]:
    """The text encoder of OpenCLIP, as in the single files of Stable Diffusion 2 and XL."""
    return lambda size: [
        (r"^position_embedding\.weight$", "positional_embedding"),
        (r"^layers\.", "transformer.resblocks."),
        (r"\.norm([12])\.", r".ln_\1."),
        *((rf"\.attn\.to_{part}\.(weight|bias)$", rf".attn.in_proj_\1#{third}") for third, part in enumerate("qkv")),
        (r"\.attn\.to_out\.", ".attn.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
        (r"^final_norm\.", "ln_final."),
        (r"^text_projection\.weight$", "text_projection#T"),
        (r"^", prefix),
    ]
