"""What views of one run after one task have in common: which run and task, sliders, pages of pictures."""

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import panel as pn
import panel_material_ui as pmui

from same.errors import SnapshotError
from workbench import tables
from workbench.figures._style import empty
from workbench.store import Store
from workbench.views._base import DAMAGED, NO_RUNS, View, Visitor
from workbench.views._panes import Slider

NO_RUN = "No run to draw."
UNREAD = "A file of this run cannot be read: the message above says which, and what to do."


class RunView(View):
    """One run after one task, and one page of pictures at a time: only what is looked at is drawn."""

    file: ClassVar[str]
    """What a run's snapshots must hold for the run to be offered."""
    lacking: ClassVar[str]
    """Said where no run holds it."""
    pages: ClassVar[dict[str, str]]
    """Keys of the pages by what is said of them."""

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.run = pmui.Select(label="Run", options={}, width=220)
        self.after = pmui.Select(label="After training", options={}, width=190)
        plain = {"& .MuiToggleButton-root": {"textTransform": "none", "whiteSpace": "nowrap"}}
        self.page = pmui.RadioButtonGroup(
            options=self.pages, value=next(iter(self.pages.values())), sx=plain, margin=(8, 10)
        )
        self.own_button = pmui.Button(
            label="Reset to the run's values", icon="restart_alt", variant="outlined", margin=(14, 8)
        )
        self.own_values = pmui.Typography("", variant="caption", margin=(18, 8))
        self.key: Hashable = None
        self.sliders: dict[str, Slider] = {}
        self._panes: list[pn.pane.Plotly] = []
        self._sheets: dict[str, pmui.Column] = {}
        self._place = pmui.Column(sizing_mode="stretch_width")
        self._taken: str | None = None
        self._damage = ""
        self.watch(self.run, self._take)
        self.watch(self.after, self.redraw)
        self.watch(self.page, self.redraw)
        self.watch(self.own_button, self._reset, "clicks")
        self.remember(benchmark=self.benchmark, run=self.run, after=self.after, page=self.page)

    @abstractmethod
    def own(self, run: str) -> dict[str, float]:
        """The run's values of the sliders."""

    @abstractmethod
    def take(self, run: str) -> None:
        """Offer what depends on the run."""

    @abstractmethod
    def draw_page(self, run: str, after: int) -> None:
        """Draw the pictures of the page that is shown; those of which nothing changed stay as they are."""

    @abstractmethod
    def sheet(self, page: str) -> pmui.Column:
        """Lay out a page; called once."""

    def plot(self) -> pn.pane.Plotly:
        """Make a plot pane that is emptied where a run cannot be read."""
        self._panes.append(super().plot())
        return self._panes[-1]

    def slider(self, name: str, label: str, values: Sequence[float], equation: str) -> Slider:
        """Make a slider of the page's pictures.

        Args:
            name: in the address.
            label: said above it, the paper's symbol first.
            values: on offer; the run's own joins them.
            equation: where the quantity comes from, said under the pointer.
        """
        found = Slider(
            label=label, options=list(values), value=values[0], formatter="%g", description=equation, width=240
        )
        self.sliders[name] = found
        self.watch(found, self.redraw)
        self.remember(**{name: found})
        return found

    def fill(self) -> None:
        """Offer the runs of the chosen benchmark that hold what this view draws; name those that are damaged."""
        table = self.store.overview()
        table = table[table["benchmark"] == self.benchmark.value]
        options, damage = {}, []
        for row in table.itertuples():
            try:
                if row.state == "damaged":
                    damage.append(f"{row.label} is damaged: {row.problem}")
                elif row.tasks and self.store.folder(row.run).snapshot(row.tasks - 1).has(self.file):
                    options[row.label] = row.run
            except SnapshotError as error:
                damage.append(f"{row.label} is damaged: {error}")
        kept = self.run.value if self.run.value in options.values() else next(iter(options.values()), None)
        with self.quiet():
            self.run.param.update(options=options, value=kept)
        if not options:
            damage.insert(0, NO_RUNS if table.empty else self.lacking)
        self._damage = "  ".join(damage)
        self._take()

    def _take(self) -> None:
        run = self.run.value
        stages: dict[str, int] = {}
        if run is not None:
            tasks = self.store.folder(run).config()["settings"]["tasks"][: self.store.folder(run).finished()]
            stages = {f"Task {index + 1} · {task['key']}": index for index, task in enumerate(tasks)}
        self.key = (run, tables.stages(self.store, run)) if run else None
        value = self.after.value if self.after.value in stages.values() else next(reversed(stages.values()), None)
        with self.quiet():
            self.after.param.update(options=stages, value=value)
            if run is not None and run != self._taken:
                self._reset()
        self._taken = run
        self.redraw()

    def _reset(self) -> None:
        """Set the sliders to what the run was trained with."""
        if self.run.value is None:
            return
        own = self.own(self.run.value)
        with self.quiet():
            for name, value in own.items():
                slider = self.sliders[name]
                slider.param.update(options=sorted({*slider.options, value}), value=value)
        said = (f"{self.sliders[name].label.partition(' ')[0]} = {value:g}" for name, value in own.items())
        self.own_values.object = f"this run: {', '.join(said)}"
        if not self._quiet:
            self.redraw()

    def redraw(self) -> None:
        """Show the chosen page and draw it."""
        self.tell(self._damage, "warning" if self.run.value else "info")
        run, page = self.run.value, self.page.value
        if page not in self._sheets:
            self._sheets[page] = self.sheet(page)
        try:
            if run is None:
                self._blank(NO_RUN)
            else:
                self.take(run)
                self.draw_page(run, self.after.value)
        except DAMAGED:
            self._blank(UNREAD)
            raise
        finally:
            if self._sheets[page] not in self._place.objects:
                self._place.objects = [self._sheets[page]]

    def _blank(self, message: str) -> None:
        for pane in self._panes:
            self.show(pane, empty(message))

    def laid_out(self, chosen: Sequence[Any], about: str) -> pmui.Column:
        """Lay out the view: what is chosen, sliders, the page."""
        which = pmui.Row(self.benchmark, self.run, self.after, *chosen, self.refresh_button, margin=(12, 0, 0, 0))
        sliders = pmui.Row(*self.sliders.values(), self.own_button, self.own_values)
        parts = (which, self.note, self.page, sliders, self._place, pn.pane.Markdown(about))
        return pmui.Column(*parts, sizing_mode="stretch_width")
