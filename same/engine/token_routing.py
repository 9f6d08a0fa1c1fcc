"""One test question looked at closely: its picture, and where a run's routers send each of its tokens."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from same import __version__, registry
from same.data.dataset import test_rows
from same.data.prepare import prepare
from same.engine.job import request_of, resolve
from same.engine.reroute import require_experts
from same.engine.session import Report, Session
from same.engine.snapshot import restore
from same.errors import InputError
from same.methods._experts import ExpertMethod
from same.runs import RunFolder, write_table
from same.sealed import SealedFolder
from same.tuner.observe import moe_layers


def picture_of(run: RunFolder, task: str, question_id: str) -> Path | None:
    """The picture of a test question; None where it has none. Loads no weights.

    Raises:
        InputError: the run's benchmark, task or question is not there.
    """
    image = _row(run, task, question_id)["image"]
    return None if image is None else Path(image)


def _row(run: RunFolder, task: str, question_id: str) -> dict[str, Any]:
    job = resolve(request_of(run))
    root = prepare(job.source, job.data_root, progress=False)
    for row in test_rows(job.benchmark, job.benchmark.task(task), root, allow_missing=job.partial):
        if row["question_id"] == question_id:
            return dict(row)
    raise InputError(f"{task} must have the test question asked for; got {question_id!r}. Take one of its predictions.")


def keep_token_routing(
    run: RunFolder, after: int, task: str, question_id: str, report: Report | None = None
) -> SealedFolder:
    """Let the routing of a question's tokens join the run's record, where it is made once: the table ``tokens``.

    Args:
        report: called with the kind load before the backbone is loaded.

    Raises:
        InputError: as `token_routing` does, and nothing was written.
    """
    require_experts(run)
    registry.choose("stage", str(after), [str(index) for index in range(run.finished())])
    kept = run.routed_tokens(after, task, question_id)
    if not kept.exists:
        row = _row(run, task, question_id)
        if report is not None:
            report({"kind": "load", "run": str(run.path)})
        columns = _columns(_routing(run, after, row))
        about = {"version": __version__, "created": datetime.now(UTC).isoformat(timespec="seconds")}
        asked = {"after": after, "task": task, "question_id": question_id}
        kept.write(lambda folder: write_table(folder / "tokens.parquet", columns), **about, **asked)
    return kept


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def token_routing(run: RunFolder, after: int, task: str, question_id: str) -> list[dict[str, Any]]:
    """ω of every token of a question's prompt in every routed layer of a stage's model.

    The model stays loaded for the next question of the run.

    Args:
        after: 0-based stage.
        task: key of the question's task.

    Returns:
        Rows: layer, position, token (its text; "" for a picture's), expert, weight, and of a square picture's tokens
        row and column from the top left (None for others).

    Raises:
        InputError: the run's method has no experts, or stage, task or question are not there.
    """
    return _routing(run, after, _row(run, task, question_id))


def _routing(run: RunFolder, after: int, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    session = _session(run.path)
    restore(session, run.snapshot(after))
    session.model.eval()
    batch = send_to_device(session.collate_prompts([row]), session.processes.device)
    weights = _weights(session.model, lambda: session.model(**batch))
    ids = batch["input_ids"][0].tolist()
    tokenizer: Any = session.loaded.processor.tokenizer
    pictured = [place for place, token in enumerate(ids) if token == _picture_token(session.model)]
    side = round(len(pictured) ** 0.5)
    places = {place: divmod(index, side) for index, place in enumerate(pictured)} if side**2 == len(pictured) else {}
    rows = []
    for layer, omega in weights.items():
        for place, token in enumerate(ids):
            line, column = places.get(place, (None, None))
            text = "" if place in pictured else tokenizer.decode([token])
            about = {"layer": layer, "position": place, "token": text, "row": line, "column": column}
            rows += [{**about, "expert": expert, "weight": float(one)} for expert, one in enumerate(omega[place])]
    return rows


@lru_cache(maxsize=1)
def _session(path: Path) -> Session:
    session = Session.reopen(RunFolder(path))
    if not isinstance(session.method, ExpertMethod):
        raise InputError(f"{path} must be of a method with experts; {session.job.request.method} has none.")
    session.attach()
    return session


def _picture_token(model: nn.Module) -> int | None:
    config: Any = model.config
    found = getattr(config, "image_token_id", None)
    return None if found is None else int(found)


def _weights(model: nn.Module, run: Callable[[], Any]) -> dict[str, Tensor]:
    """By layer the ω of each token of one sample [tokens, n], of the layers that read its tokens."""
    seen: dict[str, Tensor] = {}
    layers = {name: layer for name, layer in moe_layers(model).items() if layer.padded}
    hooks = []
    for name, layer in layers.items():

        def keep(one: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            seen[name] = inputs[0].detach()[0]

        hooks.append(layer.register_forward_pre_hook(keep))
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: layers[name].weigh(x.to(layers[name].router) @ layers[name].router.T).detach().cpu()
        for name, x in seen.items()
    }
