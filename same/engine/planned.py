"""What a run was planned to need: recorded as it begins, so that what it takes can be looked at beside it."""

from typing import cast

from same.engine.plan import Asked, Strategy, plan
from same.engine.session import Session

UNFORESEEN = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What tracing an architecture raises that the planner does not know; no training is to end by that."""


def record_plan(session: Session) -> None:
    """Add the event ``plan`` to a run that trains and has none.

    It holds a plan's sizes (`same.engine.plan.Plan`), the operations of each task's training for the rows that it draws
    (petaflops), and what was assumed; or why there is no plan (unknown). Random numbers are drawn for it: whoever
    trains sets the seed afterwards.
    """
    known = any("gigabytes" in event for event in session.folder.events("plan"))
    if known or not session.processes.is_main or not session.method.trains:
        return
    request = session.job.request
    strategy = cast(Strategy, request.strategy)
    asked = Asked(
        request.backbone,
        request.benchmark,
        request.method,
        request.processes,
        strategy,
        settings=request.settings,
        tasks=request.tasks,
    )
    try:
        found = plan(asked, advise=False)
    except UNFORESEEN as error:
        session.record("plan", unknown=f"{type(error).__name__}: {error}")
        return
    assumed = {name: found.assumed[name] for name in ("rows_per_gpu", "tokens_per_row")}
    session.record(
        "plan",
        parameters=found.parameters,
        trainable=found.trainable,
        gigabytes=found.gigabytes_per_gpu,
        megabytes_sent_per_step=found.megabytes_sent_per_step,
        task_megabytes=found.task_megabytes,
        petaflops=[found.gigaflops_per_row * rows / 1e6 for rows in _rows(session)],
        **assumed,
    )


def _rows(session: Session) -> list[int]:
    """How many rows the training of each task draws."""
    counts = [len(rows) for rows in session.rows.train]
    drawn = session.method.curriculum(len(counts))
    return [session.job.train.epochs * sum(counts[task] for task in chosen) for chosen in drawn]
