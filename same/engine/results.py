"""The results files: one small JSON file a run, and the folder they are kept in (no torch)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from same.sealed import read_json

SCHEMA = 1
TUNING = "tuning.json"
REMEDY = "Delete it and run `same sweep` again."
MANIFESTS = next(
    place
    for place in (Path(__file__).parents[2] / "data_manifests", Path(__file__).parents[1] / "data_manifests")
    if place.is_dir()
)
"""Where the manifests are, in a checkout or in an installed package."""
RESULTS = MANIFESTS / "results"
"""Where results are kept: beside the manifests."""


def read_result(path: Path) -> dict[str, Any]:
    """What :func:`same.engine.record.write_result` wrote.

    Raises:
        SnapshotError: the file is damaged or of another schema.
    """
    content = read_json(path, REMEDY, SCHEMA)
    del content["schema"]
    return content


def read_results(results: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every results file below a folder, by benchmark and name."""
    for path in sorted(results.glob("*/*.json")):
        if path.name != TUNING:
            yield path, read_result(path)


def protocol_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What runs have in common that can stand in one table, beside their tasks: rows, backbone and adapted layers."""
    names = ("data", "train_items", "test_items", "validation_items")
    found = {name: settings[name] for name in names if settings.get(name) is not None}
    backbone = dict(settings["backbone"])
    model = f"{backbone.pop('name')} {backbone.pop('digest')}"
    rest = {name: " ".join(value) if isinstance(value, list | tuple) else value for name, value in backbone.items()}
    return {**found, "backbone": model, **rest}
