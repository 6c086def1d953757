"""A class table for other classes."""

import pytest
import torch

from dit import DiT, DiTConfig, resize_classes
from dit.classes import row_of, split_names


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


@pytest.mark.parametrize(
    ("classes", "rows"),
    [
        (["1", "2", "3"], {"1": 0, "2": 1, "3": 2, "0": 0}),  # a name before a number
        (["a/2", "a/1", "b"], {"1": 1, "2": 0, "0": 0, "b": 2}),  # a last part before a number
        (["dog/dog", "dog/cat", "dog"], {"dog": 2, "dog/dog": 0, "cat": 1}),  # a superclass of its own class's name
        (["10", "x/10", "0"], {"10": 0, "x/10": 1, "0": 2, "1": 1}),
    ],
)
def test_a_class_is_found_by_name_then_last_part_then_number(classes, rows):
    assert {name: row_of(name, classes) for name in rows} == rows
    assert [row_of(name, classes) for name in classes] == list(range(len(classes)))


def test_a_class_goes_by_each_of_its_words():
    classes = ["buckeye, horse chestnut, conker", "crane", "crane", "missile", "projectile, missile"]
    assert [row_of(name, classes) for name in ("conker", "buckeye", classes[0], "missile", "projectile", "2")] == [
        *(0, 0, 0, 3, 4, 2)
    ]
    with pytest.raises(ValueError, match=r"'crane' is one of several: it is the name of crane \(1\); crane \(2\)$"):
        row_of("crane", classes)
    with pytest.raises(ValueError, match="'bukeye' is none of the 26 classes; the nearest names are buckeye, "):
        row_of("bukeye", [*classes, *(f"class {i}" for i in range(21))])


def test_a_name_that_means_several_classes_or_none_is_refused():
    with pytest.raises(
        ValueError, match=r"'crack' is one of several: it is the last part of pill/crack \(0\); tile/crack \(1\)"
    ):
        row_of("crack", ["pill/crack", "tile/crack"])
    for name in ("9", "", "pill"):
        with pytest.raises(ValueError, match=f"class '{name}' is unknown: the classes are pill/crack"):
            row_of(name, ["pill/crack"])


def test_a_class_with_commas_in_its_name_stays_whole():
    classes = ["red, white", "red", "a,b,c", "c"]
    assert split_names("red, white,red,a,b,c , c", classes) == ["red, white", "red", "a,b,c", "c"]
    assert split_names(" c ,, unknown,", classes) == ["c", "unknown"] and split_names("", classes) == []
