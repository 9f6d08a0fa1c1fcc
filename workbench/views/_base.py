"""What every view has: the store, who looks at it, panes that are made once, a state that fits into an address."""

import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from io import StringIO
from threading import RLock, current_thread, main_thread
from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui
import param
import plotly.graph_objects as go

from same.errors import InputError
from workbench.figures._style import dress, empty
from workbench.jobs.queue import Jobs
from workbench.store import Store
from workbench.views._panes import Picture, Pictures
from workbench.views._sketch import Table

LOG = logging.getLogger("workbench")
NO_RUNS = (
    "There is no run in this folder yet. Train one with `same train --benchmark mini-coin --method same`, "
    "or run `workbench reproduce --chain quick`, then press Refresh."
)
ONLY_RUNNERS = (
    "You may look at every result here. Only runners may queue jobs: ask who runs this server for the role "
    "(workbench user add NAME --role runner)."
)
DIGITS = "0.[00000000]"
"""How a field shows its number: as it is typed, so that what is selected on entering the field stays selected."""
NONE = "none"
"""An emptied choice, as the address says it: nothing said of it is what is chosen at first."""
POLL_MS = 1000
"""Between two looks at the queue."""
PLOT_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
FORMULA = re.compile(r"\s*[=+\-@]|[\t\r]")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)
DAMAGED = (OSError, LookupError, TypeError, ValueError, AttributeError)
"""What reading files raises that are not what they must be."""


@dataclass(frozen=True)
class Visitor:
    """Who looks at the page."""

    name: str = ""
    jobs: Jobs | None = None
    """The queue, for who may add to it."""
    queue: Jobs | None = None
    """The queue to look at."""
    may: Callable[[], bool] = lambda: True
    """Whether who might add to it as the page was opened still may."""

    def allowed(self) -> Jobs:
        """The queue to add to; raises InputError for who may not."""
        if self.jobs is None or not self.may():
            raise InputError(ONLY_RUNNERS)
        return self.jobs


_PICTURES = Pictures(512)
_LOADING = dress(empty("Loading …"), dark=False)


