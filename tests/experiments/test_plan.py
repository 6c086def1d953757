"""The plan of a comparison: what its file may hold, its short form, and the old names of its tables."""

import pytest

from experiments.plan import read_plan
from tests.plans import write_plan


@pytest.mark.parametrize(
    "more, words",
    [
        ("", r"expected real, .*, and at least one \[methods.NAME\]"),
        ("[methods.a]\nstep = 3", "plan.toml: unknown key 'step'; did you mean 'steps'"),
        ("[methods.a]\n[variants.b]\nguidanse = 3", "plan.toml: unknown key 'guidanse'; did you mean 'guidance'"),
        ("[methods.a]\nlr = 'high'", "plan.toml: --lr must be float, found 'high'"),
        ("[methods.a]\n[variant.b]", "plan.toml: unknown key 'variant'; did you mean 'variants'"),
        ("[methods.a]\n[variants.b]\nof = ['c']", "plan.toml: variant 'b' is of 'c', which is no method"),
        ("[methods]\na = 1", "plan.toml: methods must be tables of settings, found 1 for 'a'"),
        ("[methods.a", "config file .*plan.toml: "),
    ],
)
def test_a_wrong_plan_is_one_sentence(tiny, tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        read_plan(write_plan(tmp_path, tiny, more))


def test_types_and_missing_files(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text("seeds = '3'")
    with pytest.raises(ValueError, match="seeds must be int, found '3'"):
        read_plan(path)
    with pytest.raises(ValueError, match="config file .*nowhere.toml"):
        read_plan(tmp_path / "nowhere.toml")


def test_the_short_form_is_short(tiny, tiny_sd, tmp_path):
    more = f"[methods.a]\nsteps = 5000\n[methods.c]\nrecipe = 'dreambooth'\nmodel = '{tiny_sd}'\nclass_images = 200\n"
    more += "class_prompt = 'a photo of a pill'\n[variants.b]\nguidance = 2.0"
    plan = read_plan(write_plan(tmp_path, tiny, more)).shortened()
    a, c = (plan.train_settings(tmp_path, method, 0) for method in "ac")
    assert plan.seeds == 1 and a["steps"] == 20 and "class_images" not in a and c["class_images"] == 2
    assert plan.sample_settings("b") == {"steps": 5, "count": 2, "precision": "fp32", "guidance": 2.0}


def test_the_old_names_of_the_tables_are_read_with_one_line_of_notice_each(tiny, tmp_path, capsys):
    old = read_plan(
        write_plan(tmp_path, tiny, "[methods.a]\n[ways.b]\nguidance = 2.0\n[asked]\n'a pill' = 'pill/good'")
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "[ways] is now called [variants]" in lines[0] and "[classes_of_prompts]" in lines[1]
    new = "[methods.a]\n[variants.b]\nguidance = 2.0\n[classes_of_prompts]\n'a pill' = 'pill/good'"
    assert read_plan(write_plan(tmp_path, tiny, new)) == old and not capsys.readouterr().err


def test_settings_that_a_recipe_does_not_read_are_not_added(tiny, tiny_sd, tmp_path):
    more = f"[methods.a]\n[methods.b]\nrecipe = 'consistency'\n[methods.c]\nrecipe = 'text'\nmodel = '{tiny_sd}'\n"
    plan = read_plan(write_plan(tmp_path, tiny, more))
    a, b, c = (plan.train_settings(tmp_path, method, 0) for method in "abc")
    assert a["measure"] == b["measure"] == 0 and "measure" not in c
    assert a["vae"] == b["vae"] and "vae" not in c  # of [train], which the others read
    short = plan.shortened()
    assert [short.methods[method].get("sample_steps") for method in "abc"] == [5, None, 5]
    assert "sample_steps" in a and "sample_steps" not in b


def test_a_setting_that_its_method_or_no_method_reads_is_refused(tiny, tiny_sd, tmp_path):
    text = f"[methods.a]\n[methods.c]\nrecipe = 'text'\nmodel = '{tiny_sd}'\n"
    with pytest.raises(ValueError, match="plan.toml: --measure is read by .*, not by text"):
        read_plan(write_plan(tmp_path, tiny, text + "measure = 3\n"))
    path = write_plan(tmp_path, tiny, "[methods.a]\n")
    path.write_text(path.read_text().replace("[sample]", 'token = "x"\n[sample]'))
    with pytest.raises(ValueError, match="plan.toml: (no method reads token|--token is read by)"):
        read_plan(path)
