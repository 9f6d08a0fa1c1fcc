"""Spectra: what is known of past inputs, and what the rules protect of it at any δ, ρ and μ."""

from typing import Any, ClassVar

import pandas as pd
import panel as pn
import panel_material_ui as pmui

from same.errors import InputError, SnapshotError
from workbench import figures, tables
from workbench.formulas import Rules
from workbench.store import Store
from workbench.views._base import Visitor, card
from workbench.views._run import RunView

ABOUT = (
    "C = E[x xᵀ] over the inputs x of a layer in all tasks so far, C = V diag(σ) Vᵀ. **k** is the least number of "
    "directions whose Σσ² is at least δ of the whole. A router's change keeps **g**ⱼ = min σ̂ / σ̂ⱼ along "
    "protected direction j (σ̂ⱼ: mean of the last ρ eigenvalues up to j); an expert's A keeps "
    "μ/(σⱼ + μ), the diagonal of **P** = V diag(μ/(σ+μ)) Vᵀ + I − VVᵀ. All else keeps 1. "
    "**Share left** = E‖ΔW P x‖² / E‖ΔW x‖² over past inputs, for a change without preferred direction. Nothing is "
    "trained here: the sliders ask what other settings would make of the spectra that the run kept."
)
ENERGY = "k = min k: Σⱼ₌₁..ₖ σⱼ² ≥ δ Σⱼ σⱼ²"
WINDOW = "σ̂ⱼ = mean(σⱼ₋ᵨ₊₁ … σⱼ), gⱼ = min σ̂ / σ̂ⱼ"
DAMPING = "P = V diag(μ / (σ + μ)) Vᵀ + I − VVᵀ"
ANGLES = "cos θ = singular values of V₁ᵀ V₂, V of the k leading directions of each task's recorded inputs at δ"
MOST = 8
"""Lines that can be told apart."""


