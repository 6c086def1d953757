"""The noise schedule of a Stable Diffusion: from and to scheduler_config.json, and inferred for a single file.

Read are the betas, what the network predicts, the spacing of the steps and where the last one ends. The other fields
choose a sampler, which here is the caller's choice.
"""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from border import checked
from sampling import Schedule
from weights.layouts.exchange import ROUNDING

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
SPELLINGS = PREDICTIONS | {"eps": "eps", "v": "v", "x0": "x0"}  # of single files' metadata and yaml
NO_EPS = "alpha_bar 0, where a network that predicts eps says nothing of the image"
# diffusers' schedulers whose timestep_spacing is linspace unless their config says otherwise
LINSPACED = ("DEIS", "DPMSolver", "Euler", "Heun", "KDPM2", "LMS", "SASolver", "UniPC")
FIELDS = {  # of a scheduler_config.json: type and limits
    "_class_name": (str,),
    "prediction_type": (str,),
    "timestep_spacing": (str,),
    "beta_schedule": (str,),
    "beta_start": (float, 0, 1),
    "beta_end": (float, 0, 1),
    "trained_betas": (list[float], 0, 1),
    "num_train_timesteps": (int, 1, 100_000),
    "steps_offset": (int, 0, 100_000),
    "set_alpha_to_one": (bool,),
    "rescale_betas_zero_snr": (bool,),
    "clip_sample": (bool,),
    "thresholding": (bool,),
}
V_SPREAD = 0.09  # standard deviation of a bias in the UNet, above which ComfyUI takes Stable Diffusion 2 to predict v


def from_json(values: dict, source: str | Path, prediction: str | None = None) -> Schedule:
    """The schedule of a scheduler_config.json of any scheduler; `prediction` ("eps", "v", "x0") overrides the file's.

    Raises ValueError, naming the field, for a chain that a Schedule cannot express.
    """
    values = checked_fields(values, source)
    stored = values.get("prediction_type", "epsilon")
    if prediction is None and stored not in PREDICTIONS:
        raise ValueError(f"{source}: prediction_type must be one of {', '.join(PREDICTIONS)}, found {stored!r}")
    prediction = prediction or PREDICTIONS[stored]
    if values.get("rescale_betas_zero_snr") and prediction == "eps":
        raise ValueError(f"{source}: rescale_betas_zero_snr makes the last step pure noise, {NO_EPS}")
    for field in ("clip_sample", "thresholding"):
        if values.get(field):
            warnings.warn(f"{source}: {field} is set, and no sampler here does it", stacklevel=3)
    try:
        chain = chain_of(values, prediction)
        kind = values.get("_class_name", "")
        to_one = values.get("set_alpha_to_one", kind != "PNDMScheduler")
        final = 1.0 if to_one else chain.alpha_bar[0].item()
        usual = "linspace" if kind.startswith(LINSPACED) else "leading"
        spacing, offset = values.get("timestep_spacing", usual), values.get("steps_offset", 0)
        return replace(chain, spacing=spacing, offset=offset, final_alpha_bar=final)
    except KeyError as error:
        kind = values.get("_class_name", "a scheduler")
        raise ValueError(f"{source}: {kind} without {error.args[0]}, expected the betas of a diffusion chain") from None
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def checked_fields(values: dict, source: str | Path) -> dict:
    """The fields of a scheduler's config that are read here, each of its type; null stands for an absent field."""
    fields = {}
    for name, (kind, *limits) in FIELDS.items():
        if values.get(name) is not None:
            fields[name] = checked(values[name], kind, f"{source}: {name}", *limits)
    return fields


def chain_of(values: dict, prediction: str) -> Schedule:
    """The schedule with these betas. KeyError for a missing field, ValueError for an unknown beta_schedule."""
    if values.get("rescale_betas_zero_snr"):
        return ending_in_noise(chain_of(values | {"rescale_betas_zero_snr": False}, prediction))
    if "trained_betas" in values:
        return Schedule.from_betas(torch.tensor(values["trained_betas"], dtype=torch.float64), prediction)
    law, steps = values["beta_schedule"], values.get("num_train_timesteps", 1000)
    if law == "squaredcos_cap_v2":
        return Schedule.cosine(steps, prediction=prediction)
    if law not in ("linear", "scaled_linear"):
        raise ValueError(f"beta_schedule must be linear, scaled_linear or squaredcos_cap_v2, found {law!r}")
    return getattr(Schedule, law)(steps, values["beta_start"], values["beta_end"], prediction)


def sd_schedule(prediction: str = "eps") -> Schedule:
    """The schedule of every published Stable Diffusion 1, 2 and XL (Rombach et al. 2022, arXiv 2112.10752)."""
    chain = Schedule.scaled_linear(prediction=prediction)
    return replace(chain, spacing="leading", offset=1, final_alpha_bar=chain.alpha_bar[0].item())


