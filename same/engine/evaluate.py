"""Evaluation: batched greedy generation, scoring in every reading, routing on the way, scores of the whole run."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from filelock import FileLock
from torch import Tensor
from transformers import GenerationConfig

from same.data.manifest import Task
from same.engine.session import Report, Session
from same.engine.snapshot import restore
from same.methods._base import Method, RoutingProbe
from same.metrics import READINGS, count_errors
from same.runs import SCORES_SCHEMA, ZERO_SHOT, RunFolder, fingerprint, write_table
from same.scorers._judge import judge
from same.sealed import SealedFolder


@dataclass(frozen=True)
class Answers:
    """The answers to a task's test questions, in the file's order, with their scores and the routing of the prompts.

    Args:
        table: columns question_id, prompt, text, answer, one of scores for each reading, and error, a class of
            `same.metrics.ERRORS`.
        scores: the task's score by reading.
        routing: rows of routing.parquet.
    """

    table: dict[str, list[Any]]
    scores: dict[str, float]
    routing: list[dict[str, Any]]


def answer_task(
    session: Session,
    index: int,
    method: Method | None = None,
    probe: RoutingProbe | None = None,
    answered: Callable[[int, int], None] | None = None,
) -> Answers:
    """Let the session's model answer the test questions of a task, sharded over the processes.

    Args:
        session: whose model and rows they are.
        index: position of the task in the benchmark.
        method: routes and probes the attached model; None for the untouched backbone.
        probe: to use instead of the method's.
        answered: called after each batch with the number of this process's rows answered, and of all of them.
    """
    task, rows = session.job.benchmark.tasks[index], session.rows.test[index]
    if method is not None and method.task_id_at_inference:
        method.reveal_task(index)
    if probe is None and method is not None:
        probe = method.routing_probe()
    tokens = torch.full((_share(len(rows), session), task.max_new_tokens), _end(session), dtype=torch.long)
    model: Any = session.model.eval()
    config = _generation(model.generation_config, task.max_new_tokens, session)
    for start, chosen in _batches(len(rows), session):
        session.processes.raise_if_stopping()
        if not chosen:
            continue
        batch = send_to_device(session.collate_prompts(rows.select(chosen).to_list()), session.processes.device)
        if method is not None:
            method.route(batch)
        with torch.no_grad(), session.autocast, probe.watching(batch) if probe else nullcontext():
            generated = model.generate(**batch, generation_config=config)
        new = generated[:, batch["input_ids"].shape[1] :]
        tokens[start : start + len(chosen), : new.shape[1]] = new.cpu()
        if answered is not None:
            answered(start + len(chosen), len(tokens))
    texts = _texts(tokens, len(rows), session)
    routing = [] if probe is None else probe.rows(session.processes.reduce)
    place = {"probe_task": task.key, "probe_index": index}
    return _scored(task, rows, texts, [{**place, **row} for row in routing])


def _share(count: int, session: Session) -> int:
    return -(-count // session.processes.count)


def _batches(count: int, session: Session) -> Iterator[tuple[int, list[int]]]:
    """Equally many batches on every process: where its answers go, and the rows (every N-th) of this process."""
    size, share = session.job.train.eval_batch_size, _share(count, session)
    own = list(range(session.processes.rank, count, session.processes.count))
    for start in range(0, share, size):
        yield start, own[start : start + size]


def _end(session: Session) -> int:
    tokenizer: Any = session.loaded.processor.tokenizer
    pad = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if pad is None else pad)


def _generation(base: GenerationConfig, max_new_tokens: int, session: Session) -> GenerationConfig:
    tokenizer: Any = session.loaded.processor.tokenizer
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=_end(session),
        eos_token_id=tokenizer.eos_token_id if base.eos_token_id is None else base.eos_token_id,
        bos_token_id=base.bos_token_id,
    )


def _texts(tokens: Tensor, count: int, session: Session) -> list[str]:
    """The answers of all processes as text, in the order of the rows."""
    everyone = session.processes.gather(tokens.to(session.processes.device)).cpu()
    in_order = everyone.view(session.processes.count, -1, tokens.shape[1]).transpose(0, 1).flatten(0, 1)[:count]
    tokenizer: Any = session.loaded.processor.tokenizer
    return [text.strip() for text in tokenizer.batch_decode(in_order, skip_special_tokens=True)]


def _scored(task: Task, rows: Dataset, texts: Sequence[str], routing: list[dict[str, Any]]) -> Answers:
    questions = rows.to_list()
    verdict = judge(task.scorer, texts, questions)
    table: dict[str, list[Any]] = {
        "question_id": [row["question_id"] for row in questions],
        "prompt": [row["text"] for row in questions],
        "text": list(texts),
        "answer": [row["answer"] for row in questions],
        **verdict.scores,
        "error": verdict.errors,
    }
    return Answers(table, verdict.means, routing)


# -- stages --------------------------------------------------------------------------------------------------------


def seen_at(session: Session, stage: int) -> range:
    """The tasks scored after a stage: those seen, and the next where forward transfer is asked for."""
    extra = int(session.job.train.evaluate_next)
    return range(min(stage + 1 + extra, len(session.job.benchmark.tasks)))


def evaluate_stage(session: Session, stage: int) -> list[dict[str, Any]]:
    """Score the model after a stage, write its predictions, and return the routing rows of the tasks seen."""
    if not session.method.trains:
        _copy_zero_shot(session, stage)
        return []
    answers = {}
    for index in seen_at(session, stage):
        began = time.perf_counter()
        key = session.job.benchmark.tasks[index].key
        answers[key] = answer_task(session, index, session.method)
        session.record(
            "evaluate",
            stage=stage,
            task=index,
            key=key,
            scores=answers[key].scores,
            seconds=time.perf_counter() - began,
        )
    _write(session, session.folder.predictions(stage), answers)
    seen = {task.key for task in session.job.benchmark.tasks[: stage + 1]}
    return [row for key, found in answers.items() if key in seen for row in found.routing]


def _write(session: Session, folder: SealedFolder, answers: dict[str, Answers]) -> None:
    if session.processes.is_main:
        folder.write(lambda path: _tables(path, answers), **_about(answers))
    session.processes.wait()


def _tables(path: Path, answers: dict[str, Answers]) -> None:
    for key, found in answers.items():
        write_table(path / f"{key}.parquet", found.table)


def _about(answers: dict[str, Answers]) -> dict[str, Any]:
    scores = {key: found.scores for key, found in answers.items()}
    return {"scores": scores, "errors": {key: count_errors(found.table["error"]) for key, found in answers.items()}}


# -- zero-shot -----------------------------------------------------------------------------------------------------


def evaluate_zero_shot(session: Session) -> None:
    """Score every task with the untouched backbone; runs on the same backbone and test rows share the answers."""
    own = session.folder.predictions(ZERO_SHOT)
    done = _agree(session, own.exists)
    if done:
        return
    shared = _shared_zero_shot(session)
    if not _agree(session, shared.exists):
        answers = {}
        for index, task in enumerate(session.job.benchmark.tasks):
            answers[task.key] = answer_task(session, index)
            session.record("evaluate", stage=None, task=index, key=task.key, scores=answers[task.key].scores)
        _share_answers(session, shared, answers)
    if session.processes.is_main:
        shared.verify()
        keys = session.job.benchmark.keys
        own.write(lambda path: _copy(shared, path, keys), **_about_of(shared, keys))
    session.processes.wait()


def _share_answers(session: Session, folder: SealedFolder, answers: dict[str, Answers]) -> None:
    """Write answers that other runs may be giving at the same time: the first stay, as some may be reading them."""
    if session.processes.is_main:
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.path.with_name(f"{folder.path.name}.lock")):
            if not folder.exists:
                folder.write(lambda path: _tables(path, answers), **_about(answers))
    session.processes.wait()


def _agree(session: Session, here: bool) -> bool:
    """What the main process sees, on every process."""
    flag = torch.tensor(float(here and session.processes.is_main), device=session.processes.device)
    session.processes.reduce(flag)
    return bool(flag.item())


def _shared_zero_shot(session: Session) -> SealedFolder:
    settings = session.job.settings
    names = ("version", "data", "tasks", "test_items")
    backbone = {name: value for name, value in settings["backbone"].items() if name != "targets"}  # of adapters alone
    given = {name: settings[name] for name in names} | {"backbone": backbone}
    if session.job.request.validation_items:
        given["validation_items"] = session.job.request.validation_items
    key = fingerprint(given | {"precision": session.job.train.precision, "schema": SCORES_SCHEMA})
    path = session.folder.path.parents[1] / f".{ZERO_SHOT}" / key
    return SealedFolder(path, "Delete that folder and run the same command again.", SCORES_SCHEMA)


def _copy(source: SealedFolder, target: Path, keys: Sequence[str]) -> None:
    for key in keys:
        shutil.copy(source.path / f"{key}.parquet", target)


def _about_of(source: SealedFolder, keys: Sequence[str]) -> dict[str, Any]:
    manifest = source.manifest()
    return {name: {key: manifest[name][key] for key in keys} for name in ("scores", "errors")}


def _copy_zero_shot(session: Session, stage: int) -> None:
    """A method that does not train answers as the backbone does, at every stage."""
    source = session.folder.predictions(ZERO_SHOT)
    keys = [session.job.benchmark.tasks[index].key for index in seen_at(session, stage)]
    if session.processes.is_main:
        session.folder.predictions(stage).write(lambda path: _copy(source, path, keys), **_about_of(source, keys))
    session.processes.wait()


# -- evaluation alone -------------------------------------------------------------------------------------------------


def evaluate_run(run: RunFolder, report: Report | None = None) -> None:
    """Answer again, from its snapshots, what a run has no predictions of, and collect its scores anew.

    Raises:
        SnapshotError: a snapshot or a stage's predictions are damaged.
        InputError: the run cannot be repeated as it was, for example because the backbone's files changed.
    """
    finished = run.finished()
    for stage in range(finished):
        run.snapshot(stage).verify()
    session = Session.reopen(run, report)
    session.hold()
    try:
        evaluate_zero_shot(session)
        session.attach()
        for stage in range(finished):
            if run.predictions(stage).exists:
                run.predictions(stage).verify()
            else:
                restore(session, run.snapshot(stage))
                evaluate_stage(session, stage)
        collect_scores(run, session.job.benchmark.keys, finished)
        if finished == len(session.rows.test):
            shutil.rmtree(run.path / "state", ignore_errors=True)
    finally:
        session.release()


# -- scores of the run ---------------------------------------------------------------------------------------------


def collect_scores(run: RunFolder, keys: Sequence[str], finished: int) -> None:
    """Write scores.json from the scores that stand with the predictions of the finished stages."""
    stages = [_about_stage(run.predictions(stage)) for stage in range(finished)]
    zero_shot = _about_stage(run.predictions(ZERO_SHOT))

    def score(stage: int, task: int, reading: str) -> float | None:
        found = zero_shot if stage < 0 else stages[stage] if stage < finished else {}
        value: float | None = found.get("scores", {}).get(keys[task], {}).get(reading)
        return value

    tasks, done = range(len(keys)), range(finished)
    run.write_scores(
        keys,
        {name: [[score(t, i, name) if i <= t else None for i in tasks] for t in done] for name in READINGS},
        zero_shot={name: [score(-1, i, name) for i in tasks] for name in READINGS},
        forward={name: [score(i - 1, i, name) if i else None for i in tasks] for name in READINGS},
        errors=[[stages[t]["errors"].get(keys[i]) if i <= t else None for i in tasks] for t in done],
    )


def _about_stage(folder: SealedFolder) -> dict[str, Any]:
    return folder.manifest() if folder.exists else {}