class Spectra(RunView):
    """Eigenvalues and energy by input, k of every input, what is let through, angles between tasks."""

    title: ClassVar[str] = "Spectra"
    order: ClassVar[int] = 30
    file: ClassVar[str] = "spectrum.safetensors"
    lacking: ClassVar[str] = (
        "No run of this benchmark kept spectra of its inputs. Train one that does: --method same or same_plus."
    )
    pages: ClassVar[dict[str, str]] = {
        "Directions that hold δ": "directions",
        "What is let through: g and P": "gains",
        "Angles between tasks": "angles",
    }

    def __init__(self, store: Store, visitor: Visitor | None = None, **params: Any):
        super().__init__(store, visitor, **params)
        self.inputs = pmui.MultiChoice(label="Layer inputs", options=[], value=[], max_items=MOST, width=330)
        self.compared = pmui.Select(label="Angles of input", options=[], width=190, description=ANGLES)
        self.watch(self.inputs, self.redraw)
        self.watch(self.compared, self.redraw)
        self.remember(inputs=self.inputs, angles=self.compared)
        shares = [*(round(0.5 + 0.01 * step, 2) for step in range(50)), 0.995, 0.999, 1.0]
        self.threshold = self.slider("delta", "δ energy threshold", shares, ENERGY)
        self.window = self.slider("rho", "ρ window of g", [1, 2, 3, 4, 6, 8, 12, 16, 24, 32], WINDOW)
        scales = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0]
        self.damping = self.slider("mu", "μ damping of P", scales, DAMPING)
        self.decay, self.energy, self.ranks = self.plot(), self.plot(), self.plot()
        self.gains, self.protection, self.angles = self.plot(), self.plot(), self.plot()
        self.refresh()

    def own(self, run: str) -> dict[str, float]:
        """δ, ρ and μ that the run was trained with."""
        rules = tables.rules_of(self.store, run)
        return {"delta": rules.energy_threshold, "rho": rules.window, "mu": rules.damping}

    def rules(self) -> Rules:
        """The run's rules with what the sliders say."""
        own = tables.rules_of(self.store, self.run.value)
        changed = {"energy_threshold": self.threshold.value, "window": int(self.window.value)}
        return Rules(**(vars(own) | changed | {"damping": self.damping.value}))

    def take(self, run: str) -> None:
        """Offer the inputs whose spectrum the run kept after the task."""
        names = tables.inputs(self.store, run, self.after.value)
        if names == self.inputs.options:
            return
        with self.quiet():
            kept = [name for name in self.inputs.value if name in names]
            self.inputs.param.update(options=names, value=kept or names[:4])
            compared = self.compared.value if self.compared.value in names else next(iter(names), None)
            self.compared.param.update(options=names, value=compared)

    def draw_page(self, run: str, after: int) -> None:
        """Draw one page; what does not depend on the slider that was moved is the figure that is there."""
        rules = self.rules()
        self.window.disabled = self.page.value != "gains" or rules.gain not in ("inverse", "clamped")
        self.damping.disabled = self.page.value != "gains" or (rules.gain != "damped" and rules.curvature_on == "none")
        if self.page.value == "directions":
            self._draw_directions(run, after, rules)
        elif self.page.value == "gains":
            self._draw_gains(run, after, rules)
        else:
            self._draw_angles(run, rules)

    def _draw_directions(self, run: str, after: int, rules: Rules) -> None:
        shown, delta = tuple(self.inputs.value), rules.energy_threshold
        key = (self.key, after, shown)
        task = f"after Task {after + 1}"
        self.draw(
            self.ranks,
            (self.key, rules.energy, delta),
            lambda: figures.rank_map(tables.ranks(self.store, run, delta, rules.energy), f"k at δ = {delta:g}"),
        )
        self.draw(
            self.energy,
            (key, rules.energy, delta),
            lambda: figures.spectrum(
                self._of_inputs(tables.spectra(self.store, run, after, rules.energy), shown),
                delta,
                f"Energy kept {task}",
            ),
        )
        self.draw(
            self.decay,
            key,
            lambda: figures.eigenvalue_decay(
                self._of_inputs(tables.spectra(self.store, run, after), shown), f"Eigenvalues {task}"
            ),
        )

    def _draw_gains(self, run: str, after: int, rules: Rules) -> None:
        shown = tuple(self.inputs.value)
        key = (self.key, after, rules)
        said = f"δ = {rules.energy_threshold:g}, ρ = {rules.window}, μ = {rules.damping:g}; g: {rules.gain}"
        self.draw(
            self.gains,
            (key, shown),
            lambda: figures.gain_curve(
                self._of_inputs(tables.gains(self.store, run, after, rules), shown),
                f"Share of a change let through ({said})",
            ),
        )
        self.draw(
            self.protection,
            key,
            lambda: figures.protection(
                tables.protection(self.store, run, after, rules),
                f"Effect of a change on past inputs that is left ({said})",
            ),
        )

    def _draw_angles(self, run: str, rules: Rules) -> None:
        delta, name = rules.energy_threshold, self.compared.value
        title = f"Mean principal angle between tasks' inputs {name} (δ = {delta:g})"
        self.draw(
            self.angles, (self.key, name, delta), lambda: figures.angle_matrix(self._angles(run, name, delta), title)
        )

    def _of_inputs(self, table: pd.DataFrame, shown: tuple[str, ...]) -> pd.DataFrame:
        return table[table["input"].isin(shown)]

    def _ranks(self) -> pd.DataFrame:
        return tables.ranks(self.store, self.run.value, self.threshold.value, self.rules().energy)

    def _angles(self, run: str, name: str, delta: float) -> pd.DataFrame:
        """None where the run recorded no inputs."""
        try:
            return tables.angles(self.store, run, name, delta)
        except SnapshotError:
            raise
        except InputError:
            return pd.DataFrame()

    def _asked(self) -> tuple[str, int]:
        return self.run.value, self.after.value

    def sheet(self, page: str) -> pmui.Column:
        """Lay out a page."""
        if page == "directions":
            ranks = self.download("k as CSV", "ranks.csv", self._ranks)
            spectra = self.download("Spectra as CSV", "spectra.csv", lambda: tables.spectra(self.store, *self._asked()))
            right = pmui.Column(card(self.energy), card(self.decay, spectra), sizing_mode="stretch_width")
            return pmui.Column(
                pmui.Row(card(self.ranks, ranks), right, sizing_mode="stretch_width"), sizing_mode="stretch_width"
            )
        if page == "gains":
            gains = self.download(
                "g and P as CSV", "gains.csv", lambda: tables.gains(self.store, *self._asked(), self.rules())
            )
            left = self.download(
                "Share left as CSV",
                "protection.csv",
                lambda: tables.protection(self.store, *self._asked(), self.rules()),
            )
            return pmui.Column(card(self.gains, gains), card(self.protection, left), sizing_mode="stretch_width")
        angles = self.download(
            "Angles as CSV",
            "angles.csv",
            lambda: self._angles(self.run.value, self.compared.value, self.threshold.value),
        )
        return pmui.Column(self.compared, card(self.angles, angles), sizing_mode="stretch_width")

    def __panel__(self) -> pn.viewable.Viewable:
        return self.laid_out((self.inputs,), ABOUT)
