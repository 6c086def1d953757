"""A run as one page, run/index.html: verdict, loss, samples by step, nearest training images, settings.

It shows the pictures of the run by relative paths and its curves as SVG, and holds no script and no link to elsewhere:
a copy of the folder opens in any browser. It is made of the files of the run alone, at every look and at the end.
"""

from dataclasses import MISSING, fields
from html import escape
from pathlib import Path
from urllib.parse import quote

from border import read_table
from config import training as settings
from data.output.atomic import write_atomic
from metrics.statistics.corruption import best, stage
from metrics.text import as_text
from metrics.verdict import sentences
from training.log import read_log, read_numbers
from training.monitor import best_score, measurements
from training.page.chart import Chart, thinned
from training.page.nearest import NEAREST

PAGE = "index.html"
FILES = ("adapter.safetensors", "model.safetensors", "control.safetensors", "loss.png", "log.jsonl", "metrics.json")
MEAN = 50  # steps of the running mean, as in loss.png
STYLE = """
:root { color-scheme: light dark; --ink: #1c1b19; --soft: #6d6a64; --line: #dcd8d0; --paper: #fbfaf7; --one: #2d6a4f;
  --two: #b5541c }
@media (prefers-color-scheme: dark) { :root { --ink: #e9e6df; --soft: #a09b92; --line: #3b3833; --paper: #191816;
  --one: #7fc8a4; --two: #e89a63 } }
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere } h2 { font-size: 1.05rem;
  margin: 2.4rem 0 .6rem }
.soft, figcaption, summary, .terms { color: var(--soft) } p { margin: .3rem 0 } ul { margin: 0; padding-left: 1.2rem }
figure { margin: 0 0 1.2rem } figcaption { font-size: .9rem; margin-bottom: .3rem }
img, svg { max-width: 100%; height: auto; display: block; border-radius: 4px } img { background: #fff }
.steps { display: flex; gap: 1rem; overflow-x: auto; scroll-snap-type: x proximity; padding-bottom: .5rem }
.steps figure { flex: 0 0 auto; max-width: min(100%, 34rem); scroll-snap-align: start; margin: 0 }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft) } svg .axis { stroke: var(--line) }
svg .thin { stroke: var(--one); opacity: .35; fill: none } svg .mean { stroke: var(--one); stroke-width: 2; fill: none }
svg .other { stroke: var(--two); stroke-width: 2; fill: none } svg .dot { fill: var(--two) }
svg .ring { fill: none; stroke: var(--ink); stroke-width: 1.5 } svg .stage { fill: var(--line); opacity: .6 }
.one { color: var(--one) } .two { color: var(--two) }
table { border-collapse: collapse; width: 100%; font-size: .9rem } td { padding: .25rem 1rem .25rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere } td:first-child { width: 11rem }
pre, code { font: 13px/1.45 ui-monospace, monospace } pre { overflow-x: auto; margin: 0 } summary { cursor: pointer }
a { color: inherit }
@media (max-width: 30rem) { svg text { font-size: 20px } }
"""


def write_page(run: Path) -> None:
    """run/index.html, in one atomic step, of what the run has left so far; none without its settings, config.toml."""
    if (run / "config.toml").exists():
        write_atomic(run / PAGE, page(run).encode())


def page(run: Path) -> str:
    """The HTML of a run folder with its config.toml."""
    values, lines, numbers = read_table(run / "config.toml"), read_log(run), read_numbers(run)
    facts = values.get("recipe"), values.get("model"), " + ".join(values.get("adapter", [])), values.get("data")
    about = ", ".join(filter(None, facts))
    parts = [
        section("Verdict", f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in verdict(values, lines, run))}</ul>"),
        section("Images and samples", picture(run, "grid.png", "real images and samples")),
        section("Loss", loss_chart(lines)),
        section("What was seen in the samples", similarity_chart(run)),
        section("Samples by step", steps(run)),
        section("Nearest training images", picture(run, NEAREST, NEAREST_CAPTION)),
        section("Numbers", f"<pre>{escape(as_text(numbers))}</pre>" if numbers else ""),
        section("Settings", setting_tables(values)),
        section("Files", files(run)),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"/><title>{escape(run.resolve().name)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"/>\n<style>{STYLE}</style></head>\n'
        f'<body><h1>{escape(run.resolve().name)}</h1>\n<p class="soft">{escape(about)}</p>\n{"".join(parts)}'
        "</body></html>\n"
    )


NEAREST_CAPTION = (
    "each sample of the last look, and right of it the training image that is most like it, turned and mirrored as the "
    "sample is; a sample that equals its neighbour is a copy"
)


def section(title: str, body: str) -> str:
    """A heading and its body; nothing for an empty body."""
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>\n" if body else ""


def picture(run: Path, name: str, caption: str, lazy: str = "") -> str:
    """A picture of the run by its relative path, "" where it is not there."""
    if not (run / name).is_file():
        return ""
    link = escape(quote(name))
    image = f'<a href="{link}"><img src="{link}" alt="{escape(caption)}"{lazy}/></a>'
    return f"<figure><figcaption>{escape(caption)}</figcaption>{image}</figure>\n"


def steps(run: Path) -> str:
    """The grids of samples of all looks, the last first."""
    names = sorted((path.name for path in (run / "samples").glob("step_*.png")), reverse=True)
    shown = (picture(run, f"samples/{name}", f"step {int(name[5:-4])}", ' loading="lazy"') for name in names)
    return f'<div class="steps">{"".join(shown)}</div>' if names else ""


