"""Sample images from a fine-tuned model: python sample.py --run RUN, or --model PATH [--adapter FILE[:strength]]...

--classes says what a class-conditional model shows, --prompt (repeated) or --prompts FILE what Stable Diffusion shows.
Writes a grid (columns = classes or prompts, rows = samples) and single PNGs.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from config import Config, run_script
from config import sampling as part
from config.repeat import about_call
from data.transforms import to_uint8
from inference.fill import Fill
from inference.folder import Folder
from inference.pairs import Pairs
from inference.request import Request, encode_image, prepare_dit, prepare_sd
from inference.settings import configure
from ops.attention import set_backend
from ops.device import Compute, choose_device
from ops.machine import process
from ops.machine.memory import memory_in_a_sentence
from ops.machine.progress import progress
from sampling import batched_cfg, limited_interval, sample_latents

LEVERS = "a smaller --batch or --size, or --precision bf16, takes less memory"


@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    """Settings, model and conditions, then batches of samples, each into its file."""
    config, path, files, stored, only = configure(argv, __doc__)
    with process.processes(), memory_in_a_sentence(LEVERS):
        draw(config, path, files, stored, only)


def draw(config: Config, path: str, files: list[tuple[str, float]], stored: dict, only: int | None) -> None:
    """Sample the images of all columns, or the one numbered `only`, each into its file."""
    output = config[part.Output]
    compute = Compute(choose_device(output.device), output.precision)
    if output.attention != "auto":
        set_backend(output.attention)
    torch.manual_seed(output.seed)  # of sampled weights: the images of one batch share them
    with compute.autocast():
        prepare = prepare_dit if part.Classes in config else prepare_sd
        request, start, fill = prepare(config, path, files, stored, compute), config[part.Start].image or None, None
        if config[part.Fill].mask:
            fill = Fill(request, config[part.Start], config[part.Fill], config[part.Sampler], output, compute)
            request, start = fill.request, fill.start
        elif start:
            start = encode_image(start, request, compute.device)
    run = config[part.Source].run
    out = Path(output.out or (Path(run) / "drawn" if run else "drawn"))
    denoiser, total = guided_denoisers(request, config[part.Guidance]), len(request.cond)
    sampler, strength = config[part.Sampler], config[part.Start].strength
    how = request.shape, request.schedule, sampler.own(), sampler.steps, request.seeds(output.seed), output.batch
    about = about_call(config, path, files, request.names)
    kind, kinds = ("class", "classes") if part.Classes in config else ("prompt", "prompts")
    amount = f"{total} images ({len(request.names)} {kinds} x {output.count})" if only is None else f"image {only}"
    print(f"{amount} of {about['model']} by {sampler.sampler}, {sampler.steps} steps, into {out}")
    if config[part.Fill].product:
        folder = Pairs(out, request.names, kind, output, about, fill, config[part.Fill])
    else:
        folder = Folder(out, request.names, kind, output, about, only)
    needless = only is not None and config[part.Source].weights != "sampled"  # batches of other images
    for first in progress(range(0, total, output.batch)[process.number() :: process.count()], "batches"):
        numbers = range(first, min(first + output.batch, total))
        if needless and only not in numbers:
            continue
        with compute.autocast():
            z = sample_latents(denoiser, numbers, *how, start, strength, compute.device, request.on_step)
            images = to_uint8(request.vae.images(fill.kept(z, first) if fill else z))  # (B, H, W, 3)
        for i, image in enumerate(images, first):
            if only in (None, i):
                folder.add(i, fill.pasted(image, i) if fill else image)
    print(process.by_first(folder.close))


def guided_denoisers(request: Request, guidance: part.Guidance) -> Callable:
    """denoiser(here) of the images numbered `here`: guided, and outside of the interval the model alone."""
    inside = batched_cfg(
        request.model,
        request.cond,
        request.null,
        guidance.guidance,
        guidance.channels or None,
        request.extra_conditions,
        request.hint,
        request.superclass,
        guidance.superclass_guidance,
    )
    limits = guidance.heard_limits(request.schedule)
    if limits is None:
        return inside
    outside = batched_cfg(request.model, request.cond, None, 1.0, hint=request.hint)
    return lambda here: limited_interval(*limits, inside(here), outside(here))


if __name__ == "__main__":
    run_script(main)
