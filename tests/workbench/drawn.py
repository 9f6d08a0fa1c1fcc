"""The figures of ablation, answers, tables and robustness from made-up runs; as a page: ``python -m … FILE.html``."""

import sys
import tempfile
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from same.metrics import ERRORS
from tests.workbench.variants import write_variants
from workbench import answers, figures, results, trials
from workbench.figures._style import dress
from workbench.store import Store


def drawn_variants(runs: Path) -> dict[str, go.Figure]:
    """Each of these figures once, by its function's name."""
    store = Store(runs)
    corners = trials.corners(store, "mini-coin", "same")
    names = trials.plain(store, "mini-coin", ["moelora", "same"])
    readings, found = answers.readings(store, names), answers.errors(store, names)
    column = trials.cumulative(corners, "last").assign(value=lambda table: 100 * table["value"])
    beside = results.beside(results.ours(store, "mini-coin"), results.published("coin"))
    orders = trials.points(store, "mini-coin", ["moelora", "same"], "last", "task_order")
    seeds = trials.points(store, "mini-coin", ["moelora", "same"], "last", "seed")
    varied = trials.varied(store, "mini-coin", "same", ["damping", "gain"], "last")
    windows = pd.DataFrame({"window": range(9), "shift": [0.0, 0.1, 0.1, 0.6, 0.1, 0.3, 0.15, 0.1, 0.1]})
    windows = windows.assign(limit=0.2, found=windows["shift"] > 0.2, boundary=windows["window"].isin([3, 6]))
    probe = pd.DataFrame({"tokens": ["text alone", "text alone", "picture and text", "picture and text"]})
    probe = probe.assign(layer=["0.up", "1.up"] * 2, accuracy=[0.5, 0.9, 0.6, 1.0])
    words = pd.DataFrame([(e, p, w, 0.1 * e) for e in range(3) for p, w in enumerate(["What", " is", " it"])])
    words.columns = ["expert", "position", "token", "weight"]
    parts = pd.DataFrame([("same", "weights", 20.0), ("same", "activations", 180.0), ("same", "measured", 900.0)])
    parts.columns = ["label", "part", "megabytes"]
    return {
        "planned_memory": figures.planned_memory(parts),
        "token_routing": figures.token_routing(words),
        "factorial_corners": figures.factorial_corners(trials.cells(corners, "last"), "last"),
        "factorial_effects": figures.factorial_effects(trials.effects(corners, "last"), "last"),
        "cumulative_ablation": figures.cumulative_ablation(column, results.published_ablation()),
        "readings_over_stages": figures.readings_over_stages(readings[readings["task"] == "scienceqa"]),
        "format_drift_map": figures.format_drift_map(answers.drift_of_format(readings)),
        "error_classes": figures.error_classes(answers.over_tasks(found), list(ERRORS)),
        "two_protocols": figures.two_protocols(beside, "mini-coin"),
        "spread": figures.spread(pd.concat([orders, seeds]), "last", "seeds or orders"),
        "sensitivity": figures.sensitivity(varied, "last"),
        "covariance_shift": figures.covariance_shift(windows),
        "probe_accuracy": figures.probe_accuracy(probe, 0.5),
    }


def main(page: Path, dark: bool = False) -> None:
    """Write all of them on one page."""
    with tempfile.TemporaryDirectory() as place:
        write_variants(Path(place))
        made = drawn_variants(Path(place))
    bodies = [dress(figure, dark).to_html(full_html=False, include_plotlyjs=False) for figure in made.values()]
    ground = "#121212" if dark else "#ffffff"
    style = f"<style>body {{ background: {ground}; width: 1000px; }}</style>"
    page.write_text(f"{style}<script>{get_plotlyjs()}</script>{''.join(bodies)}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), dark="--dark" in sys.argv)
