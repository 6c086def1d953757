"""The page of a run, run/index.html, its charts, and its picture of nearest training images."""

from training.page.nearest import NEAREST, beside_nearest
from training.page.run import write_page

__all__ = ["NEAREST", "beside_nearest", "write_page"]
