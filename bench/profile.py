"""Where a step's time goes: python -m bench.profile SIDE [--depth N], by torch's profiler.

SIDE is "file:function" of bench/sides/, as in rows.py: ours:dit, ours:bitfit, ours:sd_lora, compiled:plain_tiny.
"""

import argparse
from importlib import import_module

from torch.profiler import ProfilerActivity, profile

from bench.rows import ROWS
from bench.sizes import FULL, TINY

OPERATORS = 8  # shown, those that take longest


def main(argv: list[str] | None = None) -> None:
    """Prints milliseconds of a step, and the share and the calls of the operators that take longest."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__.split("\n\n")[0])
    parser.add_argument("side", help="file:function of bench/sides/")
    parser.add_argument("--depth", type=int, default=FULL["depth"], help="blocks of the DiT, fewer than its 28")
    parser.add_argument("--tiny", action="store_true", help="small models: does the profile itself work?")
    options = parser.parse_args(argv)
    sides = sorted({side for row in ROWS.values() for side in (row.ours, row.other) if ":" in side})
    if options.side not in sides:
        parser.error(f"no side {options.side!r}; the sides are {', '.join(sides)}")
    size = (TINY if options.tiny else FULL | {"depth": options.depth}) | {"bf16": True}
    file, _, name = options.side.partition(":")
    step = getattr(import_module(f"bench.sides.{file}"), name)(size, "cpu")
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    found = sorted(profiler.key_averages(), key=lambda each: -each.self_cpu_time_total)
    total = sum(each.self_cpu_time_total for each in found)
    print(f"{options.side}: {total / 1000:.0f} ms")
    for each in found[:OPERATORS]:
        print(f"{each.self_cpu_time_total / total:6.1%}  {each.key}, {each.count} calls")


if __name__ == "__main__":
    main()
