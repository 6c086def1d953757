"""Fine-tune a diffusion model on a few images: python train.py [CONFIG.toml] [--flag value]...

With no arguments: 20 generated photographs of each state of a product that the shipped model has never seen teach it
that product's defects, in minutes on a laptop's processor.
"""

import math
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import adapters
from config import Config, run_script, to_toml
from config.training import Loop, Run, Stopping
from data.output.atomic import write_atomic
from ops.attention import set_backend
from ops.device import Compute, choose_device
from ops.machine.memory import memory_in_a_sentence
from ops.machine.process import by_first, is_first, processes
from ops.machine.progress import progress
from ops.random import fold_in, generator_for
from recipes import RECIPES, Job
from recipes.job import OF_A_CALL
from recipes.settings import configure, in_folder, started_in
from training.climb import Climb
from training.estimate import cost, estimate, rehearse, smaller
from training.finish import finish
from training.folder import claimed
from training.log import open_log, read_log
from training.monitor import is_corrupted, keep_best
from training.page import write_page
from training.state import State, averaged, check_room, has_state, leave, load_state, save_state, verdict
from training.step.optimizer import StepInBackward, adamw, average, clip, ema_decay, lr_factor, param_groups
from training.step.together import check_shared, loss_of, objective, own_part, summed, until_last
from training.step.turns import batch_index, images_of, steps_of
from training.stops import Stop, graceful_stop

LEVERS = (
    "a smaller --batch (with --accumulate for the same step), --size or --count, --precision bf16, or an --adapter "
    "that trains less, takes less memory"
)


def main(argv: list[str] | None = None) -> None:
    """Config, job, loop, files: what a run is."""
    config = configure(argv, __doc__)
    with processes(), graceful_stop() as stop, memory_in_a_sentence(LEVERS):
        if config[Run].dry_run:
            dry_run(config)
            return
        with claimed(config[Run].out, config[Run].resume) as run:
            with in_folder(started_in(run) if config[Run].resume else ""):
                train(config, run, stop)
        print(f"everything is in {run}")


def train(config: Config, run: Path, stop: Stop) -> None:
    """The run of these settings in its folder, from its last checkpoint on if it has one."""
    job, state = begin(config)
    config = config.replace(steps=steps_of(config[Loop], len(job.names)))
    trained, total = adapters.counts(job.model)
    print(f"{' + '.join(job.adapter)}: {trained:,} of {total:,} parameters train ({trained / total:.2%})")
    first = 0
    if has_state(run):
        first = load_state(run, state, config[Loop].steps, config[Run].allow_change)
    elif config[Run].resume:
        print(f"WARNING: {run} holds no checkpoint: the run begins again at step 0", file=sys.stderr)
    by_first(partial(check_room, run, state))
    values = config.replace(**dict.fromkeys(OF_A_CALL, False) | {"out": str(run), "allow_change": []}).values
    if is_first():
        write_atomic(run / "config.toml", to_toml(values | {"started_in": os.getcwd()}).encode())
    loop(config, run, job, state, first, stop)
    stop.wait_for, stop.state = "", f"the training is done and saved; --resume --out {run} goes on with what is left"
    finish(run, job.model, state, job.finish)


def begin(config: Config) -> tuple[Job, State]:
    """The job of the settings (model, images, loss), and its state before the first step."""
    torch.manual_seed(config[Run].seed)
    if config[Run].attention != "auto":
        set_backend(config[Run].attention)
    compute = Compute(choose_device(config[Run].device), config[Run].precision)
    check_shared(config[Loop], config.values)  # an error, if it is one, before the images are read
    job = RECIPES[config[Run].recipe].build(config, compute)
    loss = objective(job.model, job.loss, config.values.get("shard", False))
    return job._replace(loss=loss), first_state(config, job)


