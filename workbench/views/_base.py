"""What every view has."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from threading import RLock
from typing import Any, ClassVar

import panel as pn
import panel_material_ui as pmui
import param
import plotly.graph_objects as go

from same.errors import InputError
from workbench.figures._style import dress, empty
from workbench.store import Store

NO_RUNS = (
    "There is no run in this folder yet. Train one with `same train --benchmark mini-coin --method same`, "
    "or run `workbench reproduce --chain quick`, then press Refresh."
)
PLOT_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


class View(pn.viewable.Viewer, param.ParameterizedABC):
    """A page of the dashboard: widgets and panes are made once, and only their values change.

    A session's callbacks run in threads, so that one drawing waits for another.
    """

    title: ClassVar[str]
    order: ClassVar[int]
    dark = param.Boolean(default=False, doc="Whether the page shows its dark theme.")

    def __init__(self, store: Store, **params: Any):
        super().__init__(**params)
        self.store = store
        self.note = pmui.Alert(
            object="", alert_type="info", visible=False, sizing_mode="stretch_width", margin=(0, 0, 10, 0)
        )
        self.refresh_button = pmui.Button(
            label="Refresh",
            icon="refresh",
            variant="outlined",
            description="Read the runs folder again",
            margin=(10, 10),
        )
        self.benchmark = pmui.Select(label="Benchmark", options=[], width=170)
        self._quiet = False
        self._drawing = RLock()
        self._drawn: dict[pn.pane.Plotly, go.Figure] = {}
        self.refresh_button.on_click(lambda _event: self.refresh())
        self.watch(self.benchmark, self.fill)

    def refresh(self) -> None:
        """Read what runs there are and draw again."""
        with self._drawing:
            names = list(dict.fromkeys(self.store.overview()["benchmark"]))
            chosen = self.benchmark.value if self.benchmark.value in names else next(iter(names), None)
            with self.quiet():
                self.benchmark.param.update(options=names, value=chosen)
            self.attempt(self.fill)

    @abstractmethod
    def fill(self) -> None:
        """Offer the runs of the chosen benchmark and draw them."""

    @abstractmethod
    def __panel__(self) -> pn.viewable.Viewable:
        """Lay out what is shown."""

    def watch(self, widget: Any, draw: Callable[[], None], name: str = "value") -> None:
        """Draw when the reader changes a widget, not when the view itself does inside `quiet`."""

        def changed(_event: object) -> None:
            with self._drawing:
                if not self._quiet:
                    self.attempt(draw)

        widget.param.watch(changed, name)

    def plot(self) -> pn.pane.Plotly:
        """Make a plot pane that fills its place and follows the page's theme."""
        return pn.pane.Plotly(empty("Loading …"), config=PLOT_CONFIG, sizing_mode="stretch_width", margin=0)

    def show(self, pane: pn.pane.Plotly, figure: go.Figure) -> None:
        """Put a figure into its pane, which takes the figure's height."""
        self._drawn[pane] = figure
        # the pane writes what its reader does (zoom, size) into its figure: it gets a copy
        pane.param.update(object=go.Figure(dress(figure, self.dark)), height=figure.layout.height)

    @param.depends("dark", watch=True)
    def _dress_again(self) -> None:
        for pane, figure in self._drawn.items():
            self.show(pane, figure)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Change several widgets without a drawing for each."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def tell(self, message: str = "", kind: str = "info") -> None:
        """Show a sentence above the figures, or none."""
        self.note.param.update(object=escape(message, quote=False), alert_type=kind, visible=bool(message))

    def attempt(self, draw: Callable[[], None]) -> None:
        """Draw; where the files do not allow it, say what is wrong and what to do."""
        try:
            draw()
        except InputError as error:
            self.tell(str(error), "error")


def card(*children: Any, **settings: Any) -> pmui.Paper:
    """A framed part of a view."""
    frame = {"border": "1px solid rgba(128, 128, 128, 0.35)"}
    return pmui.Paper(*children, elevation=0, sx=frame, sizing_mode="stretch_width", margin=5, **settings)
