"""This package's own model files: safetensors whose header holds the config, so that one file is a whole model:

header["graft"] = {"kind": "dit" | "vae" | "unet" | "controlnet" | "text", "config": {...}, "card": {...} or null}
"""

import json
from dataclasses import asdict

import torch
from torch import nn

from weights import safe
from weights.configs import kind_of, plain_state


def save_model(model: nn.Module, path, dtype: torch.dtype | None = None, card: dict | None = None) -> None:
    """Writes `model`, of any kind in weights/configs.py, without adapters, to `path` (.safetensors) in one atomic step.

    dtype: of the file's floating tensors, None as they are. card: anything worth telling about the weights (training
    data, command, class names, license), as JSON. Raises ValueError for any other model or with adapters attached.
    """
    graft = {"kind": kind_of(model), "config": asdict(model.config), "card": card}
    safe.write(path, plain_state(model), {"format": "pt", "graft": json.dumps(graft)}, dtype)
