"""The settings of a call of sample.py: which of them its model reads, and which checkpoint and files they name."""

import sys
from pathlib import Path

import weights
from border import checked
from config import Config, check_unread, given, usage
from config import sampling as part
from config.repeat import IDLE, OF_A_CALL, settings_like
from inference.hints import trained_control
from recipes.models.saving import DEVIATIONS
from recipes.settings import settings_from_here

_ALL = (part.Source, part.Guidance, part.Hints, part.Start, part.Fill, part.Sampler, part.Output)
PARTS = {  # what is sampled from -> the parts of the settings that are read
    "a DiT": (*_ALL, part.Checkpoint, part.Unsaid, part.Autoencoder, part.Classes, part.Size),
    "a DiT of a run": (*_ALL, part.Classes, part.Size),
    "a Stable Diffusion": (*_ALL, part.Checkpoint, part.Prompts, part.Size, part.ImageSizes),
    "a Stable Diffusion of a run": (*_ALL, part.Prompts, part.Size, part.ImageSizes),
}


def configure(argv: list[str] | None, title: str = "") -> tuple[Config, str, list[tuple[str, float]], dict, int | None]:
    """The settings, the checkpoint, the adapter files with their strengths, and the run's settings, {} without one.

    The last is the number of the only image to sample, None for all: that of --like, where no flag changes it.
    title: what --help begins with.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    everything = all_parts()
    if "-h" in argv or "--help" in argv:
        print(usage(title, everything))
        sys.exit(0)
    values, only = given(argv, everything), None
    of_a_fill = {"strength": 1.0} if values.get("mask") else {}  # from noise; --like says its own
    if values.get("like"):
        settings, only = settings_like(values["like"], everything)
        only = only if values.keys() <= {*OF_A_CALL, *IDLE} else None
        values = settings | values
    source = part.Source(**{name: values[name] for name in ("run", "adapter", "weights") if name in values})
    stored = settings_from_here(Path(source.run)) if source.run else {}
    path, files = fine_tuned(source, stored, values.get("model", part.Checkpoint.model), values.get("control", ""))
    row = ("a Stable Diffusion" if weights.is_sd(path) else "a DiT") + (" of a run" if source.run else "")
    check_unread(values, PARTS, row)
    if values.get("mask") and not values.get("image"):
        raise ValueError("--mask has no effect without --image, the photograph that is filled")
    if of_a_fill and "window" in stored:
        of_a_fill["window"] = stored["window"]  # defects are drawn at the scale at which they were learnt
    config = Config(PARTS[row], sampling_defaults(files) | of_a_fill | values)
    if part.Prompts in config and config[part.Prompts].negative and config[part.Guidance].guidance == 1:
        raise ValueError("--negative has no effect at guidance 1")
    fill = config[part.Fill]
    if fill.product:
        config = config.replace(count=config[part.Output].count * fill.candidates)
    return config, path, files, stored, only


def all_parts() -> list[type]:
    """All parts that any kind of model reads, each once."""
    return list(dict.fromkeys(part for parts in PARTS.values() for part in parts))


def fine_tuned(source: part.Source, stored: dict, model: str, control: str) -> tuple[str, list[tuple[str, float]]]:
    """The checkpoint to load, and the adapter files to merge into it, each with its strength."""
    if not source.run:
        return model, source.files()
    run = Path(source.run)
    for whole in (run / "model.safetensors", run / "model"):
        if whole.exists():
            deviations = [run / DEVIATIONS] if source.weights == "sampled" and (run / DEVIATIONS).exists() else []
            return str(whole), [(str(file), 1.0) for file in deviations] + source.files()
    own = [str(path) for path in [run / "adapter.safetensors"] if path.exists()]
    if not own and not control and not trained_control(run):
        raise ValueError(f"{run}: neither adapter.safetensors nor model.safetensors; did the run finish?")
    if "model" not in stored:
        raise ValueError(f"{run}: its config.toml names no model")
    return stored["model"], [(file, 1.0) for file in stored.get("init", []) + own] + source.files()


def sampling_defaults(files: list[tuple[str, float]]) -> dict:
    """The settings that the header of a distilled adapter among the files asks for; {} if there is none."""
    for file, _ in files:
        stored = {} if weights.is_foreign(file) else weights.load_adapter(file)[1]["config"] or {}
        if stored.get("recipe") == "consistency":
            kinds = {"sampler": ("sampler", str), "steps": ("sample_steps", int), "guidance": ("guidance", float)}
            return {
                name: checked(stored.get(key), kind, f"{file}: {key} in its header")
                for name, (key, kind) in kinds.items()
            }
    return {}
