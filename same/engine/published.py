"""Numbers that papers print, to stand beside the project's own in a table of their own: another protocol (no torch)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from same.data.yaml_file import YamlFile
from same.engine.results import MANIFESTS

FOLDER = MANIFESTS / "published"


@dataclass(frozen=True)
class Published:
    """One table of a paper.

    Args:
        beside: the embedded benchmark that is drawn after its benchmark.
        protocol: how its numbers were made.
        columns: tasks, and what is averaged.
        rows: by method, percentages; None where the source has none.
        notes: on single numbers.
    """

    title: str
    beside: str
    source: str
    protocol: str
    columns: tuple[str, ...]
    rows: dict[str, list[float | None]]
    notes: str = ""


def read_published(folder: Path = FOLDER) -> list[Published]:
    """All published tables.

    Raises:
        InputError: a file is not as it must be; names it and the key.
    """
    return [_Reader(path).table() for path in sorted(folder.glob("*.yaml"))]


class _Reader(YamlFile):
    def table(self) -> Published:
        given = self.mapping(self.read("a published table"), "the file")
        self.known(given, Published, "the file")
        texts = {name: self.value(given, name, str, "the file") for name in ("title", "beside", "source", "protocol")}
        columns = given.get("columns")
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise self.complaint("columns", "be a list of texts", columns)
        rows = {
            name: self._row(name, row, len(columns)) for name, row in self.mapping(given.get("rows"), "rows").items()
        }
        return Published(
            **texts, columns=tuple(columns), rows=rows, notes=self.value(given, "notes", str, "the file", "")
        )

    def _row(self, name: str, row: Any, count: int) -> list[float | None]:
        if not isinstance(row, list) or len(row) != count or not all(type(n) in (int, float, type(None)) for n in row):
            raise self.complaint(f"rows.{name}", f"be a list of {count} numbers, null where there is none", row)
        return [None if number is None else float(number) for number in row]


def markdown(table: Published) -> str:
    """A published table, marked as what it is."""
    head = ["method", *table.columns]
    lines = [head, ["---", *["---:"] * len(table.columns)]]
    lines += [[name, *("·" if n is None else f"{n:.2f}" for n in row)] for name, row in table.rows.items()]
    return "\n\n".join(
        [
            f"#### Published, another protocol: {table.title}",
            f"Not comparable with the tables above. {table.protocol} Source: {table.source}",
            "\n".join("| " + " | ".join(line) + " |" for line in lines),
            *([table.notes] if table.notes else []),
        ]
    )
