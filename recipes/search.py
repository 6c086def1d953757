"""The old name of `python -m experiments.search`, kept for one release."""

import runpy
import sys

if __name__ == "__main__":
    print("recipes.search is now called experiments.search; the next release drops the old name", file=sys.stderr)
    runpy.run_module("experiments.search", run_name="__main__")
