"""One function a figure: a table in, a plotly figure out; the same ones in notebooks, reports and the dashboard."""

from workbench.figures.ablation import cumulative_ablation, factorial_corners, factorial_effects
from workbench.figures.activation import (
    expert_scatter,
    freezing_curve,
    savings,
    score_history,
    score_map,
    step_curve,
    task_times,
)
from workbench.figures.drift import drift_curve, drift_heatmap, expert_map
from workbench.figures.formats import error_classes, format_drift_map, readings_over_stages
from workbench.figures.metrics import metric_comparison
from workbench.figures.planned import planned_memory
from workbench.figures.protocols import two_protocols
from workbench.figures.rerouting import rerouting_controls, rerouting_curve, retraining_curves, swap
from workbench.figures.robustness import sensitivity, spread
from workbench.figures.routing import (
    expert_distribution,
    expert_distribution_by_layer,
    overlap_curve,
    overlap_heatmap,
    routing_map,
)
from workbench.figures.scores import score_matrix
from workbench.figures.spectrum import angle_matrix, eigenvalue_decay, gain_curve, protection, rank_map, spectrum
from workbench.figures.stream import covariance_shift, probe_accuracy
from workbench.figures.tokens import token_routing
from workbench.figures.versions import version_grid

__all__ = [
    "angle_matrix",
    "covariance_shift",
    "cumulative_ablation",
    "drift_curve",
    "drift_heatmap",
    "eigenvalue_decay",
    "error_classes",
    "expert_distribution",
    "expert_distribution_by_layer",
    "expert_map",
    "expert_scatter",
    "factorial_corners",
    "factorial_effects",
    "format_drift_map",
    "freezing_curve",
    "gain_curve",
    "metric_comparison",
    "overlap_curve",
    "overlap_heatmap",
    "planned_memory",
    "probe_accuracy",
    "protection",
    "rank_map",
    "readings_over_stages",
    "rerouting_controls",
    "rerouting_curve",
    "retraining_curves",
    "routing_map",
    "savings",
    "score_history",
    "score_map",
    "score_matrix",
    "sensitivity",
    "spectrum",
    "spread",
    "step_curve",
    "swap",
    "task_times",
    "token_routing",
    "two_protocols",
    "version_grid",
]
