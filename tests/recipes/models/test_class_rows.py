"""New rows of the class table: where each starts, which old class is most like it, and how superclasses add rows."""

import pytest
import torch

import adapters
import weights
from config.training import Images
from dit import DiT
from dit.classes import last_part
from recipes.models.class_rows import CLASSIFIER_STEPS, fit_classes, init_rows, nearest_rows, row_names, superclass_rows
from sampling import Schedule
from tests.fakes import encoded, images

OLD = ["pill/good", "pill/crack", "pill/hole", "tile/good", "tile/crack"]
NEW = ["nut/crack", "nut/hole", "nut/mould"]
EVERY = [0, 1, 2, 3, 4]


def never(*asked):
    raise AssertionError("only `nearest` and `features` may ask for the costly comparisons")


@pytest.mark.parametrize(
    "init, rows",
    [
        ("name", [[1, 4], [2], EVERY]),  # no old class is mouldy: the mean of all
        ("mean", [EVERY] * 3),
        ("random", [[]] * 3),
        ("3", [[3]] * 3),
        ("tile/crack", [[4]] * 3),
    ],
)
def test_every_way_to_start(init, rows):
    assert init_rows(init, OLD, 5, NEW, never, never) == rows


def test_nearest_asks():
    assert init_rows("nearest", OLD, 5, NEW, lambda: [4, 0, 4], never) == [[4], [0], [4]]


@pytest.mark.parametrize("init, source", [("features", ""), ("features:a:b/c", "a:b/c")])
def test_features_asks_with_the_source_of_old_images(init, source):
    assert init_rows(init, OLD, 5, NEW, never, lambda given: [4, 0, len(given)]) == [[4], [0], [len(source)]]


def test_a_checkpoint_without_names_has_ids_only():
    assert init_rows("name", None, 5, NEW, never, never) == [EVERY] * 3
    assert init_rows("4", None, 5, NEW, never, never) == [[4]] * 3
    with pytest.raises(ValueError, match=r"an id in 0\.\.4$"):
        init_rows("pill/good", None, 5, NEW, never, never)


@pytest.mark.parametrize("init", ["5", "pill/crakc"])
def test_an_unknown_start_shows_what_there_is(init):
    with pytest.raises(ValueError, match=r"none of name, .*, random, an id in 0\.\.4 or a class .*; did you mean '"):
        init_rows(init, OLD, 5, NEW, never, never)


@pytest.mark.parametrize(
    "old, init, row",
    [
        (["2", "0", "1"], "1", 2),  # the class of that name, and not the row of that number
        (["x/1", "y", "z"], "1", 0),  # the last part
        (["a", "b", "c"], "1", 1),  # the number
        (["dog", "dog/dog", "cat"], "dog", 0),
    ],
)
def test_one_class_for_all_is_a_name_before_it_is_a_number(old, init, row):
    assert init_rows(init, old, 3, NEW, never, never) == [[row]] * 3


def test_a_last_part_of_several_classes_starts_nothing():
    with pytest.raises(
        ValueError, match=r"class_init: class 'crack' is one of several: .* pill/crack \(1\); tile/crack \(4\)"
    ):
        init_rows("crack", OLD, 5, NEW, never, never)


def test_the_last_name_is_what_stands_after_the_product():
    assert [last_part(name) for name in ("a/b/crack", "crack", "nut/")] == ["crack", "crack", ""]


def rows_know(known, schedule, seen=None, variance=False):
    """A model whose row k predicts the exact noise if the image is known[k], and so errs for all others."""

    def model(x, t, y):
        assert not torch.is_grad_enabled() and len(x) == len(t) == len(y)
        if seen is not None:
            seen.append(len(x))
        x0 = known[y]  # (B, C, H, W)
        alpha, sigma = schedule.alpha_sigma(t, x)
        out = schedule.target(x0, (x - alpha * x0) / sigma, t)
        return torch.cat([out, out * 0 + 7], 1) if variance else out

    return model


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("variance", [False, True])
def test_the_row_that_knows_the_images_is_found(prediction, variance):
    schedule = Schedule.linear(prediction=prediction)
    known = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    rows, labels = torch.tensor([5, 0, 3]), torch.tensor([2, 0, 1, 0, 2])  # class i looks like row rows[i]
    model = rows_know(known, schedule, variance=variance)
    assert nearest_rows(model, known[rows[labels]], labels, 6, schedule) == rows.tolist()


