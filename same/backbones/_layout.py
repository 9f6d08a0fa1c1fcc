"""Which linear layers of a backbone are adapted, and what each of them reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from same.errors import InputError

SECOND_READERS = (  # read what their own block made of its input
    "down_proj",
    "fc2",
    "linear_fc2",
    "o_proj",
    "out_proj",
    "proj",
    "projection_layer",
)


@dataclass(frozen=True)
class Group:
    """Linear layers of one kind.

    Args:
        pattern: regular expression that their names match in full.
        padded: they read the batch's rows and columns, padding included; else every token they read is real.
        packed: they read the tokens of all the batch's pictures as one sequence, without a dimension of pictures.
    """

    pattern: str
    padded: bool = True
    packed: bool = False


@dataclass(frozen=True)
class Layers:
    """The layers that a run adapts.

    Args:
        groups: by name, those that were chosen.
    """

    groups: Mapping[str, Group]

    @property
    def targets(self) -> str:
        """Regular expression (full match, as PEFT reads it) of the layers to adapt."""
        return "|".join(group.pattern for group in self.groups.values())

    @property
    def unpadded(self) -> str | None:
        """Regular expression of those that read pictures, without the padding of the batch; None: there are none."""
        return "|".join(group.pattern for group in self.groups.values() if not group.padded) or None

    @property
    def packed(self) -> tuple[str, ...]:
        """The groups that cannot tell one sample from the next."""
        return tuple(name for name, group in self.groups.items() if group.packed)

    def input_key(self, module_name: str) -> str:
        """Name of the input a layer reads: q, k and v of one block share theirs, as do gate and up."""
        block, _, leaf = module_name.rpartition(".")
        return f"{block}_{'mid' if leaf in SECOND_READERS else 'in'}"

    def is_padded(self, module_name: str) -> bool:
        """Whether a layer reads the batch's rows and columns, padding included.

        Raises:
            InputError: it is no layer of these groups.
        """
        for group in self.groups.values():
            if re.fullmatch(group.pattern, module_name):
                return group.padded
        raise InputError(f"module_name must be a layer of {', '.join(self.groups)}; got {module_name!r}.")
