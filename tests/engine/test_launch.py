"""Training in processes of its own: commands and environment; real processes watched, stopped and found again."""

import asyncio
import json
import subprocess
import sys

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from filelock import FileLock

from same.engine import launch
from same.engine.job import request_of, resolve
from same.engine.processes import KNOWN, Processes
from same.engine.trainer import train
from same.engine.watch import Text, display_for, follow
from same.engine.worker import to_argument
from same.errors import InputError, RunFailed


def begin(request):
    """Start a request's processes."""
    return launch.launch(request)


def follow_until(run, kind, act):
    """Watch a run to its end and act once, at the first event of a kind."""
    acted = []

    def show(event):
        if event["kind"] == kind and not acted:
            acted.append(event)
            act()

    asyncio.run(follow(run, show))
    return acted


@pytest.fixture
def idle():
    """A process that waits until it is told to end, as pid and time of birth."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield [child.pid, psutil.Process(child.pid).create_time()]
        child.kill()


def as_if_running(run, *running):
    """Take the end from a copied run's record and say that those processes work on it."""
    lines = run.events_path.read_text().splitlines()
    start = {**json.loads(lines[0]), "running": list(running)}
    run.events_path.write_text("\n".join([json.dumps(start), *lines[1:-1], ""]))


# -- without processes ------------------------------------------------------------------------------------------------


def test_one_process_is_started_plainly_and_two_by_torchs_launcher(ask, tmp_path):
    one, two = (launch.command(resolve(ask(tmp_path, processes=count))) for count in (1, 2))
    assert one[1:3] == ["-m", "same.engine.worker"]
    assert two[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert json.loads(two[-1])["processes"] == 2


def test_accelerates_files_start_as_many_processes_as_they_are_named_for():
    counts = {"gpus_1.yaml": (1, 1), "gpus_8.yaml": (8, 1), "gpus_2x8.yaml": (16, 2)}
    assert {path.name for path in launch.CONFIGS.iterdir()} == set(counts)
    for name, expected in counts.items():
        config = load_config_from_file(str(launch.CONFIGS / name))
        assert (config.num_processes, config.num_machines) == expected
        assert config.distributed_type in KNOWN


def test_the_environment_of_a_parent_does_not_reach_the_processes(monkeypatch):
    names = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "MPLBACKEND", "JPY_PARENT_PID"}
    for name in names:
        monkeypatch.setenv(name, "1")
    found = launch.child_environment(2)
    assert not names & set(found)
    assert found["ACCELERATE_USE_CPU"] == "true"
    assert found["PYTHONUNBUFFERED"] == "1"


def test_a_world_of_another_size_than_asked_is_refused():
    with pytest.raises(RunFailed, match="must have 2 processes; the launcher started 1"):
        Processes(2)


def test_the_request_comes_back_from_the_run_folder(ask, finished):
    found = request_of(finished)
    assert json.loads(to_argument(found)) == json.loads(to_argument(ask(finished.path.parents[2])))


def test_an_unusable_checkpoint_is_refused_before_a_folder_is_made(ask, tmp_path):
    with pytest.raises(InputError, match="checkpoint must hold a model"):
        begin(ask(tmp_path, checkpoint=str(tmp_path / "nowhere")))
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_attached_with_its_outcome(finished, copied):
    assert launch.attach(finished.path).outcome == "done"
    copied.events_path.unlink()
    with pytest.raises(InputError, match="has no start"):
        launch.attach(copied.path)


def test_a_run_whose_processes_vanished_counts_as_failed(copied):
    as_if_running(copied, [1, 0.0])
    run = launch.attach(copied.path)
    assert run.outcome == "failed"
    with pytest.raises(RunFailed, match="without recording an error"):
        run.result()


def test_a_folder_held_by_other_work_is_refused(ask, copied):
    before = copied.events_path.read_bytes()
    copied.lock.parent.mkdir()
    with FileLock(copied.lock), pytest.raises(InputError, match="another process works in it"):
        begin(ask(copied.path.parents[2]))
    assert copied.events_path.read_bytes() == before


def test_a_run_is_taken_up_with_the_process_that_was_begun_for_it(copied, idle):
    as_if_running(copied, [1, 0.0])
    lines = copied.events_path.read_text()
    copied.events_path.unlink()
    copied.append_event("launch", running=[idle])
    copied.events_path.write_text(copied.events_path.read_text() + lines)
    assert launch.attach(copied.path).outcome is None


def test_a_run_whose_folder_is_held_is_taken_up_instead_of_begun_again(ask, copied, idle):
    as_if_running(copied, idle)
    copied.lock.parent.mkdir()
    with FileLock(copied.lock):
        found = begin(ask(copied.path.parents[2]))
        assert found.path == copied.path
        assert found.outcome is None
        assert len(found.events()) == len(copied.events())
    assert found.outcome == "failed"


