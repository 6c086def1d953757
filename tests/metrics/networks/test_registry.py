"""Names of networks: the shipped one, pixels; what the functions of a network take; what is no network."""

import pytest
import torch

from metrics.networks import registry
from metrics.networks.features import Features, embed, load_classifier, to_bytes
from weights.formats.published import SHIPPED


def images(count=3, side=64):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_shipped_network():
    network = registry.load_network("tiny-features")
    direct, names = load_classifier(SHIPPED / "tiny-features" / "model.safetensors")
    features, logits = embed(direct, images())
    assert network.name == "tiny-features" and network.classes == tuple(names)
    assert torch.equal(network.embed(images()), features) and torch.equal(network.logits(images()), logits)


def test_a_feature_network_in_a_file(tmp_path):
    torch.manual_seed(0)
    own = Features(2, side=32, widths=(8, 16), dim=5).eval()
    (tmp_path / "own.safetensors").write_bytes(to_bytes(own, ["good", "crack"], "nothing"))
    network = registry.load_network(tmp_path / "own.safetensors")
    assert network.name == "own" and network.classes == ("good", "crack")
    assert torch.equal(network.embed(images()), embed(own, images())[0])


def test_pixels_are_means_of_grey_and_of_colour():
    x = images()
    found = registry.load_network("pixels").embed(x)
    assert found.shape == (3, 304)
    assert found[1, 17].item() == pytest.approx(x[1, :, 4:8, 4:8].mean().item(), abs=1e-6)  # row 1
    assert found[1, 256 + 16 + 4].item() == pytest.approx(x[1, 1, 16:32, :16].mean().item(), abs=1e-6)  # green
    assert registry.load_network("pixels").embed(images(side=10)).shape == (3, 304)


def test_the_batch_does_not_matter(monkeypatch):
    whole = registry.load_network("tiny-features").embed(images(5))
    monkeypatch.setattr(registry, "BATCH", 2)
    assert torch.allclose(registry.load_network("tiny-features").embed(images(5)), whole, atol=1e-5)


def test_nothing_keeps_a_gradient():
    network = registry.load_network("tiny-features")
    assert not network.embed(images().requires_grad_()).requires_grad
    assert not network.logits(images().requires_grad_()).requires_grad


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.zeros(2, 1, 8, 8), r"expected images \(N, 3, S, S\), found \(2, 1, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"found \(3, 8, 8\)"),
        (torch.zeros(2, 3, 8, 9), r"found \(2, 3, 8, 9\)"),
        (torch.zeros(0, 3, 8, 8), r"found \(0, 3, 8, 8\)"),
        (torch.full((1, 3, 8, 8), 255), r"expected images in \[-1, 1\], found values from 255 to 255"),
        (torch.full((1, 3, 8, 8), float("nan")), "found values from nan to nan"),
    ],
)
def test_what_is_no_images(x, message):
    with pytest.raises(ValueError, match=message):
        registry.load_network("pixels").embed(x)


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"features.0.weight": torch.zeros(1)}, "found a VGG or AlexNet classifier"),
        (
            {"blocks.0.attn.qkv.weight": torch.zeros(1), "y_embedder.embedding_table.weight": torch.zeros(1)},
            "found a DiT",
        ),
        ({"a": torch.zeros(1)}, "found 1 unknown tensors"),
    ],
)
def test_other_files_are_refused(tmp_path, tensors, message):
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=f"w.pt: expected FID's Inception, CLIP, DINO, DINOv2 or .*, {message}"):
        registry.load_network(tmp_path / "w.pt")


def test_names_that_are_nothing_are_told_what_there_is():
    with pytest.raises(ValueError, match="nothing: no such file; .*tiny-features.*dinov2-vits14"):
        registry.load_network("nothing")
