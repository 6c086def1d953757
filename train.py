"""Fine-tune a diffusion model on a few images: python train.py [CONFIG.toml] [--flag value]...

With no arguments: the embedded default. 20 generated photographs of each state of a product that the shipped model has
never seen teach it that product's defects, in minutes on a laptop's processor.
"""
import json
import math
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from tqdm import tqdm

import adapters
import launch
from data.atomic import write_atomic
from recipes import recipes, watch
from recipes.plot import plot
from sampling.progressive import NOISE_SCHEDULES
from weights.run_state import STATE, State, load_state, save_state

COOLDOWN = 0.2   # share of the steps, of the lr_schedule of that name


@dataclass
class Config:
    model: str = "tiny-dit"  # checkpoint: a file, a folder, a shipped or downloaded name; new:SIZE for random weights
    vae: str = "tiny-vae"  # autoencoder whose latents the model lives in
    recipe: str = "class_label"  # class_label|text|dreambooth|textual_inversion|control|consistency|autoencoder|...
    data: str = "generated:hazelnut/few/20"  # folder of images, or generated:PRODUCTS/SPLIT[/COUNT]
    val: str = ""  # held-out images of the same classes; empty: the val split of generated data, else none
    template: str = ""  # caption of images that have none, as "a photo of a {class}"
    prompts: list[str] = field(default_factory=list)  # of the text recipes' samples; none: the first captions
    token: str = ""  # a new word in the captions, to be learned (textual inversion, alone or beside other methods)
    token_start: str = ""  # the known word that it starts from
    vectors: int = 1  # rows of the token table that the new word has
    class_prompt: str = ""  # dreambooth: what the images are without their own name, as "a photo of a dog"
    class_images: int = 100  # dreambooth: images of the class that the model draws before training
    prior_weight: float = 1.0  # dreambooth: of their loss; 0: no such images
    adapter: list[str] = field(default_factory=lambda: ["bitfit", "norm"])  # [part.]method[:option=value,...]; repeat
    init: list[str] = field(default_factory=list)  # consistency, control: adapter files to begin from; repeat
    start: str = "name"  # new class rows from: name (old ones of it) | nearest | features[:DATA] | mean | random | one
    steps: int = 900  # optimizer steps
    batch: int = 32  # images a micro-batch; may exceed the number of images
    accumulate: int = 1  # micro-batches a step
    lr: float = 3e-3  # peak learning rate of AdamW
    text_lr: float = 0.0  # the same for what trains in the text tower; 0: lr
    weight_decay: float = 0.0  # of AdamW
    lr_schedule: str = "cosine"  # learning rate after the warm-up: constant | cosine (to 0) | cooldown (see lr_factor)
    warmup: int = 20  # steps of linear warm-up
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.99  # decay of the averaged weights, reached gradually; 0: none
    drop: float = 0.1  # how often a label is replaced by the null class
    superclass: float = 0.0  # how often a label is replaced by its superclass, which guidance then leads away from
    hierarchy: str = ""  # .toml or .json file of class = superclass; empty: superclass/class folders
    noise_schedule: str = "fixed"  # of a DiT: fixed | progressive, less noise in each sixth of the steps (DriveDiTFit)
    noise_offset: float = 0.0  # strength of the noise that a whole channel shares
    mask_weight: float = 1.0  # weight of the loss where the images' masks are; 1: as everywhere
    min_snr: float = 0.0  # gamma of the min-SNR loss weight; 0: off
    size: int = 0  # image side in pixels; 0: what the model was made for
    crop: int = 0  # centre crop to this many pixels before resizing; 0: none
    resize: str = "resize"  # resize (short side, then centre) | adm (DiT's own)
    flips: str = "hv"  # none | h | hv
    rotations: str = "0,90,180,270"  # degrees to choose from
    precision: str = "auto"  # auto | fp32 | bf16 (autocast; the weights stay float32)
    device: str = "auto"  # auto | cpu | cuda | mps
    seed: int = 0  # of everything random
    out: str = ""  # run folder; empty: the next free runs/NNN
    resume: bool = False  # continue the run in --out
    save_every: int = 150  # steps between checkpoints
    sample_every: int = 300  # steps between sample grids and validation losses; step 0 is the first
    keep: str = "last"  # weights that the run leaves: last | best, those of the look whose samples are most faithful
    stop_corrupted: bool = False  # end the run at a look whose samples are in the corruption stage
    count: int = 4  # samples of each class in a grid
    sampler: str = "ddim"  # ddpm | ddim | dpm++ | lcm, which consistency takes
    sample_steps: int = 50  # steps of the sampler
    guidance: float = 3.0  # classifier-free guidance scale of the samples; consistency: of the teacher
    measure: int = 20  # samples of each class behind the metrics at the end; 0: none
    cache: str = ".cache"  # folder of encoded latents; empty: memory only


