"""LPIPS: the layers and names of both trunks, the distance by hand on a small one, its properties, its files."""

import pytest
import torch

from metrics.networks import lpips, registry
from metrics.networks.lpips import LPIPS, distance, load_lpips, pairwise

CONVS = {"vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), "alex": (0, 3, 6, 8, 10)}
WIDTHS = {"vgg": (64, 128, 256, 512, 512), "alex": (64, 192, 384, 256, 256)}


def images(count, side=40, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def linear(trunk, prefix="lin{}"):
    """What a published file of linear weights holds."""
    generator = torch.Generator().manual_seed(2)
    return {
        f"{prefix.format(k)}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
        for k, width in enumerate(WIDTHS[trunk])
    }


@pytest.fixture(scope="module")
def classifier():
    """AlexNet as torchvision saves it, random."""
    torch.manual_seed(0)
    return LPIPS("alex").features.state_dict(prefix="features.")


@pytest.fixture
def folder(tmp_path, classifier):
    """The two files, the linear weights in the format of their time."""
    torch.save(linear("alex"), tmp_path / "alex.pth", _use_new_zipfile_serialization=False)
    torch.save(classifier | {"classifier.1.weight": torch.zeros(2, 2)}, tmp_path / "alexnet-owt.pth")
    return tmp_path


@pytest.fixture
def toy(monkeypatch):
    """Two layers with a pool between them."""
    monkeypatch.setitem(lpips.TRUNKS, "toy", ((2, 1, 1, 0), "tap", "pool", 3, "tap"))
    monkeypatch.setitem(lpips.POOLS, "toy", 2)
    torch.manual_seed(0)
    network = LPIPS("toy").requires_grad_(False)
    for weight in network.lins:
        weight.uniform_()
    return network


@pytest.mark.parametrize(
    "trunk, taps, parameters", [("vgg", [3, 8, 15, 22, 29], 14_714_688), ("alex", [1, 4, 7, 9, 11], 2_469_696)]
)
def test_the_trunks_are_torchvisions(trunk, taps, parameters):
    with torch.device("meta"):
        network = LPIPS(trunk)
    names = {f"{i}.{part}" for i in CONVS[trunk] for part in ("weight", "bias")}
    assert network.features.state_dict().keys() == names and network.taps == taps
    assert sum(p.numel() for p in network.features.parameters()) == parameters
    assert [len(weight[0]) for weight in network.lins] == list(WIDTHS[trunk])
    assert all(isinstance(network.features[i], torch.nn.ReLU) for i in taps)


def test_a_distance_by_hand(toy):
    x, y = images(1, 4), images(1, 4, seed=1)
    expected = torch.zeros(())
    for k, (first, last) in enumerate([(0, 2), (0, 5)]):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        f, g = (toy.features[first:last]((z - shift[:, None, None]) / scale[:, None, None])[0] for z in (x, y))
        side = f.shape[1]
        assert side == (4, 2)[k]
        for row in range(side):
            for column in range(side):
                p, q = (z[:, row, column] / (z[:, row, column].square().sum().sqrt() + 1e-10) for z in (f, g))
                expected += (toy.lins[k].flatten() * (p - q) ** 2).sum() / side**2
    assert expected > 0.01 and distance(toy, x, y)[0] == pytest.approx(expected.item(), rel=1e-4)


def test_alexnets_pools_overlap_and_those_of_vgg_do_not():
    ramp = torch.arange(49.0).reshape(1, 1, 7, 7)
    assert LPIPS("alex").features[2](ramp)[0, 0].tolist() == [[16, 18, 20], [30, 32, 34], [44, 46, 48]]
    network = LPIPS("vgg")
    assert network.features[4](ramp)[0, 0].tolist() == [[8, 10, 12], [22, 24, 26], [36, 38, 40]]
    assert network.embed(torch.zeros(1, 3, 16, 16)).shape == (1, 64 * 256 + 128 * 64 + 256 * 16 + 512 * 4 + 512)


def test_it_is_a_squared_distance(folder):
    network, x = load_lpips(folder / "alex.pth"), images(4)
    x[3] = x[0]
    table = pairwise(network, x, batch=3)
    assert table.shape == (4, 4) and torch.allclose(table, table.T, atol=1e-12)
    assert table.diagonal().max() < 1e-12 and table[0, 3] < 1e-12 and table[0, 1] > 1e-4
    assert torch.allclose(table[:2, 2], distance(network, x[:2], x[2:3]).double(), rtol=1e-4)
    assert torch.allclose(pairwise(network, x[:1], x[1:]), table[:1, 1:], atol=1e-12)
    assert distance(network, x, x).tolist() == [0, 0, 0, 0]
    noise = images(4, seed=5)
    near, far = (distance(network, x, (1 - part) * x + part * noise) for part in (0.1, 0.6))
    assert (near < far).all()


def test_columns_in_pieces_are_the_same(folder, monkeypatch):
    network, x = load_lpips(folder / "alex.pth"), images(3)
    whole = pairwise(network, x)
    monkeypatch.setattr(lpips, "COLUMNS", 1000)
    assert torch.allclose(pairwise(network, x), whole, atol=1e-12)


def test_one_file_with_everything(folder, classifier):
    whole = linear("alex") | linear("alex", "lins.{}")
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
    for name, tensor in classifier.items():
        _, i, part = name.split(".")
        whole[f"net.slice{slices[int(i)]}.{i}.{part}"] = tensor
    whole |= {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    torch.save(whole, folder / "whole.pth")
    one, two, x = load_lpips(folder / "whole.pth"), load_lpips(folder / "alex.pth"), images(2)
    assert torch.equal(one.embed(x), two.embed(x))


def test_vggs_weights_look_for_vgg(folder):
    torch.save(linear("vgg"), folder / "vgg.pth")
    with pytest.raises(ValueError, match=r"vgg.pth: expected the classifier .* found no vgg16\*.pth.*download vgg16"):
        load_lpips(folder / "vgg.pth")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: {"features.0.weight": torch.zeros(1)}, "expected the linear weights of LPIPS .* found 1 tensors"),
        (lambda w: w | {"lin1.model.1.weight": torch.zeros(1, 48, 1, 1)}, "found squeezenet or another trunk"),
        (lambda w: w | {"lin3.model.1.weight": torch.zeros(1, 7, 1, 1)}, "1 of another shape .*lin3"),
        (lambda w: w | {"lin5.model.1.weight": torch.zeros(1, 7, 1, 1)}, "1 unknown .*lin5"),
        (lambda w: w | {"lin0.model.1.weight": -w["lin0.model.1.weight"]}, "expected weights of 0 or more"),
    ],
)
def test_other_files_are_refused(folder, change, message):
    torch.save(change(linear("alex")), folder / "alex.pth")
    with pytest.raises(ValueError, match=f"alex.pth: .*{message}"):
        load_lpips(folder / "alex.pth")


def test_the_networks_that_embed_say_where_lpips_is_read(folder):
    with pytest.raises(ValueError, match="LPIPS, which compare pairs of images: metrics.networks.lpips.load"):
        registry.load_network(folder / "alex.pth")
