"""What a DiT's file was trained to predict, noise or a velocity, and SiT's convention for files of REPA.

SiT (Ma et al. 2024, arXiv 2401.08740) is DiT's network, name for name and shape for shape. Its code never reads the
second half of the output channels, which starts at zero and so stays zero; DiT's holds a trained variance.
"""

import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from dit import DiTConfig
from dit.embed import timestep_embedding
from sampling.flow import OBJECTIVES

PUBLISHED = {"SiT": "flow", "DiT": "diffusion"}  # first word of a published file's name, SiT-S-2-256.pt
WEIGHT, BIAS = "final_layer.linear.weight", "final_layer.linear.bias"


def objective_of(
    state: dict[str, Tensor], config: DiTConfig, layout: str, header: dict, given: str | None, source: str | Path
) -> str:
    """ "diffusion" or "flow": as this package's header says, else the layout, `given`, the file's name, the rows.

    state: the tensors under our names. given: the caller's word. Warns where nothing tells. ValueError for another
    `given`.
    """
    if given not in (None, *OBJECTIVES):
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, found {given!r}")
    if "kind" in header:
        stored = header.get("objective", "diffusion")
        if stored not in OBJECTIVES:
            raise ValueError(f"{source}: objective in its header must be {' or '.join(OBJECTIVES)}, found {stored!r}")
        return stored
    if layout == "dit-repa":
        return "flow"
    name = re.match(r"(SiT|DiT)-(?:S|B|L|XL)-\d", Path(source).name)
    if given or name:
        return given or PUBLISHED[name[1]]
    if config.learn_sigma:
        rows = torch.cat([state[WEIGHT], state[BIAS][:, None]], 1).unflatten(0, (-1, 2, config.in_channels))
        prediction, second = rows.any(3).any(2).any(0).tolist()  # of (p p, 2, C, D + 1)
        if prediction:
            return "diffusion" if second else "flow"
    warnings.warn(
        f"{source}: its output layer does not tell whether it predicts noise or a velocity, and it is taken for a "
        "diffusion model; objective='flow' (--objective flow) says otherwise",
        stacklevel=4,
    )
    return "diffusion"


def in_sits_convention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network that hears s = 1 - t and answers noise - data, as one that hears t and answers data - noise (SiT).

        cos(s f) = cos f cos(t f) + sin f sin(t f),      sin(s f) = sin f cos(t f) - cos f sin(t f)

    so the first layer of the timestep embedder turns in each pair of its columns, and the last layer changes its sign.
    REPA (Yu et al. 2024, arXiv 2410.06940; github.com/sihyun-yu/REPA) trains the first kind. Twice, it is nothing.
    """
    weight = state["t_embedder.mlp.0.weight"]
    cos, sin = timestep_embedding(torch.ones(1), weight.shape[1])[0].double().to(weight.device).chunk(2)  # of f
    of_cos, of_sin = weight.double().chunk(2, dim=1)
    turned = torch.cat([of_cos * cos + of_sin * sin, of_cos * sin - of_sin * cos], dim=1)
    last = {name: -state[name] for name in (WEIGHT, BIAS)}
    return state | {"t_embedder.mlp.0.weight": turned.to(weight.dtype)} | last
