"""Pictures of test questions, found without a model."""

from base64 import b64encode
from functools import lru_cache
from pathlib import Path

from same.data.manifest import load_benchmark
from same.data.prepare import benchmark_folder
from same.errors import InputError
from same.registry import choose
from same.runs import RunFolder
from workbench.results import manifests

SIDE = "256px"


def found(run: RunFolder, task: str, question: str) -> Path | None:
    """The picture of a run's test question; None where the question has none.

    Only benchmarks that come with the project are looked up, and only below this process's data root: a run folder
    may be anybody's, and what it names is not to be opened.

    Raises:
        InputError: the run's benchmark is not of the project or not on disk, or has no such task or question.
    """
    request = run.config()["environment"].get("request", {})
    name = choose("benchmark", str(request.get("benchmark")), [file.stem for file in manifests().glob("*.yaml")])
    folder = benchmark_folder(load_benchmark(name))
    if not folder.is_dir():
        raise InputError(
            f"Pictures of {name} must be below the data root to be shown; {folder} is not there. Run `same "
            f"prepare --benchmark {name}`, or set SAME_DATA to where its files are, and start again."
        )
    pictures = _pictures(name, task, folder)
    if question not in pictures:
        raise InputError(f"{task} of {name} must have the test question {question!r}; it has not. Is the data older?")
    image = pictures[question]
    return None if image is None else Path(image)


@lru_cache(maxsize=8)
def _pictures(name: str, task: str, folder: Path) -> dict[str, str | None]:
    from same.data.dataset import test_rows

    benchmark = load_benchmark(name)
    rows = test_rows(benchmark, benchmark.task(task), folder, allow_missing=True, images=False)
    return dict(zip(rows["question_id"], rows["image"], strict=True))


def embedded(file: Path) -> str:
    """A picture as HTML that holds it."""
    kind = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}.get(file.suffix.lower(), "png")
    data = b64encode(file.read_bytes()).decode()
    style = f"width:{SIDE};image-rendering:pixelated;margin-right:1em"
    return f"<img alt='the picture of the question' style='{style}' src='data:image/{kind};base64,{data}'>"
