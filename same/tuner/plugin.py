"""The one place that makes PEFT know the tuner: PEFT keeps its types in a closed enumeration, so a member is added."""

from __future__ import annotations

import warnings
from typing import Any

from peft import mapping
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType

from same.tuner.config import TYPE, MoELoraConfig
from same.tuner.model import MoELoraModel


def register() -> None:
    """Register the tuner once; loading an adapter of this type needs `import same.tuner` first."""
    if TYPE in mapping.PEFT_TYPE_TO_TUNER_MAPPING:
        return
    # PEFT asks every model by a name that transformers has given up; nobody here can mend that.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    if TYPE not in PeftType.__members__:
        _add_member(PeftType, TYPE)
    register_peft_method(
        name=TYPE.lower(), config_cls=MoELoraConfig, model_cls=MoELoraModel, prefix=MoELoraModel.prefix
    )


def _add_member(enumeration: Any, name: str) -> None:
    """Add a string member to an enumeration, which Python itself offers no way to do."""
    member = str.__new__(enumeration, name)
    order = len(enumeration._member_names_)
    vars(member).update(_name_=name, _value_=name, __objclass__=enumeration, _sort_order_=order)
    enumeration._member_names_.append(name)
    enumeration._member_map_[name] = member
    enumeration._value2member_map_[name] = member
    type.__setattr__(enumeration, name, member)
