"""`same plan`: what a run needs."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

from same.cli._options import AsJson, BenchmarkName, Settings, parse_settings


def plan(  # noqa: PLR0913 - a command has as many options as its contract says
    benchmark: BenchmarkName,
    backbone: Annotated[str, typer.Option(help="A size such as llava-1.5-7b, or a family with its checkpoint.")],
    method: Annotated[str, typer.Option(help="One of `same methods`.")] = "same",
    gpus: Annotated[int, typer.Option(help="How many, one process on each.")] = 1,
    strategy: Annotated[str, typer.Option(help="ddp, fsdp or zero2.")] = "ddp",
    gpu_gigabytes: Annotated[float, typer.Option(help="Memory of one GPU.")] = 80.0,
    teraflops: Annotated[float, typer.Option(help="What one GPU sustains in training.")] = 100.0,
    length: Annotated[int | None, typer.Option(help="Tokens of a row (default: a picture's and 128).")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Folder or hub name, where a family is given.")] = None,
    train_items: Annotated[int | None, typer.Option(help="Training rows a task (default: all).")] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run would need on each GPU, send and keep, and how long it trains; exits 1 if it does not fit."""
    from same.engine.job import coerce
    from same.engine.plan import Asked, Strategy
    from same.engine.plan import plan as work_out

    values = parse_settings(settings or [])
    if checkpoint is not None:
        values["checkpoint"] = checkpoint
    chosen: Strategy = coerce("strategy", strategy, Strategy)
    found = work_out(
        Asked(backbone, benchmark, method, gpus, chosen, gpu_gigabytes, teraflops, length, train_items, values)
    )
    told = dataclasses.asdict(found)
    title = f"{method} on {benchmark}, {backbone} on {gpus} GPU{'s' * (gpus > 1)} of {gpu_gigabytes:g} GB, {chosen}"
    print(json.dumps(told, indent=1) if as_json else f"{title}\n{_told(told)}")
    if not found.fits:
        raise typer.Exit(1)


def _told(found: dict[str, Any]) -> str:
    parts = [f"  {name:12} {size:9.3f}" for name, size in found["gigabytes_per_gpu"].items()]
    lines = [
        f"{found['parameters']:,} parameters, {found['trainable']:,} of adapters trained",
        "GB on each GPU",
        *parts,
        f"{found['megabytes_sent_per_step']:,.1f} MB sent by each GPU a step",
        f"{found['snapshot_megabytes']:,.1f} MB of snapshots on disk after all tasks",
        "hours of training unknown: the manifest promises no rows; give --train-items"
        if found["hours"] is None
        else f"{found['hours']:,.2f} hours of training",
        *(f"  {name.replace('_', ' ')}: {value}" for name, value in found["assumed"].items()),
        "It fits." if found["fits"] else f"It does not fit. {found['advice']}",
        *([f"But it would not start: {found['refused']}"] if found["refused"] else []),
    ]
    return "\n".join(lines)
