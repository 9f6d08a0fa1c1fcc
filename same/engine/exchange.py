"""Predictions in and out: scoring a file of answers, whoever gave them, and writing a run's for peers' code."""

from pathlib import Path
from typing import Any

from same import registry
from same.data.dataset import test_rows
from same.data.manifest import load_benchmark
from same.data.predictions import in_order_of, read_predictions, write_predictions
from same.data.prepare import benchmark_folder, prepare
from same.errors import InputError
from same.metrics import count_errors
from same.runs import ZERO_SHOT, RunFolder
from same.scorers._judge import judge


def score_file(
    benchmark: str,
    task: str,
    file: Path,
    root: Path | None = None,
    allow_missing: bool = False,
    meteor: bool = False,
) -> dict[str, Any]:
    """Score the answers in a file in every reading.

    Args:
        benchmark: name of a manifest, or path of a .yaml file; the pictures need not be there.
        task: key of one of its tasks.
        file: as `read_predictions` takes it.
        root: the data root; default `data_root()`.
        allow_missing: leave out the rows whose picture is not there, answered or not.
        meteor: count METEOR among the measures of captions; needs Java and the extra `meteor`.

    Raises:
        InputError: benchmark or task is unknown, the file does not answer every test row once, or METEOR is asked for
            where it cannot be counted.
    """
    found = load_benchmark(benchmark)
    chosen = found.task(task)
    rule = registry.load("same.scorers", chosen.scorer)
    if meteor and not hasattr(rule, "measures"):
        raise InputError(f"METEOR must be asked for captions; {chosen.key} is scored by the rule {chosen.scorer}.")
    predictions = read_predictions(file)
    folder = prepare(found, root) if found.builder else benchmark_folder(found, root)
    asked = test_rows(found, chosen, folder, images=False)
    rows = test_rows(found, chosen, folder, allow_missing=True, images=False) if allow_missing else asked
    left_out = set(asked["question_id"]) - set(rows["question_id"])
    answered = {name: text for name, text in predictions.items() if name not in left_out}
    rows = rows.to_list()
    texts = in_order_of(answered, [row["question_id"] for row in rows], file, folder / chosen.test)
    verdict = judge(chosen.scorer, texts, rows)
    return {
        "benchmark": found.name,
        "task": chosen.key,
        "scorer": chosen.scorer,
        "items": len(rows),
        "left_out": len(left_out),
        "scores": verdict.means,
        "errors": count_errors(verdict.errors),
        "flaws": verdict.flaws,
        "measures": rule.measures(texts, rows, meteor) if hasattr(rule, "measures") else {},
    }


def export_predictions(run: RunFolder, after: int | str, task: str, out: Path) -> int:
    """Write a run's answers to a task as JSON lines `{question_id, prompt, text, answer_id, model_id, metadata}`.

    Args:
        after: 0-based index of the task trained last, or `zero_shot`.
        task: key of the task.

    Returns:
        Number of rows.

    Raises:
        InputError: the run has no such answers, or the file cannot be written.
    """
    about = run.config()
    folder = run.predictions(after)
    keys = list(folder.manifest()["scores"])
    if task not in keys:
        raise InputError(f"{folder.path} must hold the task asked for; got {task!r}. Choose one of: {', '.join(keys)}.")
    model = f"{about['method']}-{about['seed']}-{about['fingerprint']}"
    stage = ZERO_SHOT if after == ZERO_SHOT else f"after-{after}"
    metadata = {"benchmark": about["benchmark"], "task": task, "after": after}
    table = folder.table(task)
    rows = [
        {
            "question_id": name,
            "prompt": prompt,
            "text": text,
            "answer_id": f"{model}-{stage}-{task}-{name}",
            "model_id": model,
            "metadata": metadata,
        }
        for name, prompt, text in zip(table["question_id"], table["prompt"], table["text"], strict=True)
    ]
    write_predictions(out, rows)
    return len(rows)
