"""What a LoRA file of another tool is: which base it was made for, and the methods that are not read, by name."""

import re

from torch import Tensor, nn

from weights.detect import other
from weights.families import VERSIONS

METHODS = [  # a regex that some tensor name matches -> what such a file holds
    (r"\.hada_[wt]\d", "LoHa, products of two low-rank matrices"),
    (r"\.lokr_[wt]\d", "LoKr, Kronecker products"),
    (r"\.[ab][12]\.weight$", "GLoRA"),
    (r"\.on_input$|\.ia3_l(\.|$)", "IA3, which scales activations"),
    (r"\.b?oft_(blocks|diag|r)(\.|$)|\.oft_R\.", "OFT, which rotates the weights"),
    (r"\.reshape_weight$", "a LoRA that reshapes the weights"),
    (r"^bundle_emb\.", "a LoRA bundled with textual inversion embeddings"),
    (r"^(unet|text_encoder)(:\w+)?:\d+:(up|down)$", "cloneofsimo's LoRA, which numbers the layers"),
]
LORA = re.compile(r"[._]lora[._]|\.lora_[AB]\.|\.(diff|w_norm)(_b)?$|\.b_norm$")
CROSS = re.compile(r"attn2[._](processor\.)?to_[kv]([._]lora\.|\.lora_)(down|A)\b")  # reads the text states
FIRST = re.compile(r"(q_proj|to_q|fc1)([._]lora\.|\.lora_|\.lora_linear_layer\.)(down|A)\b")


def check_method(tensors: dict[str, Tensor], source) -> None:
    """ValueError naming what a file holds that is no LoRA, LoCon, DoRA or full difference."""
    for pattern, method in METHODS:
        key = next((key for key in tensors if re.search(pattern, key)), None)
        if key:
            raise ValueError(f"{source}: {method} ({key}, ...), expected a LoRA, LoCon, DoRA or full differences")
    if not any(LORA.search(key) for key in tensors):
        raise ValueError(f"{source}: expected a LoRA, found {other(tensors)}")


def made_for(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """ "Stable Diffusion XL (sdxl_base_v1-0, say its metadata)": the base, by names, widths and kohya's metadata."""
    told = metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture")
    return by_tensors(tensors) + (f" ({told}, say its metadata)" if told else "")


def by_tensors(tensors: dict[str, Tensor]) -> str:
    if any(re.search(r"(double|single)_(transformer_)?blocks[._]|joint_blocks[._]", key) for key in tensors):
        return "a Stable Diffusion 3 or Flux transformer"
    if any(key.startswith(("lora_te1_", "lora_te2_", "text_encoder_2.")) for key in tensors):
        return "Stable Diffusion XL, which has two text towers"
    for pattern, what in ((CROSS, "text states"), (FIRST, "a text tower")):
        widths = {
            tensor.shape[1]
            for key, tensor in tensors.items()
            if pattern.search(key) and tensor.dim() > 1 and (pattern is CROSS or is_text(key))
        }
        if len(widths) == 1:
            (width,) = widths
            return by_width(width, what)
    return "a base that its names and shapes do not tell"


def base_of(model: nn.Module) -> str:
    """ "Stable Diffusion 2", or "the UNet of Stable Diffusion 2" where the model is that alone."""
    unet = getattr(model, "unet", model)
    return f"{'the UNet of ' if unet is model else ''}{by_width(unet.config.text_width)}"


def by_width(width: int, what: str = "text states") -> str:
    return f"Stable Diffusion {VERSIONS[width]}" if width in VERSIONS else f"a base with {what} {width} wide"


def is_text(key: str) -> bool:
    return "self_attn" in key or "mlp" in key
