"""The products that a file of another tool adds to the weight of a layer, computed in float32.

    LoRA    B A                  B (out, r), A (r, in[, k, k])                                        lora_up, lora_down
    LoHa    (A1 B1) o (A2 B2)    o entry by entry; A_i (out, r), B_i (r, in[ k k])                hada_w1_a, hada_w1_b
    LoKr    kron(W1, W2)         W1 (o1, i1), W2 (o2, i2[, k, k]), each whole or A B                 lokr_w1, lokr_w2_a

with out = o1 o2 and in = i1 i2. LoHa and LoKr are LyCORIS' (Yeh et al. 2024, arXiv 2309.14859). A convolution may have
Tucker's form, with a core T (r, r, k, k) between the two factors, which then have no kernel:

    entry (o, i, :, :)  =  sum over m, n of A[m, o] T[m, n, :, :] B[n, i]       LoHa and LoKr: A (r, out), B (r, in)

A file scales a product by alpha / r. Of a LoKr whose W1 and W2 are whole there is no r, and nothing is scaled.
"""

from typing import NamedTuple

import torch
from torch import Tensor

Parts = dict[str, Tensor]  # role -> tensor, of one layer


class LowRank(NamedTuple):
    """B A, or B C A with the core of a Tucker LoCon."""

    down: Tensor
    up: Tensor
    mid: Tensor | None

    @property
    def rank(self) -> int:
        """r."""
        return len(self.down)

    def matrix(self, like: Tensor) -> Tensor:
        """(out, in k k) on the device of `like`."""
        up, down = self.up.to(like).flatten(1), self.down.to(like)  # (out, r), (r, in, ...)
        if self.mid is not None:
            down = torch.einsum("mnkl,ni->mikl", self.mid.to(like), down.flatten(1))  # C A: (r, in, k, k)
        return up @ down.flatten(1)


class Factor(NamedTuple):
    """One matrix of a LoHa or a LoKr: `whole`, or a product of a and b, or Tucker's with a core between them."""

    whole: Tensor | None
    a: Tensor | None
    b: Tensor | None
    core: Tensor | None

    @property
    def rank(self) -> int | None:
        """r, None for a whole matrix."""
        return None if self.whole is not None else len(self.b)

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of `matrix`."""
        if self.whole is not None:
            return len(self.whole), self.whole[0].numel()
        if self.core is not None:
            return self.a.shape[1], self.b.shape[1] * self.core.shape[2:].numel()
        return len(self.a), self.b[0].numel()

    def matrix(self, like: Tensor) -> Tensor:
        """(rows, columns), a kernel's numbers in the columns, on the device of `like`."""
        if self.whole is not None:
            return self.whole.to(like).flatten(1)
        a, b = self.a.to(like), self.b.to(like)
        if self.core is None:
            return a @ b.flatten(1)
        return torch.einsum("mnkl,mo,ni->oikl", self.core.to(like), a, b).flatten(1)


class Hadamard(NamedTuple):
    """(A1 B1) o (A2 B2)."""

    first: Factor
    second: Factor

    @property
    def rank(self) -> int:
        """r."""
        return self.first.rank

    def matrix(self, like: Tensor) -> Tensor:
        """(out, in k k) on the device of `like`."""
        return self.first.matrix(like) * self.second.matrix(like)


class Kronecker(NamedTuple):
    """kron(W1, W2)."""

    first: Factor
    second: Factor

    @property
    def rank(self) -> int | None:
        """r, None where both are whole."""
        return self.first.rank or self.second.rank

    def matrix(self, like: Tensor) -> Tensor:
        """(out, in k k) on the device of `like`."""
        return torch.kron(self.first.matrix(like), self.second.matrix(like))


def product_of(parts: Parts, weight: Tensor) -> LowRank | Hadamard | Kronecker | None:
    """The product among the tensors of one layer, which has the size of its weight; None if there is none.

    Raises ValueError that says what is missing or of another shape than the weight's.
    """
    found = [read for start, read in READERS.items() if any(role.startswith(start) for role in parts)]
    if len(found) > 1:
        raise ValueError(f"has {', '.join(sorted(parts))}, products of two kinds")
    return found[0](parts, weight) if found else None


