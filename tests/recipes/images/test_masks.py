"""Masks as weights of the loss and as hints: where they lie, in which variant, and what has none."""

import numpy as np
import pytest
import torch

from data import load
from data.transforms import Transform, apply_variant, variants
from recipes.images.masks import mask_hints, mask_weights
from recipes.settings import check


def in_all(values, count, variants):
    """(N, V, ...) of what is computed for a batch."""
    return torch.stack([values[torch.arange(count), variant] for variant in range(variants)], 1)


def test_a_latent_pixel_weighs_more_if_the_mask_touches_it():
    images = load("generated:hazelnut/few/1", Transform(64))
    masks = np.zeros_like(images.masks)
    masks[1, 5, 62] = True  # one pixel, upper right
    options = variants("h", (0, 90))
    weight = in_all(mask_weights(images._replace(masks=masks), 4.0, options, 4, "photos/")["weight"], 5, 4)
    assert weight.shape == (5, 4, 1, 16, 16) and (weight[0] == 1).all()
    for number, variant in enumerate(options):
        row, column = {(False, 0): (1, 15), (True, 0): (1, 0), (False, 90): (0, 1), (True, 90): (15, 1)}[
            variant.hflip, variant.degrees
        ]
        assert weight[1, number, 0, row, column] == 4 and weight[1, number].sum() == 255 + 4


def test_generated_masks_lie_where_the_defect_is():
    images = load("generated:hazelnut/few/2", Transform(64))
    states = [name.split("/")[1] for name in images.classes]
    for mask, label in zip(images.masks, images.labels.tolist()):
        assert mask.any() == (states[label] != "good")


def test_the_hint_is_the_mask_in_the_variant_of_the_image():
    masks = load("generated:hazelnut/few/1", Transform(16)).masks
    options = variants("hv", (0.0, 90.0))
    hints = in_all(mask_hints(masks, options), len(masks), len(options))
    assert hints.shape == (len(masks), len(options), 1, 16, 16) and set(hints.unique().tolist()) == {0.0, 1.0}
    for i, option in enumerate(options):
        assert torch.equal(hints[:, i], apply_variant(torch.from_numpy(masks)[:, None].float(), option, nearest=True))


def test_what_cannot_be_weighed():
    images = load("generated:hazelnut/few/1", Transform(64))
    assert mask_weights(images._replace(masks=None), 1.0, variants(), 4, "photos/") == {}
    with pytest.raises(ValueError, match=r"mask_weight = 2.0 needs masks, and photos/ has none"):
        mask_weights(images._replace(masks=None), 2.0, variants(), 4, "photos/")
    for value in (-1.0, 0.0):
        with pytest.raises(ValueError, match=f"--mask-weight must be above 0, found {value}"):
            check({"mask_weight": value})