def test_batches_change_nothing():
    schedule, seen = Schedule.linear(), []
    known = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    x0 = known[torch.full((11,), 1)] + 0.1
    model = rows_know(known, schedule, seen)
    assert nearest_rows(model, x0, torch.zeros(11).long(), 3, schedule, batch=10) == [1]
    assert sum(seen) == 3 * 11 * CLASSIFIER_STEPS and max(seen) == 10


def test_what_it_is_given_is_left_as_it_was():
    schedule = Schedule.linear()
    x0, labels = torch.zeros(2, 2, 4, 4), torch.tensor([0, 1])
    nearest_rows(rows_know(torch.zeros(3, 2, 4, 4), schedule), x0, labels, 3, schedule)
    assert (x0 == 0).all() and labels.tolist() == [0, 1]


NUTS = ["nut/good", "nut/hole", "pin/good"]
PARENTS = {"nut/good": "nut", "nut/hole": "nut", "pin/good": "pin"}


@pytest.fixture
def vae(tiny):
    return weights.load(tiny / "vae.safetensors", expect="vae")


@pytest.fixture
def dit(tiny):
    return weights.load(tiny / "dit.safetensors", expect="dit")


def table(model):
    return model.y_embedder.embedding_table.weight.detach()


def fit(dit, vae, classes, init="name", seed=0, parents=None):
    """Sources of the rows after fitting the model's table to the classes, and to the superclasses `parents`."""
    data = images(classes)._replace(parents=parents or {})
    return fit_classes(dit, vae, data, encoded(2 * len(classes)), init, Images(), seed)


def test_the_checkpoints_own_classes_keep_their_table(dit, vae, capsys):
    before = dit.y_embedder.embedding_table.weight
    assert fit(dit, vae, list(dit.classes), "random") is None
    assert dit.y_embedder.embedding_table.weight is before and capsys.readouterr().out == ""


def test_new_classes_start_from_old_ones_of_their_name(dit, vae, capsys):
    old = table(dit).clone()
    assert fit(dit, vae, ["nut/good", "nut/hole", "nut/mould"]) == [[0, 3], [2], [0, 1, 2, 3, 4]]
    expected = torch.stack([old[[0, 3]].mean(0), old[2], old[:5].mean(0), old[5]])  # the null row last
    assert torch.allclose(dit.y_embedder.embedding_table.weight, expected)
    assert dit.classes == ["nut/good", "nut/hole", "nut/mould"] and dit.null == 3
    assert capsys.readouterr().out.splitlines() == [
        "class nut/good: starts from the mean of pill/good, tile/good",
        "class nut/hole: starts from pill/hole",
        "class nut/mould: starts from the mean of pill/good, pill/crack, pill/hole, tile/good, tile/crack",
    ]


def test_the_mean_of_all_old_rows_is_said_by_no_sources(dit, vae):
    """What a file without sources means where its table has another length; at the same one it would keep the rows."""
    old = table(dit).clone()
    assert fit(dit, vae, ["a", "b"], "mean") is None
    torch.testing.assert_close(table(dit)[:2], old[:5].mean(0).expand(2, -1))


def test_a_table_of_the_same_length_says_where_it_started(dit, vae):
    assert fit(dit, vae, list("abcde"), "mean") == [[0, 1, 2, 3, 4]] * 5


def test_random_rows_come_from_the_seed(tiny, vae, capsys):
    def rows(seed):
        model = weights.load(tiny / "dit.safetensors")
        assert fit(model, vae, ["a", "b"], "random", seed) == [[], []]
        return table(model)[:2]

    assert torch.equal(rows(0), rows(0)) and not torch.equal(rows(0), rows(1))
    assert "class a: starts from random numbers" in capsys.readouterr().out


def test_nearest_rows_are_asked_of_the_model_and_a_nameless_checkpoint_shows_ids(dit, vae, capsys):
    dit.classes = None
    sources = fit(dit, vae, ["a", "b"], "nearest")
    assert [len(ids) for ids in sources] == [1, 1] and all(0 <= ids[0] < 5 for ids in sources)
    assert f"class a: starts from {sources[0][0]}\n" in capsys.readouterr().out


