"""Masks as weights of the loss: where they lie on the latent, in which variant, and what has none."""

import numpy as np
import pytest
import torch
from recipes.latent import latent_batches

from data import load
from data.transforms import Transform, variants
from recipes.masks import mask_weights
from train import Config


def test_a_latent_pixel_weighs_more_if_the_mask_touches_it():
    images = load("generated:hazelnut/few/1", Transform(64))
    masks = np.zeros_like(images.masks)
    masks[1, 5, 62] = True  # one pixel, upper right
    options = variants("h", (0, 90))
    weight = mask_weights(Config(mask_weight=4.0), images._replace(masks=masks), options, 4)["weight"]
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


def test_a_batch_has_the_weights_of_its_variants():
    mean = torch.zeros(3, 2, 1, 2, 2)
    encoded = type("Cache", (), {"mean": mean, "logvar": mean})()
    weight = torch.arange(6.0)[:, None, None, None].expand(6, 1, 2, 2).reshape(3, 2, 1, 2, 2)
    batch = latent_batches(encoded, torch.zeros(3, dtype=torch.long), 1.0, None, 0, {"weight": weight})
    index = torch.tensor([0, 1, 2, 2, 1, 0])
    drawn = batch(index, torch.Generator().manual_seed(0))["weight"][:, 0, 0, 0]
    variant = torch.randint(2, (6,), generator=torch.Generator().manual_seed(0))
    assert drawn.tolist() == (2 * index + variant).tolist() and variant.unique().tolist() == [0, 1]
    assert "weight" not in latent_batches(encoded, torch.zeros(3, dtype=torch.long), 1.0, None, 0)(index, None)


def test_what_cannot_be_weighed():
    images = load("generated:hazelnut/few/1", Transform(64))
    assert mask_weights(Config(), images._replace(masks=None), variants(), 4) == {}
    with pytest.raises(ValueError, match=r"mask_weight = 2.0 needs masks, and photos/ has none"):
        mask_weights(Config(mask_weight=2.0, data="photos/"), images._replace(masks=None), variants(), 4)
    with pytest.raises(ValueError, match=r"mask_weight must be above 0, found -1.0"):
        mask_weights(Config(mask_weight=-1.0), images, variants(), 4)
