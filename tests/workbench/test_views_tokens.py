"""The routing of a question's own tokens in Examples, without a browser; with a model, from the wish to the record."""

from html import escape
from pathlib import Path
from typing import Any

import pytest

from same.engine.trainer import train
from same.runs import RunFolder, write_table
from tests.engine.conftest import ask, checkpoint, data  # noqa: F401 - a benchmark and a backbone of seconds
from tests.workbench.synthetic import LAYERS, TASKS, write_routing
from tests.workbench.test_rerouting import Watch
from tests.workbench.variants import write_variant
from workbench.jobs.queue import Jobs
from workbench.store import Store
from workbench.views._base import Visitor
from workbench.views.examples import Examples

SCRIPT = "<script>window.hacked=1</script>"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run with answers and experts."""
    found = write_variant(tmp_path, "same", {})
    for after in range(len(TASKS)):
        found.write_snapshot(after, lambda folder, after=after: write_routing(folder, after))
    return found


def keep_tokens(run: RunFolder, after: int, task: str, question: str) -> None:
    """Let a run hold made-up weights of two words and of one patch: in the first layer other ones than in the last."""
    rows = []
    for layer, share in ((LAYERS[0], 0.25), (LAYERS[-1], 0.75)):
        for expert, weight in ((0, share), (1, 1 - share)):
            for position, (token, place) in enumerate((("", 0), ("What", None), (SCRIPT, None))):
                rows.append((layer, position, token, place, place, expert, weight))
    names = ("layer", "position", "token", "row", "column", "expert", "weight")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    kept = run.routed_tokens(after, task, question)
    kept.write(lambda folder: write_table(folder / "tokens.parquet", columns))


def test_the_routing_of_a_questions_tokens_is_shown_once_it_is_kept(run: RunFolder, tmp_path: Path) -> None:
    store = Store(tmp_path)
    view = Examples(store, Visitor("bob"))
    question = view.table["question_id"].iloc[0]
    assert "not in the run's record yet" in view.said.object
    assert f"same route --run {run.path} --after 7 --task scienceqa --question {question}" in view.said.object
    assert view.route_button.disabled
    assert view._routed.objects == []
    keep_tokens(run, 7, "scienceqa", question)
    view.refresh()
    words, patches = view._routed.objects
    assert list(words.object.layout.xaxis.ticktext) == ["What", escape(SCRIPT)], "as text, not as markup"
    assert [heat.z[0][0] for heat in patches.object.data] == pytest.approx([0.5, 0.5]), "the mean over layers"
    view.layer.value = "0.gate"
    assert [heat.z[0][0] for heat in patches.object.data] == pytest.approx([0.25, 0.75])
    assert "0.gate" in words.object.layout.title.text
    again = Examples(store)
    again.restore(view.state())
    assert again.state() == view.state()
    view.number.value = 2
    assert view._routed.objects == []


def test_another_snapshot_has_not_the_routing_of_the_one_before(run: RunFolder, tmp_path: Path) -> None:
    view = Examples(Store(tmp_path))
    keep_tokens(run, 7, "scienceqa", view.table["question_id"].iloc[0])
    view.refresh()
    assert view._routed.objects
    run.write_snapshot(7, lambda folder: write_routing(folder, 6))
    view.refresh()
    assert view._routed.objects == []


def test_a_damaged_record_is_named_and_the_answers_are_shown(run: RunFolder, tmp_path: Path) -> None:
    view = Examples(Store(tmp_path))
    question = view.table["question_id"].iloc[0]
    keep_tokens(run, 7, "scienceqa", question)
    keep_tokens(run, 7, "scienceqa", view.table["question_id"].iloc[1])
    view.number.value = 2
    assert view._routed.objects
    (run.routed_tokens(7, "scienceqa", question).path / "tokens.parquet").write_bytes(b"else")
    view.number.value = 1
    assert "tokens.parquet is damaged" in view.note.object
    assert "same route" in view.note.object
    assert "1 of 4" in view.text.object
    assert view._routed.objects == [], "not those of the question before"


def test_who_may_ask_asks_once_and_may_cancel(run: RunFolder, tmp_path: Path) -> None:
    jobs = Jobs("tcp://127.0.0.1:1", patience=3)
    alice, bob = (Examples(Store(run.path.parents[2]), Visitor(name, jobs, jobs)) for name in ("alice", "bob"))
    assert "Press Route its tokens" in alice.said.object
    alice.attempt(alice._route)
    bob.poll()
    assert [view.route_button.disabled for view in (alice, bob)] == [True, True]
    assert [view.cancel_button.disabled for view in (alice, bob)] == [False, True]
    assert "A job of alice asks the model" in bob.said.object
    alice.attempt(alice._cancel)
    bob.poll()
    assert "The last job cancelled" in bob.said.object
    assert not bob.route_button.disabled
    jobs.close()


def test_a_run_without_experts_has_no_routing_to_ask_for(tmp_path: Path) -> None:
    write_variant(tmp_path, "lora", {})
    view = Examples(Store(tmp_path))
    assert "no experts" in view.said.object
    assert view.route_button.disabled


@pytest.mark.slow
def test_a_wish_becomes_a_table_of_the_run_and_is_made_once(ask: Any, tmp_path: Path) -> None:  # noqa: F811
    run = train(ask(tmp_path / "runs", method="moelora", num_experts=3, rank=2))
    watch = Watch()
    jobs = Jobs(notify=watch)
    view = Examples(Store(tmp_path / "runs"), Visitor("alice", jobs, jobs))
    view.restore({"task": "letter", "question": "2"})
    view.attempt(view._route)
    assert watch.ended.wait(120)
    view.poll()
    assert view._routed.objects, view.said.object
    words, patches = view._routed.objects
    text = "".join("".join(words.object.data[0].customdata[0]).split())
    assert "Whichletterdoesthecolourbeginwith?" in text
    assert len(patches.object.data) == 3
    assert patches.object.data[0].z.shape == (8, 8)
    kept = run.routed_tokens(2, "letter", view.table["question_id"].iloc[1])
    assert jobs.listed()[0].results == (kept.path.name,)
    written = (kept.path / "manifest.json").stat().st_mtime_ns
    watch.ended.clear()
    again = jobs.submit("alice", run, view.run.value, view._asked)
    assert watch.ended.wait(120)
    assert jobs.job(again.key).results == (kept.path.name,)
    assert (kept.path / "manifest.json").stat().st_mtime_ns == written
    jobs.close()
