"""The noise schedule and the prediction of a Stable Diffusion, from a scheduler's config or a single file."""

import pytest
import torch

from sampling import Schedule
from sampling.samplers.ddim import ddim
from sampling.samplers.dpm import dpm
from weights.layouts.scheduler_json import from_json, to_json

UNET = "model.diffusion_model."


def scheduler(**more):
    return {
        "_class_name": "PNDMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": True,
    } | more


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (scheduler(), Schedule.scaled_linear()),
        (scheduler(prediction_type="v_prediction"), Schedule.scaled_linear(prediction="v")),
        (scheduler(beta_schedule="linear", prediction_type="sample"), Schedule.linear(1000, 0.00085, 0.012, "x0")),
        (scheduler(beta_schedule="squaredcos_cap_v2"), Schedule.cosine()),
        (scheduler(trained_betas=[0.1, 0.2, 0.4]), Schedule.from_betas(torch.tensor([0.1, 0.2, 0.4]).double())),
    ],
)
def test_schedulers(values, expected):
    for found in (from_json(values, "w"), from_json(to_json(expected), "w")):
        assert found.prediction == expected.prediction
        assert torch.allclose(found.alpha_bar, expected.alpha_bar, rtol=1e-6)
        assert found.final_alpha_bar == 1
    assert from_json(values, "w", "v").prediction == "v"


def test_the_steps_of_a_sampler():
    found = from_json(scheduler(timestep_spacing="trailing", steps_offset=1, set_alpha_to_one=False), "w")
    assert (found.spacing, found.offset, found.final_alpha_bar) == ("trailing", 1, found.alpha_bar[0].item())
    written = to_json(found)
    assert (written["timestep_spacing"], written["steps_offset"], written["set_alpha_to_one"]) == ("trailing", 1, False)
    assert from_json(scheduler(), "w").spacing == "leading"


def test_known_laws_are_written_as_such():
    written = to_json(Schedule.scaled_linear())
    assert (written["beta_schedule"], written["beta_start"], written["beta_end"]) == ("scaled_linear", 0.00085, 0.012)
    assert written["trained_betas"] is None
    assert len(to_json(Schedule.cosine())["trained_betas"]) == 1000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (scheduler(rescale_betas_zero_snr=True), "rescale_betas_zero_snr makes the last step pure noise"),
        (scheduler(beta_schedule="sigmoid"), "beta_schedule must be linear, scaled_linear or .* found 'sigmoid'"),
        (scheduler(prediction_type="flow_prediction"), "prediction_type must be one of .* found 'flow_prediction'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler without beta_schedule"),
        (scheduler(trained_betas=[0.1, 1.0]), "alpha_bar must fall strictly"),
        (scheduler(beta_start="x"), "w: beta_start must be a number, found 'x'"),
        (scheduler(beta_start=2), "w: beta_start must be at least 0 and at most 1, found 2"),
        (scheduler(num_train_timesteps=10**9), "w: num_train_timesteps must be at least 1 and at most 100000"),
        (scheduler(num_train_timesteps=[1]), "w: num_train_timesteps must be a whole number"),
        (scheduler(trained_betas="0.1"), "w: trained_betas must be a list"),
        (scheduler(timestep_spacing=3), "w: timestep_spacing must be a text"),
        (scheduler(prediction_type=[]), "w: prediction_type must be a text"),
        (scheduler(steps_offset=0.5), "w: steps_offset must be a whole number"),
        (scheduler(set_alpha_to_one="no"), "w: set_alpha_to_one must be true or false"),
        (scheduler(timestep_spacing="karras"), "w: spacing must be one of linspace, leading, trailing"),
    ],
)
def test_schedulers_that_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_json(values, "w")


def test_settings_that_no_sampler_here_has():
    with pytest.warns(UserWarning, match="clip_sample is set"):
        from_json(scheduler(clip_sample=True), "w")


def test_the_prediction_of_a_single_file(read_one, sd1, sd2, single1, single2, capsys):
    def prediction(single, known, **options):
        return read_one(*single, known, **options).schedule.prediction

    assert prediction(single1, sd1[1]) == "eps"
    assert "predicts eps, as every Stable Diffusion 1" in capsys.readouterr().out
    assert prediction(single1, sd1[1], prediction="v") == "v"
    with pytest.warns(UserWarning, match="predicts eps, which is a guess: a bias of the UNet spreads by 0.0"):
        assert prediction(single2, sd2[1]) == "eps"
    name = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
    wide = single2[0] | {name: 4 * single2[0][name]}
    with pytest.warns(UserWarning, match="predicts v, which is a guess"):
        assert prediction((wide, single2[1]), sd2[1]) == "v"
    assert prediction((single2[0] | {"v_pred": torch.ones(0)}, single2[1]), sd2[1]) == "v"


