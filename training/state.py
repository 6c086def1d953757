"""The state of a run in one file, run/checkpoint/state.safetensors.

    model/NAME               the parameters that train
    ema/NAME                 their average
    best/NAME                their values at the best evaluation so far
    adam/NAME/KEY            the optimizer's moments and step count
    header["graft"]          {"kind": "run state", "step": number of steps done}

All randomness of a run is a function of (seed, step). A resumed run with this state is therefore the uninterrupted run,
byte for byte on a CPU. The file is replaced whole or not at all.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from weights.formats import safe

STATE = Path("checkpoint") / "state.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of torch's AdamW


class State(NamedTuple):
    """What a run must remember between two steps, apart from the number of steps."""

    parameters: dict[str, nn.Parameter]  # those that train
    ema: dict[str, Tensor]  # their average, or {}
    best: dict[str, Tensor]  # their values at the best evaluation, or {}
    optimizer: torch.optim.Optimizer

    def weights(self) -> dict[str, Tensor]:
        """Everything that has the parameters' shapes, by its name in the file."""
        kinds = {"model": self.parameters, "ema": self.ema, "best": self.best}
        return {f"{kind}/{name}": tensor.detach() for kind, named in kinds.items() for name, tensor in named.items()}


def save_state(run: str | Path, state: State, step: int) -> None:
    """Write the file of `run` after `step` steps, in one atomic step."""
    tensors = state.weights()
    for name, parameter in state.parameters.items():
        tensors |= {f"adam/{name}/{key}": value for key, value in state.optimizer.state[parameter].items()}
    safe.write(Path(run) / STATE, tensors, {"graft": json.dumps({"kind": "run state", "step": step})})


@torch.no_grad()
def load_state(run: str | Path, state: State) -> int:
    """Copy a saved state into `state`; returns the number of steps done.

    Raises ValueError for a file that is damaged or holds the state of other parameters.
    """
    path = Path(run) / STATE
    try:
        stored, metadata = safe.read(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot resume: {error}") from error
    weights, names = state.weights(), {name for name in stored if not name.startswith("adam/")}
    missing, unknown = weights.keys() - names, names - weights.keys()
    if missing or unknown:
        raise ValueError(
            f"{path}: made by another run, {len(missing)} tensors missing and {len(unknown)} not expected, first "
            f"{min(missing | unknown)}"
        )
    for name, tensor in weights.items():
        tensor.copy_(stored[name])
    for name, parameter in state.parameters.items():
        if f"adam/{name}/step" in stored:  # AdamW makes its state at the first step
            state.optimizer.state[parameter] = {
                key: stored[f"adam/{name}/{key}"].to(parameter.device, copy=True) for key in MOMENTS
            }
    return safe.graft_header(metadata, path)["step"]