def low_rank(parts: Parts, weight: Tensor) -> LowRank:
    """B A, or B C A."""
    down, up, mid = (parts.get(role) for role in ("lora_down", "lora_up", "lora_mid"))
    if down is None or up is None:
        raise ValueError(f"has {', '.join(sorted(parts))} and lacks the rest")
    factors = [factor for factor in (up, mid, down) if factor is not None]
    core = factors[-2] if mid is not None else down  # the one with the kernel
    if min(factor.dim() for factor in (*factors, weight)) > 1 and down.numel():
        chained = all(left.shape[1] == len(right) for left, right in zip(factors, factors[1:]))
        thin = all(factor is core or factor.shape[2:].numel() == 1 for factor in factors)
        # a 1x1 convolution and a Linear are the same
        whole = (len(up), down.shape[1], core.shape[2:].numel()) == (*weight.shape[:2], weight.shape[2:].numel())
        if chained and thin and whole and (mid is None or mid.dim() == weight.dim() == 4):
            return LowRank(down, up, mid)
    raise ValueError(f"{' x '.join(str(list(factor.shape)) for factor in factors)}, here {list(weight.shape)}")


def hadamard(parts: Parts, weight: Tensor) -> Hadamard:
    """(A1 B1) o (A2 B2)."""
    first, second = (factor(parts, f"hada_w{i}", f"hada_t{i}") for i in (1, 2))
    expected = len(weight), weight[0].numel()
    if not first.size == second.size == expected or first.rank != second.rank:
        sizes = " o ".join(f"{list(one.size)} of rank {one.rank}" for one in (first, second))
        raise ValueError(f"LoHa {sizes}, here {list(weight.shape)}")
    return Hadamard(first, second)


def kronecker(parts: Parts, weight: Tensor) -> Kronecker:
    """kron(W1, W2)."""
    first, second = factor(parts, "lokr_w1", ""), factor(parts, "lokr_w2", "lokr_t2")
    (rows, columns), (more_rows, more_columns) = first.size, second.size
    found = rows * more_rows, columns * more_columns
    if found != (len(weight), weight[0].numel()) or weight.shape[1] % columns:
        raise ValueError(f"LoKr {list(first.size)} x {list(second.size)}, here {list(weight.shape)}")
    if first.rank and second.rank and first.rank != second.rank:
        raise ValueError(f"LoKr of ranks {first.rank} and {second.rank}, expected one")
    return Kronecker(first, second)


READERS = {"lora_": low_rank, "hada_": hadamard, "lokr_": kronecker}  # by the start of their roles


def factor(parts: Parts, name: str, core: str) -> Factor:
    """The tensors `name`, or `name`_a, `name`_b and perhaps `core`, whose shapes fit each other; else a ValueError."""
    whole, a, b, t = (parts.get(role) for role in (name, f"{name}_a", f"{name}_b", core))
    given = [tensor for tensor in (whole, a, b, t) if tensor is not None]
    pair = a is not None and b is not None
    if pair == (whole is not None) or len(given) != (2 + (t is not None) if pair else 1):
        raise ValueError(f"has {', '.join(sorted(parts))}, expected {name}, or {name}_a and {name}_b")
    if min(tensor.dim() for tensor in given) > 1 and all(tensor.numel() for tensor in given):
        if whole is not None:
            return Factor(whole, None, None, None)
        chained = a.shape[1] == len(b) if t is None else t.dim() == 4 and t.shape[:2] == (len(a), len(b))
        if chained and a.dim() == 2 and (t is None or b.dim() == 2):
            return Factor(None, a, b, t)
    raise ValueError(f"{name} is {' x '.join(str(list(tensor.shape)) for tensor in given)}, which do not chain")
