"""Files of snapshots, read and compared with their hash once as long as they stay the same files."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from same.runs import RunFolder

Identity = tuple[int, int] | None


def identity(folder: RunFolder, after: int) -> Identity:
    """Tells a snapshot from another that is written in its place; None where there is none."""
    snapshot = folder.snapshot(after)
    if not snapshot.exists:
        return None
    seal = (snapshot.path / "manifest.json").stat()
    return seal.st_mtime_ns, seal.st_size


def table(folder: RunFolder, after: int, name: str) -> pd.DataFrame | None:
    """<name>.parquet of a snapshot, not to be changed; None where it has none."""
    return _table(folder.path, after, name, identity(folder, after))


@lru_cache(maxsize=256)
def _table(path: Path, after: int, name: str, _identity: Identity) -> pd.DataFrame | None:
    snapshot = RunFolder(path).snapshot(after)
    return snapshot.table(name) if snapshot.has(f"{name}.parquet") else None


def tensors(folder: RunFolder, after: int, name: str) -> Path | None:
    """Path of <name>.safetensors of a snapshot after a comparison with its hash; None where it has none."""
    return _tensors(folder.path, after, name, identity(folder, after))


@lru_cache(maxsize=256)
def _tensors(path: Path, after: int, name: str, _identity: Identity) -> Path | None:
    snapshot = RunFolder(path).snapshot(after)
    return snapshot.file(f"{name}.safetensors") if snapshot.has(f"{name}.safetensors") else None


def open_tensors(path: Path) -> Any:
    """A file of tensors that reads only what is asked for."""
    return safe_open(path, framework="numpy")


def number(tensor: NDArray[Any]) -> float:
    """The one number of a tensor."""
    return float(np.asarray(tensor).reshape(-1)[0])


def events(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    """The events of one kind, read once as long as the record has not grown; not to be changed."""
    seen = folder.events_path.stat() if folder.events_path.exists() else None
    return _events(folder.path, kind, seen and (seen.st_mtime_ns, seen.st_size))


@lru_cache(maxsize=64)
def _events(path: Path, kind: str, _identity: Identity) -> list[dict[str, Any]]:
    return RunFolder(path).events(kind)
