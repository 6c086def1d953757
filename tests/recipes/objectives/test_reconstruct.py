"""Reconstruction, the loss of an autoencoder: its divergence, and how it counts edges and colour."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from recipes.objectives.reconstruct import COLOUR, gaussian_kl, reconstruction_error


def test_the_divergence_is_that_of_two_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 3, 4, 4, generator=generator)
    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).mean()
    assert gaussian_kl(mean, logvar).item() == pytest.approx(expected.item(), rel=1e-5)
    assert gaussian_kl(torch.zeros(5), torch.zeros(5)) == 0


def test_the_error_counts_lines_for_their_sides_and_colour_more_than_grey():
    """A constant error has no edges; a column of 1 in an image of zeros has two sides at each distance."""
    flat = torch.full((1, 3, 8, 8), 0.3)
    assert reconstruction_error(flat).item() == pytest.approx(0.09)  # grey, no edges
    line = torch.zeros(1, 3, 8, 8)
    line[..., 4] = 1
    assert reconstruction_error(line).item() == pytest.approx(1 / 8 + 2 / 7 + 2 / 6)
    assert reconstruction_error(line).item() == pytest.approx(reconstruction_error(line.mT).item())
    red = flat * torch.tensor([1.0, 0, 0])[:, None, None]
    grey_part, colour_part = 0.09 / 3, 0.01 * (4 + 1 + 1) / 3  # red = grey 0.1 + (0.2, -0.1, -0.1)
    assert reconstruction_error(red).item() == pytest.approx(grey_part + COLOUR * colour_part)
