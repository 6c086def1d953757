"""FID's Inception: the published numbers and names, the shapes of the taps, each kind of block against its equation."""

import pytest
import torch
import torch.nn.functional as F

from metrics.networks import inception, registry
from metrics.networks.inception import MIXED_6A, MIXED_7A, POOLS, Branches, Inception, mixed_5, mixed_6, mixed_7


@pytest.fixture(scope="module")
def shapes():
    with torch.device("meta"):
        return Inception()


def randomised(network):
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(noise.abs() + 0.5 if name.endswith("running_var") else 0.3 * noise)
    return network.eval().requires_grad_(False)


def test_the_published_numbers_of_tensors_and_parameters(shapes):
    names = shapes.state_dict()
    assert len(names) == 472 and sum(p.numel() for p in shapes.parameters()) == 23_850_960
    units = {name.removesuffix(".conv.weight") for name in names if name.endswith(".conv.weight")}
    assert len(units) == 94
    norm = ("weight", "bias", "running_mean", "running_var")
    assert names.keys() == {f"{unit}.conv.weight" for unit in units} | {"fc.weight", "fc.bias"} | {
        f"{unit}.bn.{part}" for unit in units for part in norm
    }


@pytest.mark.parametrize(
    "name, shape",
    [
        ("Conv2d_1a_3x3.conv.weight", (32, 3, 3, 3)),
        ("Mixed_5d.branch_pool.conv.weight", (64, 288, 1, 1)),
        ("Mixed_6c.branch7x7_2.conv.weight", (160, 160, 1, 7)),
        ("Mixed_6e.branch7x7dbl_4.conv.weight", (192, 192, 7, 1)),
        ("Mixed_7b.branch3x3dbl_3b.conv.weight", (384, 384, 3, 1)),
        ("Mixed_7c.branch1x1.conv.weight", (320, 2048, 1, 1)),
        ("fc.weight", (1008, 2048)),
    ],
)
def test_shapes_of_some_weights(shapes, name, shape):
    assert shapes.state_dict()[name].shape == shape


def thin(table):
    """The same network with an eighth of the channels, to be quick."""
    if isinstance(table, list):
        return [thin(row) for row in table]
    if isinstance(table, str):
        return table
    if isinstance(table[0], tuple):
        return tuple(map(thin, table))
    name, what, *rest = table
    return (name, thin(what) if isinstance(what, list) else what // 8, *rest)


@torch.no_grad()
def test_the_taps_have_the_published_sizes(monkeypatch):
    monkeypatch.setattr(inception, "NETWORK", thin(inception.NETWORK))
    network, x = Inception().eval(), torch.zeros(1, 3, 50, 50)
    found = {8 * channels: tuple(tap.shape[2:]) for channels, tap in network.taps(x).items()}
    assert found | {64: (73, 73), 192: (35, 35), 768: (17, 17), 2048: (8, 8)} == found
    assert torch.equal(network.features(x, 96), network.taps(x)[96].mean((2, 3)))


def test_mean_pools_do_not_count_the_padding():
    ramp = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = POOLS["mean"](ramp)[0, 0]
    assert pooled[0, 0] == (0 + 1 + 4 + 5) / 4 and pooled[0, 1] == (0 + 1 + 2 + 4 + 5 + 6) / 6
    assert pooled[1, 1] == 5 and pooled[3, 3] == (10 + 11 + 14 + 15) / 4
    assert POOLS["max"](ramp)[0, 0, 0, 0] == 5 and POOLS["max"](ramp).shape == ramp.shape


def test_only_the_last_block_pools_by_maximum(shapes):
    blocks = {name: block for name, block in shapes.named_children() if "branch_pool" in dict(block.named_children())}
    assert {name: block.chains[-1][0] for name, block in blocks.items()} == {
        f"Mixed_{name}": "max" if name == "7c" else "mean" for name in "5b 5c 5d 6b 6c 6d 6e 7b 7c".split()
    }


def test_resizing_is_bilinear_without_antialiasing():
    x = torch.rand(1, 3, 4 * 299, 4 * 299, generator=torch.Generator().manual_seed(0))
    middle = x.unflatten(2, (299, 4)).unflatten(4, (299, 4))[:, :, :, 1:3, :, 1:3]  # of every 4 x 4 pixels
    assert torch.allclose(inception.resized(x), middle.mean((3, 5)), atol=1e-5)


def hand(block):
    """unit(name, x) by hand, so that the blocks below read as the paper draws them."""

    def unit(name, x, padding=0, stride=1):
        part = block.get_submodule(name)
        y = F.conv2d(x, part.conv.weight, padding=padding, stride=stride)
        mean, deviation = (v[:, None, None] for v in (part.bn.running_mean, (part.bn.running_var + 1e-3).sqrt()))
        return F.relu((y - mean) / deviation * part.bn.weight[:, None, None] + part.bn.bias[:, None, None])

    return unit


def five(u, x):
    double = u("branch3x3dbl_3", u("branch3x3dbl_2", u("branch3x3dbl_1", x), 1), 1)
    pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return [u("branch1x1", x), u("branch5x5_2", u("branch5x5_1", x), 2), double, u("branch_pool", pooled)]


def six_a(u, x):
    double = u("branch3x3dbl_3", u("branch3x3dbl_2", u("branch3x3dbl_1", x), 1), 0, 2)
    return [u("branch3x3", x, 0, 2), double, F.max_pool2d(x, 3, 2)]


def six(u, x):
    wide, tall = (0, 3), (3, 0)
    one = u("branch7x7_3", u("branch7x7_2", u("branch7x7_1", x), wide), tall)
    two = u("branch7x7dbl_3", u("branch7x7dbl_2", u("branch7x7dbl_1", x), tall), wide)
    two = u("branch7x7dbl_5", u("branch7x7dbl_4", two, tall), wide)
    return [u("branch1x1", x), one, two, u("branch_pool", F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))]


