"""The linear probe: its minimum is the loss's, weights of classes and sources, and the network stays as it is."""

import pytest
import torch

from metrics.downstream.linear import PENALTY, activations, linear_probe, views
from metrics.networks.features import Features


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Features(3, side=16, widths=(8, 16)).eval()


def bars(count, seed):
    """`count` pictures of each of two classes: with a bright square and without."""
    x = 0.2 * torch.randn(2 * count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    x[:count, :, 4:9, 4:9] += 1
    return x, torch.arange(2).repeat_interleave(count)


def test_it_learns_and_leaves_the_network_alone(network):
    before = {name: p.clone() for name, p in network.state_dict().items()}
    probe = linear_probe(network, [views(network, *bars(6, 1))], [1.0], 2)
    x, y = bars(20, 2)
    with torch.no_grad():
        assert (probe(x).argmax(1) == y).double().mean() > 0.9
    assert all(torch.equal(p, before[name]) for name, p in network.state_dict().items())


def test_the_gradient_vanishes_and_every_class_and_source_has_its_weight(network):
    x, y = bars(3, 1)
    many = torch.cat([x, x[:1], x[:1]]), torch.cat([y, y[:1], y[:1]])  # five of class 0, three of class 1
    probe = linear_probe(network, [views(network, *many), views(network, *bars(2, 3))], [0.75, 0.25], 2)
    head, total = probe.head, 0.0
    for (images, labels), share in zip([many, bars(2, 3)], [0.75, 0.25]):
        for label in (0, 1):
            own = images[labels == label]
            ways = torch.cat([side.rot90(k, (2, 3)) for k in range(4) for side in (own, own.flip(-1))])
            z = (activations(network, ways) - probe.mean) / probe.std
            total = total - share / 2 * head(z).log_softmax(1)[:, label].mean()
    gradient = torch.autograd.grad(total + PENALTY * head.weight.square().sum(), head.weight)[0]
    assert gradient.abs().max() < 1e-3


def test_the_largest_value_of_a_channel_is_seen(network):
    h = activations(network, bars(2, 1)[0], batch=3)
    assert h.shape == (4, 2 * (8 + 16)) and (h[:, 8:16] >= h[:, :8]).all() and (h[:, 32:] >= h[:, 16:32]).all()