class View(pn.viewable.Viewer, param.ParameterizedABC):
    """A page of the dashboard: widgets and panes are made once, and only their values change.

    A session's callbacks run in threads, so that one drawing waits for another.
    """

    title: ClassVar[str]
    order: ClassVar[int]
    dark = param.Boolean(default=False, doc="Whether the page shows its dark theme.")

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(**params)
        self.store = store
        self.visitor = visitor or Visitor()
        self.on_state: Callable[[], None] = lambda: None
        self._bookmarks: dict[str, Any] = {}
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
        self._drawn: dict[pn.pane.Plotly, tuple[Hashable | None, Callable[[], go.Figure]]] = {}
        self._latest: dict[pn.pane.Plotly, go.Figure] = {}
        self._waiting: dict[pn.pane.Plotly, go.Figure] | None = None
        self.refresh_button.on_click(lambda _event: self.refresh())
        self.watch(self.benchmark, self.fill)

    def refresh(self) -> None:
        """Read what runs there are and draw again."""
        with self._drawing:
            names = list(dict.fromkeys(self.store.overview()["benchmark"]))
            chosen = self.benchmark.value if self.benchmark.value in names else next(iter(names), None)
            with self.quiet():
                self.benchmark.param.update(options=names, value=chosen)
            self.refresh_button.loading = True
            try:
                with self._together():
                    self.attempt(self.fill)
            finally:  # after the pictures, which are on their way
                pn.state.execute(partial(setattr, self.refresh_button, "loading", False), schedule=True)

    @abstractmethod
    def fill(self) -> None:
        """Offer the runs of the chosen benchmark and draw them."""

    @abstractmethod
    def __panel__(self) -> pn.viewable.Viewable:
        """Lay out what is shown."""

    def sketch(self) -> tuple[Table, ...]:
        """What the page shows of this view before its scripts are there."""
        return ()

    def opened(self) -> None:
        """Begin what only a page that somebody looks at needs; called once, in the session."""

    def watch(self, widget: Any, draw: Callable[[], None], name: str = "value") -> None:
        """Draw when the reader changes a widget, not when the view itself does inside `quiet`."""

        def changed(_event: object) -> None:
            with self._drawing:
                if not self._quiet:
                    with self._together():
                        self.attempt(draw)

        widget.param.watch(changed, name)

    def remember(self, **widgets: Any) -> None:
        """Let widgets' values be part of the page's address; the order is that in which they are set again."""
        self._bookmarks |= widgets

    def state(self) -> dict[str, str]:
        """What the address says of this view."""
        return {name: _chosen(widget) for name, widget in self._bookmarks.items()}

    def restore(self, state: Mapping[str, str]) -> None:
        """Take up what an address says; what is not on offer is left as it is."""
        for name, widget in self._bookmarks.items():
            if name in state:
                put(widget, state[name])

    def download(self, label: str, name: str, table: Callable[[], pd.DataFrame]) -> pmui.FileDownload:
        """Make a button that gives a table as a CSV file."""

        def content() -> StringIO:
            with self._drawing:
                return StringIO(_as_text(table()).to_csv(index=False))

        return pmui.FileDownload(
            callback=content, filename=name, label=label, icon="download", variant="text", size="small", margin=(4, 10)
        )

    def plot(self) -> pn.pane.Plotly:
        """Make a plot pane that fills its place and follows the page's theme."""
        return Picture(_LOADING, config=PLOT_CONFIG, sizing_mode="stretch_width", margin=0)

    def show(self, pane: pn.pane.Plotly, figure: go.Figure) -> None:
        """Put a figure into its pane, which takes the figure's height."""
        self._drawn[pane] = (None, lambda: figure)
        self._picture(pane, dress(go.Figure(figure), self.dark))

    def draw(self, pane: pn.pane.Plotly, key: Hashable, make: Callable[[], go.Figure]) -> None:
        """Put a figure into its pane; one that any session has drawn from the same data is not built again.

        Args:
            pane: where.
            key: all that the figure depends on, files' identities among it (`Drift.key`).
            make: builds the figure.
        """
        self._drawn[pane] = (key, make)
        self._picture(pane, _PICTURES.get((make.__code__, key, self.dark), lambda: dress(make(), self.dark)))

    def _picture(self, pane: pn.pane.Plotly, figure: go.Figure) -> None:
        self._latest[pane] = figure
        if self._waiting is None:
            _exchange(pane, figure)
        else:
            self._waiting[pane] = figure

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Send what one change drew as one message, with the address; a thread sends each change by itself."""
        if current_thread() is main_thread():
            yield
            self.on_state()
            return
        if self._waiting is not None:  # part of a change that is being drawn
            yield
            return
        self._waiting = {}
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            pn.state.execute(partial(self._send, waiting), schedule=True)

    def _send(self, waiting: Mapping[pn.pane.Plotly, go.Figure]) -> None:
        with pn.io.hold():
            for pane, figure in waiting.items():
                if self._latest[pane] is figure:  # else one drawn since is there already
                    _exchange(pane, figure)
            self.on_state()

    @param.depends("dark", watch=True)
    def _dress_again(self) -> None:
        with self._drawing, self._together():
            for pane, (key, make) in list(self._drawn.items()):
                if key is None:
                    self.show(pane, make())
                else:
                    self.draw(pane, key, make)

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
        self.note.param.update(
            object=escape(message, quote=False), alert_type=kind, severity=kind, visible=bool(message)
        )

    def attempt(self, draw: Callable[[], None]) -> None:
        """Draw; where the files do not allow it, say what is wrong and what to do."""
        try:
            draw()
        except InputError as error:
            self.tell(str(error), "error")
        except DAMAGED as error:
            LOG.warning("a view could not be drawn", exc_info=error)
            what = f"{type(self).title} cannot show this: a file of the run does not hold what it must"
            self.tell(
                f"{what} ({type(error).__name__}: {error}). Choose another run, or train this one again.", "error"
            )


def _exchange(pane: pn.pane.Plotly, figure: go.Figure) -> None:
    if pane.object is not figure:
        pane.param.update(object=figure, height=figure.layout.height)


def card(*children: Any, **settings: Any) -> pmui.Paper:
    """A framed part of a view."""
    frame = {"border": "1px solid rgba(128, 128, 128, 0.35)"}
    return pmui.Paper(*children, elevation=0, sx=frame, sizing_mode="stretch_width", margin=5, **settings)


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Mark texts that a spreadsheet would take for a formula: what models and data sets say is never run."""
    found = table.rename(columns=_inert)
    for name in found.select_dtypes(["object", "string", "category"]):
        found[name] = found[name].astype(object).map(_inert)
    return found


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value) else value


def _chosen(widget: Any) -> str:
    return NONE if widget.value == [] and widget.options else said(widget.value)


def said(value: Any) -> str:
    """A value as the address says it."""
    if isinstance(value, list | tuple):
        return ",".join(said(one) for one in value)
    return "" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def put(widget: Any, text: str) -> None:
    """Give a widget the value that an address says, if it is one of its options or within its bounds."""
    options = getattr(widget, "options", None)
    if options is not None:
        offered = {said(value): value for value in (options.values() if isinstance(options, dict) else options)}
        if isinstance(widget.value, list):
            found = [offered[part] for part in text.split(",") if part in offered]
            if found or text == NONE:
                widget.value = found
        elif text in offered:
            widget.value = offered[text]
    elif isinstance(widget.value, bool):
        widget.value = text == "True"
    elif isinstance(widget.value, int | float):
        _put_number(widget, text)
    elif isinstance(widget, pmui.TextInput):
        widget.value = text[: widget.max_length]


def _put_number(widget: Any, text: str) -> None:
    try:
        number = type(widget.value)(text)
    except ValueError:
        return
    low, high = getattr(widget, "start", None), getattr(widget, "end", None)
    if abs(number) < float("inf") and (low is None or number >= low) and (high is None or number <= high):
        widget.value = number
