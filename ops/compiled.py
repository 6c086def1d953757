"""Blocks of a network compiled by torch.compile, each in place: one is compiled, and its code runs all of its shape.

A DiT's 28 blocks have one shape and cost what one costs; the 38 of Stable Diffusion 1's UNet have 18.
Parameters, names and classes stay as they are, and a copy of a block is a plain block. Compiled code takes the steps of
an equation together, with other roundings: results agree to the precision, and random numbers are the plain block's.

The forward pass of a shape is compiled in its first call, the gradient's in its first backward pass, and once more
where a second batch size comes, then for all sizes. The code stays in a cache of torch's for the next process.

On a processor torch 2.13 compiles a wrong gradient of a block whose tokens (B, T, D) are a transposed view: the error
was a fifth of it. The networks therefore lay their tokens out in a row, and the tests compare gradients.
"""

import time
from collections.abc import Iterable

import torch
from torch import nn
from tqdm import tqdm

CODES = 128  # variants of one function at most: 14 shapes of residual blocks, with and without gradient, batch sizes


class Watch:
    """Seconds that this process spent on compiling."""

    def __init__(self):
        self.total = self.told = self.began = 0.0

    def start(self, *_: object) -> None:
        """As torch begins to compile."""
        self.began = time.monotonic()

    def stop(self, *_: object) -> None:
        """As it has compiled."""
        self.total += time.monotonic() - self.began

    def tell(self, *_: object) -> None:
        """Print what was spent since it was told last, if that is half a second or more."""
        if self.total - self.told >= 0.5:
            tqdm.write(f"compiled in {self.total - self.told:.0f} s")  # above a bar on a terminal
            self.told = self.total


WATCH = Watch()


def compile_in_place(model: nn.Module, blocks: Iterable[nn.Module]) -> None:
    """Compile these blocks of the model when they are first called; a call of the model then tells the seconds.

    Raises ValueError where nothing can be compiled for the device of the model.
    """
    if WATCH.start not in torch._dynamo.callback_handler.start_callbacks:
        torch._dynamo.on_compile_start(WATCH.start)
        torch._dynamo.on_compile_end(WATCH.stop)
    check_compiler(next(model.parameters()).device)
    torch._dynamo.config.recompile_limit = CODES  # past its own, 8, torch would run the rest as it is
    for block in blocks:
        block.compile(options={"fallback_random": True})
    model.register_forward_hook(WATCH.tell)


def check_compiler(device: torch.device) -> None:
    """ValueError unless a small function can be compiled for the device, and run."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8, device=device))
    except (RuntimeError, OSError) as error:
        needs = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"--compile needs {needs} that torch finds and can call here, and a trial failed: {reason}"
        ) from None
