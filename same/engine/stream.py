"""A benchmark as one stream of training rows: where its inputs' covariance shifts, without being told the tasks."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device

from same.data.collate import TrainCollator
from same.engine.job import Request
from same.engine.session import Session
from same.maths.boundaries import BoundaryDetector
from same.maths.covariance import CovarianceSettings
from same.tuner import Observation


def shifts(
    benchmark: str,
    backbone: str = "tiny",
    items: int = 160,
    window: int = 16,
    factor: float = 2.0,
    settings: Mapping[str, Any] | None = None,
    data_root: str | None = None,
) -> list[dict[str, Any]]:
    """Send the first rows of each task, in order, through the frozen backbone and detect boundaries on the way.

    Args:
        items: training rows of each task.
        window: rows of which one covariance is made.
        factor: as of BoundaryDetector.
        settings: of the trainer or the backbone, such as checkpoint or task_order.

    Returns:
        One row a window: window, task_index, task, shift, limit, found, boundary (a task begins with it).

    Raises:
        InputError: a name, a setting or a row is not as it must be.
    """
    given = {"train_items": items, "settings": dict(settings or {}), "data_root": data_root, "backbone": backbone}
    session = Session.open(Request(benchmark, "moelora", **given))  # type: ignore[arg-type]
    session.attach()
    session.model.eval()
    detector, rows = BoundaryDetector(factor), list[dict[str, Any]]()
    for index, task in enumerate(session.job.benchmark.tasks):
        count = len(session.rows.train[index])
        for start in range(0, count - window + 1, window):
            seen = _observe(session, session.rows.train[index].select(range(start, start + window)).to_list())
            said = detector.update(seen.trackers)
            about = {"window": len(rows), "task_index": index, "task": task.key, "boundary": start == 0 and index > 0}
            rows.append({**about, "shift": said.shift, "limit": said.limit, "found": said.found})
    return rows


def _observe(session: Session, rows: list[dict[str, Any]]) -> Observation:
    """The covariance over these rows of the adapted layers' inputs, of the narrowest: the wider are made from them."""
    collate: TrainCollator = session.collate_train
    batch = send_to_device(collate(rows), session.processes.device)
    del batch["labels"]
    settings = CovarianceSettings(token_stride=1, centered=True)
    seen = Observation(session.model, session.loaded.layout.input_key, covariance=settings)
    narrowest = min(tracker.dim for tracker in seen.trackers.values())
    seen.trackers = {key: tracker for key, tracker in seen.trackers.items() if tracker.dim == narrowest}
    with torch.no_grad(), session.autocast, seen.watching(batch["attention_mask"]):
        session.model(**batch)
    return seen
