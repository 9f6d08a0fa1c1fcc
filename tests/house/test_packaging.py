"""The build says each thing once: ranges in pyproject.toml, exact versions in constraints.txt."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import same

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
EXTRAS = PROJECT["optional-dependencies"].values()
DIRECT = [Requirement(text) for text in (*PROJECT["dependencies"], *itertools.chain.from_iterable(EXTRAS))]
PINS = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line]
TARGETS = ("setup", "reproduce", "test", "check", "notebooks", "help")


def test_environment_file_repeats_no_version() -> None:
    """The conda file names Python as pyproject does, and leaves every package to pyproject and the constraints."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert dependencies == [
        f"python{PROJECT['requires-python']}",
        "pip",
        {"pip": ["-e .[dev]", "-c constraints.txt"]},
    ]


@pytest.mark.parametrize("line", PINS)
def test_a_constraint_is_one_public_version(line: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"{line}: no URL, path or local version (+cpu)"


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_every_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    pinned = {canonicalize_name(name): Version(version) for name, version in (pin.split("==") for pin in PINS)}
    assert pinned[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_version_is_the_librarys() -> None:
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]
    assert Version(same.__version__).release[:2] >= (0, 1)
    assert f"## {same.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_a_wheel_holds_manifests_and_notebooks_where_they_are_looked_for() -> None:
    wheel = SETTINGS["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["sources"] == {"data_manifests": "same/data_manifests", "notebooks": "workbench/notebooks"}
    assert set(wheel["sources"]) < set(wheel["only-include"])


@pytest.mark.parametrize("target", TARGETS)
def test_make_offers_and_explains(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:.*## \w", makefile, re.M)


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert phony is not None
    assert set(phony[1].split()) == set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