def ending_in_noise(chain: Schedule) -> Schedule:
    """The same chain with alpha shifted and scaled so that its last is 0 and its first stays (Lin 2024, alg. 1)."""
    alpha = chain.alpha_bar.sqrt()
    return replace(chain, alpha_bar=((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2)


def to_json(schedule: Schedule) -> dict:
    """scheduler_config.json of diffusers' DDIMScheduler. ValueError for a `final_alpha_bar` that it has no word for."""
    if schedule.final_alpha_bar not in (1.0, schedule.alpha_bar[0].item()):
        raise ValueError(
            f"diffusers' schedulers end at 1 or at alpha_bar_0, found final_alpha_bar={schedule.final_alpha_bar}"
        )
    name = next(theirs for theirs, ours in PREDICTIONS.items() if ours == schedule.prediction)
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": len(schedule.alpha_bar),
        **betas_json(schedule.alpha_bar),
        "prediction_type": name,
        "clip_sample": False,
        "set_alpha_to_one": schedule.final_alpha_bar == 1.0,
        "steps_offset": schedule.offset,
        "timestep_spacing": schedule.spacing,
        "rescale_betas_zero_snr": False,
    }


def betas_json(alpha_bar: Tensor) -> dict:
    """The fields of the formula whose betas give this alpha_bar (T,), else of the betas themselves."""
    betas = 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    ends = [round(beta, 10) for beta in (betas[0].item(), betas[-1].item())]
    for law, power in (("scaled_linear", 0.5), ("linear", 1.0)):
        made = torch.linspace(ends[0] ** power, ends[1] ** power, len(betas), dtype=torch.float64) ** (1 / power)
        if torch.allclose(made, betas, rtol=1e-8, atol=0):
            return {"beta_schedule": law, "beta_start": ends[0], "beta_end": ends[1], "trained_betas": None}
    return {"beta_schedule": "linear", "beta_start": ends[0], "beta_end": ends[1], "trained_betas": betas.tolist()}


def is_standard(schedule: Schedule) -> bool:
    """Whether the betas are those of Stable Diffusion, the only ones that a single file stands for."""
    standard = Schedule.scaled_linear().alpha_bar
    return standard.shape == schedule.alpha_bar.shape and torch.allclose(standard, schedule.alpha_bar, 1e-9, 0)


def of_single_file(
    tensors: dict[str, Tensor],
    metadata: dict,
    source: str | Path,
    second: bool,
    bias: Tensor | None,
    prediction: str | None,
) -> Schedule:
    """Stable Diffusion's schedule; what the UNet predicts comes from the best source there is, which is printed.

    second: whether this is Stable Diffusion 2. bias: the UNet's, for `guess_prediction`. prediction: the user's choice.
    """
    why = "as asked"
    if prediction is None:
        prediction, why = prediction_from_metadata(tensors, metadata, source)
    if prediction is None:
        first = ("eps", "as every Stable Diffusion 1 and XL does unless it says so")
        prediction, why = guess_prediction(bias, source) if second else first
    print(f"{source}: the UNet predicts {prediction}, {why}")
    standard, stored = sd_schedule(prediction), tensors.get("alphas_cumprod")
    if "ztsnr" in tensors:
        if prediction == "eps":
            raise ValueError(f"{source}: its mark `ztsnr` says that the last step is pure noise, {NO_EPS}")
        standard, stored = replace(ending_in_noise(standard), spacing="trailing"), None
    if stored is None:
        return standard
    limit = ROUNDING.get(stored.dtype, 1e-5)
    if stored.shape == (1000,) and (stored.double() - standard.alpha_bar).abs().max() <= limit:
        return standard
    warnings.warn(f"{source}: its alphas_cumprod are not Stable Diffusion's; they are kept", stacklevel=3)
    try:
        return replace(standard, alpha_bar=stored.double(), final_alpha_bar=stored[0].item())
    except ValueError as error:
        raise ValueError(f"{source}: alphas_cumprod: {error}") from None


def prediction_from_metadata(tensors: dict[str, Tensor], metadata: dict, source: str | Path) -> tuple[str | None, str]:
    """(prediction, by what): by a yaml beside the file, its header, or a marker tensor; (None, "") without these."""
    sidecar = Path(source).with_suffix(".yaml")
    text = sidecar.read_text("utf-8", errors="replace") if sidecar.is_file() else ""
    named = re.search(r"^\s*parameterization:\s*[\"']?(\w+)", text, re.MULTILINE)
    rows = []
    if named or "ldm.models.diffusion" in text:  # the original configs leave eps unsaid
        rows.append((named[1] if named else "eps", f"by {sidecar.name}"))
    if "modelspec.prediction_type" in metadata:
        rows.append((metadata["modelspec.prediction_type"], "by its header"))
    if "v_pred" in tensors:
        rows.append(("v", "by its mark `v_pred`"))
    if not rows:
        return None, ""
    word, why = rows[0]
    if word not in SPELLINGS:
        raise ValueError(f"{source}: expected a prediction eps, v or x0 {why}, found {word!r}; give prediction=")
    return SPELLINGS[word], why


def guess_prediction(bias: Tensor | None, source: str | Path) -> tuple[str, str]:
    """(prediction, why): v or eps by the spread of norm1's bias in the UNet's last transformer.

    This is ComfyUI's rule for Stable Diffusion 2.
    """
    spread = bias.float().std(correction=0).item() if bias is not None else 0.0
    prediction = "v" if spread > V_SPREAD else "eps"
    why = f"which is a guess: a bias of the UNet spreads by {spread:.3g}, "
    why += f"above {V_SPREAD}" if prediction == "v" else f"and above {V_SPREAD} it would be v"
    warnings.warn(f"{source}: the UNet predicts {prediction}, {why}; prediction= settles it", stacklevel=4)
    return prediction, why


def model_spec(schedule: Schedule, version: str) -> dict[str, str]:
    """Metadata of a single file (the ModelSpec convention) that tells a reader what the UNet predicts.

    version: "stable-diffusion-v1", "stable-diffusion-v2" or "stable-diffusion-xl-v1-base".
    """
    name = {"eps": "epsilon", "v": "v", "x0": "sample"}[schedule.prediction]
    return {"modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": version, "modelspec.prediction_type": name}
