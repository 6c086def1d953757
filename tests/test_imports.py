"""Who may import whom: the table that keeps the package a few readable parts, held against the code itself."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ALLOWED = {  # part: the parts that it may import, all of them above it here
    "border": set(),
    "ops": set(),
    "sampling": set(),
    "adapters": set(),
    "data": {"border"},
    "dit": {"ops"},
    "unet": {"border", "ops"},
    "config": {"border", "ops", "sampling", "adapters", "data"},
    "weights": {"border", "sampling", "adapters", "data", "dit", "unet"},
    "metrics": {"border", "ops", "data", "unet", "weights"},
    "training": {"border", "ops", "adapters", "data", "config", "weights", "metrics"},
    "recipes": {
        "border",
        "ops",
        "sampling",
        "adapters",
        "data",
        "dit",
        "unet",
        "config",
        "weights",
        "metrics",
        "training",
    },
    "train": {"border", "ops", "adapters", "data", "config", "training", "recipes"},
    "inference": {"border", "ops", "sampling", "data", "dit", "unet", "config", "weights", "recipes"},
    "sample": {"ops", "sampling", "data", "config", "inference"},
    "evaluate": {"border", "ops", "data", "config", "metrics"},
    "experiments": {"border", "ops", "data", "config", "metrics", "training", "recipes", "inference", "sample"},
    "compare": {"config", "experiments"},
    "evidence": set("border ops sampling data unet config weights metrics training recipes experiments".split()),
    "bench": {"ops", "sampling", "adapters", "data", "dit", "unet", "config", "weights", "recipes", "train"},
}
LOCAL = ALLOWED.keys()
WEIGHTS = {  # room of weights/: the rooms that it may import, all of them below it
    "formats": set(),
    "layouts": {"formats"},
    "models": {"formats", "layouts"},
    "adapter_files": {"formats", "layouts", "models"},
    "": {"formats", "layouts", "models", "adapter_files"},  # weights/*.py
}
OUTSIDE = {"torch", "numpy", "einops", "safetensors", "PIL", "scipy", "tqdm"}
OUTSIDE |= {"matplotlib", "triton", "rapidocr_onnxruntime"}  # optional


def imports(tree):
    """Dotted names of all modules and names that a file imports, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(path):
    return ast.parse(path.read_text("utf-8"))


def imported(path):
    """Top-level names of all imports of a file."""
    return {name.split(".")[0] for name in imports(parsed(path))}


def files(part):
    single = ROOT / f"{part}.py"
    return [single] if single.exists() else sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", sorted(LOCAL))
def test_a_part_imports_only_what_the_table_allows(part):
    assert files(part), f"{part} is in the table and not in the repository"
    for path in files(part):
        local = {name for name in imported(path) if name in LOCAL} - {part}
        assert local <= ALLOWED[part], f"{path.relative_to(ROOT)} imports {sorted(local - ALLOWED[part])}"


def test_a_part_imports_only_parts_above_it():
    """So no arrow runs back up."""
    names = list(ALLOWED)
    for part, allowed in ALLOWED.items():
        assert allowed <= set(names[: names.index(part)]), part


PEERS = {"diffusers", "transformers", "peft"}  # whom the bench measures beside ours


def test_no_dependency_beyond_the_stated_ones():
    for part in LOCAL:
        for path in files(part):
            foreign = {name for name in imported(path) if name not in LOCAL | set(sys.stdlib_module_names)}
            foreign -= PEERS if path.name == "peers.py" else set()
            assert foreign <= OUTSIDE, f"{path.relative_to(ROOT)} imports {sorted(foreign - OUTSIDE)}"


def test_every_top_level_package_is_in_the_table():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert packages == LOCAL


