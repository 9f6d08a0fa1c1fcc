"""NOTICE and the manifest credit what the embedded benchmark is drawn from, as the installed packages say."""

import json
import re
from importlib.metadata import files
from pathlib import Path

import pytest

from same.data.manifest import load_benchmark
from same.data.mini import pmcvqa
from same.data.mini._captions import PLACES
from same.data.mini._world import installed, photographs

ROOT = Path(__file__).parents[2]
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
TABLES = {
    "gapminder": "gapminder",
    "world cities": "world_cities",
    "films": "movies_data",
    "order lines": "sample_superstore",
}  # ours to the package's name


BENCHMARKS = ("mini-coin", "mini-ucit", "mini-trigap")
USED = [
    (name, source.name) for name in BENCHMARKS for source in load_benchmark(name).sources if source.name in TABLES
]  # benchmark and table


def notes(benchmark: str = "mini-coin") -> dict[str, str]:
    sources = load_benchmark(benchmark).sources
    return {source.name: f"{source.licence} {source.credit} {source.note}" for source in sources}


@pytest.mark.parametrize("name", sorted(photographs()))
def test_every_photograph_is_credited_by_name(name: str) -> None:
    assert re.search(rf"\b{name}(\.jpg)?\b", NOTICE)


def test_as_many_photographs_are_claimed_as_are_drawn() -> None:
    assert len(photographs()) == 9
    assert "nine photographs" in load_benchmark("mini-coin").note
    assert "nine photographs" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_mini_ucit_counts_the_photographs_it_draws() -> None:
    assert set(PLACES) < set(photographs())
    assert len(PLACES) == 5
    assert "five photographs" in load_benchmark("mini-ucit").note
    assert all(name in notes("mini-ucit")["scikit-image photographs"] for name in PLACES)


def test_the_owners_of_scikit_learns_photographs_are_those_it_links() -> None:
    text = installed("sklearn", "datasets", "images", "README.txt").read_text(encoding="utf-8")
    pages = set(re.findall(r"flickr\.com/photos/(\w+)/(\d+)", text))
    assert len(pages) == 2
    for owner, number in pages:
        assert f"flickr.com/photos/{owner}/{number}" in NOTICE
        assert owner in notes()["scikit-learn photographs"]


@pytest.mark.parametrize(("benchmark", "source"), USED)
def test_tables_bear_the_licence_that_their_package_records(benchmark: str, source: str) -> None:
    module = TABLES[source]
    inventory = next(file for file in files("bokeh-sampledata") or () if file.name == "datasets.json")
    records = json.loads(inventory.locate().read_text(encoding="utf-8"))["datasets"]
    expression = next(record["license_expression"] for record in records if record["module"] == module)
    licence = {"CC0-1.0": "CC0"}.get(expression, expression.replace("-", " "))
    assert notes(benchmark)[source].startswith(licence)
    assert re.search(rf"\b{module}\b[^:]*:[^:]*{re.escape(licence)}", NOTICE)


@pytest.mark.parametrize("file", ["first_5K.smi", "jacksboro_fault_dem.npz"])
def test_molecules_and_hills_are_credited_by_their_files(file: str) -> None:
    assert file in NOTICE
    assert any(file in note for note in notes("mini-trigap").values())


@pytest.mark.parametrize("file", [file for file, _ in pmcvqa.TISSUES.values()])
def test_every_medical_photograph_is_credited_by_name(file: str) -> None:
    assert re.search(rf"\b{Path(file).stem}\b", NOTICE)
    assert Path(file).stem in notes("mini-trigap")["medical photographs"]


def test_the_brain_template_is_credited_with_its_terms() -> None:
    description = installed("nilearn", "datasets", "description", "icbm152_2009.rst").read_text(encoding="utf-8")
    address = re.search(r"https?://(www\.bic\S+ICBM152NLin2009)\s", description)
    assert address is not None
    assert f"https://{address[1]}" in NOTICE
    assert notes("mini-trigap")["icbm 152 template"].startswith("unverified: permissive notice")