def test_the_prediction_in_a_yaml_beside_the_file(read_one, tmp_path, sd2, single2, capsys):
    def prediction():
        return read_one(*single2, sd2[1]).schedule.prediction

    (tmp_path / "sd.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert prediction() == "v"
    assert "predicts v, by sd.yaml" in capsys.readouterr().out
    (tmp_path / "sd.yaml").write_text("model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n")
    assert prediction() == "eps"


def test_a_stored_chain(read_one, sd1, single1):
    linear = Schedule.linear().alpha_bar
    with pytest.warns(UserWarning, match="alphas_cumprod are not Stable Diffusion's; they are kept"):
        found = read_one(single1[0] | {"alphas_cumprod": linear}, single1[1], sd1[1]).schedule
    assert torch.equal(found.alpha_bar, linear)
    half = Schedule.scaled_linear().alpha_bar.half()
    found = read_one(single1[0] | {"alphas_cumprod": half}, single1[1], sd1[1]).schedule
    assert torch.equal(found.alpha_bar, Schedule.scaled_linear().alpha_bar)
    with pytest.raises(ValueError, match="`ztsnr` says that the last step is pure noise"):
        read_one(single1[0] | {"ztsnr": torch.ones(0)}, single1[1], sd1[1])
    marks = {"ztsnr": torch.ones(0), "v_pred": torch.ones(0)}
    found = read_one(single1[0] | marks, single1[1], sd1[1]).schedule
    assert (found.prediction, found.alpha_bar[-1].item(), found.spacing) == ("v", 0, "trailing")


@pytest.mark.parametrize(
    "kind",
    """DDIM DDPM PNDM LCM TCD EulerDiscrete EulerAncestralDiscrete DPMSolverMultistep UniPCMultistep LMSDiscrete
    HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete DEISMultistep SASolver""".split(),
)
def test_what_a_config_leaves_out_is_as_in_diffusers(kind):
    """The spacing and the end of the last step that diffusers' class has by default."""
    diffusers = pytest.importorskip("diffusers")
    name = f"{kind}Scheduler"
    values = {key: value for key, value in scheduler().items() if key != "set_alpha_to_one"} | {"_class_name": name}
    found, theirs = from_json(values, "w"), getattr(diffusers, name)().config
    assert (found.spacing, found.offset) == (theirs["timestep_spacing"], theirs["steps_offset"])
    assert (found.final_alpha_bar == 1) == theirs.get("set_alpha_to_one", True)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("sampler", ["DDIM", "DPMSolverMultistep"])
def test_zero_terminal_snr_is_sampled_as_in_diffusers(prediction, sampler):
    diffusers = pytest.importorskip("diffusers")
    values = scheduler(prediction_type=prediction, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    schedule = from_json(values, "w")
    assert schedule.alpha_bar[-1] == 0
    names = ("beta_schedule", "beta_start", "beta_end", "prediction_type", "rescale_betas_zero_snr", "timestep_spacing")
    options = {name: values[name] for name in names} | ({"clip_sample": False} if sampler == "DDIM" else {})
    theirs = getattr(diffusers, f"{sampler}Scheduler")(**options)
    theirs.set_timesteps(10)
    start = x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in theirs.timesteps:
        x = theirs.step(0.3 * x, t, x).prev_sample
    ours = (ddim if sampler == "DDIM" else dpm)(lambda z, t: 0.3 * z, start, schedule, 10)
    assert ours.isfinite().all()
    assert (ours - x).abs().max() < (1e-4 if sampler == "DDIM" else 0.02)
    assert schedule.timesteps(10)[-1] == theirs.timesteps[0].item() == 999


def test_zero_terminal_snr_is_written_and_read_again():
    schedule = from_json(scheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True), "w")
    again = from_json(to_json(schedule), "w")
    assert again.alpha_bar[-1] == 0 and torch.allclose(again.alpha_bar, schedule.alpha_bar, rtol=1e-9, atol=0)
