"""What views that compare runs have in common: which runs, and what is wrong with those left out."""

from abc import abstractmethod
from collections.abc import Hashable
from typing import Any, ClassVar

import panel_material_ui as pmui

from same.errors import InputError
from workbench.store import Store
from workbench.views._base import DAMAGED, NO_RUNS, View, Visitor


class SeveralRuns(View):
    """Runs of one benchmark side by side; what cannot be read is named, and the others are drawn."""

    lacking: ClassVar[str]
    """Said where no run of the benchmark holds what the view draws."""
    first: ClassVar[int]
    """How many runs are drawn at first."""

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.chosen = pmui.MultiChoice(label="Runs", options={}, value=[], width=380)
        self.watch(self.chosen, self.load)
        self.remember(benchmark=self.benchmark, runs=self.chosen)

    @abstractmethod
    def holds(self, run: str) -> bool:
        """Whether a run has what the view draws."""

    @abstractmethod
    def redraw(self) -> None:
        """Draw the chosen runs."""

    def fill(self) -> None:
        """Offer the runs of the chosen benchmark that hold what is drawn."""
        table = self.store.overview()
        table = table[table["benchmark"] == self.benchmark.value]
        options, damage = {}, [problem for problem in table["problem"] if problem]
        for label, run in table.loc[table["state"] != "damaged", ["label", "run"]].itertuples(index=False):
            try:
                if self.holds(run):
                    options[label] = run
            except InputError as error:
                damage.append(str(error))
            except DAMAGED as error:
                damage.append(f"{label} cannot be read ({type(error).__name__}: {error}). Train it again.")
        kept = [run for run in self.chosen.value if run in options.values()]
        with self.quiet():
            self.chosen.param.update(options=options, value=kept or list(options.values())[-self.first :])
        if options:
            self.tell("  ".join(damage), "warning")
        else:
            self.tell("  ".join([NO_RUNS if table.empty else self.lacking, *damage]))
        self.load()

    def load(self) -> None:
        """Draw the chosen runs, in the order in which they are offered."""
        if self.chosen.options and not self.chosen.value:
            self.tell("No run is chosen. Choose at least one above.")
        elif self.chosen.value and self.note.alert_type == "info":
            self.tell()
        self.redraw()

    @property
    def runs(self) -> list[str]:
        """The chosen runs."""
        return [run for run in self.chosen.options.values() if run in self.chosen.value]

    def key(self, *names: str) -> Hashable:
        """What changes when a run is chosen or one of its files changes."""
        return self.store.key(self.runs, *names), tuple(self.chosen.options)
