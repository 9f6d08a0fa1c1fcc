"""The plan that a run records as it begins, beside what it took."""

from dataclasses import replace

import pytest

from same.engine.plan import Asked, plan
from same.engine.planned import record_plan
from same.engine.session import Session
from same.engine.trainer import train
from tests.engine.conftest import TRAIN


@pytest.fixture(scope="module")
def request_of_run(ask, tmp_path_factory):
    return ask(tmp_path_factory.mktemp("planned"), "moelora", num_experts=3, rank=2)


@pytest.mark.slow
def test_a_run_records_its_plan_once_before_it_trains(request_of_run):
    run = train(request_of_run)
    (found,) = run.events("plan")
    kinds = [event["kind"] for event in run.events()]
    assert kinds.index("plan") < kinds.index("task_start")
    asked = Asked("tiny", request_of_run.benchmark, "moelora", settings=request_of_run.settings)
    again = plan(asked, advise=False)
    assert found["trainable"] == again.trainable == run.events("budget")[0]["trainable"]
    assert found["gigabytes"] == again.gigabytes_per_gpu
    assert found["petaflops"] == pytest.approx([again.gigaflops_per_row * TRAIN / 1e6] * 3)
    adapters = [
        run.snapshot(index).path.joinpath("adapter/adapter_model.safetensors").stat().st_size for index in range(3)
    ]
    assert found["task_megabytes"] == pytest.approx([size / 1e6 for size in adapters], rel=0.1)
    train(request_of_run)
    assert len(run.events("plan")) == 1


def test_a_method_that_trains_on_all_rows_at_once_is_planned_so(ask, tmp_path):
    session = Session.open(ask(tmp_path, "joint", epochs=2))
    session.job.create_folder()
    record_plan(session)
    (found,) = session.folder.events("plan")
    first, *rest = found["petaflops"]
    assert sum(share > 0 for share in (first, *rest)) == 1
    one = Asked("tiny", session.job.request.benchmark, "joint", settings=session.job.request.settings)
    assert max(found["petaflops"]) == pytest.approx(plan(one, advise=False).gigaflops_per_row * 2 * 3 * TRAIN / 1e6)


def test_why_a_run_cannot_be_planned_is_recorded_and_ends_nothing(ask, tmp_path):
    session = Session.open(ask(tmp_path))
    session.job.create_folder()
    session.job = replace(session.job, request=replace(session.job.request, backbone="nothing"))
    record_plan(session)
    (found,) = session.folder.events("plan")
    assert "Unknown backbone 'nothing'" in found["unknown"]
