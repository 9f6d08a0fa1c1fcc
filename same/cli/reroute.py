"""`same reroute`: experts of one version under routers of another."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from same.cli._options import AsJson, RunPath
from same.errors import InputError


def reroute(  # noqa: PLR0913 - a command has as many options as its contract says
    run: RunPath,
    task: Annotated[str, typer.Option(help="Key of the task whose test rows are answered.")],
    router: Annotated[
        str, typer.Option(help="Version: a task's index from 0, random, uniform, oracle, own; or several, or all.")
    ],
    experts: Annotated[str, typer.Option(help="Version: a task's index from 0; or several with commas, or all.")],
    retrain_steps: Annotated[
        int | None, typer.Option(help="Steps to train the routers alone for, before (default: 0; oracle: 4 passes).")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of those steps' (default: the run's).")] = None,
    items: Annotated[int | None, typer.Option(help="Test rows, from the first (default: all of the run).")] = None,
    seed: Annotated[int, typer.Option(help="Of random routers and of the order of training rows.")] = 0,
    layer: Annotated[str | None, typer.Option(help="Layer whose tokens all get --weights.")] = None,
    weights: Annotated[str, typer.Option(help="Of its experts, with commas; they are divided by their sum.")] = "",
    as_json: AsJson = False,
) -> None:
    """Answer a task with the experts of one version of a run under the routers of another, or under retrained ones.

    Results join the run's record and are made once. Progress is on standard error; with --json it is on standard
    output, one JSON object a line: kinds load, retrain and answer, then result for each pair of versions.
    """
    from same.engine.reroute import KINDS, Rerouter, Rerouting, versions
    from same.runs import RunFolder

    folder, by_hand = RunFolder(run), _numbers(weights)
    rerouter = Rerouter(folder, print_line if as_json else Lines())
    pairs = [(one, int(other)) for other in versions(folder, experts) for one in versions(folder, router, KINDS)]
    results = [
        Rerouting(task, one, other, retrain_steps, learning_rate, items, seed, layer, by_hand) for one, other in pairs
    ]
    for asked in results:
        found = rerouter.result(asked)
        if as_json:
            print_line({"kind": "result", **found})
        else:
            print(told(found), flush=True)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--weights must be numbers with commas between; got {text!r}.") from None


def print_line(event: Mapping[str, Any]) -> None:
    """An event as a line of JSON, at once."""
    print(json.dumps(event, ensure_ascii=False), flush=True)


class Lines:
    """Progress on standard error; on a terminal it stays on one line."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show an event."""
        live = sys.stderr.isatty()
        if event["kind"] == "load":
            text, last = "loading the backbone", True
        elif event["kind"] == "retrain":
            text = f"routers: step {event['step']}/{event['steps']}  loss {event['loss']:.3f}"
            last = event["step"] == event["steps"]
        else:
            text, last = f"answered {event['answered']} of {event['total']}", event["answered"] == event["total"]
        if live or last:
            print(f"\r\033[K{text}" if live else text, end="\n" if last else "", file=sys.stderr, flush=True)


def told(result: Mapping[str, Any]) -> str:
    """A result on one line."""
    scores = "  ".join(f"{name} {value:.3f}" for name, value in result["scores"].items())
    trained = f", {result['retrained_steps']} steps" if result["retrained_steps"] else ""
    by_hand = f", {result['layer']} by hand" if result["layer"] else ""
    pair = f"router {result['router']}{trained}, experts {result['experts']}{by_hand}"
    return f"{result['task']}  {pair}:  {scores}  entropy {result['routing_entropy']['mean']:.3f} bits"
