"""Reports: what was measured here beside what papers print, as tables of two protocols."""

from html import escape
from io import StringIO
from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from same.metrics import READINGS
from workbench import figures, results
from workbench.store import VARIANTS, Store
from workbench.views._base import NO_RUNS, View, Visitor, card
from workbench.views._panes import Sheet

ABOUT = (
    "Two protocols, never one table's column: **measured here** are runs of this folder (and, where a method has none, "
    "results kept with the project) on a small embedded benchmark; **published** are numbers that papers print of a 7B "
    "model on the real benchmark. Only the order of methods may be compared. Measured: the score of every task after "
    "the last one, mean ± standard deviation over seeds (n − 1), in percent, but captions in the unit that their "
    "column names; *mean* is over tasks, and without captions where it says so, then in both panels of the picture. "
    "*rows* are training rows of a task. Pictures save themselves as PNG by the camera above them."
)
MEASURED = "Measured here: mean ± standard deviation over seeds, % unless the column has another unit"
PRINTED = "As published, another protocol: 7B model on the real benchmark, %"
NONE_PRINTED = "No published numbers of this benchmark are kept with the project."
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>{parts}</body></html>
"""
STYLE = (
    "body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto } td, th { padding: 0 .6rem }"
)


class Reports(View):
    """Measured and published tables, a figure with an axis for each, and both as CSV and one HTML page."""

    title: ClassVar[str] = "Reports"
    order: ClassVar[int] = 80

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        about = "; ".join(f"{name}: {meaning}" for name, meaning in READINGS.items())
        self.variant = pmui.Select(label="Scoring", options=list(VARIANTS), width=150, description=about)
        self.measured, self.printed = self._table(), self._table()
        self.source = pn.pane.HTML("", sizing_mode="stretch_width")
        self.beside = self.plot()
        self.both = self.published = pd.DataFrame(columns=["ours", "published"])
        self.protocol = ("", "tasks")
        self.about = NONE_PRINTED
        self.watch(self.variant, self.fill)
        self.remember(benchmark=self.benchmark, scoring=self.variant)
        self.refresh()

    def _table(self) -> Sheet:
        return Sheet(
            pd.DataFrame(),
            layout="fit_data_stretch",
            max_height=330,
            sizing_mode="stretch_width",
        )

    def fill(self) -> None:
        """Read both tables of the chosen benchmark and draw them."""
        benchmark = self.benchmark.value
        if benchmark is None:
            self.tell(NO_RUNS)
            self.show(self.beside, figures.two_protocols(self.both, ""))
            return
        ours = results.ours(self.store, benchmark, variant=self.variant.value)
        self.published = results.published(benchmark)
        self.both, self.protocol = results.beside(ours, self.published), results.protocol(ours)
        self._put(self.measured, results.summary(ours))
        self._put(self.printed, results.wide(self.published) if len(self.published) else self.published)
        about = " ".join(self.published["source"].unique())
        self.about = about or NONE_PRINTED
        self.source.object = f"<small>{escape(self.about)}</small>"
        count, ranks = results.agreement(self.both)
        said = f"{count} methods have both numbers; Spearman's correlation of their ranks is {ranks:.2f}."
        said = said if count > 2 else ""
        self.tell(said if len(ours) else f"No plain run of {benchmark} is finished: the measured table is empty.")
        self.show(self.beside, figures.two_protocols(self.both, benchmark, *self.protocol))

    def _put(self, pane: Sheet, table: pd.DataFrame) -> None:
        plain: Any = {name: {"type": "plaintext"} for name in table}
        texts = table.map(lambda value: "" if pd.isna(value) else str(value))
        pane.param.update(value=texts, formatters=plain)

    def _page(self) -> StringIO:
        """Both tables and the figure in one page that needs no network."""
        with self._drawing:
            picture = figures.two_protocols(self.both, str(self.benchmark.value), *self.protocol)
            title = f"{self.benchmark.value}, {self.variant.value} scores"
            parts = [
                results.html(self.measured.value, MEASURED),
                results.html(self.printed.value, PRINTED, self.about),
                picture.to_html(full_html=False, include_plotlyjs=True),
            ]
            return StringIO(PAGE.format(title=escape(title), style=STYLE, parts="".join(parts)))

    def __panel__(self) -> pn.viewable.Viewable:
        page = pmui.FileDownload(
            callback=self._page, filename="report.html", label="Report as HTML", icon="download", margin=(14, 8)
        )
        controls = pmui.Row(self.benchmark, self.variant, self.refresh_button, page, margin=(12, 0, 0, 0))
        ours = self.download("Measured as CSV", "measured.csv", lambda: self.measured.value)
        theirs = self.download("Published as CSV", "published.csv", lambda: self.published)
        both = self.download("Both means as CSV", "beside.csv", lambda: self.both)
        measured = card(pmui.Typography(MEASURED, variant="subtitle1"), self.measured, ours)
        printed = card(pmui.Typography(PRINTED, variant="subtitle1"), self.printed, self.source, theirs)
        parts = (controls, self.note, measured, printed, card(self.beside, both), pn.pane.Markdown(ABOUT))
        return pmui.Column(*parts, sizing_mode="stretch_width")
