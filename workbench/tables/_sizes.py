"""Bytes of what a run keeps."""

from collections.abc import Sequence

import pandas as pd

from workbench.store import Store

_COLUMNS = ["run", "label", "task_index", "part", "megabytes"]


def sizes(store: Store, runs: Sequence[str]) -> pd.DataFrame:
    """The files of every snapshot, each by its name; in MB (10⁶ bytes)."""
    labels = store.overview().set_index("run")["label"]
    rows = []
    for run in runs:
        folder = store.folder(run)
        for index in range(folder.finished()):
            for file in sorted(path for path in folder.snapshot(index).path.rglob("*") if path.is_file()):
                rows.append((run, labels[run], index, file.name, file.stat().st_size / 1e6))
    table = pd.DataFrame(rows, columns=_COLUMNS)
    return table.groupby(_COLUMNS[:-1], sort=False, as_index=False)[["megabytes"]].sum()
