"""One self-contained HTML page of a finished chain: texts, tables and live figures, readable without a network."""

import base64
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbconvert.filters import markdown2html, strip_ansi
from plotly.offline import get_plotlyjs

import same
from workbench.figures._style import SVG_BUTTON
from workbench.plan import Chain, Step, content_digest
from workbench.store import Store
from workbench.trained import run_of

PLOTLY = "application/vnd.plotly.v1+json"
PARAMETERS = ("parameters", "injected-parameters")
PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "pandas", "plotly", "papermill")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
body { color: #1b1b1b; background: #fff; }
nav li { margin: .2rem 0; } h1 { margin-bottom: .2rem; } section { border-top: 2px solid #0072B2; margin-top: 3rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem; }
td, th { border: 1px solid #ccc; padding: .25rem .6rem; text-align: right; }
pre { background: #f5f5f5; padding: .6rem; overflow-x: auto; font-size: .85rem; }
details { margin: .4rem 0; } summary { color: #555; cursor: pointer; }
.anchor-link { display: none; }
#state p { background: #D55E00; color: #fff; padding: .6rem 1rem; }
.error { border-left: 4px solid #D55E00; } img { max-width: 100%; } .wide { overflow-x: auto; } .quiet { color: #555; }
"""
DRAW = """
function draw(id, data, layout) {
  const place = document.getElementById(id), fold = place.closest("details");
  const now = () => Plotly.newPlot(place, data, layout, {responsive: true, displaylogo: false});
  if (fold && !fold.open) fold.addEventListener("toggle", now, {once: true}); else now();
}
"""
"""What is folded away is drawn when it is opened: then it has a width, and the page itself opens sooner."""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>{style}</style><script>{scripts}</script></head>
<body><div id="state"></div><h1>{title}</h1><p class="quiet">Chain <code>{name}</code>, same-workbench {version}</p>
<nav><ul>{contents}</ul></nav>
{sections}
<section id="environment"><h1>Environment</h1>{environment}</section>
</body></html>
"""


def write_report(chain: Chain, folder: Path, runs: Path, seconds: Mapping[str, float]) -> Path:
    """Write index.html beside the executed notebooks and return its path.

    Args:
        folder: holds the executed copies.
        runs: folder of the runs that the notebooks used.
        seconds: how long each step took.
    """
    training = [step for step in chain.steps if step.makes is not None]
    drawing = [step for step in chain.steps if step.makes is None]
    contents = [_link(step.name, f"{step.name} ({seconds.get(step.name, 0):.0f} s)") for step in drawing]
    sections = [_section(step, folder) for step in drawing]
    store = Store(runs)
    found = {step.name: run_of(step, runs) for step in training}
    names = {step: store.name(run.path) for step, run in found.items() if run is not None}
    overview = store.overview()
    overview = overview[overview["run"].isin(names.values())]
    for group in dict.fromkeys(step.group for step in training):
        steps = [step for step in training if step.group == group]
        took = sum(seconds.get(step.name, 0) for step in steps)
        heading = f"{group}: {len(steps)} training {'step' if len(steps) == 1 else 'steps'} ({took:.0f} s)"
        contents.append(_link(f"steps-{group}", heading))
        table = _trained(steps, names, overview, seconds)
        books = "".join(_section(step, folder) for step in steps)
        sections.append(
            f'<section id="steps-{escape(group)}"><details><summary>{escape(heading)}</summary>'
            f"{table}{books}</details></section>"
        )
    contents.append(_link("environment", "environment"))
    page = PAGE.format(
        title=escape(chain.title),
        name=escape(chain.name),
        version=same.__version__,
        style=STYLE,
        scripts=get_plotlyjs() + SVG_BUTTON + DRAW,
        contents="".join(contents),
        sections="\n".join(sections),
        environment=_environment(overview),
    )
    beside = folder / f".index.{os.getpid()}"
    beside.write_text(page, encoding="utf-8")
    return beside.replace(folder / "index.html")


def mark_old(folder: Path, reason: str) -> None:
    """Say at the head of a report that stands there, if one does, that it is not of the newest run of its chain."""
    file = folder / "index.html"
    if not file.is_file():
        return
    head, mark, rest = file.read_text(encoding="utf-8").partition('<div id="state">')
    lines = "<br>".join(escape(line) for line in ["This report is old.", *reason.splitlines()])
    beside = folder / f".index.{os.getpid()}"
    beside.write_text(f"{head}{mark}<p>{lines}</p></div>{rest.partition('</div>')[2]}", encoding="utf-8")
    beside.replace(file)


def _link(place: str, text: str) -> str:
    return f'<li><a href="#{escape(place)}">{escape(text)}</a></li>'


def _section(step: Step, folder: Path) -> str:
    given = ", ".join(f"{key} = {value}" for key, value in step.parameters.items())
    about = f'<p class="quiet"><b>{escape(step.name)}</b> {escape(given)} <code>{escape(step.copy)}</code></p>'
    body = "\n".join(_cells(nbformat.read(folder / step.copy, as_version=4).cells, step.name))
    return f'<section id="{escape(step.name)}">{about}{body}</section>'


def _trained(
    steps: Sequence[Step], names: Mapping[str, str], overview: pd.DataFrame, seconds: Mapping[str, float]
) -> str:
    """The runs that steps trained: what was asked for, the score after the last task, and the step's seconds."""
    last = overview.set_index("run")["last"].to_dict()
    rows = []
    for step in steps:
        given = {**step.defaults, **step.parameters}
        row = {name: given.get(name, "") for name in ("method", "benchmark", "seed")}
        row["settings"] = ", ".join(f"{name} = {value}" for name, value in (given.get("settings") or {}).items())
        score = last.get(names.get(step.name, ""))
        row["last score, strict"] = "none" if score is None or pd.isna(score) else f"{score:.3f}"
        rows.append({**row, "seconds of the step": f"{seconds.get(step.name, 0):.0f}"})
    table = pd.DataFrame(rows).to_html(index=False, border=0)
    note = "A run that was found finished was not trained again: its step took the seconds of its notebook alone."
    return f'<div class="wide">{table}</div><p class="quiet">{note}</p>'


def _cells(cells: Iterable[Any], name: str) -> Iterator[str]:
    for number, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            yield markdown2html(cell.source)
        elif cell.cell_type == "code" and not set(PARAMETERS) & set(cell.metadata.get("tags", [])):
            yield f"<details><summary>code</summary><pre>{escape(cell.source)}</pre></details>"
            for index, output in enumerate(cell.outputs):
                yield _output(output, f"{name}-{number}-{index}")


def _output(output: Any, key: str) -> str:
    if output.output_type == "stream":
        return f"<pre>{escape(strip_ansi(output.text))}</pre>"
    if output.output_type == "error":
        lines = "\n".join(output.traceback)
        return f'<pre class="error">{escape(strip_ansi(lines))}</pre>'
    data = output.get("data", {})
    if PLOTLY in data:
        return _figure(data[PLOTLY], key)
    if "image/png" in data:
        picture = base64.b64encode(base64.b64decode(data["image/png"])).decode()
        return f'<img alt="output of the cell above" src="data:image/png;base64,{picture}">'
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""
    if "text/html" in data:
        return f'<div class="wide">{data["text/html"]}</div>'
    return f"<pre>{escape(data['text/plain'])}</pre>" if "text/plain" in data else ""


def _figure(figure: Mapping[str, Any], key: str) -> str:
    parts = [json.dumps(figure[part]).replace("</", "<\\/") for part in ("data", "layout")]
    draw = f'draw("{escape(key)}", {parts[0]}, {parts[1]})'
    return f'<div id="{escape(key)}"></div><script>{draw}</script>'


def _environment(overview: pd.DataFrame) -> str:
    machine = {"Python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()}
    code = {"code, weights and manifests (SHA-256)": content_digest()[:16]}
    rows = [*machine.items(), *code.items(), *((name, version(name)) for name in PACKAGES)]
    lines = "".join(f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    table = overview[["run", "state", "tasks"]].to_html(index=False, border=0) if len(overview) else "<p>None.</p>"
    return f"<h2>Runs that the chain trains</h2>{table}<h2>Machine, code and packages</h2><table>{lines}</table>"