def verdict(values: dict, lines: list[dict], run: Path) -> list[str]:
    """What a reader should know first, a sentence each."""
    done = max((line["step"] for line in lines if "loss" in line), default=0)
    ended = any("trained" in line for line in lines)  # the last line of a run
    said = [f"{done} of {values.get('steps', done)} steps" + ("." if ended else ": the run goes on, or was stopped.")]
    seen, numbers = measurements(run), read_numbers(run)
    if len(seen[0]) > 1:
        chosen, spoiled = best(*seen), stage(*seen)
        near = max(seen[1]) >= seen[-1].least
        words = f"The samples were most like the images at step {chosen}, of {len(seen[0])} looks."
        said.append(words if near else "At no step were the samples as like the images as the oddest image is.")
        if spoiled:
            said.append(f"From step {spoiled[0]} to {spoiled[1]} they were noisy and unlike the images (corruption).")
        step, score = best_score(run)
        if score:
            chosen = step
            said.append(f"The scorer's combined score was highest at step {step} ({score:.2f}).")
        if values.get("keep") == "best":
            said.append("The run leaves the weights of that step.")
        elif chosen != seen[0][-1]:
            said.append("The run leaves the weights of the last step; --keep best would leave those.")
    held_out = [(line["val"], line["step"]) for line in lines if "val" in line]
    if len(held_out) > 2 and min(held_out)[1] not in (0, held_out[-1][1]):
        said.append(
            f"The held-out loss was lowest at step {min(held_out)[1]} ({min(held_out)[0]:.4f}, and "
            f"{held_out[-1][0]:.4f} at the end): the model has begun to learn its images by heart."
        )
    if "class_accuracy" in numbers and "swd" not in numbers:
        real = f", {numbers['class_accuracy_real']:.2f} of real images" if "class_accuracy_real" in numbers else ""
        said.append(f"{numbers['class_accuracy']:.2f} of the samples show their class{real}.")
    if "copies" in numbers:
        share = numbers["copies"]
        judged = "more than chance: look at the pairs below" if share > 0.15 else "no sign of copying"
        said.append(f"{share:.2f} of the samples are very near a training image, 0.05 by chance: {judged}.")
    if "swd" in numbers:
        said += [sentence[0].upper() + sentence[1:] for sentence in sentences([numbers])]
    elif ended and "measure" in values and "fid" not in numbers and "kid_x1000" not in numbers:
        said.append("No distances were measured: they need held-out images (--val) and --measure.")
    return said


def loss_chart(lines: list[dict]) -> str:
    """The training loss, its running mean, and the held-out loss."""
    points = [(line["step"], line["loss"]) for line in lines if line.get("loss", 0) > 0]
    held_out = [(line["step"], line["val"]) for line in lines if line.get("val", 0) > 0]
    if len(points) < 2:
        return ""
    values = [value for _, value in points]
    sums = [sum(values[max(0, i - MEAN + 1) : i + 1]) / min(i + 1, MEAN) for i in range(len(values))]
    chart = Chart(points + held_out, logarithmic=True)
    means = [(step, total) for (step, _), total in zip(points, sums)]
    drawn = chart.line(thinned(points), "thin") + chart.line(thinned(means), "mean")
    drawn += chart.line(held_out, "other") + chart.dots(held_out)
    terms = f'<p class="terms"><span class="one">training, and its mean of {MEAN} steps</span>'
    terms += '; <span class="two">held out, fixed noise</span>' if held_out else ""
    return chart.svg(drawn, "loss by step") + terms + "</p>"


def similarity_chart(run: Path) -> str:
    """The samples' similarity to the training images at each look, the best ringed, the corruption stage grey."""
    seen = measurements(run)
    if len(seen[0]) < 2:
        return ""
    points = list(zip(seen[0], seen[1]))
    chart, spoiled, ringed = Chart(points), stage(*seen), points[seen[0].index(best(*seen))]
    drawn = chart.band(*spoiled) if spoiled else ""
    drawn += chart.line(points, "mean") + chart.dots(points) + chart.dots([ringed], "ring", 8)
    terms = '<p class="terms">similarity to the training images, the best ringed</p>'
    return chart.svg(drawn, "similarity by step") + terms


def setting_tables(values: dict) -> str:
    """The settings that differ from their defaults, and all of them folded."""
    usual = {}
    for part in vars(settings).values():
        for field in fields(part) if isinstance(part, type) and hasattr(part, "__dataclass_fields__") else ():
            usual[field.name] = field.default if field.default is not MISSING else field.default_factory()
    changed = {
        name: value for name, value in values.items() if name in usual and value != usual[name] and name != "out"
    }
    first = table(changed) if changed else '<p class="soft">all as they are by default</p>'
    return f"{first}<details><summary>all {len(values)} settings</summary>{table(values)}</details>"


def table(values: dict) -> str:
    """Names and values."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(shown(value))}</td></tr>" for name, value in values.items())
    return f"<table>{rows}</table>"


def shown(value: object) -> str:
    """A setting's value as a reader would write it."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "empty" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)


def files(run: Path) -> str:
    """Links to what the run has left."""
    there = [name for name in FILES if (run / name).is_file()]
    links = ", ".join(f'<a href="{name}">{name}</a>' for name in there)
    return f"<p>{links}</p>" if links else ""
