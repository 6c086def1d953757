"""Fine-tune a diffusion model on a few images: python train.py [CONFIG.toml] [--flag value]...

With no arguments: 20 generated photographs of each state of a product that the shipped model has never seen teach it
that product's defects, in minutes on a laptop's processor.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

import adapters
from config import Config, run_script, to_toml
from config.training import Loop, Run, Stopping
from data.output.atomic import write_atomic
from ops.attention import set_backend
from ops.device import Compute, choose_device, peak_gib
from ops.random import fold_in, generator_for
from recipes import RECIPES, Job
from recipes.settings import configure
from training.folder import claimed, next_run
from training.log import open_log
from training.monitor import is_corrupted, keep_best
from training.plot import plot
from training.state import STATE, State, load_state, save_state
from training.stops import graceful_stop

COOLDOWN = 0.2  # share of the steps, of the lr_schedule of that name


def main(argv: list[str] | None = None) -> None:
    """Config, job, loop, files: what a run is."""
    config = configure(argv, __doc__)
    run = Path(config[Run].out or next_run())
    with claimed(run, config[Run].resume):
        train(config, run)
    print(f"everything is in {run}")


def train(config: Config, run: Path) -> None:
    """The run of these settings in its folder, from its last checkpoint on if it has one."""
    torch.manual_seed(config[Run].seed)
    if config[Run].attention != "auto":
        set_backend(config[Run].attention)
    compute = Compute(choose_device(config[Run].device), config[Run].precision)
    job = RECIPES[config[Run].recipe].build(config, compute)
    trained, total = adapters.counts(job.model)
    print(f"{' + '.join(job.adapter)}: {trained:,} of {total:,} parameters train ({trained / total:.2%})")
    state = first_state(config, job)
    first = load_state(run, state) if (run / STATE).exists() else 0
    write_atomic(run / "config.toml", to_toml(config.values | {"resume": False, "out": str(run)}).encode())
    loop(config, run, job, state, first)
    plot(run)
    with averaged(job.model, state.parameters, state.best or state.ema):
        job.finish(run)


def loop(config: Config, run: Path, job: Job, state: State, first: int) -> None:
    """Steps first .. steps: evaluate, learn, average, log, save. Leaves by sys.exit when a signal asked for it."""
    options, began = config[Loop], time.monotonic()
    job.model.train()  # loaded in eval mode, and a resumed run may learn before it is evaluated
    bar = tqdm(total=options.steps, initial=first, desc=run.name)
    with graceful_stop("the step in progress") as stop, open_log(run, first) as log, bar:
        for step in range(first, options.steps):
            if step % options.sample_every == 0 and evaluate(config, run, job, state, step, log):
                break
            numbers = one_step(options, config[Run], step, job, state.optimizer)
            for name, average in state.ema.items():
                average.lerp_(state.parameters[name].detach(), 1 - ema_decay(options.ema, step))
            log({"step": step + 1, **numbers, "seconds": round(time.monotonic() - began, 2)})
            bar.set_postfix_str(f"loss {numbers['loss']:.4f}", refresh=False)
            bar.update()
            if (step + 1) % options.save_every == 0 or step + 1 == options.steps or stop:
                save_state(run, state, step + 1)
            if stop:
                leave(run, step + 1, stop[0])
        else:
            step = options.steps
            evaluate(config, run, job, state, step, log)
        log({"step": step, **cost(job.model)})
        if stop:
            leave(run, step, stop[0])


def leave(run: Path, step: int, number: int) -> None:
    """End the process by the signal that asked for it, with everything saved."""
    print(f"stopped after step {step}; continue with --resume --out {run}", file=sys.stderr)
    sys.exit(128 + number)


def evaluate(config: Config, run: Path, job: Job, state: State, step: int, log: Callable[[dict], None]) -> bool:
    """Log what the averaged weights sample; keep them if none were better. Returns whether the run is to end."""
    with averaged(job.model, state.parameters, state.ema):
        log(job.evaluate(run, step))
        keep_best(run, step, state.parameters, state.best)
    return Stopping in config and config[Stopping].stop_corrupted and is_corrupted(run)


def one_step(options: Loop, settings: Run, step: int, job: Job, optimizer: torch.optim.Optimizer) -> dict:
    """Accumulate, check, clip, update. Returns loss, the recipe's numbers, learning rate and gradient norm."""
    total, numbers, seen = 0.0, {}, []
    compute = Compute(next(job.model.parameters()).device, settings.precision)
    for micro in range(options.accumulate):
        index = batch_index(len(job.names), options.batch, step * options.accumulate + micro, settings.seed)
        generator = generator_for(settings.seed, step, micro)
        batch = {key: value.to(compute.device) for key, value in job.batch(index, generator).items()}
        torch.manual_seed(fold_in(settings.seed, step, micro))  # for layers that draw something themselves
        with compute.autocast():
            loss, own = job.loss(batch, generator, step / options.steps)
            for name, extra in adapters.auxiliary_losses(job.model).items():
                loss, own = loss + extra, own | {name: extra.detach()}
        (loss / options.accumulate).backward()
        total += loss.item() / options.accumulate
        numbers = {key: numbers.get(key, 0) + float(value) / options.accumulate for key, value in own.items()}
        seen += [job.names[i] for i in index]
    trained = [p for p in job.model.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, options.clip or math.inf).item()
    if not math.isfinite(total) or not math.isfinite(norm):
        sys.exit(
            f"step {step + 1}: loss {total}, gradient norm {norm}; nothing was updated, the last checkpoint is "
            f"good. Images of the batch: {', '.join(sorted(set(seen)))}"
        )
    factor = lr_factor(options, step)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": total, **numbers, "lr": options.lr * factor, "grad": norm}


