"""Which file draws which generated product, and the names of groups of products in `generated:PRODUCTS/SPLIT`."""
from . import generated, logos

MAKERS = {product: maker for maker in (generated, logos) for product in maker.PRODUCTS}
GROUPS = {"base": generated.BASE, "world": generated.WORLD, "all": generated.PRODUCTS, **logos.GROUPS}


def states(product):
    """What there is of a product: the defects of a pill, the garments on which a logo is."""
    return MAKERS[product].PRODUCT_STATES[product]


def caption(product, state):
    """The sentence that describes a photograph."""
    return MAKERS[product].caption(product, state)


def image(product, state, split, index, size):
    """One photograph: rgb (size, size, 3) uint8, mask (size, size) uint8, caption."""
    return MAKERS[product].image(product, state, split, index, size=size)
