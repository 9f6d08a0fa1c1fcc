"""`same tables`: what a sweep found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from same.cli._options import AsJson
from same.errors import InputError

FORMATS = ("markdown", "csv", "json")
BEGIN, END = "<!-- tables: written by `same tables --write` -->", "<!-- end of tables -->"


def tables(
    results: Annotated[
        Path | None, typer.Option(help="Folder of the results files (default: beside the manifests).")
    ] = None,
    reading: Annotated[str, typer.Option(help="strict, paper, standard or semantic.")] = "strict",
    format: Annotated[str, typer.Option(help="markdown, csv or json.")] = "markdown",
    as_json: AsJson = False,
    write: Annotated[
        Path | None, typer.Option(help="Put the markdown between the marks of this file instead of printing it.")
    ] = None,
) -> None:
    """Print the tables of a results folder: mean and standard deviation over seeds, budgets, cost, glossary."""
    from same import registry
    from same.engine.results import RESULTS, read_results
    from same.engine.tables import as_csv, make_tables
    from same.engine.tables import as_json as plain
    from same.metrics import READINGS

    registry.choose("reading", reading, list(READINGS))
    chosen = registry.choose("format", "json" if as_json else format, FORMATS)
    folder = results or RESULTS
    found = make_tables(read_results(folder), reading)
    if write is not None:
        _between_marks(write, document(folder, reading))
        return
    if not found:
        raise InputError(f"--results must hold results files, <benchmark>/<method>-<seed>.json; {folder} has none.")
    if chosen == "json":
        print(json.dumps(plain(found), indent=1, ensure_ascii=False))
    else:
        print(as_csv(found) if chosen == "csv" else document(folder, reading))


def document(results: Path, reading: str = "strict") -> str:
    """All tables of a results folder as markdown, each followed by the published one it must not be mixed with."""
    from same.engine import published, tables
    from same.engine.results import read_results

    found = tables.make_tables(read_results(results), reading)
    if not found:
        return "No results yet: `same sweep` writes them."
    parts = [tables.markdown(found)]
    names = {table.benchmark for table in found}
    parts += [published.markdown(table) for table in published.read_published() if table.beside in names]
    return "\n\n".join(parts)


def _between_marks(path: Path, text: str) -> None:
    content = path.read_text(encoding="utf-8") if path.is_file() else ""
    head, begin, rest = content.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InputError(f"--write must name a file that holds the lines {BEGIN} and {END}; {path} does not. Add them.")
    path.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", encoding="utf-8")
