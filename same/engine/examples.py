"""Training rows that a method asks for again, as batches and as what the model says of them."""

from collections.abc import Sequence

from accelerate.utils import send_to_device
from torch import Tensor

from same.data.collate import IGNORED
from same.engine.session import Session
from same.methods._base import Batch, Reference


class SessionExamples:
    """The training rows of a session's tasks."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def count(self, task: int) -> int:
        return len(self._session.rows.train[task])

    def batch(self, references: Sequence[Reference]) -> Batch:
        rows = [self._session.rows.train[task][row] for task, row in references]
        batch: Batch = send_to_device(dict(self._session.collate_train(rows)), self._session.processes.device)
        return batch

    def answers(self, references: Sequence[Reference]) -> tuple[Tensor, Tensor]:
        batch = dict(self.batch(references))
        targets = batch.pop("labels")[:, 1:]
        with self._session.autocast:
            logits = self._session.model(**batch).logits[:, :-1]
        said = targets != IGNORED
        return logits[said].float(), targets[said]
