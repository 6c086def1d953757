"""What the flags of sample.py say about guidance, and what they may not say."""

import pytest

from config import Config
from config.sampling import Guidance


def guidance(**values):
    """The settings, checked as those of a command line."""
    return Config([Guidance], values)[Guidance]


def test_weights_are_read_and_without_is_below_zero():
    settings = guidance(also=["a (red:1.3) cut:7.5", "hazelnut/hole:2"], without=["a cup: tea:.5"])
    assert settings.extra() == [("a (red:1.3) cut", 7.5), ("hazelnut/hole", 2.0), ("a cup: tea", -0.5)]
    assert guidance().extra() == []


@pytest.mark.parametrize("text", ["hole", "hole:", "a hole:much", "hole:-3", "hole:nan", "a (hole:1.3)", ":3", " :3"])
def test_a_weight_is_a_number_of_its_own(text):
    for flag in ("also", "without"):
        with pytest.raises(ValueError, match=f"--{flag} must be WHAT:WEIGHT with a number of 0 or more, found"):
            guidance(**{flag: [text]})


@pytest.mark.parametrize(
    ("fields", "missing", "answer"),
    [
        ({}, "", True),
        ({}, "none", False),
        ({"guidance_from": "superclass"}, "", True),
        ({"guidance_from": "null"}, "", False),
        ({"guidance_from": "null"}, "none", False),
        ({"superclass_guidance": 2.0}, "", True),
    ],
)
def test_guidance_comes_from_superclasses_where_they_are_known(fields, missing, answer):
    assert guidance(**fields).leads_from_superclass("", missing) == answer


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"guidance_from": "superclass"}, "none known"),
        ({"superclass_guidance": 2.0}, "none known"),
        ({"guidance_from": "top"}, "--guidance-from must be one of empty, null, superclass, found 'top'"),
        ({"guidance_from": "null", "superclass_guidance": 2.0}, "have no effect on guidance from null"),
        ({"guidance_from": "null", "superclass": "a nut"}, "have no effect on guidance from null"),
    ],
)
def test_what_has_no_effect_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        superclass = fields.pop("superclass", "")
        guidance(**fields).leads_from_superclass(superclass, "none known")


def test_an_interval_is_two_timesteps():
    assert guidance(interval="0,999").limits(999) == (0, 999) and guidance(interval="40,40").limits(999) == (40, 40)
    assert guidance().limits(999) is None


@pytest.mark.parametrize("text", ["500,100", "0,1000", "100", "0.1,0.5", "-1,5", "low,high", "1,2,3"])
def test_an_interval_that_is_none(text):
    with pytest.raises(ValueError, match=f"interval must be LOW,HIGH with 0 <= LOW <= HIGH <= 999, found '{text}'"):
        Guidance(interval=text).limits(999)


def test_an_interval_of_another_form_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="interval must be LOW,HIGH"):
        guidance(interval="500,100")


@pytest.mark.parametrize("fields", [{"interval": "0,9"}, {"channels": 3}])
def test_what_only_guidance_reads_is_refused_without_guidance(fields):
    name = next(iter(fields))
    with pytest.raises(ValueError, match=f"--{name} has no effect at guidance 1"):
        guidance(guidance=1.0, **fields)
    assert guidance(guidance=1.0, also=["x:2"], **fields)