def loop(config: Config, run: Path, job: Job, state: State, first: int, stop: Stop) -> None:
    """Steps first .. steps: evaluate, learn, average, log, save. Leaves by sys.exit when a signal asked for it."""
    options, began = config[Loop], time.monotonic()
    job.model.train()  # loaded in eval mode, and a resumed run may learn before it is evaluated
    bar = progress(total=options.steps, initial=first, desc=run.name)
    with open_log(run, first) as log, bar:
        climb = Climb(line["loss"] for line in read_log(run) if "loss" in line)
        for step in range(first, options.steps):
            if step % options.sample_every == 0:
                stop.wait_for = f"the samples of step {step}"
                if evaluate(config, run, job, state, step, log):
                    break
                if stop.asked():
                    leave(run, state, step, stop.number)
            stop.wait_for = f"step {step + 1} and its checkpoint"
            try:
                numbers = one_step(options, config[Run], step, job, state.optimizer)
            except FloatingPointError as error:
                sys.exit(f"{error} {verdict(run)}")
            average(state.parameters, state.ema, ema_decay(options.ema, step))
            log({"step": step + 1, **numbers, "seconds": round(time.monotonic() - began, 2)})
            bar.set_postfix_str(f"loss {numbers['loss']:.4f}", refresh=False)
            bar.update()
            if (warning := climb.add(numbers["loss"])) and is_first():
                print(f"\nWARNING: {warning}", file=sys.stderr)
            if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
                save_state(run, state, step + 1)
            if stop.asked():
                leave(run, state, step + 1, stop.number)
        else:
            step = options.steps
            stop.wait_for = f"the samples of step {step}, the last"
            evaluate(config, run, job, state, step, log)
        log({"step": step, **cost(job.model)})
        if stop.asked():
            leave(run, state, step, stop.number)


def evaluate(config: Config, run: Path, job: Job, state: State, step: int, log: Callable[[dict], None]) -> bool:
    """Log what the averaged weights sample; keep them if none were better. Returns whether the run is to end."""
    with averaged(job.model, state.parameters, state.ema):
        by_first(lambda: log(job.evaluate(run, step)))
        by_first(partial(write_page, run))
        keep_best(run, step, state.parameters, state.best)
    return Stopping in config and config[Stopping].stop_corrupted and by_first(partial(is_corrupted, run))


def one_step(options: Loop, settings: Run, step: int, job: Job, optimizer: torch.optim.Optimizer) -> dict:
    """Accumulate, check, clip, update. Returns loss, the recipe's numbers, learning rate and gradient norm.

    Raises FloatingPointError, before the update, for a loss or a norm that is not finite.
    """
    total, numbers, own_micros, factor = 0.0, {}, own_part(options), lr_factor(options, step)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    compute = Compute(next(job.model.parameters()).device, settings.precision)
    for micro in own_micros:
        number = step * options.accumulate + micro
        index = batch_index(len(job.names), options.batch, number, settings.seed, job.buckets)
        generator = generator_for(settings.seed, step, micro)
        batch = {key: value.to(compute.device) for key, value in job.batch(index, generator).items()}
        torch.manual_seed(fold_in(settings.seed, step, micro))  # for layers that draw something themselves
        with until_last(job.loss, micro == own_micros[-1]):
            with compute.autocast():
                loss, own = loss_of(job.model, job.loss, batch, generator, step / options.steps)
            (loss / len(own_micros)).backward()
        total += loss.item() / options.accumulate
        numbers = {key: numbers.get(key, 0) + float(value) / options.accumulate for key, value in own.items()}
    total, numbers = summed(total, numbers)
    norm = clip(job.model, optimizer, options.clip)
    if not math.isfinite(total) or not math.isfinite(norm):
        done = "saved" if isinstance(optimizer, StepInBackward) else "updated"
        raise FloatingPointError(
            f"step {step + 1}: loss {total}, gradient norm {norm}; nothing was {done}. "
            f"Images of the batch: {', '.join(images_of(job.names, options, step, settings.seed, job.buckets))}."
        )
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": total, **numbers, "lr": options.lr * factor, "grad": norm}


def first_state(config: Config, job: Job) -> State:
    """What trains, its average if it has one, its best if that is kept, and the optimizer."""
    parameters, options = adapters.trainable_parameters(job.model), config[Loop]
    groups = param_groups(parameters, job.rates, options.lr, adapters.rate_factors(job.model))
    optimizer = adamw(groups, options)
    best = Stopping in config and config[Stopping].keep == "best"
    ema, kept = (
        {name: p.detach().clone() for name, p in parameters.items()} if wanted else {} for wanted in (options.ema, best)
    )
    return State(parameters, ema, kept, optimizer, job.made_of)


def dry_run(config: Config) -> None:
    """Two steps, a checkpoint, a few samples and the result in a temporary folder; prints what the run will take."""
    start = partial(begin, config.replace(**smaller(config.values)))
    print(estimate(config.values, rehearse(start, partial(one_step, config[Loop], config[Run]))))


if __name__ == "__main__":
    run_script(main)
