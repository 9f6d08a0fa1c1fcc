"""SAME: stabilised mixture-of-experts for multimodal continual instruction tuning."""

import logging

# Where it is installed PEFT imports it, and on CPUs with bf16 it warns of a kernel that nothing here asks for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
