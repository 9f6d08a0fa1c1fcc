"""A file's stem is a plug-in's name."""

import sys

import pytest

from same import registry
from same.errors import InputError


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    folder = tmp_path / "plugin_zoo"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_base.py").write_text("class Animal: pass\n")
    (folder / "cat.py").write_text(
        "from plugin_zoo._base import Animal\nclass Cat(Animal): pass\nclass _Kitten(Cat): pass\n"
    )
    (folder / "twins.py").write_text(
        "from plugin_zoo._base import Animal\nclass A(Animal): pass\nclass B(Animal): pass\n"
    )
    (folder / "broken.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "plugin_zoo"
    for name in [name for name in sys.modules if name.startswith("plugin_zoo")]:
        del sys.modules[name]


def test_names_are_the_public_stems_and_nothing_is_imported(zoo):
    assert registry.names(zoo) == ["broken", "cat", "twins"]
    assert "plugin_zoo.cat" not in sys.modules


def test_the_one_public_subclass_is_found(zoo):
    base = registry.importlib.import_module("plugin_zoo._base").Animal
    assert registry.load_class(zoo, "cat", base).__name__ == "Cat"


def test_two_public_subclasses_are_refused_by_name(zoo):
    base = registry.importlib.import_module("plugin_zoo._base").Animal
    with pytest.raises(InputError, match=r"exactly one.*'A', 'B'"):
        registry.load_class(zoo, "twins", base)


def test_an_unknown_name_is_answered_with_the_nearest_and_all_choices(zoo):
    with pytest.raises(InputError, match=r"'catt'\. Did you mean 'cat'\? Choices: broken, cat, twins"):
        registry.load(zoo, "catt")


def test_a_package_that_is_not_there_is_named():
    with pytest.raises(InputError, match="no_such_package"):
        registry.names("no_such_package")