ROWS = (
    "class_label",
    "text",
    "consistency",
    "control",
    "inpaint",
    "autoencoder",
    "classifier",
)  # files of recipes/, each a row
ROOMS = {  # room, or file that lies in none: the rooms of its package that it may import, all of them above it here
    "ops.device": set(),
    "ops.compiled": set(),
    "ops.machine": {"ops.device"},
    "ops.random": set(),
    "ops.recompute": set(),
    "ops.fused": set(),
    "ops.attention": {"ops.recompute", "ops.fused"},
    "ops.embed": set(),
    "ops.inputs": set(),
    "ops.layout": set(),
    "ops.doubled": {"ops.layout"},
    "ops.packed": {"ops.doubled", "ops.machine"},
    "ops": {"ops.attention", "ops.doubled", "ops.embed", "ops.layout", "ops.recompute"},
    "sampling.schedule": set(),
    "sampling.flow": {"sampling.schedule"},
    "sampling.progressive": {"sampling.flow", "sampling.schedule"},
    "sampling.huber": {"sampling.schedule"},
    "sampling.loss": {"sampling.schedule", "sampling.huber"},
    "sampling.guidance": set(),
    "sampling.samplers": {"sampling.guidance", "sampling.schedule", "sampling.flow"},
    "sampling.consistency": {"sampling.guidance", "sampling.schedule"},
    "sampling.fill": {"sampling.schedule"},
    "sampling.seeds": set(),
    "sampling.latents": {"sampling.guidance", "sampling.schedule", "sampling.samplers", "sampling.consistency"},
    "sampling": {
        f"sampling.{name}"
        for name in "schedule flow progressive huber loss guidance samplers consistency fill seeds latents".split()
    },
    "unet.row": set(),
    "unet.time": set(),
    "unet.block": set(),
    "unet.model": {"unet.row", "unet.time", "unet.block"},
    "unet.vae": set(),
    "unet.text": {"unet.row"},
    "unet.sizes": {"unet.model", "unet.text"},
    "unet.conditioned": {"unet.model", "unet.text"},
    "unet.control": {"unet.model", "unet.text", "unet.conditioned"},
    "unet.inpaint": {"unet.vae", "unet.conditioned"},
    "unet.attend": {"unet.block", "unet.model", "unet.text", "unet.conditioned"},
    "unet": {"unet.model", "unet.vae", "unet.text", "unet.conditioned", "unet.control", "unet.inpaint"},
    "data.lazy": set(),
    "data.image_set": {"data.lazy"},
    "data.images": set(),
    "data.transforms": set(),
    "data.window": set(),
    "data.buckets": set(),
    "data.generated": set(),
    "data.folders": {"data.image_set", "data.images"},
    "data.split": set(),
    "data.source": {
        "data.lazy",
        "data.split",
        "data.image_set",
        "data.images",
        "data.transforms",
        "data.window",
        "data.folders",
        "data.generated",
    },
    "data": {"data.image_set", "data.source"},
    "data.output": {"data.image_set", "data.images", "data.transforms", "data.folders", "data.source"},
    "data.place": {"data.images", "data.transforms", "data.window", "data.folders", "data.output"},
    "data.shards": {"data.output"},
    "data.latents": {"data.lazy", "data.shards", "data.transforms"},
    "data.__main__": {"data.images", "data.buckets", "data.folders"},
    "metrics.statistics": set(),
    "metrics.networks": set(),
    "metrics.alignment": {"metrics.statistics", "metrics.networks"},
    "metrics.downstream": {"metrics.statistics", "metrics.networks"},
    "metrics.textures": {"metrics.statistics"},
    "metrics.objects": {"metrics.alignment"},
    "metrics.table": {"metrics.alignment", "metrics.statistics", "metrics.networks", "metrics.textures"},
    "metrics.text": set(),
    "metrics.verdict": set(),
    "metrics": set(),
    "config.option": set(),
    "config.usage": {"config.option"},
    "config.read": {"config.option", "config.usage"},
    "config": {"config.option", "config.read", "config.usage"},
    "config.training": {"config.option"},
    "config.sampling": {"config.option"},
    "config.repeat": {"config.option", "config.read", "config.sampling"},
    "training.step": set(),
    "training.log": set(),
    "training.climb": set(),
    "training.stops": set(),
    "training.state": {"training.log", "training.step"},
    "training.folder": {"training.log", "training.state"},
    "training.estimate": {"training.step", "training.state"},
    "training.monitor": {"training.log"},
    "training.report": {"training.monitor"},
    "training.plot": {"training.log", "training.monitor"},
    "training.page": {"training.log", "training.monitor"},
    "training.finish": {"training.page", "training.plot", "training.state"},
    "training": set(),
    "recipes.job": set(),
    "recipes.images": {"recipes.job"},
    "recipes.models": {"recipes.images"},
    "recipes.conditions": {"recipes.job", "recipes.images", "recipes.models"},
    "recipes.objectives": {"recipes.job"},
    "recipes.samples": {"recipes.job", "recipes.images", "recipes.conditions"},
    **{
        f"recipes.{name}": {
            f"recipes.{room}" for room in ("job", "images", "models", "conditions", "objectives", "samples")
        }
        for name in ROWS
    },
    "recipes": {"recipes.job"} | {f"recipes.{name}" for name in ROWS},
    "recipes.settings": {"recipes.job", "recipes"},
    "bench.rows": set(),
    "bench.sizes": set(),
    "bench.page": {"bench.rows", "bench.sizes"},
    "bench.timing": {"bench.rows"},
    "bench.sides": {"bench.timing"},
    "bench.attention": set(),
    "bench.memory": {"bench.timing"},
    "bench.profile": {"bench.rows", "bench.sizes"},
    "bench": set(),
    "bench.__main__": {"bench.rows", "bench.sizes", "bench.page", "bench.timing"},
}


