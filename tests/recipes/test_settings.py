"""Which settings a recipe reads: the whole table of recipes and settings, made from the parts themselves."""

import dataclasses
from pathlib import Path

import pytest

import weights
from config import read_toml
from config.option import choices_of, default_of, flag
from config.training import Base, Denoising
from recipes import RECIPES, SD
from recipes.settings import all_parts, check, help_page, row_of, rows
from sampling import Huber

MODELS = {
    "a DiT": "tiny-dit",
    "a new DiT": "new:DiT-T/2",
    "a Stable Diffusion": "tiny-sd",
    "a new Stable Diffusion": "new:SD-T",
    "an autoencoder": "new:VAE-T",
    "a classifier": "new:Features",
}
TABLE = [(name, kind) for name, recipe in RECIPES.items() for kind in recipe.parts]
FIELDS = {field.name: field for part in all_parts() for field in dataclasses.fields(part)}


def other_value(field):
    """A value of the field that is not its default and within its range."""
    default, limits = default_of(field), field.metadata["limits"]
    if isinstance(default, bool):
        return True
    if field.name == "window":  # 0, or 1 and above
        return 2.0
    if isinstance(default, (int, float)):
        value = default + 1 if not isinstance(default, float) else default / 2 + 0.25
        return min(value, limits.get("at_most", value))
    if choices_of(field):
        return next(choice for choice in choices_of(field) if choice != default)
    return {"adapter": ["full"], "rotations": "90", "device": "cpu", "init": ["x"], "prompts": ["x"]}.get(
        field.name, "x"
    )


@pytest.mark.parametrize("name, kind", TABLE)
def test_every_setting_is_read_or_refused(name, kind):
    """The generated table: a setting is accepted by exactly the rows whose parts have it."""
    read = {field.name for part in RECIPES[name].parts[kind] for field in dataclasses.fields(part)}
    base = {"recipe": name, "model": MODELS[kind]} | ({"prior_weight": 0.0} if name == "dreambooth" else {})
    assert check(base).values.keys() == read
    for setting, field in FIELDS.items():
        if setting in ("recipe", "model", "prior_weight", "class_prompt", "class_images", "resume", "allow_change"):
            continue
        needed = {"superclass": 0.1} if setting == "hierarchy" else {}
        needed |= {"times": "logit-normal"} if setting in ("time_mean", "time_std") else {}
        needed |= {"token": "x"} if setting in ("token_init", "vectors") else {}
        needed |= {"word": "x"} if setting == "attention_weight" else {}
        needed |= {"huber": 0.1} if setting == "huber_schedule" else {}
        values = base | needed | {setting: other_value(field)}
        if setting in read:
            assert check(values).values[setting] == values[setting]
        else:
            with pytest.raises(ValueError, match="is read by .* not by"):
                check(values)


def test_each_part_is_read_by_some_recipe_and_no_setting_is_in_two_parts_of_one():
    for row, parts in rows().items():
        names = [field.name for part in parts for field in dataclasses.fields(part)]
        assert len(names) == len(set(names)), row


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_every_number_has_a_range_and_keeps_it(field):
    default = default_of(field)
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        return
    reader = next(row for row, parts in rows().items() if any(field in dataclasses.fields(part) for part in parts))
    name, kind = reader.split(" with ")
    base = (
        {"recipe": name, "model": MODELS[kind], "class_prompt": "x"}
        if name == "dreambooth"
        else {"recipe": name, "model": MODELS[kind]}
    )
    base |= {"token": "x"} if field.name == "vectors" else {"word": "x"} if field.name == "attention_weight" else {}
    bad = [value for value in (float("nan"), float("inf")) if isinstance(default, float)]
    if field.name != "guidance":  # any finite scale is a scale
        limits = field.metadata["limits"]
        assert limits, f"{field.name} has no range"
        bad += [limits[name] - 1 for name in ("at_least",) if name in limits]
        bad += [limits[name] for name in ("above", "below") if name in limits]
        bad += [limits["at_most"] + 1] if "at_most" in limits else []
    for value in bad:
        with pytest.raises(ValueError, match=f"{flag(field.name)} must be"):
            check(base | {field.name: value})


