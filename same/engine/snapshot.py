"""Snapshots: a trained task on disk, in PEFT's layout and with the method's statistics, and back into a model."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from same.engine.session import Session
from same.engine.sharding import cut_like
from same.errors import SnapshotError
from same.runs import RunFolder, write_table
from same.sealed import SealedFolder

ADAPTER = "adapter/adapter_model.safetensors"
STATE = "method_state.safetensors"


def write_trained(session: Session, index: int) -> None:
    """Keep a task that is trained but not evaluated yet, so that a stop during evaluation costs no training."""
    if session.processes.is_main:
        session.folder.trained(index).write(lambda path: _fill(session, path), task_index=index)
    session.processes.wait()


def _fill(session: Session, path: Path) -> None:
    if isinstance(session.model, PeftModel):
        weights = dict(session.model.named_parameters()) | dict(session.model.named_buffers())
        for name in _made_anew(session.model):
            weights.pop(name, None)
        session.model.save_pretrained(str(path / "adapter"), state_dict=weights, save_embedding_layers=False)
        (path / "adapter" / "README.md").unlink(missing_ok=True)
    tables = session.method.snapshot_tables()
    _save(tables.spectra, path / "spectrum.safetensors")
    _save(session.method.state_dict(), path / STATE)
    _table(tables.activation, path / "activation.parquet")


def _made_anew(model: nn.Module) -> Iterator[str]:
    """Names of buffers that a tuner makes anew. A state dict leaves them out too, but cuts a gathered model again."""
    for place, module in model.named_modules():
        yield from (f"{place}.{name}" for name in module._non_persistent_buffers_set)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    if tensors:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    if rows:
        write_table(path, {name: [row[name] for row in rows] for name in rows[0]})


def finish_snapshot(
    session: Session, index: int, tables: Mapping[str, Sequence[Mapping[str, Any]]], probe: dict[str, Tensor]
) -> None:
    """Turn a trained and evaluated task into the run's snapshot of it.

    Args:
        index: the task.
        tables: rows of <name>.parquet; a table without rows is left out.
        probe: tensors of probe.safetensors; none leaves it out.
    """
    trained = session.folder.trained(index)

    def fill(path: Path) -> None:
        for name in trained.manifest()["files"]:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(trained.file(name), path / name)
        for name, rows in tables.items():
            _table(rows, path / f"{name}.parquet")
        _save(probe, path / "probe.safetensors")

    if session.processes.is_main:
        key = session.job.benchmark.tasks[index].key
        session.folder.write_snapshot(index, fill, task=key)
        shutil.rmtree(trained.path)
    session.processes.wait()


def prune(run: RunFolder) -> None:
    """Leave of a run's snapshots what is read of a finished run: their tables. Weights and states, most of it, go."""
    for index in range(run.finished()):
        snapshot = run.snapshot(index)
        about = snapshot.manifest()
        tables = [name for name in about["files"] if name.endswith(".parquet")]
        if len(tables) < len(about["files"]):
            kept = {name: snapshot.file(name).read_bytes() for name in tables}
            run.write_snapshot(index, partial(_write_all, files=kept), task=about["task"], pruned=True)


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def restore(session: Session, folder: SealedFolder) -> None:
    """Load a snapshot into the session's attached model and method, after checking every file of it.

    Raises:
        SnapshotError: a file is missing or damaged, or the adapter does not fit the model.
    """
    folder.verify()
    if isinstance(session.model, PeftModel):
        weights = load_file(folder.file(ADAPTER))
        lacking = sorted(get_peft_model_state_dict(session.model).keys() - weights.keys())
        if lacking:
            raise SnapshotError(
                f"{folder.path / ADAPTER} must hold all of the adapter; it lacks {lacking[:3]}. {folder.remedy}"
            )
        outcome = set_peft_model_state_dict(session.model, cut_like(session.model, weights))
        if outcome.unexpected_keys:
            raise SnapshotError(
                f"{folder.path / ADAPTER} must fit the model; it has {outcome.unexpected_keys[:3]} beyond it. "
                f"{folder.remedy}"
            )
    state = load_file(folder.file(STATE)) if folder.has(STATE) else {}
    session.method.load_state_dict(state)