def main(argv=None):
    cfg = configure(argv)
    run = Path(cfg.out)
    if not cfg.resume and run.is_dir() and any(run.iterdir()):
        raise ValueError(f"{run} holds a run already: go on with it by --resume, or name another folder by --out")
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(cfg.seed)
    try:
        job = recipes()[cfg.recipe](cfg, launch.device(cfg.device))
    except BaseException:
        if not cfg.resume:
            run.rmdir()   # nothing has been written yet
        raise
    trained, total = adapters.counts(job.model)
    print(f"{' + '.join(job.adapter)}: {trained:,} of {total:,} parameters train ({trained / total:.2%})")
    parameters = adapters.trained(job.model)
    optimizer = torch.optim.AdamW(rated(parameters, job.rates, cfg.lr), weight_decay=cfg.weight_decay, fused=True)
    ema, kept = ({name: p.detach().clone() for name, p in parameters.items()} if wanted else {}
                 for wanted in (cfg.ema, cfg.keep == "best"))
    state = State(parameters, ema, kept, optimizer)
    first = load_state(run, state) if (run / STATE).exists() else 0
    write_atomic(run / "config.toml", launch.to_toml(replace(cfg, resume=False, out=str(run))).encode())
    loop(cfg, run, job, state, first)
    plot(run)
    with averaged(job.model, parameters, kept or ema):
        job.finish(run)
    print(f"everything is in {run}")


def loop(cfg, run, job, state, first):
    """Steps first..cfg.steps: look, learn, average, log, save. Leaves by sys.exit when a signal asked for it."""
    stop = catch_signals()
    began = time.monotonic()
    job.model.train()   # loaded in eval mode, and a resumed run may learn before it looks
    with open_log(run, first) as log, tqdm(total=cfg.steps, initial=first, desc=run.name) as bar:
        for step in range(first, cfg.steps):
            if step % cfg.sample_every == 0 and look(cfg, run, job, state, step, log):
                break
            numbers = one_step(cfg, step, job, state.optimizer)
            for name, average in state.ema.items():
                average.lerp_(state.parameters[name].detach(), 1 - ema_decay(cfg.ema, step))
            log({"step": step + 1, **numbers, "seconds": round(time.monotonic() - began, 2)})
            bar.set_postfix_str(f"loss {numbers['loss']:.4f}", refresh=False)
            bar.update()
            if (step + 1) % cfg.save_every == 0 or step + 1 == cfg.steps or stop:
                save_state(run, state, step + 1)
            if stop:
                print(f"stopped after step {step + 1}; continue with --resume --out {run}", file=sys.stderr)
                sys.exit(128 + stop[0])
        else:
            step = cfg.steps
            look(cfg, run, job, state, step, log)
        log({"step": step, **cost(job.model)})


def look(cfg, run, job, state, step, log):
    """Log what the averaged weights draw; keep them if no look was better. Returns whether the run is to end."""
    with averaged(job.model, state.parameters, state.ema):
        log(job.look(run, step))
        watch.keep(run, step, state.parameters, state.best)
    return cfg.stop_corrupted and watch.corrupted(run)


def one_step(cfg, step, job, optimizer):
    """Accumulate, check, clip, update. Returns loss, the recipe's numbers, learning rate and gradient norm."""
    total, numbers, seen = 0.0, {}, []
    device = next(job.model.parameters()).device
    for micro in range(cfg.accumulate):
        index = batch_index(len(job.names), cfg.batch, step * cfg.accumulate + micro, cfg.seed)
        generator = launch.keyed(cfg.seed, step, micro)
        batch = {key: value.to(device) for key, value in job.batch(index, generator).items()}
        torch.manual_seed(launch.key(cfg.seed, step, micro))   # for layers that draw something themselves
        with torch.autocast(device.type, torch.bfloat16, enabled=launch.bf16(cfg.precision, device)):
            loss, found = job.loss(batch, generator, step / cfg.steps)
            for name, penalty in adapters.penalties(job.model).items():
                loss, found = loss + penalty, found | {name: penalty.detach()}
        (loss / cfg.accumulate).backward()
        total += loss.item() / cfg.accumulate
        numbers = {key: numbers.get(key, 0) + float(value) / cfg.accumulate for key, value in found.items()}
        seen += [job.names[i] for i in index]
    norm = torch.nn.utils.clip_grad_norm_([p for p in job.model.parameters() if p.requires_grad], cfg.clip).item()
    if not math.isfinite(total) or not math.isfinite(norm):
        sys.exit(f"step {step + 1}: loss {total}, gradient norm {norm}; nothing was updated, the last checkpoint is "
                 f"good. Images of the batch: {', '.join(sorted(set(seen)))}")
    factor = lr_factor(cfg, step)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    optimizer.step()
    optimizer.zero_grad()
    return {"loss": total, **numbers, "lr": cfg.lr * factor, "grad": norm}


def cost(model):
    """What the run took besides time: the parameters that trained, of how many, and the most memory in GiB."""
    trained, total = adapters.counts(model)
    return {"trained": trained, "total": total, "peak_gib": launch.peak_gib(next(model.parameters()).device)}


