"""Overview: which runs there are, what each scored, and how they compare."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from same.metrics import FORMULAS, NAMES, READINGS
from workbench import figures
from workbench.figures.scores import largest_score, named_matrix
from workbench.store import VARIANTS, Store
from workbench.views._base import NO_RUNS, NONE, View, Visitor, card
from workbench.views._panes import Sheet
from workbench.views._sketch import Table, coloured, plain

ANY = "any state"
NO_MATCH = "No run has all these words and this state. Empty Search, or choose another state."
ALL = "all"
"""Every run that can be read, one that comes later among them, as the address says it."""
FIRST = 8
"""Runs with a tick at first: of more the bars cannot be read."""
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
    """Run table that can be searched, score matrix of one run, metrics of the ticked runs, glossary."""

    title: ClassVar[str] = "Overview"
    order: ClassVar[int] = 0

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.variant = pmui.Select(label="Scoring", options=list(VARIANTS), value=VARIANTS[0], width=150)
        self.run = pmui.Select(label="Score matrix of", options={}, width=240)
        found_in = "Words of its name, state, seed or fingerprint; all of them must be there"
        self.search = pmui.TextInput(label="Search runs", placeholder="all", width=180, description=found_in)
        self.state_of = pmui.Select(label="State", options=[ANY], value=ANY, width=140)
        self.all = pd.DataFrame()
        self._ticked: set[str] | str | None = None
        self._listed_of: str | None = None
        self.table = Sheet(
            pd.DataFrame(),
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
        self.watch(self.search, self._list, "value_input")
        self.watch(self.state_of, self._list)
        self.watch(self.table, self._tick, "selection")
        self.remember(benchmark=self.benchmark, scoring=self.variant, run=self.run)
        self.remember(search=self.search, state=self.state_of)
        self.refresh()

    def fill(self) -> None:
        """Offer the runs of the chosen benchmark and draw them."""
        table = self.store.overview(self.variant.value)
        table = self.all = table[table["benchmark"] == self.benchmark.value].reset_index(drop=True)
        if self._listed_of != self.benchmark.value:
            self._listed_of, self._ticked = self.benchmark.value, None
        options = {row.label: row.run for row in table.itertuples() if row.state != "damaged"}
        value = self.run.value if self.run.value in options.values() else next(reversed(options.values()), None)
        states = [ANY, *dict.fromkeys(table["state"])]
        state = self.state_of.value if self.state_of.value in states else ANY
        with self.quiet():
            self.run.param.update(options=options, value=value)
            self.state_of.param.update(options=states, value=state)
        self._list()
        self._draw_matrix()

    def _list(self) -> None:
        """Show the runs that are searched for, with their ticks."""
        words = (self.search.value_input or "").lower().split()
        table = self.all.loc[[self._matches(row, words) for row in self.all.itertuples()]].reset_index(drop=True)
        notes = [problem for problem in self.all["problem"] if problem]
        partial = self.all[self.all["left_out"] != ""]
        notes += [f"{label}: {left_out}" for label, left_out in zip(partial["label"], partial["left_out"], strict=True)]
        if self.all.empty:
            self.tell(NO_RUNS)
        elif table.empty:
            self.tell("  ".join([NO_MATCH, *notes]))
        else:
            self.tell("  ".join(notes), "warning")
        columns = ["run", "label", "state", "tasks", *SHOWN, "seed", "fingerprint", "problem"]
        ticked = self._ticked_runs()
        with self.quiet():
            self.table.value = table[columns]
            self.table.selection = [index for index, run in enumerate(table["run"]) if run in ticked]
        self._draw_comparison()

    def _matches(self, row: Any, words: list[str]) -> bool:
        text = f"{row.label} {row.state} {row.seed} {row.fingerprint}".lower()
        return self.state_of.value in (ANY, row.state) and all(word in text for word in words)

    def _ticked_runs(self) -> list[str]:
        """The runs with a tick, also those that the search leaves out: at first the last few that can be read."""
        if self._ticked is None:
            return self._readable()[-FIRST:]
        if self._ticked == ALL:
            return self._readable()
        return [run for run in self.all["run"] if run in self._ticked]

    def _readable(self) -> list[str]:
        return list(self.all.loc[self.all["state"] != "damaged", "run"])

    def _tick(self) -> None:
        shown = list(self.table.value["run"])
        ticked = {run for run in self._ticked_runs() if run not in shown}
        ticked |= {shown[index] for index in self.table.selection if index < len(shown)}
        readable = self._readable()
        every = ALL if len(readable) > FIRST else None
        self._ticked = every if ticked == set(readable) else ticked
        self._draw_comparison()

    def state(self) -> dict[str, str]:
        """What the address says of this view: words not yet entered, and ticks that are not the first."""
        by_hand = isinstance(self._ticked, set)
        ticked = (",".join(self._ticked_runs()) or NONE) if by_hand else str(self._ticked or "")
        return super().state() | {"search": self.search.value_input or "", "runs": ticked}

    def restore(self, state: Mapping[str, str]) -> None:
        """Take up what an address says; what is not on offer is left as it is."""
        super().restore(state)
        named = {run for run in state.get("runs", "").split(",") if run in set(self.all["run"])}
        if named or state.get("runs") in (NONE, ALL):
            self._ticked = ALL if state["runs"] == ALL else named
            with self._drawing, self._together():
                self.attempt(self._list)

    def _draw_matrix(self) -> None:
        if self.run.value is None:
            return self.show(self.matrix, figures.score_matrix(pd.DataFrame()))
        run, variant, title = self.run.value, self.variant.value, self._matrix_title()
        self.draw(
            self.matrix,
            (self.store.key([run], "scores.json"), title, variant),
            lambda: figures.score_matrix(self.store.scores(run, variant), title),
        )
        return None

    def _matrix_title(self) -> str:
        label = next(label for label, option in self.run.options.items() if option == self.run.value)
        return f"Score matrix of {label}, {self.variant.value}"

    def _draw_comparison(self) -> None:
        table = self.table.value
        if table.empty:
            return self.show(
                self.comparison, figures.metric_comparison(pd.DataFrame(columns=["label", "metric", "value"]))
            )
        runs, variant, labels = (
            list(table["run"].iloc[self.table.selection]),
            self.variant.value,
            list(self.all["label"]),
        )
        some = f" ({len(runs)} of {len(self.all)})" if len(runs) < len(self.all) else ""
        self.draw(
            self.comparison,
            (self.store.key(runs, "config.json", "scores.json"), tuple(labels), variant),
            lambda: figures.metric_comparison(
                self._metrics(runs, variant), labels, f"Metrics of the ticked runs{some}"
            ),
        )
        return None

    def _metrics(self, runs: list[str], variant: str) -> pd.DataFrame:
        values = self.store.metrics(runs, variant)
        return values[values["metric"].isin(SHOWN)]

    def sketch(self) -> tuple[Table, ...]:
        """The listed runs, and the score matrix of the chosen one."""
        if self.all.empty:
            return ()
        runs = plain("", self.table.value[["label", "state", *SHOWN, "seed"]].rename(columns={"label": "run"}))
        scores = self._scores()
        if scores.empty:
            return (runs,)
        return (runs, coloured(self._matrix_title(), named_matrix(scores), largest_score(scores)))

    def _scores(self) -> pd.DataFrame:
        return self.store.scores(self.run.value, self.variant.value) if self.run.value else pd.DataFrame()

    def __panel__(self) -> pn.viewable.Viewable:
        chosen = (self.benchmark, self.search, self.state_of, self.run, self.variant)
        controls = pmui.Row(*chosen, self.refresh_button, margin=(12, 0, 0, 0))
        table = self.download("Runs as CSV", "runs.csv", lambda: self.table.value)
        scores = self.download("Scores as CSV", "scores.csv", self._scores)
        pictures = pmui.Row(card(self.matrix, scores), card(self.comparison), sizing_mode="stretch_width")
        parts = (controls, self.note, card(self.table, table), pictures, self.glossary)
        return pmui.Column(*parts, sizing_mode="stretch_width")


def _glossary() -> str:
    readings = [f"- **{name}**: {meaning}" for name, meaning in READINGS.items()]
    return "\n".join([*readings, "", SYMBOLS, "", *(f"- **{name}**: {FORMULAS[name]}" for name in NAMES)])
