"""One LoRA trained on the shuffled union of all tasks at once: what continual methods are measured against.

All training falls into the first stage; later stages only evaluate, so that every row of the score matrix is the same
model's.
"""

from same.methods._lora import LoraMethod


class Joint(LoraMethod):
    """Joint training, an upper reference."""

    title = "Joint training"
    paper = "Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022"
    notes = "Sees the rows of all tasks in its first stage, as often as the others see them over the run."
    shardable = True

    def curriculum(self, tasks: int) -> list[list[int]]:
        return [list(range(tasks)), *([] for _ in range(tasks - 1))]
