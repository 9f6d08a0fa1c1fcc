"""`same route`: where the tokens of one test question go."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from same.cli._options import AsJson, RunPath
from same.cli.reroute import Lines, print_line

if TYPE_CHECKING:
    import pandas

WIDTH = 20


def route(
    run: RunPath,
    after: Annotated[int, typer.Option(help="Version of experts and routers: a task's index from 0.")],
    task: Annotated[str, typer.Option(help="Key of the question's task.")],
    question: Annotated[str, typer.Option(help="Its question_id, as the run's predictions have it.")],
    as_json: AsJson = False,
) -> None:
    """Let a run's model read a test question, and keep the routing weights ω of each of its tokens in every layer.

    The result joins the run's record and is made once; its table has columns layer, position, token, row, column,
    expert and weight. Printed is the mean over layers. With --json: one object a line, kinds load and result.
    """
    from same.engine.token_routing import keep_token_routing
    from same.runs import RunFolder

    kept = keep_token_routing(RunFolder(run), after, task, question, print_line if as_json else Lines())
    table = kept.table("tokens")
    if as_json:
        about = {"after": after, "task": task, "question": question, "file": str(kept.path / "tokens.parquet")}
        counts = {"layers": int(table["layer"].nunique()), "tokens": int(table["position"].nunique())}
        print_line({"kind": "result", "id": kept.path.name, **about, **counts})
    else:
        print(told(table))


def told(table: pandas.DataFrame) -> str:
    """A line a word with its experts' weights, and one for all tokens of the picture together."""
    mean = table.groupby(["position", "token", "expert"])["weight"].mean().unstack("expert").reset_index("token")
    said, pictured = mean[mean["token"] != ""], mean.loc[mean["token"] == "", mean.columns[1:]]
    lines = [" " * WIDTH + "".join(f"{f'E{expert + 1}':>7}" for expert in range(len(mean.columns) - 1))]
    lines += [_line(json.dumps(token, ensure_ascii=False), weights) for token, *weights in said.to_numpy()]
    if len(pictured):
        lines.append(_line(f"{len(pictured)} of the picture", pictured.mean()))
    return "\n".join(lines)


def _line(name: str, weights: Iterable[float]) -> str:
    return f"{name[:WIDTH]:{WIDTH}}" + "".join(f"{weight:7.3f}" for weight in weights)
