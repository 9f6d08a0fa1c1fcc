"""One function a figure: a table in, a plotly figure out; the same ones in notebooks, reports and the dashboard."""

from workbench.figures.metrics import metric_comparison
from workbench.figures.routing import (
    expert_distribution,
    expert_distribution_by_layer,
    overlap_curve,
    overlap_heatmap,
    routing_map,
)
from workbench.figures.scores import score_matrix
from workbench.figures.spectrum import spectrum

__all__ = [
    "expert_distribution",
    "expert_distribution_by_layer",
    "metric_comparison",
    "overlap_curve",
    "overlap_heatmap",
    "routing_map",
    "score_matrix",
    "spectrum",
]
