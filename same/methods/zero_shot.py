"""The untouched backbone: what it answers before any task is trained."""

from same.methods._base import Method


class ZeroShot(Method):
    """Trains nothing."""

    title = "Zero-shot"
    notes = "The pretrained backbone without adapters: the floor every method starts from."
    trains = False
    budget_reason = "trains nothing"
