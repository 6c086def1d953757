"""The state of a run in one file: what trains, its average, the optimizer's moments, and the number of steps done.

All randomness of a run is a function of (seed, step), so this is everything that a resumed run needs to be the run left
alone, byte for byte on a CPU. The file is replaced whole or not at all.
"""
import json
from pathlib import Path

import torch
from safetensors import safe_open

from . import safe

STATE = Path("checkpoint") / "state.safetensors"


def save_state(run, parameters, ema, optimizer, step):
    """Write run/checkpoint/state.safetensors: parameters and averages by name, moments by parameter name."""
    tensors = {f"model/{name}": p.detach() for name, p in parameters.items()}
    tensors |= {f"ema/{name}": average for name, average in ema.items()}
    for name, parameter in parameters.items():
        tensors |= {f"adam/{name}/{key}": value for key, value in optimizer.state[parameter].items()}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    safe.write(Path(run) / STATE, tensors, {"graft": json.dumps({"kind": "run state", "step": step})})


def load_state(run, parameters, ema, optimizer):
    """Put a saved state back in place; returns the number of steps done. ValueError if it is of other parameters."""
    path = Path(run) / STATE
    try:
        file = safe_open(path, framework="pt")
    except Exception as error:
        raise ValueError(f"{path}: cannot resume, {error}") from error
    with file:
        names, step = set(file.keys()), json.loads(file.metadata()["graft"])["step"]
        wanted = {f"model/{name}" for name in parameters} | {f"ema/{name}" for name in ema}
        found = {name for name in names if not name.startswith("adam/")}
        if wanted != found:
            raise ValueError(f"{path}: made by another run, {len(wanted - found)} tensors missing and "
                             f"{len(found - wanted)} not expected, first {sorted(wanted ^ found)[0]}")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(file.get_tensor(f"model/{name}"))
                if name in ema:
                    ema[name].copy_(file.get_tensor(f"ema/{name}"))
                if f"adam/{name}/step" in names:   # torch's AdamW makes its state at the first step
                    keys = ("step", "exp_avg", "exp_avg_sq")
                    optimizer.state[parameter] = {
                        key: file.get_tensor(f"adam/{name}/{key}").to(parameter.device) for key in keys}
    return step
