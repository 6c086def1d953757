"""A class table for other classes."""

import pytest
import torch

from dit import DiT, DiTConfig, resize_classes


def model(**fields):
    torch.manual_seed(0)
    return DiT(DiTConfig(**dict(depth=1, width=8, heads=2, patch=2, input_size=4, num_classes=3) | fields))


def rows(net):
    return net.y_embedder.embedding_table.weight


def test_copies_means_and_the_null_row():
    net = model()
    old = rows(net).detach().clone()
    resize_classes(net, [[2], [0, 1]])
    assert torch.equal(rows(net)[0], old[2]) and torch.equal(rows(net)[2], old[3])
    torch.testing.assert_close(rows(net)[1], (old[0] + old[1]) / 2)
    assert net.config.num_classes == net.null == 2 and rows(net).requires_grad


def test_the_resized_model_runs_and_knows_its_range():
    net = model()
    resize_classes(net, [[i % 3] for i in range(7)])
    x, t = torch.randn(1, 4, 4, 4), torch.tensor([3])
    assert net(x, t, torch.tensor([7])).shape == (1, 8, 4, 4)
    with pytest.raises(ValueError, match=r"0\.\.7, found 8\.\.8"):
        net(x, t, torch.tensor([8]))


def test_new_rows_are_drawn_with_the_generator():
    drawn = []
    for _ in range(2):
        net = model(width=256)
        resize_classes(net, [[]] * 20, torch.Generator().manual_seed(5))
        drawn.append(rows(net)[:20].detach())
    assert torch.equal(*drawn) and drawn[0].std().item() == pytest.approx(0.02, rel=0.05)
    resize_classes(net, [[]])
    assert rows(net).shape == (2, 256)


def test_without_a_null_row_none_appears():
    net = model(class_dropout=0)
    resize_classes(net, [[0], [1], [2], [2]])
    assert rows(net).shape == (4, 8)


def test_dtype_and_frozen_state_stay():
    net = model().bfloat16().requires_grad_(False)
    resize_classes(net, [[0, 1], []])
    assert rows(net).dtype == torch.bfloat16 and not rows(net).requires_grad


def test_a_config_shared_by_two_models_stays_true_for_both():
    first = model()
    second = DiT(first.config)
    resize_classes(first, [[0]])
    assert second.config.num_classes == 3


@pytest.mark.parametrize(("sources", "message"), [([], "at least one class"), ([[0], [4, 1]], r"0\.\.3, found \[4\]")])
def test_impossible_sources_are_refused(sources, message):
    with pytest.raises(ValueError, match=message):
        resize_classes(model(), sources)
