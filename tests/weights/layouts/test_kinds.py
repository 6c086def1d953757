"""The configs of models, as files and callers give them: of the fields' types and in their ranges."""

import json

import pytest

import weights
from dit import DiTConfig
from unet.text.encoder import TextConfig
from weights.layouts.kinds import KINDS, from_dict, with_overrides

DIT = dict(depth=2, width=48, heads=4, patch=2, input_size=8)
SOUND = {"dit": DIT, "vae": {}, "unet": {}, "controlnet": {}, "text": dict(vocab_size=600, width=32, layers=3, heads=4)}
BAD = ["x", None, [], {}, -1, 0.5, float("nan"), float("inf"), 2**70, [None], ["x"], [[-1]], True]


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_of_a_header_is_taken_on_faith(kind):
    """Every field with every bad value is a config of the right types, or one sentence."""
    assert from_dict(kind, SOUND[kind], "w")
    for field in KINDS[kind].config.__dataclass_fields__:
        for value in BAD:
            try:
                config = from_dict(kind, SOUND[kind] | {field: value}, "w: its header")
            except ValueError as error:
                assert str(error).startswith("w: its header: ") and len(str(error)) < 300
            else:
                assert type(getattr(config, field)) is type(getattr(from_dict(kind, SOUND[kind], "w"), field))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (DIT | {"depth": "2"}, "w: depth must be a whole number, found '2'"),
        (DIT | {"heads": 0}, "w: heads must be at least 1"),
        (DIT | {"input_size": 10**6}, "w: input_size must be at least 1 and at most 4096"),
        (DIT | {"learn_sigma": 1}, "w: learn_sigma must be true or false, found 1"),
        (DIT | {"bias": 1}, "w: DiTConfig has no field 'bias'"),
        ({"depth": 2}, "w: DiTConfig needs width, heads, patch, input_size"),
        ([1], "w: config must be an object"),
    ],
)
def test_what_does_not_fit_is_one_sentence(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict("dit", values, "w")


def test_overrides_are_checked_too():
    config = DiTConfig(**DIT)
    assert with_overrides(config, {"heads": 8}).heads == 8
    for overrides in ({"heads": "8"}, {"heads": 0}, {"heads": True}):
        with pytest.raises(ValueError, match="overrides .* do not fit a DiTConfig: heads must be"):
            with_overrides(config, overrides)
    assert with_overrides(TextConfig(600, 32, 3, 4), {"skip": 0}).skip == 0


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"classes": "crack"}, "classes in its header must be a list"),
        ({"classes": [1]}, r"classes in its header\[0\] must be a text"),
        ({"parents": ["a"]}, "parents in its header must be an object"),
        ({"noise_schedule": 3}, "noise_schedule in its header must be a text"),
    ],
)
def test_the_card_of_a_model_file(tmp_path, tiny_dit, card, message):
    weights.save_model(tiny_dit, tmp_path / "w", card=card)
    with pytest.raises(ValueError, match=message):
        weights.load(tmp_path / "w")


@pytest.mark.parametrize("value", ["x", {}, -1, 2**70, [0], [None], True, 1.5])
@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("unet", "attention_head_dim"),
        ("unet", "norm_num_groups"),
        ("unet", "sample_size"),
        ("unet", "upcast_attention"),
        ("vae", "scaling_factor"),
        ("vae", "norm_num_groups"),
        ("text_encoder", "num_attention_heads"),
        ("text_encoder", "hidden_act"),
    ],
)
def test_the_configs_of_a_folder(tmp_path, sd1, part, field, value):
    weights.save_sd(sd1[0], tmp_path / "sd", "sd-diffusers")
    file = tmp_path / "sd" / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    try:
        weights.load_sd(tmp_path / "sd")
    except ValueError as error:
        assert str(tmp_path) in str(error)
    else:
        assert (field, value) in [("upcast_attention", True), ("scaling_factor", 1.5)]
