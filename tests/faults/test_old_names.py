"""The old names of public functions work for one release and say what the new ones are."""

import importlib

import pytest

PACKAGES = [importlib.import_module(name) for name in ("sampling", "adapters", "unet")]
CASES = [pytest.param(package, old, id=f"{package.__name__}.{old}") for package in PACKAGES for old in package.RENAMED]


@pytest.mark.parametrize(("package", "old"), CASES)
def test_an_old_name_is_the_new_one_with_a_notice(package, old):
    new = package.RENAMED[old]
    with pytest.warns(FutureWarning, match=f"^{package.__name__}.{old} is called {package.__name__}.{new} now$"):
        assert getattr(package, old) is vars(package)[new]
    assert new in package.__all__ and old not in package.__all__


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_another_name_is_an_attribute_error(package):
    assert not hasattr(package, "nothing")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(package, "nothing")  # noqa: B009
