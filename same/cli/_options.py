"""What several commands take from the command line, and how `--set` is read."""

from pathlib import Path
from typing import Annotated, Any

import typer

from same.errors import InputError

BenchmarkName = Annotated[str, typer.Option("--benchmark", help="Name of a manifest, or path of a .yaml file.")]
RunPath = Annotated[Path, typer.Option("--run", help="A run folder, as `same train` prints it.")]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder that holds the benchmark's (default: SAME_DATA, or the user's cache)."),
]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Leave out rows whose picture is missing.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; repeat.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def parse_settings(texts: list[str]) -> dict[str, Any]:
    """Read `key=value` texts; values stay texts until the field they belong to is known."""
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set must be given key=value; got {text!r}.")
        values[key.strip()] = value.strip()
    return values
