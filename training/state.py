"""The state of a run in one file, run/checkpoint/state.safetensors, and beside it the one before, previous.safetensors.

    model/NAME               the parameters that train
    ema/NAME                 their average
    best/NAME                their values at the best evaluation so far
    adam/NAME/KEY            the optimizer's moments and step count
    header["graft"]          {"kind": "run state", "step": number of steps done, "made_of": images, classes and base,
                              "sha256": of the rest of the header and all tensors}

All randomness of a run is a function of (seed, step). A resumed run with this state is therefore the uninterrupted run,
byte for byte on a CPU. The file is replaced whole or not at all; a damaged one is passed over for the one before.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ops.machine.pages import file_maps, forget
from ops.machine.process import by_first, is_first
from training.log import read_log
from training.step.shard import gathered, own, whole
from weights.formats import safe

STATE = Path("checkpoint") / "state.safetensors"
PREVIOUS = Path("checkpoint") / "previous.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of torch's AdamW
HEADER = 65_536  # bytes that a file takes beside its tensors, about


class Damaged(ValueError):
    """A state that is not what was written."""


class State(NamedTuple):
    """What a run must remember between two steps, apart from the number of steps."""

    parameters: dict[str, nn.Parameter]  # those that train
    ema: dict[str, Tensor]  # their average, or {}
    best: dict[str, Tensor]  # their values at the best evaluation, or {}
    optimizer: torch.optim.Optimizer
    made_of: dict = {}  # what the run is made of (recipes/images/made_of.py); {}: nothing is compared

    def weights(self) -> dict[str, Tensor]:
        """Everything that has the parameters' shapes, by its name in the file."""
        kinds = {"model": self.parameters, "ema": self.ema, "best": self.best}
        return {f"{kind}/{name}": tensor.detach() for kind, named in kinds.items() for name, tensor in named.items()}

    def nbytes(self) -> int:
        """Size of the file in bytes, about: the weights and two moments of every parameter."""
        moments = 2 * sum(p.nbytes for p in self.parameters.values())
        return sum(tensor.nbytes for tensor in self.weights().values()) + moments + HEADER


def save_state(run: str | Path, state: State, step: int) -> None:
    """Write the file of `run` after `step` steps, in one atomic step; the former file becomes the one before.

    Of several processes, which have equal states or each a part of one, the first writes. Raises OSError, with file and
    bytes, where the disk has no room for it.
    """
    tensors = state.weights()
    for name, parameter in state.parameters.items():
        tensors |= {f"adam/{name}/{key}": value for key, value in state.optimizer.state[parameter].items()}
    tensors = gathered(tensors)
    if not is_first():
        return
    header = {"kind": "run state", "step": step, "made_of": state.made_of}
    header["sha256"] = digest(tensors, header)
    path, previous = Path(run) / STATE, Path(run) / PREVIOUS
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        keep(path, previous)
    make_room(path, previous, sum(tensor.nbytes for tensor in tensors.values()) + HEADER)
    safe.write(path, tensors, {"graft": json.dumps(header)})


def keep(path: Path, previous: Path) -> None:
    """The file under a second name, in one step; a copy on a disk without hard links, if there is room for it."""
    temporary = previous.with_name(f".{previous.name}.link.tmp")
    temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)
        os.replace(temporary, previous)
    temporary.unlink(missing_ok=True)  # two names of one file replace nothing


def make_room(path: Path, previous: Path, needed: int) -> None:
    """Look whether the disk has `needed` bytes for the file; if not, the second name of the former file may go."""
    free = shutil.disk_usage(path.parent).free
    if free < needed and previous.exists() and not (path.exists() and os.path.samefile(path, previous)):
        print(f"\n{previous}: removed, for the disk has {free:,} bytes free and needs {needed:,}", file=sys.stderr)
        previous.unlink()
        free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"no room for {path}: it needs {needed:,} bytes and the disk has {free:,} free")


def check_room(run: Path, state: State) -> None:
    """ValueError unless the disk has room for the two checkpoints of the run and for what it leaves."""
    held = sum((run / name).stat().st_size for name in (STATE, PREVIOUS) if (run / name).exists())
    needed = 2 * state.nbytes() + sum(p.nbytes for p in state.parameters.values()) - held
    free = shutil.disk_usage(run).free
    if free < needed:
        raise ValueError(
            f"{run}: two checkpoints and the result need {needed:,} bytes more, and the disk has {free:,} free: "
            f"make room, name a folder on another disk by --out, or train less by --adapter and --ema 0"
        )


