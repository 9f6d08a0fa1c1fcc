"""How fast a run goes and how long it will still take."""

import time

from same.engine.session import Session


class Pace:
    """Counts steps and answers, done and to come.

    Args:
        session: the run.
        finished: number of tasks that need no more work.
    """

    def __init__(self, session: Session, finished: int) -> None:
        train, tasks = session.job.train, range(finished, len(session.job.benchmark.tasks))
        test = [len(rows) for rows in session.rows.test]
        extra = 1 + int(train.evaluate_next)
        self._steps = sum(max(1, len(session.rows.train[i]) // train.batch_size) * train.epochs for i in tasks)
        self._answers = sum(sum(test[: i + extra]) for i in tasks)
        self._seconds_a_step = self._seconds_an_answer = 0.0
        self._last = time.perf_counter()
        self._measured = 0

    def stepped(self) -> None:
        """Count one optimiser step."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._measured += 1
        share = max(0.05, 1 / self._measured)  # a running mean that forgets after some twenty steps
        self._seconds_a_step += share * (seconds - self._seconds_a_step)
        self._steps -= 1

    def evaluated(self, answers: int, seconds: float) -> None:
        """Count answers given in so many seconds."""
        self._answers -= answers
        self._seconds_an_answer = seconds / answers
        self._last = time.perf_counter()

    def numbers(self, rows_a_step: float) -> dict[str, float]:
        """Throughput now and the time to the end of the run, both for the step event."""
        to_come = self._steps * self._seconds_a_step + self._answers * self._seconds_an_answer
        return {"samples_per_second": rows_a_step / max(self._seconds_a_step, 1e-9), "eta_seconds": to_come}
