"""The feature network: shapes, independence of the batch, and its file."""

import pytest
import torch
from safetensors.torch import save_file

from metrics.networks.features import Features, embed, load_classifier, to_bytes


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Features(3, side=32, widths=(8, 16), dim=5).eval()


def pictures(count, side=32):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes(network):
    features, logits = embed(network, pictures(5), batch=2)
    assert features.shape == (5, 5) and logits.shape == (5, 3)
    assert not features.requires_grad


def test_the_batch_does_not_matter_and_logits_are_those_of_the_network(network):
    x = pictures(5)
    features, logits = embed(network, x, batch=2)
    assert torch.allclose(features, embed(network, x)[0], atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(logits, network(x), atol=1e-6)


def test_images_of_another_size_are_brought_to_the_networks_own(network):
    smooth = torch.nn.functional.interpolate(pictures(4, 4), (32, 32), mode="bicubic").clamp(-1, 1)
    larger = torch.nn.functional.interpolate(smooth, (64, 64), mode="nearest")
    near, far = embed(network, smooth)[0], embed(network, smooth.flip(0))[0]
    assert (embed(network, larger)[0] - near).norm() < 0.2 * (far - near).norm()


def test_a_file_gives_back_the_network_and_its_names(network, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(to_bytes(network, ["good", "crack", "hole"], "generated:all/oracle"))
    again, names = load_classifier(path)
    assert names == ["good", "crack", "hole"] and again.config == network.config and not again.training
    x = pictures(2)
    assert all(torch.equal(a, b) for a, b in zip(embed(network, x), embed(again, x)))


def test_what_is_no_such_file(tmp_path):
    with pytest.raises(ValueError, match="nowhere.safetensors: no such file; expected a feature network"):
        load_classifier(tmp_path / "nowhere.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="expected a feature network of this package, found no header"):
        load_classifier(other)
    save_file({"a": torch.zeros(1)}, other, {"graft": '{"kind": "dit"}'})
    with pytest.raises(ValueError, match="found dit"):
        load_classifier(other)
