"""The state of a run in one file: what trains, its average, the weights of its best look, the optimizer's moments, and
the number of steps done.

All randomness of a run is a function of (seed, step), so this is everything that a resumed run needs to be the run left
alone, byte for byte on a CPU. The file is replaced whole or not at all.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from weights.formats import safe

STATE = Path("checkpoint") / "state.safetensors"


class State(NamedTuple):
    parameters: dict[str, nn.Parameter]  # what trains
    ema: dict[str, Tensor]  # its average, or {}
    best: dict[str, Tensor]  # as it was at the best look, or {}
    optimizer: torch.optim.Optimizer

    def weights(self) -> dict[str, Tensor]:
        """All that have the parameters' shapes, by their names in the file."""
        kinds = {"model": self.parameters, "ema": self.ema, "best": self.best}
        return {f"{kind}/{name}": tensor.detach() for kind, named in kinds.items() for name, tensor in named.items()}


def save_state(run, state: State, step: int) -> None:
    """Write run/checkpoint/state.safetensors: weights by name, moments by parameter name."""
    tensors = state.weights()
    for name, parameter in state.parameters.items():
        tensors |= {f"adam/{name}/{key}": value for key, value in state.optimizer.state[parameter].items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    safe.write(Path(run) / STATE, tensors, {"graft": json.dumps({"kind": "run state", "step": step})})


def load_state(run, state: State) -> int:
    """Put a saved state back in place; returns the number of steps done. ValueError if it is of other parameters."""
    path = Path(run) / STATE
    try:
        file = safe_open(path, framework="pt")
    except Exception as error:
        raise ValueError(f"{path}: cannot resume, {error}") from error
    with file:
        names, step = set(file.keys()), json.loads(file.metadata()["graft"])["step"]
        weights, found = state.weights(), {name for name in names if not name.startswith("adam/")}
        wanted = set(weights)
        if wanted != found:
            raise ValueError(
                f"{path}: made by another run, {len(wanted - found)} tensors missing and "
                f"{len(found - wanted)} not expected, first {sorted(wanted ^ found)[0]}"
            )
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(file.get_tensor(name))
            for name, parameter in state.parameters.items():
                if f"adam/{name}/step" in names:  # torch's AdamW makes its state at the first step
                    keys = ("step", "exp_avg", "exp_avg_sq")
                    state.optimizer.state[parameter] = {
                        key: file.get_tensor(f"adam/{name}/{key}").to(parameter.device) for key in keys
                    }
    return step
