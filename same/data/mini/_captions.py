"""What the captioning tasks share: the instruction, and how a ground is called in captions and in talk."""

from __future__ import annotations

CAPTION = "What is happening in the image?\nGenerate a brief caption for the image."
PLACES = {
    "grass": "on the grass",
    "gravel": "on gravel",
    "brick": "by a brick wall",
    "coins": "on some coins",
    "page": "on a page",
}
_BEHIND = {"grass": "grass", "gravel": "gravel", "brick": "a brick wall", "coins": "coins", "page": "a page"}


def ground_talk(ground: str) -> tuple[str, str]:
    """What lies behind the things, asked and said in a whole sentence."""
    return "What is in the background?", f"Behind it is {_BEHIND[ground]}."
