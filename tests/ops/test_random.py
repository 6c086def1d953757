"""Random streams are a function of the numbers alone."""

import torch

from ops.random import generator_for


def test_a_stream_depends_on_all_of_its_numbers():
    first = torch.rand(4, generator=generator_for(0, 1))
    assert torch.equal(first, torch.rand(4, generator=generator_for(0, 1)))
    for other in ((1, 0), (0, 2), (0, 1, 0), (0, -1)):
        assert not torch.equal(first, torch.rand(4, generator=generator_for(*other)))