def room_of(module):
    """The room of a dotted name: the longest entry of the table that it begins with; None for another package's."""
    parts = module.split(".")
    return next((room for i in range(len(parts), 0, -1) if (room := ".".join(parts[:i])) in ROOMS), None)


def rooms_imported(path):
    return {room_of(name) for name in imports(parsed(path))}


@pytest.mark.parametrize(
    "package", ["ops", "sampling", "unet", "data", "metrics", "config", "training", "recipes", "bench"]
)
def test_a_room_imports_only_rooms_above_it_in_the_table(package):
    names, seen = list(ROOMS), set()
    for room, allowed in ROOMS.items():
        assert allowed <= set(names[: names.index(room)])
    for path in files(package):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        room = room_of(module)
        others = {other for other in rooms_imported(path) if other and other.split(".")[0] == package} - {room}
        assert others <= ROOMS[room], f"{path.relative_to(ROOT)} imports {sorted(others - ROOMS[room])}"
        seen.add(room)
    assert seen == {room for room in ROOMS if room.split(".")[0] == package}, "the table names a room that is not there"


@pytest.mark.parametrize("room", WEIGHTS)
def test_a_room_of_weights_imports_only_the_rooms_below_it(room):
    folder = ROOT / "weights" / room
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "weights":
                inside = node.module.split(".")[1:]
                rooms = {inside[0]} if inside else {alias.name for alias in node.names}
                assert rooms <= WEIGHTS[room] | {room}, f"{path.relative_to(ROOT)} imports {sorted(rooms)}"
    for function in (n for p in folder.glob("*.py") for n in ast.walk(ast.parse(p.read_text()))):
        if isinstance(function, ast.FunctionDef):
            hidden = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not hidden, f"weights/{room}: {function.name} hides an import"


def test_every_room_of_weights_is_in_the_table():
    assert {path.parent.name for path in ROOT.glob("weights/*/__init__.py")} | {""} == WEIGHTS.keys()


@pytest.mark.parametrize(
    "room, others", [("conditions", {"conditions", "objectives"}), ("objectives", {"objectives", "conditions"})]
)
def test_a_condition_imports_no_condition_and_an_objective_no_objective(room, others):
    """Nor the one the other: a recipe joins them."""
    paths = [path for path in (ROOT / "recipes" / room).glob("*.py") if path.stem != "__init__"]
    assert len(paths) > 1
    for path in paths:
        for name in imports(parsed(path)):
            assert not any(name.startswith(f"recipes.{other}") for other in others), f"{path.name} imports {name}"


def test_rows_of_recipes_import_no_row():
    rows = [ROOT / "recipes" / f"{name}.py" for name in ROWS]
    listed = {name.split(".")[1] for name in imports(parsed(ROOT / "recipes" / "__init__.py")) if "recipes." in name}
    assert listed - {"job"} == set(ROWS)
    for path in rows:
        siblings = [
            name for name in imports(parsed(path)) if name.startswith("recipes.") and name.split(".")[1] in ROWS
        ]
        assert not siblings, f"{path.name} imports {siblings}"


def test_only_rows_take_the_whole_config():
    """Whatever they call is told its part, or the values that it needs; job.py says what of it a file keeps."""
    for path in (ROOT / "recipes").rglob("*.py"):
        whole = "config.Config" in set(imports(parsed(path)))
        takes = [
            function.name
            for function in ast.walk(parsed(path))
            if isinstance(function, ast.FunctionDef)
            and any(a.arg == "config" or "Config" in ast.dump(a.annotation or ast.Pass()) for a in function.args.args)
        ]
        if path.stem not in (*ROWS, "settings", "job"):
            assert not whole and not takes, f"{path.relative_to(ROOT)}: {takes}"
        assert path.stem != "job" or takes == ["header_settings"]