def rated(parameters, rates, lr):
    """Parameter groups of the optimizer: one for each start of a name with a rate of its own, and one for the rest."""
    groups = {}
    for name, parameter in parameters.items():
        peak = next((rate for start, rate in rates.items() if name.startswith(start)), lr)
        groups.setdefault(peak, []).append(parameter)
    return [{"params": group, "peak": peak} for peak, group in groups.items()]


def batch_index(n, batch, number, seed):
    """Image numbers (batch,) of micro-batch `number`: an endless row of shuffled passes over all n, cut in batches."""
    places = range(number * batch, (number + 1) * batch)
    order = {k: torch.randperm(n, generator=launch.keyed(seed, -1 - k)) for k in {place // n for place in places}}
    return torch.stack([order[place // n][place % n] for place in places])


def lr_factor(cfg, step):
    """Linear warm-up to 1, then 1, or half a cosine down to 0, or 1 and in the last fifth of the steps 1 - sqrt(x).

    x, the share of that fifth done: the cooldown of Hägele et al. 2024 (arXiv 2405.18392), as good as a cosine, and a
    run saved before it can be made longer.
    """
    if step < cfg.warmup:
        return (step + 1) / cfg.warmup
    if cfg.lr_schedule == "constant":
        return 1.0
    if cfg.lr_schedule == "cooldown":
        return 1 - math.sqrt(max(0.0, 1 - (cfg.steps - step) / (COOLDOWN * cfg.steps)))
    return 0.5 * (1 + math.cos(math.pi * (step - cfg.warmup) / max(1, cfg.steps - cfg.warmup)))


def ema_decay(decay, step):
    """min(decay, (1 + step) / (10 + step)): in a short run the average soon forgets its start."""
    return min(decay, (1 + step) / (10 + step))


@contextmanager
def averaged(model, parameters, ema):
    """The model in eval mode with the averaged weights in place of the trained ones, for as long as the block runs."""
    for name, average in ema.items():
        parameters[name].data, ema[name] = average, parameters[name].data
    model.eval()
    yield
    model.train()
    for name, raw in ema.items():
        parameters[name].data, ema[name] = raw, parameters[name].data


def catch_signals():
    """A list that Ctrl-C or SIGTERM fills: the step in progress ends, is saved, and then we leave."""
    caught = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, frame: caught.append(n))
    return caught


@contextmanager
def open_log(run, first):
    """A function that appends a dict to run/log.jsonl; what an earlier try wrote after step `first` is dropped."""
    path = run / "log.jsonl"
    old = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in old if json.loads(line)["step"] < first + ("loss" in line)]   # its look is done again
    with open(path, "w", buffering=1) as file:
        file.writelines(line + "\n" for line in kept)
        yield lambda numbers: file.write(json.dumps(numbers) + "\n") if numbers else None


def configure(argv):
    """The config of the command line. With --resume it is the one stored in the run, and flags may only repeat it."""
    cfg = launch.configure(Config, argv)
    if cfg.lr_schedule not in ("constant", "cosine", "cooldown"):
        raise ValueError(f"lr_schedule must be constant, cosine or cooldown, found {cfg.lr_schedule!r}")
    if cfg.recipe not in recipes():
        raise ValueError(f"unknown recipe {cfg.recipe!r}; there are {', '.join(recipes())}")
    known = NOISE_SCHEDULES if cfg.recipe == "class_label" else ("fixed",)   # the others are made of DiT's linear betas
    if cfg.noise_schedule not in known:
        raise ValueError(f"noise_schedule of recipe {cfg.recipe} must be {' or '.join(known)}, found "
                         f"{cfg.noise_schedule!r}")
    if (cfg.superclass or cfg.hierarchy) and cfg.recipe != "class_label":
        raise ValueError(f"superclass and hierarchy are for the recipe class_label, {cfg.recipe} does not read them")
    watch.check(cfg)
    if cfg.init and cfg.recipe not in ("consistency", "control"):
        raise ValueError(f"init is for the recipes consistency and control, {cfg.recipe} does not read it: found "
                         f"{cfg.init}")
    for name in ("steps", "batch", "accumulate", "save_every", "sample_every", "count"):
        if getattr(cfg, name) < 1:
            raise ValueError(f"{name} must be at least 1, found {getattr(cfg, name)}")
    if not cfg.resume:
        return replace(cfg, out=cfg.out or str(next_run()))
    stored = Path(cfg.out) / "config.toml"
    if not cfg.out or not stored.is_file():
        raise ValueError(f"--resume needs --out with the folder of a run to continue, found {cfg.out!r}")
    before = launch.configure(Config, [str(stored)])
    given = launch.given(Config, argv)
    other = [key for key in given if key != "resume" and given[key] != getattr(before, key)]
    if other:
        raise ValueError(f"{stored}: the run has {other[0]} = {getattr(before, other[0])!r}, and resuming cannot make "
                         f"it {given[other[0]]!r}")
    return replace(before, resume=True)


def next_run():
    """The first runs/NNN that does not exist."""
    return next(path for number in range(1, 10_000) if not (path := Path("runs") / f"{number:03d}").exists())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