def first_state(config: Config, job: Job) -> State:
    """What trains, its average if it has one, its best if that is kept, and the optimizer."""
    parameters, options = adapters.trainable_parameters(job.model), config[Loop]
    groups = param_groups(parameters, job.rates, options.lr)
    optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay, fused=True)
    best = Stopping in config and config[Stopping].keep == "best"
    ema, kept = (
        {name: p.detach().clone() for name, p in parameters.items()} if wanted else {} for wanted in (options.ema, best)
    )
    return State(parameters, ema, kept, optimizer)


def param_groups(parameters: dict[str, nn.Parameter], rates: dict[str, float], lr: float) -> list[dict]:
    """Parameter groups of the optimizer: one for each start of a name with a rate of its own, and one for the rest."""
    groups = {}
    for name, parameter in parameters.items():
        peak = next((rate for start, rate in rates.items() if name.startswith(start)), lr)
        groups.setdefault(peak, []).append(parameter)
    return [{"params": group, "peak": peak} for peak, group in groups.items()]


def batch_index(n: int, batch: int, number: int, seed: int) -> Tensor:
    """Image numbers (batch,) of micro-batch `number`: an endless row of shuffled passes over all n, cut in batches."""
    places = range(number * batch, (number + 1) * batch)
    order = {k: torch.randperm(n, generator=generator_for(seed, -1 - k)) for k in {place // n for place in places}}
    return torch.stack([order[place // n][place % n] for place in places])


def lr_factor(options: Loop, step: int) -> float:
    """Linear warm-up to 1, then 1, half a cosine down to 0, or 1 and in the last fifth 1 - sqrt(x) (cooldown).

    x is the share of that fifth that is done: the cooldown of Hägele et al. 2024 (arXiv 2405.18392), as good as a
    cosine, and a run saved before it can be made longer.
    """
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.lr_schedule == "constant":
        return 1.0
    if options.lr_schedule == "cooldown":
        return 1 - math.sqrt(max(0.0, 1 - (options.steps - step) / (COOLDOWN * options.steps)))
    return 0.5 * (1 + math.cos(math.pi * (step - options.warmup) / max(1, options.steps - options.warmup)))


def ema_decay(decay: float, step: int) -> float:
    """min(decay, (1 + step) / (10 + step)): in a short run the average soon forgets its start."""
    return min(decay, (1 + step) / (10 + step))


def cost(model: nn.Module) -> dict:
    """What the run took besides time: the parameters that trained, of how many, and the most memory in GiB."""
    trained, total = adapters.counts(model)
    return {"trained": trained, "total": total, "peak_gib": peak_gib(next(model.parameters()).device)}


@contextmanager
def averaged(model: nn.Module, parameters: dict[str, nn.Parameter], ema: dict[str, Tensor]) -> Iterator[None]:
    """The model in eval mode with the averaged weights in place of the trained ones, for as long as the block runs."""
    for name, average in ema.items():
        parameters[name].data, ema[name] = average, parameters[name].data
    model.eval()
    yield
    model.train()
    for name, raw in ema.items():
        parameters[name].data, ema[name] = raw, parameters[name].data


if __name__ == "__main__":
    run_script(main)
