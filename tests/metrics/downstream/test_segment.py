"""The segmenter: it learns a plain defect, the same from the same seed, with sources of equal share."""

import torch

from metrics.downstream.gain import altered
from metrics.downstream.segment import scores_of, segmentation, segmented


def pairs(count, seed):
    """Grey noise with a bright square somewhere."""
    generator = torch.Generator().manual_seed(seed)
    x, masks = 0.2 * torch.randn(count, 3, 32, 32, generator=generator), torch.zeros(count, 32, 32)
    for image, mask, (row, column) in zip(x, masks, torch.randint(24, (count, 2), generator=generator).tolist()):
        mask[row : row + 6, column : column + 6] = 1
        image[:, row : row + 6, column : column + 6] += 0.7
    return x, masks


def test_it_learns_and_one_seed_gives_one_network():
    few, held = pairs(8, 0), pairs(16, 1)
    network = segmented([few], 0, steps=40)
    assert segmentation(network, held)["ap"] > 0.8
    again = segmented([few], 0, steps=40)
    assert (scores_of(network, held[0]) == scores_of(again, held[0])).all()


def test_masks_of_other_images_teach_nothing():
    few, held = pairs(8, 0), pairs(16, 1)
    wrong = few[0], few[1].roll(1, 0)
    assert segmentation(segmented([wrong], 0, 40), held)["ap"] < 0.5


def test_a_mask_moves_with_its_image_and_keeps_its_light():
    x, masks = pairs(6, 0)
    both = altered(
        torch.cat([masks[:, None].repeat(1, 3, 1, 1), masks[:, None]], 1), torch.Generator().manual_seed(0), 3
    )
    assert both.shape == (6, 4, 32, 32) and both[:, 3].max() <= 1 and (both[:, 3] >= 0).all()
    plain = altered(x, torch.Generator().manual_seed(0))
    assert torch.equal(plain, altered(torch.cat([x, masks[:, None]], 1), torch.Generator().manual_seed(0), 3)[:, :3])
