"""Routed low-rank experts, trained one task after the other with nothing that protects them."""

from same.methods._experts import ExpertMethod


class MoELora(ExpertMethod):
    """Mixture-of-experts LoRA."""

    title = "MoE-LoRA"
    paper = "Chen et al., CoIN: a benchmark of continual instruction tuning for multimodal large language models, 2024"
    notes = "Dense routing for each token; SAME adds its three mechanisms to exactly this."
    shardable = True
