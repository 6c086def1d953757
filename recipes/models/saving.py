"""What a run of a Stable Diffusion leaves: an adapter file, or the folder of a whole one where all of a part trained.

model/                    the folder, which diffusers opens too; Gaussian weights (bnn) are in it as their means
deviations.safetensors    beside it, where there are such: an adapter file for model/, which --weights sampled reads
"""

from dataclasses import replace
from pathlib import Path

from torch import nn

import adapters
import weights
from recipes.models.store import leaves_whole_model
from unet.text.pair import encoders

DEVIATIONS = "deviations.safetensors"


def save_trained(run: Path, sd: weights.StableDiffusion, model: nn.Module, header: dict) -> None:
    """Write what was trained of the model, which is UNet and text encoder of `sd`, with this header."""
    if not leaves_whole_model(header["adapter"]):
        weights.save_adapter(run / "adapter.safetensors", model, header)
        return
    deviations = {name: p.detach() for name, p in model.named_parameters() if name.endswith("_sigma")}
    adapters.merge(model)
    for encoder in encoders(sd.text).values():
        encoder.config = replace(encoder.config, vocab_size=encoder.token_embedding.num_embeddings)
    weights.save_sd(sd, run / "model", "sd-diffusers")
    if specs := gaussian(header["adapter"]):
        base = weights.fingerprint(model)
        adapters.attach(model, specs)
        model.load_state_dict(deviations, strict=False)
        weights.save_adapter(run / DEVIATIONS, model, {"adapter": specs, "base": base, "config": header["config"]})


def gaussian(specs: list[str]) -> list[str]:
    """The specs of Gaussian weights that a model without the other methods can have."""
    parsed = [(spec, *adapters.parse(adapters.split(spec)[1])) for spec in specs]
    return [spec for spec, name, options in parsed if name == "bnn" and options.get("parts") not in ("lora", "oft")]