def test_a_run_that_was_begun_and_is_not_up_yet_is_taken_up(ask, copied, idle):
    copied.append_event("launch", running=[idle])
    found = begin(ask(copied.path.parents[2]))
    assert found.path == copied.path
    assert found.outcome is None
    found.stop()
    assert found.wait() == "interrupted"
    assert launch.running_in(copied) is None


def test_a_second_trainer_is_refused_and_leaves_the_record_of_the_first_alone(ask, copied):
    before = copied.events_path.read_bytes()
    copied.lock.parent.mkdir()
    with FileLock(copied.lock), pytest.raises(InputError, match="is being trained by another process"):
        train(ask(copied.path.parents[2]))
    assert copied.events_path.read_bytes() == before


def test_the_first_interrupt_stops_the_run_and_the_second_stops_waiting_for_it(copied, idle):
    as_if_running(copied, idle)
    copied.lock.parent.mkdir()

    async def interrupt_twice():
        task = asyncio.create_task(follow(launch.attach(copied.path), lambda _event: None))
        for _ in range(2):
            await asyncio.sleep(0)
            task.cancel()
        await task

    with FileLock(copied.lock), pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupt_twice())
    assert psutil.wait_procs([psutil.Process(idle[0])], timeout=60)[1] == []


def test_text_keeps_a_line_an_evaluation_and_a_task(finished, capsys):
    show = Text(sys.stdout)
    for event in finished.events():
        show(event)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("zero-shot: colour")
    assert sum("finished in" in line for line in lines) == 3
    assert lines[-1] == "done"


def test_an_unknown_style_is_named(finished):
    with pytest.raises(InputError, match="style must be one of widget, text, none"):
        display_for(launch.attach(finished.path), "fancy")


# -- with processes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_started_run_is_nobodys_child_and_gives_the_same_result(ask, finished, tmp_path):
    run = begin(ask(tmp_path))
    own = {process.pid for process in psutil.Process().children(recursive=True)}
    assert not own & {process.pid for process in run._alive()}
    taken_up = []
    follow_until(run, "step", lambda: taken_up.append(begin(ask(tmp_path))))
    assert [taken_up[0].wait(), run.wait()] == ["done", "done"]
    assert len(run.folder.events("launch")) == 1
    assert launch.attach(run.path).outcome == "done"
    assert run.result().scores() == finished.scores()


@pytest.mark.slow
def test_a_stopped_run_is_recorded_and_goes_on(ask, finished, tmp_path):
    run = begin(ask(tmp_path))
    assert follow_until(run, "step", run.stop)
    assert run.outcome == "interrupted"
    assert run.result().events("interrupted")
    again = begin(ask(tmp_path))
    assert again.wait() == "done"
    assert run.folder.scores() == finished.scores()


@pytest.mark.slow
def test_a_run_outlives_the_process_that_started_it(ask, finished, tmp_path):
    code = (
        "import asyncio, json, sys; from same.engine import job, launch, watch; "
        "run = launch.launch(job.Request(**json.loads(sys.argv[1]))); print(run.path); "
        "asyncio.run(watch.follow(run, lambda event: sys.exit(0)))"
    )
    command = [sys.executable, "-c", code, to_argument(ask(tmp_path))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    folder = launch.RunFolder(printed.strip().splitlines()[-1])
    run = launch.attach(folder.path)
    assert run.wait() == "done"
    assert folder.scores() == finished.scores()


@pytest.mark.slow
def test_a_failing_run_raises_with_its_own_error(ask, tmp_path):
    run = begin(ask(tmp_path, learning_rate=1e30))
    with pytest.raises(RunFailed, match="loss must stay finite"):
        asyncio.run(run.watch("none"))


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_agree_to_stop(ask, tmp_path):
    run = begin(ask(tmp_path, processes=2, epochs=20))
    assert follow_until(run, "step", run.stop)
    assert run.outcome == "interrupted"
    assert "Error" not in run.failure()


@pytest.mark.slow
@pytest.mark.distributed
def test_the_rank_that_was_killed_is_named(ask, tmp_path):
    run = begin(ask(tmp_path, processes=2, epochs=20))

    def kill():
        launcher = run.folder.events("launch")[0]["running"][0][0]
        children = psutil.Process(launcher).children(recursive=True)
        next(child for child in children if child.environ().get("RANK") == "1").kill()

    assert follow_until(run, "step", kill)
    assert run.outcome == "failed"
    with pytest.raises(RunFailed, match=r"(?s)rank\s*: 1.*SIGKILL"):
        run.result()
