"""CLIP, which embeds images and texts in one space (Radford et al. 2021, arXiv 2103.00020).

    u = P_i ViT(image);   v = P_t encoder(text)_end;   logit = exp(logit_scale) cos(u, v)

It reads files of OpenAI (the tensors alone of a TorchScript program), OpenCLIP (Cherti et al. 2023, arXiv 2212.07143)
and transformers. Images are resized bicubically, with antialiasing, to the side of the training, mostly 224 px.

No tensor shows with which approximation of gelu a file was trained. A config.json has it. Without one, OpenAI's own
files have quick_gelu; files with OpenAI's names but without OpenAI's extra entries are OpenCLIP's and have gelu; a
single file with transformers' names has quick_gelu if its size is one that OpenAI published (vision width up to 1024).
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from metrics.networks.build import build_network
from metrics.networks.vit import ViT, ViTConfig, prepare
from unet.text.encoder import ACTIVATIONS, TextConfig, TextEncoder
from weights.layouts.exchange import Layout
from weights.layouts.infer import numbers, shapes_of
from weights.layouts.renames import text_openclip, text_transformers

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HEAD = {1280: 80, 1408: 88, 1664: 104}  # K of OpenCLIP's larger image encoders by their width; 64 elsewhere
IMAGE_BLOCK = r"(?:visual\.transformer\.resblocks|vision_model\.encoder\.layers)\.(\d+)\."
TEXT_BLOCK = r"(?:transformer\.resblocks|text_model\.encoder\.layers)\.(\d+)\."
OWN = "input_resolution"  # an entry that only OpenAI's own files have


def openai(size: None) -> list[tuple]:
    """Names in the original code and OpenCLIP; the rows of the text encoder serve inside the image encoder too."""
    return [
        (r"^image\.cls_token$", "visual.class_embedding"),
        (r"^image\.pos_embed$", "visual.positional_embedding"),
        (r"^image\.patches\.", "visual.conv1."),
        (r"^image\.entrance\.", "visual.ln_pre."),
        (r"^image\.norm\.", "visual.ln_post."),
        (r"^image\.blocks\.", "visual.transformer.resblocks."),
        (r"\.attn\.qkv\.", ".attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.out_proj."),
        (r"^image_projection\.weight$", "visual.proj"),
        (r"^text_projection\.weight$", "text_projection"),
        (r"^text\.", ""),
        *text_openclip("")(size),
    ]


def transformers(size: None) -> list[tuple]:
    """Names in transformers' CLIPModel."""
    return [
        (r"^image\.cls_token$", "vision_model.embeddings.class_embedding"),
        (r"^image\.pos_embed$", "vision_model.embeddings.position_embedding.weight"),
        (r"^image\.patches\.", "vision_model.embeddings.patch_embedding."),
        (r"^image\.entrance\.", "vision_model.pre_layrnorm."),  # spelt so in every file
        (r"^image\.norm\.", "vision_model.post_layernorm."),
        (r"^image\.blocks\.", "vision_model.encoder.layers."),
        (r"\.attn\.qkv\.", ".self_attn.{part}_proj."),
        (r"\.attn\.proj\.", ".self_attn.out_proj."),
        (r"^image_projection\.", "visual_projection."),
        (r"^text\.", ""),
        *text_transformers("")(size),
        (r"^(?=embeddings\.|encoder\.|final_layer_norm\.)", "text_model."),
    ]


IGNORE = r"(^|\.)(position_ids|attn_mask)$|^(input_resolution|context_length|vocab_size)$"
SIGNS = {
    "visual.class_embedding": Layout("CLIP", openai, IGNORE),
    "vision_model.embeddings.class_embedding": Layout("CLIP", transformers, IGNORE),
}


class CLIP(nn.Module):
    """u = P_i image(x), v = P_t text(tokens)_end. width: D, of both embeddings."""

    def __init__(self, image: ViTConfig, text: TextConfig, width: int):
        super().__init__()
        self.image, self.text = ViT(image), TextEncoder(text)
        self.image_projection = nn.Linear(image.width, width, bias=False)
        self.text_projection = nn.Linear(text.width, width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def images(self, x: Tensor) -> Tensor:
        """x (N, 3, S, S) in [-1, 1] -> u (N, D), of any length."""
        side = self.image.config.grid * self.image.config.patch
        return self.image_projection(self.image(prepare(x, side, side, MEAN, STD)))

    def texts(self, tokens: Tensor) -> Tensor:
        """tokens (N, L) -> v (N, D), of any length. The end token has the largest id in every vocabulary of CLIP."""
        ends = torch.arange(len(tokens), device=tokens.device), tokens.argmax(1)
        return self.text_projection(self.text(tokens)[ends])  # of (N, L, D') one row each


def build(tensors: dict[str, Tensor], metadata: dict, source: str | Path) -> CLIP:
    """The CLIP of a file's tensors. ValueError for tensors that do not fit and for an unknown activation."""
    layout = next(layout for sign, layout in SIGNS.items() if sign in tensors)
    tensors, config = reshaped(tensors), metadata.get("config", {})
    shape = shapes_of(tensors, layout, None, source)
    width, _, patch, _ = shape("image.patches.weight")
    rows, text_width = shape("text.token_embedding.weight")
    configs = [config.get("vision_config"), config.get("text_config")]
    acts = [activation_of(each, tensors, layout, width) for each in configs]
    for unknown in set(acts) - ACTIVATIONS.keys():
        raise ValueError(f"{source}: expected the activation {' or '.join(ACTIVATIONS)}, found {unknown!r}")
    usual = [max(1, width // HEAD.get(width, 64)), max(1, text_width // 64)]
    heads = [(each or {}).get("num_attention_heads", number) for each, number in zip(configs, usual)]
    grid, hidden = math.isqrt(shape("image.pos_embed")[1]), shape("image.blocks.0.mlp.fc1.weight")[0]
    image = ViTConfig(width, len(numbers(tensors, IMAGE_BLOCK)), heads[0], patch, grid, hidden, acts[0], 1e-5, True)
    length = shape("text.position_embedding.weight")[0]
    text = TextConfig(rows, text_width, len(numbers(tensors, TEXT_BLOCK)), heads[1], length, acts[1])
    return build_network(lambda: CLIP(image, text, shape("image_projection.weight")[0]), tensors, layout, source)


def reshaped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in this package's shapes: vectors and tables with a batch axis, projections as Linear weights."""

    def one(name: str, tensor: Tensor) -> Tensor:
        if name in ("visual.proj", "text_projection") and tensor.dim() == 2:
            return tensor.T
        if name.endswith(".class_embedding"):
            return tensor[None, None]
        table = name in ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight")
        return tensor[None] if table else tensor

    return {name: one(name, tensor) for name, tensor in tensors.items()}


def activation_of(config: dict | None, tensors: dict[str, Tensor], layout: Layout, width: int) -> str:
    """The activation by the rule of the module. config: of this encoder, from a config.json."""
    if config is not None:
        return config.get("hidden_act", "quick_gelu")  # transformers' own default
    own = OWN in tensors if layout.rows is openai else width <= 1024
    return "quick_gelu" if own else "gelu"
