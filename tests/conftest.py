"""Small pretrained models that a whole run can be tested on: 16 px images, 4x4 latents."""

import os

# pytest runs one process a core: more threads, here or in a script that a test starts, would only wait for each other
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from tests.tiny import write_dit, write_sd


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with vae.safetensors and dit.safetensors (classes of two products)."""
    folder = tmp_path_factory.mktemp("tiny")
    write_dit(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """A diffusers folder of a whole Stable Diffusion."""
    folder = tmp_path_factory.mktemp("tiny-sd")
    write_sd(folder)
    return folder
