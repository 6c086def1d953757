"""The plan of a comparison: methods and seeds are runs of train.py, sampling variants are calls of sample.py."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from border import read_table
from config.read import known
from experiments.settings import check_sample, check_train, fill, read_by_recipe

QUICK = {
    "train": {"steps": 20, "sample_every": 20, "sample_steps": 5, "count": 1, "class_images": 2},
    "sample": {"steps": 5, "count": 2},
}
OLD_NAMES = {"ways": "variants", "asked": "classes_of_prompts"}  # table of a plan: its name since


@dataclass
class Plan:
    """A comparison as its TOML file describes it; the docstring of compare.py explains the fields."""

    methods: dict[str, dict]
    real: str
    seeds: int = 3
    train: dict = field(default_factory=dict)
    sample: dict = field(default_factory=dict)
    variants: dict[str, dict] = field(default_factory=lambda: {"": {}})
    scorers: dict[str, str] = field(default_factory=dict)
    classes_of_prompts: dict[str, str] = field(default_factory=dict)
    unrelated: list[str] = field(default_factory=list)
    styles: dict[str, str] = field(default_factory=dict)

    def variants_of(self, method: str) -> list[str]:
        """The names of the sampling variants of a method."""
        return [name for name, variant in self.variants.items() if method in variant.get("of", self.methods)]

    def train_settings(self, out: Path, method: str, seed: int) -> dict:
        """The settings of train.py for the run of a method and a seed; {METHOD} is that method's run in `out`."""
        runs = {name: str(out / f"{name}-{seed}") for name in self.methods}
        own = self.methods[method]
        shared = read_by_recipe(self.train | own, {"measure": 0} | self.train)
        return {name: fill(value, runs) for name, value in ({"seed": seed} | shared | own).items()}

    def sample_settings(self, variant: str) -> dict:
        """The settings of sample.py for a sampling variant."""
        return self.sample | {name: value for name, value in self.variants[variant].items() if name != "of"}

    def shortened(self) -> "Plan":
        """The same plan with a few steps, one seed and two samples of each class or prompt."""
        methods = {
            name: values | read_by_recipe(self.train | values, QUICK["train"]) for name, values in self.methods.items()
        }
        variants = {name: values | QUICK["sample"] for name, values in self.variants.items()}
        return replace(self, methods=methods, seeds=1, variants=variants)


def read_plan(path: str | Path) -> Plan:
    """The plan in a TOML file. ValueError for a key that it, train.py or sample.py does not know."""
    table = read_table(path)
    for old, new in OLD_NAMES.items():
        if old in table:
            print(f"{path}: [{old}] is now called [{new}]; the next release drops the old name", file=sys.stderr)
            table[new] = table.pop(old)
    check_tables(table, path)
    plan = Plan(**table)
    try:
        read = {name for method in plan.methods for name in plan.train_settings(Path(), method, 0)}
        if unread := [name for name in plan.train if name not in read]:
            check_train(plan.train)
            raise ValueError(f"no method reads {unread[0]} of [train]")
        for method in plan.methods:
            check_train(plan.train_settings(Path(), method, 0))
        for variant in plan.variants:
            check_sample(plan.sample_settings(variant))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return plan


def check_tables(table: dict, path: str | Path) -> None:
    """ValueError for an unknown key of a plan, a value of another type, and a variant of an unknown method."""
    if "methods" not in table and table.keys() - Plan.__dataclass_fields__.keys():
        raise ValueError(f"{path}: a comparison has a table [methods.NAME] for each of its rows, and this has none")
    types = {"seeds": int, "real": str, "unrelated": list}
    for key, value in table.items():
        known(key, Plan.__dataclass_fields__, f"{path}: ")
        if type(value) is not types.get(key, dict):
            raise ValueError(f"{path}: {key} must be {types.get(key, dict).__name__}, found {value!r}")
    if table.get("styles") and not ("network" in table["styles"] and len(table["styles"]) > 2):
        raise ValueError(f"{path}: [styles] needs a network, and a text or classes for each of two styles or more")
    if not table.get("methods") or not table.get("real"):
        raise ValueError(f"{path}: expected real, images that are not trained on, and at least one [methods.NAME]")
    for kind in ("methods", "variants"):
        for name, value in table.get(kind, {}).items():
            if not isinstance(value, dict):
                raise ValueError(f"{path}: {kind} must be tables of settings, found {value!r} for {name!r}")
    for name, variant in table.get("variants", {}).items():
        if unknown := [method for method in variant.get("of", []) if method not in table["methods"]]:
            raise ValueError(f"{path}: variant {name!r} is of {unknown[0]!r}, which is no method")