LAZY = {  # file: module that a function of it imports: the reason why that may be
    ("ops/attention.py", "ops.fused"): "needs Triton, which is optional",
    ("training/plot.py", "matplotlib.figure"): "optional",
    ("training/step/shard.py", "torch.distributed.fsdp"): "1.5 s of every start, for few runs",
    ("ops/machine/process.py", "torch.distributed.device_mesh"): "a torch without torch.distributed has none",
    ("metrics/objects/reader.py", "rapidocr_onnxruntime"): "optional",
    ("bench/attention.py", "ops.fused"): "needs Triton, which is optional",
    ("bench/attention.py", "triton.testing"): "optional",
}
CHILDREN = ("bench/sides/peers.py", "bench/timing/worker.py")  # they measure what an import takes


def test_no_function_hides_an_import():
    """A circle is hidden by an import inside a function. Only what is optional, or measured, may stand there."""
    seen = set()
    for part in LOCAL:
        for path in files(part):
            name = path.relative_to(ROOT).as_posix()
            for function in ast.walk(parsed(path)):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and name not in CHILDREN:
                    modules = {room for module in imports(function) for room in (module, module.rpartition(".")[0])}
                    keys = {(name, module) for module in modules} & LAZY.keys()
                    assert bool(keys) == bool(modules), f"{name}: {function.name} hides an import of {sorted(modules)}"
                    seen |= keys
    assert seen == LAZY.keys(), "the list names an import that is not there"


def test_a_script_starts_without_what_few_calls_need():
    """`import scipy` loads a part of it, such as scipy.ndimage, when that is first used; so a start is torch's."""
    code = "import sys, train, sample, evaluate; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"scipy.ndimage", "scipy.stats", "matplotlib"} & set(loaded.split())


def test_no_folder_is_a_heap():
    """A dozen files at most lie in a folder of code or tests, but for the one that says what the folder is."""
    for part in (*LOCAL, "tests"):
        for folder in {path.parent for path in (ROOT / part).rglob("*.py")}:
            names = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__", "conftest"}
            assert len(names) <= 12, f"{folder.relative_to(ROOT)}: {len(names)} files"


CORE = """
train.py  sample.py
recipes/__init__.py  recipes/job.py  recipes/images/latents.py  recipes/class_label.py  recipes/text.py
recipes/conditions/classes.py  recipes/conditions/captions.py
recipes/objectives/denoise.py  recipes/objectives/prior.py
dit/block.py  dit/embed.py  dit/model.py
unet/block.py  unet/model.py  unet/conditioned.py  unet/text/encoder.py  unet/vae.py
sampling/schedule.py  sampling/guidance.py  sampling/loss.py  sampling/latents.py
sampling/samplers/ddpm.py  sampling/samplers/ddim.py  sampling/samplers/dpm.py
adapters/__init__.py  adapters/core.py
adapters/methods/low_rank/lora.py  adapters/methods/in_place/bitfit.py  adapters/methods/in_place/norm.py
adapters/methods/difffit.py
""".split()


def test_the_core_is_at_most_3500_lines():
    """What must be read to change any of it: from train.py to the loss, from sample.py to the image, the networks, the
    seam of the adapters with four methods. The rest is methods, files of other tools, folders of images, measurement.
    """
    counts = {name: len((ROOT / name).read_text("utf-8").splitlines()) for name in CORE}
    assert len(CORE) == len(counts) == 32 and sum(counts.values()) <= 3500, f"{sum(counts.values())} lines: {counts}"


def test_what_the_package_needs_is_read_as_it_is_written():
    """A requirement with a marker on the line of its name is refused by setuptools: it would be half of one."""
    cfg = configparser.ConfigParser()
    cfg.read(ROOT / "setup.cfg", encoding="utf-8")
    needs = [cfg["options"]["install_requires"], *cfg["options.extras_require"].values()]
    assert all(need.startswith("\n") or ";" not in need for need in needs)
    assert all(Requirement(line) for need in needs for line in filter(None, need.splitlines()) if line[0] != "#")
