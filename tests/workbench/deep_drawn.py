"""Every figure of drift, re-routing, spectra and activation, drawn from runs that hold everything."""

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from tests.workbench import deep
from workbench import figures, tables
from workbench.store import Store

THRESHOLD = 0.1


def drawn_deep(runs: Path) -> dict[str, go.Figure]:
    store = Store(runs)
    names = list(store.overview()["run"])
    run, last = names[1], len(deep.TASKS) - 1
    drift, asked = tables.drift(store, names), tables.reroutings(store, names)
    own = asked[asked["run"] == run]
    four = tables.swap(own, 0, last)
    rules, spectra = tables.rules_of(store, run), tables.spectra(store, run, last)
    scored = tables.activation(store, run)
    at = tables.at_threshold(tables.last_scored(scored, last), THRESHOLD)
    saved = pd.DataFrame({"resting": ["0 of 8", "4 of 8"], "cost": "task time", "ratio": [1.0, 0.8]})
    return {
        "drift_curve": figures.drift_curve(drift, "entropy"),
        "drift_heatmap": figures.drift_heatmap(drift),
        "expert_map": figures.expert_map(store.routing(names)),
        "rerouting_curve": figures.rerouting_curve(own),
        "rerouting_controls": figures.rerouting_controls(asked[asked["experts"] == last]),
        "swap": figures.swap(four, tables.swap_effects(four)),
        "version_grid": figures.version_grid(own),
        "retraining_curves": figures.retraining_curves(tables.retraining(store, run, list(own["id"]))),
        "eigenvalue_decay": figures.eigenvalue_decay(spectra),
        "rank_map": figures.rank_map(tables.ranks(store, run, 0.9)),
        "angle_matrix": figures.angle_matrix(tables.angles(store, run, "0.mlp_in")),
        "gain_curve": figures.gain_curve(tables.gains(store, run, last, rules)),
        "protection": figures.protection(tables.protection(store, run, last, rules)),
        "expert_scatter": figures.expert_scatter(at, THRESHOLD),
        "score_map": figures.score_map(at, THRESHOLD),
        "score_history": figures.score_history(scored[scored["layer"] == "0.up"], THRESHOLD),
        "freezing_curve": figures.freezing_curve(tables.freezing(scored), THRESHOLD),
        "step_curve": figures.step_curve(tables.steps(store, names)),
        "task_times": figures.task_times(tables.times(store, names)),
        "savings": figures.savings(saved),
    }
