"""One test question looked at closely: its picture, and where a run's routers send each of its tokens."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from same.data.dataset import test_rows
from same.data.manifest import Benchmark
from same.data.prepare import prepare
from same.engine.job import request_of, resolve
from same.engine.session import Session
from same.engine.snapshot import restore
from same.errors import InputError
from same.methods._experts import ExpertMethod
from same.runs import RunFolder
from same.tuner.observe import moe_layers


def picture_of(run: RunFolder, task: str, question_id: str) -> Path | None:
    """The picture of a test question; None where it has none. Loads no weights.

    Raises:
        InputError: the run's benchmark, task or question is not there.
    """
    job = resolve(request_of(run))
    image = _row(job.benchmark, task, question_id, prepare(job.source, job.data_root, progress=False))["image"]
    return None if image is None else Path(image)


def _row(benchmark: Benchmark, task: str, question_id: str, root: Path) -> dict[str, Any]:
    for row in test_rows(benchmark, benchmark.task(task), root):
        if row["question_id"] == question_id:
            return dict(row)
    raise InputError(f"{task} must have the test question asked for; got {question_id!r}. Take one of its predictions.")


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
    session = _session(run.path)
    restore(session, run.snapshot(after))
    session.model.eval()
    root = prepare(session.job.source, session.job.data_root, progress=False)
    row = _row(session.job.benchmark, task, question_id, root)
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
    session = Session.open(request_of(RunFolder(path)))
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
        name: layers[name].weigh(x.to(layers[name].router) @ layers[name].router.T).cpu() for name, x in seen.items()
    }
