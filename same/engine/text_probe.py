"""What the routers know of the task: told from where they send a question's tokens, with its picture and without."""

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from same.engine.job import request_of
from same.engine.session import Session
from same.engine.snapshot import restore
from same.errors import InputError
from same.methods._experts import ExpertMethod
from same.runs import RunFolder
from same.tuner import Observation

ALL_LAYERS = "all"
READINGS = {"text alone": False, "picture and text": True}


def probe_tasks(run: RunFolder, after: int | None = None, items: int = 20) -> list[dict[str, Any]]:
    """Name the task of test questions by the nearest class mean of their routing, fitted on every other question.

    Args:
        run: finished at least until `after`; its method routes experts.
        after: 0-based stage whose model is asked; the last one by default.
        items: test questions of each task, half to fit and half to test.

    Returns:
        Rows: tokens (a key of READINGS), layer (a module's name, or "all" together), accuracy in [0, 1], tested.

    Raises:
        InputError: the run has no such snapshot, its method has no experts, or a task has fewer than 2 questions.
    """
    session = Session.open(request_of(run))
    if not isinstance(session.method, ExpertMethod):
        raise InputError(f"{run.path} must be of a method with experts; {session.job.request.method} has none.")
    stage = run.finished() - 1 if after is None else after
    session.attach()
    restore(session, run.snapshot(stage))
    session.model.eval()
    labels = torch.tensor([index for index, row in _questions(session, items)])
    if int(labels.bincount().min()) < 2:
        raise InputError(f"a task must have 2 test questions to fit and test on; {run.path} was given fewer.")
    found = []
    for name, pictured in READINGS.items():
        names, shares = _routing(session, [row for _, row in _questions(session, items)], pictured)
        for place, layer in enumerate(names):
            found.append({"tokens": name, "layer": layer, **_accuracy(shares[:, place], labels)})
        found.append({"tokens": name, "layer": ALL_LAYERS, **_accuracy(shares.flatten(1), labels)})
    return found


def _questions(session: Session, items: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, rows in enumerate(session.rows.test):
        for row in rows.select(range(min(items, len(rows)))).to_list():
            yield index, row


def _routing(session: Session, rows: list[dict[str, Any]], pictured: bool) -> tuple[list[str], Tensor]:
    """Names of the routed layers, and the mean ω of each question's tokens [questions, layers, n]."""
    shares = []
    names: list[str] = []
    for row in rows:
        asked = row if pictured else {**row, "image": None}
        batch = send_to_device(session.collate_prompts([asked]), session.processes.device)
        seen = Observation(session.model, session.loaded.layout.input_key)
        with torch.no_grad(), session.autocast, seen.watching(batch["attention_mask"]):
            session.model(**batch)
        shares.append(seen.mean_weight().cpu())
        names = seen.names
    return names, torch.stack(shares)


def _accuracy(features: Tensor, labels: Tensor) -> dict[str, float]:
    """Of the nearest class mean, fitted on the even questions of each task and tested on the odd ones."""
    order = torch.cat([torch.arange(int(count)) for count in labels.bincount()])
    fit, test = order % 2 == 0, order % 2 == 1
    means = torch.stack([features[fit & (labels == label)].mean(0) for label in labels.unique()])
    nearest = torch.cdist(features[test], means).argmin(-1)
    return {"accuracy": float((nearest == labels[test]).double().mean()), "tested": int(test.sum())}