def seven_a(u, x):
    one = u("branch3x3_2", u("branch3x3_1", x), 0, 2)
    two = u("branch7x7x3_3", u("branch7x7x3_2", u("branch7x7x3_1", x), (0, 3)), (3, 0))
    return [one, u("branch7x7x3_4", two, 0, 2), F.max_pool2d(x, 3, 2)]


def seven(pooled):
    def forward(u, x):
        one, two = u("branch3x3_1", x), u("branch3x3dbl_2", u("branch3x3dbl_1", x), 1)
        return [
            u("branch1x1", x),
            u("branch3x3_2a", one, (0, 1)),
            u("branch3x3_2b", one, (1, 0)),
            u("branch3x3dbl_3a", two, (0, 1)),
            u("branch3x3dbl_3b", two, (1, 0)),
            u("branch_pool", pooled(x)),
        ]

    return forward


@pytest.mark.parametrize(
    "table, forward",
    [
        (mixed_5(32), five),
        (MIXED_6A, six_a),
        (mixed_6(8), six),
        (MIXED_7A, seven_a),
        (mixed_7("mean"), seven(lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))),
        (mixed_7("max"), seven(lambda x: F.max_pool2d(x, 3, 1, 1))),
    ],
    ids=["5", "6a", "6", "7a", "7b", "7c"],
)
def test_a_block_is_what_its_branches_make(table, forward):
    block = randomised(Branches(16, table))
    x = torch.randn(2, 16, 7, 7, generator=torch.Generator().manual_seed(1))
    expected = torch.cat(forward(hand(block), x), 1)
    assert (block(x) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.fixture
def published(shapes, tmp_path):
    """A file with all names, each tensor one number: every unit makes 0.5."""
    values = {"bn.weight": 1.0, "bn.bias": 0.5, "running_var": 1.0, "fc.weight": 1 / 1024, "fc.bias": 7.0}
    state = {
        name: torch.tensor(next((v for end, v in values.items() if name.endswith(end)), 0.0)).expand(t.shape)
        for name, t in shapes.state_dict().items()
    }
    state["Mixed_5b.branch1x1.bn.num_batches_tracked"] = torch.tensor(0)
    path = tmp_path / "pt_inception.pth"
    torch.save(state, path)
    return path, state


def test_a_file_is_read_and_its_logits_have_no_bias(published, monkeypatch):
    monkeypatch.setattr(inception, "SIDE", 75)  # the smallest that the network can take, to be quick
    network = registry.load_network(published[0])
    assert network.name == "FID's Inception (pt_inception.pth)"
    images = torch.zeros(1, 3, 20, 20)
    assert torch.equal(network.embed(images), torch.full((1, 2048), 0.5))
    assert torch.allclose(network.logits(images), torch.ones(1, 1008))


def test_torchvisions_inception_is_refused(published):
    path, state = published
    torch.save(state | {"fc.weight": torch.zeros(1000, 2048), "AuxLogits.conv0.conv.weight": torch.zeros(1)}, path)
    message = r"expected 472 tensors of our FID Inception, found 1 unknown \(AuxLogits.*\), 1 of another shape \(fc.we"
    with pytest.raises(ValueError, match=message):
        registry.load_network(path)
