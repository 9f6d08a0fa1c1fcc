"""One LoRA, trained one task after the other."""

from same.methods._lora import LoraMethod


class Lora(LoraMethod):
    """Sequential LoRA, with PEFT's own layer."""

    title = "LoRA, sequential"
    paper = "Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022"
    notes = "By default the rank is the one whose number of parameters is nearest to that of the routed experts."
    shardable = True
