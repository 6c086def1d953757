"""FineDiffusion's class table: where rows of superclasses start, how often they train, and what all that counts."""

import json

import pytest
import torch
from PIL import Image
from recipes.latent import latent_batches
from recipes.start import superclass_rows
from test_class_label import encoded, images, labels, seeded

import adapters
import train
import weights
from dit import DiT
from recipes.class_label import fit_classes, row_names, rows_above, with_superclasses
from train import Config

NULL = 9
CLASSES = ["nut/good", "nut/hole", "pin/good"]
PARENTS = {"nut/good": "nut", "nut/hole": "nut", "pin/good": "pin"}
ABOVE = torch.tensor([3, 3, 4])


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
    data = images(names[:1])._replace(
        classes=names, parents={name: f"s{i % superclasses}" for i, name in enumerate(names)}
    )
    assert len(row_names(data)) == rows
    with torch.device("meta"):
        model = DiT.from_name("DiT-XL/2", num_classes=rows, class_dropout=0)
    adapters.attach(model, ["bitfit", "norm", "classes"])
    assert adapters.counts(model)[0] == trained
    if classes == 10_000:
        assert adapters.counts(model)[1] == 685_640_480
        assert round(100 * trained / adapters.counts(model)[1], 4) == 1.7726


@pytest.mark.parametrize(
    ("null", "drop", "lift"), [(NULL, 0.1, 0.0), (NULL, 0.2, 0.3), (NULL, 0.5, 0.5), (None, 0.2, 0.1), (None, 0.1, 1.0)]
)
def test_labels_are_replaced_as_often_as_asked(null, drop, lift):
    of, index = labels(3), torch.arange(3).repeat(2000)
    y = latent_batches(encoded(3), of, 1.0, null, drop, None, ABOVE, lift)(index, seeded())["y"]
    dropped, lifted = y == NULL, y == ABOVE[of[index]]
    assert dropped.double().mean().item() == pytest.approx(drop if null else 0, abs=0.02)
    assert lifted.double().mean().item() == pytest.approx(lift, abs=0.02)
    assert torch.equal(y[~dropped & ~lifted], of[index][~dropped & ~lifted]) and torch.equal(of, labels(3))


def test_without_superclasses_a_batch_is_the_one_it_was():
    """The same random numbers decide about null and superclass, so that old seeds keep their batches."""
    index = torch.arange(3).repeat(50)
    old, new = (
        latent_batches(encoded(3), labels(3), 1.0, NULL, 0.3, None, *more)(index, seeded())
        for more in ((), (ABOVE, 0.0))
    )
    assert torch.equal(old["y"], new["y"]) and torch.equal(old["x0"], new["x0"])


def test_where_superclass_rows_start():
    sources = [[2, 0], [0], []]
    assert superclass_rows(sources, ["a", "b", "c"], CLASSES, PARENTS) == [[0, 2], []]
    assert superclass_rows(sources, ["a", "nut", "c"], CLASSES, PARENTS) == [[1], []]
    assert superclass_rows(sources, None, CLASSES, PARENTS) == [[0, 2], []]
    assert superclass_rows(sources, None, CLASSES, {}) == []


def fit(model, vae, parents, classes=CLASSES, **fields):
    data = images(classes)._replace(parents=parents)
    return fit_classes(Config(**fields), model, vae, data, encoded(2 * len(classes)), torch.device("cpu")), data


def table(model):
    return model.y_embedder.embedding_table.weight.detach()


@pytest.fixture
def parts(tiny):
    return weights.load(tiny / "dit.safetensors"), weights.load(tiny / "vae.safetensors")