@pytest.mark.parametrize(
    "values, words",
    [
        ({"recipe": "autoencoder", "guidance": 9.0}, "--guidance is read by class_label, .*, not by autoencoder"),
        ({"recipe": "autoencoder", "sampler": "nonsense"}, "--sampler is read by"),
        ({"recipe": "autoencoder", "mask_weight": -3.0}, "--mask-weight is read by"),
        (
            {"recipe": "autoencoder", "class_init": "zzz"},
            "--class-init is read by class_label with a DiT and inpaint with a DiT, not by autoenc",
        ),
        ({"recipe": "text", "model": "tiny-sd", "vae": "x"}, "--vae is read by .* not by text with a Stable Diffusion"),
        ({"recipe": "text", "model": "tiny-sd", "measure": 3}, "--measure is read by .* not by text"),
        ({"recipe": "text", "model": "tiny-sd", "superclass": 0.1}, "--superclass is read by class_label, not by text"),
        ({"recipe": "textual_inversion", "model": "tiny-sd", "adapter": ["full"]}, "not by textual_inversion"),
        ({"recipe": "consistency", "sampler": "ddim"}, "--sampler is read by .* not by consistency"),
        ({"recipe": "consistency", "sample_steps": 8}, "--sample-steps is read by"),
        ({"recipe": "consistency", "cond_dropout": 0.2}, "--cond-dropout is read by"),
        ({"recipe": "control", "val": "x"}, "--val is read by .* not by control"),
        ({"recipe": "control", "keep": "best"}, "--keep is read by .* not by control"),
        ({"init": ["x"]}, "--init is read by consistency and control, not by class_label"),
        ({"token": "sks"}, "--token is read by text, dreambooth and textual_inversion, not by class_label"),
        ({"text_lr": 1e-3}, "--text-lr is read by .* not by class_label"),
        ({"recipe": "text", "model": "tiny-dit"}, "text trains a Stable Diffusion .* and tiny-dit is a DiT"),
        ({"model": "tiny-sd"}, "class_label trains a DiT .* and tiny-sd is a Stable Diffusion"),
        ({"recipe": "txt"}, "unknown recipe 'txt'; there are class_label"),
        ({"lr": float("nan")}, "--lr must be"),
        ({"ema": 1.5}, "--ema must be at least 0 and below 1"),
        ({"size": -16}, "--size must be at least 0"),
        ({"clip": -1.0}, "--clip must be at least 0"),
        ({"device": "xyz"}, "device must be .* found 'xyz'"),
        ({"hierarchy": "x.toml"}, "--hierarchy has no effect without --superclass"),
        ({"adapter": ["lorra"]}, "unknown adapter 'lorra'"),
        ({"rotations": "0,x"}, "rotations must be degrees"),
        ({"recipe": "text", "model": "tiny-sd", "vectors": 2}, "--vectors has no effect without --token"),
        ({"recipe": "dreambooth", "model": "tiny-sd"}, "give --class_prompt"),
    ],
)
def test_what_has_no_effect_or_no_sense_is_one_sentence(values, words):
    with pytest.raises(ValueError, match=words):
        check(values)


def test_a_model_is_looked_at_to_choose_the_row():
    assert row_of("control", "tiny-sd") == f"control with {SD}" and weights.is_sd("tiny-sd")
    assert row_of("control", "tiny-dit") == "control with a DiT"


CONFIGS = [
    path
    for path in sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
    if not path.name.startswith(("search", "compare"))
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_comes_along_is_read_by_its_recipe_under_todays_names(path, capsys):
    values = read_toml(path, all_parts())
    assert check(values).values.items() >= values.items() and not capsys.readouterr().err


@pytest.mark.parametrize(
    "recipe, model", [("class_label", "tiny-dit"), ("text", "tiny-sd"), ("autoencoder", "tiny-vae")]
)
def test_a_recipe_has_a_model_of_its_own_kind(recipe, model):
    assert check({"recipe": recipe})[Base].model == model
    assert f"new:SIZE is random [{model}]" in help_page(["--recipe", recipe], "")


def test_every_recipe_trains_its_own_model():
    for name, recipe in RECIPES.items():
        assert row_of(name, recipe.model) in rows()


def test_the_loss_of_a_recipe_is_robust_where_it_is_asked_for():
    parts = check({"recipe": "class_label", "model": MODELS["a DiT"], "huber": 0.2, "huber_schedule": "constant"})
    assert parts[Denoising].robust == Huber(0.2, "constant")
    assert check({"recipe": "class_label", "model": MODELS["a DiT"]})[Denoising].robust is None
