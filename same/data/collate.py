"""Batches: rows to the tensors a backbone takes, through its own processor and chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from same.data.dataset import read_picture
from same.data.rows import IMAGE_TAG
from same.errors import InputError

IGNORED = -100
"""Label of the tokens that carry no loss."""

_OFFSETS = "offset_mapping"

Row = Mapping[str, Any]
Message = dict[str, Any]
Spans = list[tuple[int, int]]


class _Collator:
    """What both collators share: pictures, chat template, processor.

    Args:
        processor: a Hugging Face processor with a chat template and a fast tokenizer.
        keep_megabytes: keep up to this much of decoded pictures in memory for the next pass over the data.
    """

    def __init__(self, processor: Any, keep_megabytes: int = 256) -> None:
        self.processor = processor
        self._room = keep_megabytes * 2**20
        self._kept: dict[str, Image.Image] = {}

    def _picture(self, path: str) -> Image.Image:
        if path in self._kept:
            return self._kept[path]
        picture = read_picture(path)
        if (size := 3 * picture.width * picture.height) <= self._room:
            self._room -= size
            self._kept[path] = picture
        return picture

    def _batch(self, rows: Sequence[Row], texts: list[str], **options: Any) -> dict[str, Any]:
        """Every key the processor gives for these texts and the rows' pictures, in row order."""
        pictures = [self._picture(row["image"]) for row in rows if row["image"]]
        start = self.processor.tokenizer.bos_token
        written_out = bool(start) and texts[0].startswith(start)
        batch = self.processor(
            text=texts,
            images=pictures or None,
            padding=True,
            add_special_tokens=not written_out,
            images_kwargs={"return_tensors": "pt"},
            **options,
        )
        # Offsets stay lists: turning them into a tensor costs more than all the rest of the text.
        return {
            key: torch.tensor(value) if isinstance(value, list) and key != _OFFSETS else value
            for key, value in batch.items()
        }

    def _written(self, conversations: list[list[Message]], prompt: bool) -> list[str]:
        """The conversations in the chat template's words; with `prompt`, up to where the answer begins."""
        texts: list[str] = self.processor.apply_chat_template(
            conversations, tokenize=False, add_generation_prompt=prompt
        )
        return texts


class TrainCollator(_Collator):
    """Training batches: right-padded, labels `IGNORED` except on every answer and the end-of-text token after it."""

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Rows of `training_rows` to what the processor gives, with `labels`."""
        texts, spans = self._answers_marked([_messages(row) for row in rows])
        batch = self._batch(rows, texts, padding_side="right", return_offsets_mapping=True)
        batch["labels"] = _labels(batch["input_ids"], batch.pop(_OFFSETS), texts, spans)
        return batch

    def _answers_marked(self, conversations: list[list[Message]]) -> tuple[list[str], list[Spans]]:
        """Whole conversations as text, and the characters of each that are answers."""
        texts, spans = [""] * len(conversations), [Spans() for _ in conversations]
        before = list(texts)
        for turn in range(2, max(map(len, conversations)) + 1, 2):
            going_on = [i for i, messages in enumerate(conversations) if len(messages) >= turn]
            prompts = self._written([conversations[i][: turn - 1] for i in going_on], prompt=True)
            answered = self._written([conversations[i][:turn] for i in going_on], prompt=False)
            for i, prompt, whole in zip(going_on, prompts, answered, strict=True):
                if not (prompt.startswith(before[i]) and whole.startswith(prompt)):
                    raise InputError(
                        f"a chat template must only append turn by turn; got {whole!r} after {prompt!r}. "
                        "Use another template."
                    )
                answer, rest = self._ended(whole[len(prompt) :])
                texts[i] += prompt[len(before[i]) :] + answer
                spans[i].append((len(texts[i]) - len(answer), len(texts[i])))
                texts[i] += rest
                before[i] = whole
        return texts, spans

    def _ended(self, answer: str) -> tuple[str, str]:
        """The answer up to and with the end-of-text token (added where the template has none), and what follows it."""
        end = self.processor.tokenizer.eos_token
        head, found, rest = answer.partition(end)
        return (head + end, rest) if found else (answer.rstrip() + end, "")


class PromptCollator(_Collator):
    """Prompts to generate from: left-padded, ending where the answer begins."""

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Rows of `test_rows` to what the processor gives."""
        texts = self._written([[_question(row["text"], row["image"])] for row in rows], prompt=True)
        return self._batch(rows, texts, padding_side="left")


def _messages(row: Row) -> list[Message]:
    """A training row's turns as chat messages."""
    messages = []
    for index, turn in enumerate(row["conversations"]):
        if turn["from"] == "human":
            messages.append(_question(turn["value"], None if index else row["image"]))
        else:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn["value"]}]})
    return messages


def _question(text: str, image: str | None) -> Message:
    content = [{"type": "text", "text": text.replace(IMAGE_TAG, "").strip()}]
    return {"role": "user", "content": [{"type": "image"}, *content] if image else content}


def _labels(tokens: Tensor, offsets: list[list[tuple[int, int]]], texts: list[str], spans: list[Spans]) -> Tensor:
    """The tokens of the answers, everything else `IGNORED`.

    Args:
        tokens: [rows, length].
        offsets: for each token its first and last character in the text whose picture mark the processor has drawn out
            to many. The picture stands before the first answer, so answers are found counting from the end.
        texts: the same before that.
        spans: first and last character of each answer in `texts`.
    """
    labels = torch.full_like(tokens, IGNORED)
    for row, (text, answers) in enumerate(zip(texts, spans, strict=True)):
        places = offsets[row]
        grown = max(end for _, end in places) - len(text)
        inside = [
            index
            for first, last in answers
            for index, (begin, end) in enumerate(places)
            if begin < last + grown and end > first + grown and end > begin
        ]
        labels[row, inside] = tokens[row, inside]
    return labels
