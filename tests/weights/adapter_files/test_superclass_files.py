"""Names of superclasses travel in model and adapter files."""

import copy
import json

import pytest
import torch

import adapters
import weights
from dit import resize_classes
from weights.formats import safe

CLASSES, PARENTS = ["nut/good", "nut/hole", "nut"], {"nut/good": "nut", "nut/hole": "nut"}


def save(path, base, **fields):
    """An adapter file whose table has the rows of two classes and of their superclass."""
    model = copy.deepcopy(base)
    recipe = {"adapter": ["classes"], "base": weights.fingerprint(model), "sources": [[0], [1], [0, 1]]}
    resize_classes(model, recipe["sources"])
    adapters.attach(model, "classes")
    with torch.no_grad():
        model.y_embedder.embedding_table.weight += 1
    weights.save_adapter(path, model, recipe | {"classes": CLASSES, "parents": PARENTS} | fields)
    return model


def test_an_adapter_file_gives_its_names_to_the_model(tmp_path, tiny_dit):
    model = save(tmp_path / "a", tiny_dit)
    back = weights.apply_adapters(copy.deepcopy(tiny_dit), [(tmp_path / "a", 1.0)])
    assert (back.classes, back.parents, back.null) == (CLASSES, PARENTS, 3)
    assert torch.equal(back.y_embedder.embedding_table.weight, model.y_embedder.embedding_table.weight)
    header = weights.load_adapter(tmp_path / "a")[1]
    assert header["parents"] == PARENTS
    save(tmp_path / "b", tiny_dit, parents=None)
    assert weights.apply_adapters(copy.deepcopy(tiny_dit), [(tmp_path / "b", 1.0)]).parents == {}


def test_a_file_from_before_superclasses_has_none(tmp_path, tiny_dit):
    save(tmp_path / "a", tiny_dit)
    tensors, metadata = safe.read(tmp_path / "a")
    graft = json.loads(metadata["graft"])
    del graft["parents"]
    safe.write(
        tmp_path / "old",
        {name: tensor.clone() for name, tensor in tensors.items()},
        {"format": "pt", "graft": json.dumps(graft)},
    )
    assert weights.load_adapter(tmp_path / "old")[1]["parents"] is None
    assert weights.apply_adapters(tiny_dit, [(tmp_path / "old", 1.0)]).parents == {}


def test_files_with_other_superclasses_do_not_stack(tmp_path, tiny_dit):
    save(tmp_path / "a", tiny_dit)
    save(tmp_path / "b", tiny_dit, parents={"nut/hole": "nut"})
    with pytest.raises(ValueError, match="b: its superclasses are not those of .*a, {'nut/good': 'nut', "):
        weights.apply_adapters(tiny_dit, [(tmp_path / "a", 1.0), (tmp_path / "b", 1.0)])


@pytest.mark.parametrize(
    ("parents", "words"),
    [
        (["nut"], "its header's parents must be an object, found \\['nut'\\]"),
        ({"nut/good": 2}, "its header's parents\\['nut/good'\\] must be a text, found 2"),
        ({"nut/good": "tree"}, "'tree' has a superclass or is one, and is none of the classes"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, tiny_dit, parents, words):
    save(tmp_path / "a", tiny_dit, parents=parents)
    with pytest.raises(ValueError, match=words):
        weights.load_adapter(tmp_path / "a")


def test_a_model_file_tells_its_superclasses(tmp_path, tiny_dit, tiny_vae):
    weights.save_model(tiny_dit, tmp_path / "a", card={"classes": ["x"] * 10, "parents": PARENTS})
    weights.save_model(tiny_dit, tmp_path / "b", card={"classes": ["x"] * 10})
    weights.save_model(tiny_vae, tmp_path / "c")
    assert [weights.load(tmp_path / name).parents for name in "abc"] == [PARENTS, {}, {}]
