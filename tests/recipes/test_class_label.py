"""Class-conditional fine-tuning as a recipe: what it refuses, and a new model with superclasses from a file."""

import json

import pytest
from PIL import Image

import train
import weights
from recipes.settings import check
from tests.test_train import flags
from training.log import read_log


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--model", "new:DiT-T/2"], "its adapter is full, found bitfit [+] norm"),
        (["--model", "new:DiT-T/2", "--adapter", "full"], "no image size of its own: give --size"),
        (["--superclass", "0.95"], "0 to 0.9, found 0.95"),
        (["--superclass", "0.6", "--cond-dropout", "0.5"], "0 to 0.5, found 0.6"),
        (["--superclass", "-0.1"], "found -0.1"),
        (["--hierarchy", "h.toml"], "--hierarchy has no effect without --superclass"),
    ],
)
def test_settings_that_do_not_fit(tiny, tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        train.main(flags(tiny, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_a_class_table_refuses_superclasses():
    for setting in ({"superclass": 0.1}, {"hierarchy": "h.toml"}):
        words = f"--{next(iter(setting))} is read by class_label, not by text"
        with pytest.raises(ValueError, match=words):
            check({"recipe": "text", "model": "tiny-sd"} | setting)


def test_a_new_model_with_a_hierarchy_from_a_file(tiny, tmp_path):
    for name, shade in (("good", 90), ("crack", 40)):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (shade, shade, shade)).save(tmp_path / "data" / name / "0.png")
    (tmp_path / "h.json").write_text(json.dumps({"good": "any", "crack": "any"}))
    new = ["--model", "new:DiT-T/2", "--adapter", "full", "--size", "16", "--rotations", "0", "--flips", "none"]
    data = ["--data", str(tmp_path / "data"), "--val", "", "--hierarchy", str(tmp_path / "h.json")]
    train.main(flags(tiny, tmp_path / "run", *new, *data, "--superclass", "0.5", "--steps", "1", "--batch", "2"))
    model = weights.load(tmp_path / "run" / "model.safetensors")
    assert model.classes == ["crack", "good", "any"] and model.parents == {"crack": "any", "good": "any"}
    assert model.null == 3 and len(model.y_embedder.embedding_table.weight) == 4


def test_a_scorer_sees_the_samples_of_every_evaluation(tiny, tmp_path):
    """The log has its means beside the number of images, which makes epochs of steps; a wrong name begins no run."""
    scorer = tmp_path / "scorer.py"
    scorer.write_text("def score(images):\n    return {'detector': [0.8] * len(images), 'text': [1.0] * len(images)}\n")
    more = ["--steps", "2", "--sample-every", "1", "--count", "1", "--scorer", f"{scorer}:score"]
    train.main(flags(tiny, tmp_path / "run", *more))
    looks = [line for line in read_log(tmp_path / "run") if "scores" in line]
    assert [line["step"] for line in looks] == [0, 1, 2] and looks[0]["images"] == 10
    assert all(line["scores"] == pytest.approx({"detector": 0.8, "text": 1, "combined": 0.9}) for line in looks)
    with pytest.raises(ValueError, match="has no function scored"):
        train.main(flags(tiny, tmp_path / "other", *more[:-1], f"{scorer}:scored"))
