"""pip install -e . makes the packages importable from any folder."""

import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-build-isolation"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site-packages of an editable install beside this environment, which it leaves alone."""
    pytest.importorskip("setuptools", minversion="64")
    prefix = tmp_path_factory.mktemp("prefix")
    command = [*PIP, "--no-warn-script-location", "--ignore-installed", "--prefix", str(prefix), "-e", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=prefix)
    assert done.returncode == 0, done.stderr
    return next(prefix.rglob("site-packages"))


def python(site, folder, code):
    """What the code prints in a Python that knows this install before all others of the environment."""
    folders = [str(site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    code = f"import site\nfor folder in {folders}: site.addsitedir(folder)\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_packages_are_imported_from_any_folder(site, tmp_path):
    shown = python(
        site,
        tmp_path,
        """
        import dit, adapters, sampling, weights, unet, data, metrics
        import train, sample
        import torch
        model = weights.load("tiny-dit")
        adapters.attach(model, "lora:rank=2")
        print(dit.__file__, model.latent_shape, adapters.counts(model)[0] > 0)
    """,
    )
    assert shown.startswith(str(ROOT / "dit")) and "True" in shown


def test_every_package_of_the_repository_that_the_scripts_use_is_named():
    text = (ROOT / "setup.cfg").read_text()
    named = {line.strip(" *") for line in text.split("include =")[1].split("[")[0].splitlines() if line.strip()}
    beside = {"bench", "evidence", "examples", "tests"}  # run from a clone
    assert named == {path.parent.name for path in ROOT.glob("*/__init__.py")} - beside
