"""Overview: which runs there are, what each scored, and how they compare."""

from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from same.metrics import FORMULAS, NAMES, READINGS
from workbench import figures
from workbench.store import VARIANTS, Store
from workbench.views._base import NO_RUNS, View, Visitor, card

SHOWN = ("last", "mean", "learning", "bwt", "fwt", "forgetting")
PLAIN_SELECTION = """
.tabulator-row.tabulator-selected, .tabulator-row.tabulator-selected:hover {
  background: inherit !important; color: inherit !important;
}
"""
SYMBOLS = (
    "semantic − strict is the drift of the format. "
    "R[t][i] is the score on task i after training task t, T the number of tasks."
)


class Overview(View):
    """Run table, score matrix of one run, metrics of the ticked runs, glossary."""

    title: ClassVar[str] = "Overview"
    order: ClassVar[int] = 0

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.variant = pmui.Select(label="Scoring", options=list(VARIANTS), value=VARIANTS[0], width=150)
        self.run = pmui.Select(label="Score matrix of", options={}, width=240)
        self.table = pn.widgets.Tabulator(
            pd.DataFrame(),
            disabled=True,
            show_index=False,
            selectable="checkbox",
            hidden_columns=["run", "problem"],
            formatters={name: {"type": "money", "precision": 3, "thousand": ""} for name in NAMES},
            header_tooltips={name: FORMULAS[name] for name in NAMES},
            titles={"label": "run"},
            text_align=dict.fromkeys(["tasks", "seed", *SHOWN], "right"),
            widths={"fingerprint": 150, "seed": 70, "tasks": 80},
            layout="fit_columns",
            stylesheets=[PLAIN_SELECTION],
            max_height=230,
            sizing_mode="stretch_width",
        )
        self.matrix, self.comparison = self.plot(), self.plot()
        self.glossary = pmui.Accordion(("What the metrics mean", pn.pane.Markdown(_glossary())), active=[])
        self.watch(self.variant, self.fill)
        self.watch(self.run, self._draw_matrix)
        self.watch(self.table, self._draw_comparison, "selection")
        self.remember(benchmark=self.benchmark, scoring=self.variant, run=self.run)
        self.refresh()

    def fill(self) -> None:
        """Offer the runs of the chosen benchmark and draw them."""
        table = self.store.overview(self.variant.value)
        table = table[table["benchmark"] == self.benchmark.value].reset_index(drop=True)
        damaged = [problem for problem in table["problem"] if problem]
        partial = [f"{row.label}: {row.left_out}" for row in table.itertuples() if row.left_out]
        if table.empty:
            self.tell(NO_RUNS)
        else:
            self.tell("  ".join([*damaged, *partial]), "warning")
        columns = ["run", "label", "state", "tasks", *SHOWN, "seed", "fingerprint", "problem"]
        options = {row.label: row.run for row in table.itertuples() if row.state != "damaged"}
        value = self.run.value if self.run.value in options.values() else next(reversed(options.values()), None)
        with self.quiet():
            self.table.value = table[columns]
            self.table.selection = [index for index, state in enumerate(table["state"]) if state != "damaged"]
            self.run.param.update(options=options, value=value)
        self._draw_matrix()
        self._draw_comparison()

    def _draw_matrix(self) -> None:
        if self.run.value is None:
            return self.show(self.matrix, figures.score_matrix(pd.DataFrame()))
        run, variant = self.run.value, self.variant.value
        label = next(label for label, option in self.run.options.items() if option == run)
        self.draw(
            self.matrix,
            (self.store.key([run], "scores.json"), label, variant),
            lambda: figures.score_matrix(self.store.scores(run, variant), f"Score matrix of {label}, {variant}"),
        )
        return None

    def _draw_comparison(self) -> None:
        table = self.table.value
        if table.empty:
            return self.show(
                self.comparison, figures.metric_comparison(pd.DataFrame(columns=["label", "metric", "value"]))
            )
        runs, variant, labels = list(table["run"].iloc[self.table.selection]), self.variant.value, list(table["label"])
        self.draw(
            self.comparison,
            (self.store.key(runs, "config.json", "scores.json"), tuple(labels), variant),
            lambda: figures.metric_comparison(self._metrics(runs, variant), labels, "Metrics of the ticked runs"),
        )
        return None

    def _metrics(self, runs: list[str], variant: str) -> pd.DataFrame:
        values = self.store.metrics(runs, variant)
        return values[values["metric"].isin(SHOWN)]

    def __panel__(self) -> pn.viewable.Viewable:
        controls = pmui.Row(self.benchmark, self.run, self.variant, self.refresh_button, margin=(12, 0, 0, 0))
        pictures = pmui.Row(card(self.matrix), card(self.comparison), sizing_mode="stretch_width")
        return pmui.Column(controls, self.note, card(self.table), pictures, self.glossary, sizing_mode="stretch_width")


def _glossary() -> str:
    readings = [f"- **{name}**: {meaning}" for name, meaning in READINGS.items()]
    return "\n".join([*readings, "", SYMBOLS, "", *(f"- **{name}**: {FORMULAS[name]}" for name in NAMES)])
