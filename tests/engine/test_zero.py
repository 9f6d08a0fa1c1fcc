"""What DeepSpeed is told. The engine itself is not run here."""

import pytest

from same.engine.zero import engine_config

AUTOCAST = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}


@pytest.mark.parametrize(("precision", "section"), [("fp32", {}), ("bf16", {"torch_autocast": AUTOCAST})])
def test_the_engine_is_told_the_precision_and_leaves_clipping_and_parts_to_the_trainer(precision, section):
    assert engine_config(4, precision) == {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": 2},
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        **section,
    }