def test_the_table_gains_superclass_rows_before_null_and_keeps_them(parts, capsys):
    """pill/good, pill/crack, pill/hole, tile/good, tile/crack and null are the old rows."""
    model, vae = parts
    old = table(model).clone()
    sources, data = fit(model, vae, PARENTS)
    assert sources == [[0, 3], [2], [0, 3], [0, 2, 3], [0, 3]]
    means = [old[ids].mean(0) for ids in sources]
    assert torch.allclose(table(model), torch.stack([*means, old[5]]))
    assert model.null == 5 and model.classes == [*CLASSES, "nut", "pin"] and model.parents == PARENTS
    assert rows_above(model, data).tolist() == [3, 3, 4] and rows_above(model, images(CLASSES)) is None
    assert "class nut: starts from the mean of pill/good, pill/hole, tile/good\n" in capsys.readouterr().out
    before = table(model).clone()
    for parents in (PARENTS, {}):  # the checkpoint's own, asked for or not
        assert fit(model, vae, parents)[0] is None
        assert torch.equal(table(model), before) and model.parents == PARENTS
    assert capsys.readouterr().out == ""


def test_a_checkpoint_of_the_same_classes_keeps_their_rows_and_gains_superclasses(parts):
    model, vae = parts
    old, classes = table(model).clone(), list(model.classes)
    parents = {name: name.split("/")[0] for name in classes}
    assert fit(model, vae, parents, classes, start="random")[0] == [[0], [1], [2], [3], [4], [0, 1, 2], [3, 4]]
    assert torch.equal(table(model)[:5], old[:5]) and torch.equal(table(model)[7], old[5])
    regrouped = dict.fromkeys(classes, "pill") | {"tile/good": "new"}  # pill's row is there, new's is not
    assert fit(model, vae, regrouped, classes)[0] == [[0], [1], [2], [3], [4], [3], [5]]
    assert model.classes == [*classes, "new", "pill"] and model.parents == regrouped
    assert fit(model, vae, {}, classes[:2], start="pill/hole")[0] == [[2], [2]] and model.parents == {}


def test_rows_without_a_past_are_random(parts):
    model, vae = parts
    model.classes = None
    assert fit(model, vae, PARENTS, start="random")[0] == [[]] * 5 and model.null == 5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"superclass": 0.95}, "0 to 0.9, found 0.95"),
        ({"superclass": -0.1}, "found -0.1"),
        ({"hierarchy": "h.toml"}, "hierarchy h.toml is of no use without superclass"),
        ({"superclass": 0.1}, "the images' folders: no superclass of 2 of 2 classes"),
    ],
)
def test_settings_that_do_not_fit(fields, words):
    with pytest.raises(ValueError, match=words):
        with_superclasses(Config(**fields), images(["a", "b"]))


def test_a_recipe_without_a_class_table_refuses_them():
    with pytest.raises(ValueError, match="superclass and hierarchy are for the recipe class_label, text does not read"):
        train.configure(["--recipe", "text", "--superclass", "0.1"])


def test_superclasses_of_the_data_count_only_where_they_are_asked_for():
    data = images(CLASSES)._replace(parents=PARENTS)
    assert with_superclasses(Config(), data).parents == {}
    assert with_superclasses(Config(superclass=0.1), data).parents == PARENTS
    assert row_names(data) == [*CLASSES, "nut", "pin"] and row_names(images(CLASSES)) == CLASSES


def test_a_new_model_with_a_hierarchy_from_a_file(tiny, tmp_path):
    for name, shade in (("good", 90), ("crack", 40)):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (shade, shade, shade)).save(tmp_path / "data" / name / "0.png")
    (tmp_path / "h.json").write_text(json.dumps({"good": "any", "crack": "any"}))
    train.main(
        [
            "--model",
            "new:DiT-T/2",
            "--adapter",
            "full",
            "--vae",
            str(tiny / "vae.safetensors"),
            "--size",
            "16",
            "--data",
            str(tmp_path / "data"),
            "--hierarchy",
            str(tmp_path / "h.json"),
            "--superclass",
            "0.5",
            "--steps",
            "1",
            "--batch",
            "2",
            "--sample-steps",
            "2",
            "--count",
            "1",
            "--measure",
            "0",
            "--cache",
            "",
            "--rotations",
            "0",
            "--flips",
            "none",
            "--out",
            str(tmp_path / "run"),
        ]
    )
    model = weights.load(tmp_path / "run" / "model.safetensors")
    assert model.classes == ["crack", "good", "any"] and model.parents == {"crack": "any", "good": "any"}
    assert model.null == 3 and len(table(model)) == 4
