"""Prior preservation: the loss of the class's images is a second term, and each batch has as many of them."""

import torch

from recipes.objectives.prior import prior_preservation, with_prior


def denoising(batch, generator, progress):
    """A stand-in whose loss says what it was given."""
    return batch["x0"].mean() + 10 * batch["cond"].float().mean(), {"mse": batch["x0"].mean()}


def test_the_second_term_has_its_weight_and_held_out_images_have_none():
    loss = prior_preservation(denoising, 0.25)
    own = {"x0": torch.tensor([1.0, 3.0]), "cond": torch.tensor([0, 0])}
    of_class = {"prior_x0": torch.tensor([5.0, 7.0]), "prior_cond": torch.tensor([1, 1])}
    value, numbers = loss(own | of_class, None, 0.0)
    assert value.item() == 2 + 0.25 * (6 + 10) and numbers == {"mse": torch.tensor(2.0), "prior": torch.tensor(16.0)}
    value, numbers = loss(own, None, 0.0)
    assert value.item() == 2 and numbers == {"mse": torch.tensor(2.0)}


def test_each_batch_has_as_many_images_of_the_class():
    def batches(index, generator):
        return {"x0": index.float(), "cond": index}

    batch = with_prior(batches, batches, 3)(torch.arange(50), torch.Generator().manual_seed(0))
    assert batch.keys() == {"x0", "cond", "prior_x0", "prior_cond"} and torch.equal(batch["x0"], torch.arange(50.0))
    assert len(batch["prior_x0"]) == 50 and set(batch["prior_cond"].tolist()) == {0, 1, 2}
    other = with_prior(batches, batches, 3)(torch.arange(50), torch.Generator().manual_seed(1))
    assert not torch.equal(other["prior_cond"], batch["prior_cond"])  # drawn, and not those of the images' numbers