def digest(tensors: dict[str, Tensor], header: dict, maps: Sequence[tuple[int, int]] = ()) -> str:
    """SHA-256 of the header's other entries and of the names, types, shapes and bytes of all tensors.

    maps: of the files that tensors are maps of; each tensor's pages are dropped as they have been read.
    """
    total = hashlib.sha256(json.dumps({k: v for k, v in header.items() if k != "sha256"}, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        forget(tensor, maps)
    return total.hexdigest()


def has_state(run: Path) -> bool:
    """Whether there is a state to go on from."""
    return (run / STATE).exists() or (run / PREVIOUS).exists()


def saved_steps(run: Path) -> tuple[int | None, int | None]:
    """The steps of the last checkpoint and of the one before it; None for one that is not there or not readable."""

    def step(path: Path) -> int | None:
        with contextlib.suppress(ValueError, OSError):
            return safe.graft_header(safe.read_metadata(path), path).get("step") if path.exists() else None

    return step(run / STATE), step(run / PREVIOUS)


def verdict(run: Path) -> str:
    """What is known of the checkpoints, after a step failed: one is good if a step went on from it."""
    losses = {line["step"]: line["loss"] for line in read_log(run) if "loss" in line}
    last, before = saved_steps(run)
    if last is None:
        return "There is no checkpoint: start again, with a lower --lr or a smaller --clip."
    if last + 1 in losses:
        return f"The last checkpoint, of step {last}, is good: the next step had the loss {losses[last + 1]:.4g}."
    text = f"The last checkpoint, of step {last}, holds the weights that led here and is not good"
    if before is not None and before + 1 in losses:
        text += f"; {run / PREVIOUS}, of step {before}, had the loss {losses[before + 1]:.4g} at the next step"
    return f"{text}. Start again, with a lower --lr or a smaller --clip."


@torch.no_grad()
def load_state(run: str | Path, state: State, steps: int = sys.maxsize, allowed: Collection[str] = ()) -> int:
    """Copy a saved state into `state`; returns the number of steps done, at most `steps`.

    Of a damaged file it goes back to the one before, and says so. allowed: kinds of `made_of` that may be others,
    "data". Raises ValueError where neither file is whole, and for the state of other parameters, images, classes or
    base; `state` is then as it was.
    """
    reasons = []
    for path in (Path(run) / STATE, Path(run) / PREVIOUS):
        try:
            stored, step = read_state(path, state, steps, allowed)
        except Damaged as error:
            reasons.append(str(error))
            continue
        if reasons:
            print(f"WARNING: {reasons[0]}: going on from the state before it, after step {step}", file=sys.stderr)
        break
    else:
        raise ValueError(f"cannot resume: {reasons[0]}")
    maps = file_maps()
    for name, tensor in state.weights().items():
        tensor.copy_(own(stored[name], tensor))
        forget(stored[name], maps)
    for name, parameter in state.parameters.items():
        if f"adam/{name}/step" in stored:  # AdamW makes its state at the first step
            state.optimizer.state[parameter] = {key: own(stored[f"adam/{name}/{key}"], parameter) for key in MOMENTS}
            for key in MOMENTS:
                forget(stored[f"adam/{name}/{key}"], maps)
    return step


def read_state(path: Path, state: State, steps: int, allowed: Collection[str]) -> tuple[dict[str, Tensor], int]:
    """The tensors of a file, all of which fit `state`, and its number of steps. ValueError as for `load_state`."""
    try:
        stored, metadata = safe.read(path)
        header = safe.graft_header(metadata, path)
    except (ValueError, OSError) as error:
        raise Damaged(str(error)) from error
    step = header.get("step")
    if header.get("kind") != "run state" or type(step) is not int:
        raise Damaged(f"{path}: expected the state of a run after a number of steps, found {str(header)[:60]}")
    # states of older versions have no checksum
    if "sha256" in header and header["sha256"] != digest(stored, header, file_maps()):
        raise Damaged(f"{path}: its content is not what its checksum says, so it was damaged after it was written")
    made_of = header.get("made_of")
    if isinstance(made_of, dict):
        check_made_of(path, made_of, state.made_of, allowed)
    weights, names = state.weights(), {name for name in stored if not name.startswith("adam/")}
    missing, unknown = weights.keys() - names, names - weights.keys()
    if missing or unknown:
        raise ValueError(
            f"{path}: made by another run, {len(missing)} tensors missing and {len(unknown)} not expected, first "
            f"{min(missing | unknown)}"
        )
    if not 0 < step <= steps:
        raise ValueError(f"{path}: expected a state after 1 to {steps} steps, found step {step}")
    check_tensors(path, stored, weights, state.parameters)
    return stored, step


def check_tensors(path: Path, stored: dict[str, Tensor], weights: dict, parameters: dict[str, nn.Parameter]) -> None:
    """Damaged for a tensor of another shape or type, and for moments that are missing or of no parameter."""
    expected = dict(weights)
    for name, parameter in parameters.items():
        moments = {f"adam/{name}/{key}": torch.zeros(()) if key == "step" else parameter.detach() for key in MOMENTS}
        expected |= moments if moments.keys() & stored.keys() else {}
    ours, theirs = ({name for name in names if name.startswith("adam/")} for names in (expected, stored))
    if ours != theirs or not ours:
        odd = min(ours ^ theirs, default="none at all")
        raise Damaged(f"{path}: its optimizer's moments are not those of the parameters, first {odd}")
    for name, tensor in expected.items():
        if (stored[name].shape, stored[name].dtype) != (tensor.shape, tensor.dtype):
            ours, theirs = ([*t.shape, str(t.dtype).removeprefix("torch.")] for t in (tensor, stored[name]))
            raise Damaged(f"{path}: {name} must be {ours}, found {theirs}")


def check_made_of(path: Path, stored: dict, now: dict, allowed: Collection[str]) -> None:
    """ValueError, in one sentence, if the run is made of other things now, unless their kind is `allowed`.

    stored, now: kind -> {what: digest, number or list of names}, as of recipes/images/made_of.py.
    """
    for kind, parts in now.items():
        before = stored.get(kind)
        if kind in allowed or not isinstance(before, dict):
            continue
        changed = [what for what, value in parts.items() if before.get(what) != value]
        if changed:
            was, is_now = before.get(changed[0]), parts[changed[0]]
            told = isinstance(is_now, int | list) and not isinstance(is_now, bool)
            shown = f" ({brief(was)} then, {brief(is_now)} now)" if told else ""
            way = f"; --allow-change {kind} goes on with them" if kind == "data" else "; start another run"
            raise ValueError(f"{path}: the run was trained with other {kind}: its {changed[0]} changed{shown}{way}")


def brief(value: object) -> str:
    """A number or a list of names, shortened."""
    if not isinstance(value, list):
        return str(value)
    return ", ".join(map(str, value[:5])) + (f" and {len(value) - 5} more" if len(value) > 5 else "")


@contextmanager
def averaged(model: nn.Module, parameters: dict[str, nn.Parameter], ema: dict[str, Tensor]) -> Iterator[None]:
    """The model in eval mode with the averaged weights in place of the trained ones, for as long as the block runs.

    It is whole in every process.
    """
    exchange(parameters, ema)
    model.eval()
    try:
        with whole(model):
            yield
    finally:
        model.train()
        exchange(parameters, ema)


@torch.no_grad()
def exchange(parameters: dict[str, nn.Parameter], ema: dict[str, Tensor]) -> None:
    """Each parameter and its average change places."""
    for name, average in ema.items():
        raw = parameters[name].clone()
        parameters[name].copy_(average)
        average.copy_(raw)


def leave(run: Path, state: State, step: int, number: int) -> None:
    """End the process by the signal that asked for it, with everything saved."""
    if step and by_first(lambda: saved_steps(run)[0]) != step:
        save_state(run, state, step)
    left = f"continue with --resume --out {run}" if step else "nothing is left of it"
    if is_first():
        print(f"stopped after step {step}; {left}", file=sys.stderr)
    sys.exit(128 + number)
