"""The module that makes each generated product, and the names of groups of products in `generated:PRODUCTS/SPLIT`."""

import numpy as np

from data.generated import logos, photographs, words

MAKERS = {product: maker for maker in (photographs, logos, words) for product in maker.PRODUCTS}
GROUPS = {"base": photographs.BASE, "world": photographs.WORLD, "all": photographs.PRODUCTS}
GROUPS |= logos.GROUPS | words.GROUPS


def states(product: str) -> tuple[str, ...]:
    """The states of a product: the defects of a pill, the garments that bear a logo."""
    return MAKERS[product].PRODUCT_STATES[product]


def caption(product: str, state: str) -> str:
    """The sentence that describes a photograph."""
    return MAKERS[product].caption(product, state)


def image(product: str, state: str, split: str, index: int, size: int) -> tuple[np.ndarray, np.ndarray, str]:
    """One photograph: rgb (size, size, 3) uint8, mask (size, size) uint8, caption."""
    return MAKERS[product].image(product, state, split, index, size=size)
