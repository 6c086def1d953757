"""Random streams are a function of the numbers alone."""

import torch

from ops.random import fold_in, generator_for


def test_a_stream_depends_on_all_of_its_numbers():
    first = torch.rand(4, generator=generator_for(0, 1))
    assert torch.equal(first, torch.rand(4, generator=generator_for(0, 1)))
    for other in ((1, 0), (0, 2), (0, 1, 0), (0, -1)):
        assert not torch.equal(first, torch.rand(4, generator=generator_for(*other)))


def test_the_numbers_of_splitmix_in_literal_digits():
    """The first output of SplitMix64 from 0 is e220a8397b1dcdaf; a run of long ago has the noise of today."""
    assert fold_in(0) == 0xE220A8397B1DCDAF % 2**63
    assert len({fold_in(*numbers) for numbers in ((0,), (0, 0), (0, 1), (1, 0), (-1, 0), (1,))}) == 6