def test_where_superclass_rows_start():
    sources = [[2, 0], [0], []]
    assert superclass_rows(sources, ["a", "b", "c"], NUTS, PARENTS) == [[0, 2], []]
    assert superclass_rows(sources, ["a", "nut", "c"], NUTS, PARENTS) == [[1], []]
    assert superclass_rows(sources, None, NUTS, PARENTS) == [[0, 2], []]
    assert superclass_rows(sources, None, NUTS, {}) == []


def test_the_table_gains_superclass_rows_before_null_and_keeps_them(dit, vae, capsys):
    """pill/good, pill/crack, pill/hole, tile/good, tile/crack and null are the old rows."""
    old = table(dit).clone()
    sources = fit(dit, vae, NUTS, parents=PARENTS)
    assert sources == [[0, 3], [2], [0, 3], [0, 2, 3], [0, 3]]
    means = [old[ids].mean(0) for ids in sources]
    assert torch.allclose(table(dit), torch.stack([*means, old[5]]))
    assert dit.null == 5 and dit.classes == [*NUTS, "nut", "pin"] and dit.parents == PARENTS
    assert "class nut: starts from the mean of pill/good, pill/hole, tile/good\n" in capsys.readouterr().out
    before = table(dit).clone()
    for parents in (PARENTS, {}):  # the checkpoint's own, asked for or not
        assert fit(dit, vae, NUTS, parents=parents) is None
        assert torch.equal(table(dit), before) and dit.parents == PARENTS
    assert capsys.readouterr().out == ""


def test_a_checkpoint_of_the_same_classes_keeps_their_rows_and_gains_superclasses(dit, vae):
    old, classes = table(dit).clone(), list(dit.classes)
    parents = {name: name.split("/")[0] for name in classes}
    assert fit(dit, vae, classes, "random", parents=parents) == [[0], [1], [2], [3], [4], [0, 1, 2], [3, 4]]
    assert torch.equal(table(dit)[:5], old[:5]) and torch.equal(table(dit)[7], old[5])
    regrouped = dict.fromkeys(classes, "pill") | {"tile/good": "new"}  # pill's row is there, new's is not
    assert fit(dit, vae, classes, parents=regrouped) == [[0], [1], [2], [3], [4], [3], [5]]
    assert dit.classes == [*classes, "new", "pill"] and dit.parents == regrouped
    assert fit(dit, vae, classes[:2], "pill/hole") == [[2], [2]] and dit.parents == {}


def test_rows_without_a_past_are_random(dit, vae):
    dit.classes = None
    assert fit(dit, vae, NUTS, "random", parents=PARENTS) == [[]] * 5 and dit.null == 5


@pytest.mark.parametrize(
    ("rows", "classes", "superclasses", "trained"),
    [
        (10_011, 10_000, 11, 12_153_632),  # iNaturalist 2021: 11,532,672 + 489,632 + 131,328
        (317, 292, 25, 986_144),  # VegFru
    ],
)
def test_the_counts_are_those_of_the_paper(rows, classes, superclasses, trained):
    """Published: 1.77 % for iNaturalist. The table has no null row there."""
    names = [f"c{i}" for i in range(classes)]
    parents = {name: f"s{i % superclasses}" for i, name in enumerate(names)}
    data = images(names[:1])._replace(classes=names, parents=parents)
    assert len(row_names(data)) == rows
    with torch.device("meta"):
        model = DiT.from_name("DiT-XL/2", num_classes=rows, class_dropout=0)
    adapters.attach(model, ["bitfit", "norm", "classes"])
    assert adapters.counts(model)[0] == trained
    if classes == 10_000:
        assert adapters.counts(model)[1] == 685_640_480
        assert round(100 * trained / adapters.counts(model)[1], 4) == 1.7726


def test_each_image_is_noised_once_to_each_of_eight_timesteps_in_the_middle_of_the_chain():
    seen = []

    def watching(x, t, y):
        seen.extend(zip(x.mean((1, 2, 3)).round().tolist(), t.tolist()))
        return torch.zeros_like(x)

    images = torch.stack([torch.full((2, 4, 4), value) for value in (0.0, 1e6)])
    nearest_rows(watching, images, torch.zeros(2).long(), 1, Schedule.linear())
    first = [t for value, t in seen if abs(value) < 100]
    second = [t for value, t in seen if abs(value) >= 100]
    assert first == second == [100, 200, 300, 400, 500, 600, 700, 800]
