"""What each of many samples is conditioned on, where a few rows stand for all of them."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Chosen:
    """values[index], (N, ...), as a tensor that is not held: slices and lists of its rows are made when asked for."""

    def __init__(self, values: Tensor, index: Tensor | Sequence[int]):
        """values (U, ...); index (N,): the row of each sample."""
        self.values, self.index = values, torch.as_tensor(index)
        self.shape = torch.Size((len(self.index), *values.shape[1:]))
        self.ndim, self.dtype, self.device = values.ndim, values.dtype, values.device

    def dim(self) -> int:
        """The number of dimensions."""
        return self.ndim

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, here: slice | Tensor) -> Tensor:
        return self.values[self.index[here].to(self.values.device)]


def each(values: Tensor, count: int) -> Chosen:
    """Every row `count` times, one row after the other."""
    return Chosen(values, torch.arange(len(values)).repeat_interleave(count))
