"""The drift audit: what it measures, that it changes nothing, and that stopping and going on change nothing in it."""

import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from same.engine.audit import ENERGY_THRESHOLD, audit_task
from same.engine.audit_table import COLUMNS, cost, read_audit
from same.engine.audit_tokens import ProbeTokens, choose_rows, choose_tokens
from same.engine.evaluate import evaluate_run
from same.engine.processes import Stopped
from same.engine.session import Session
from same.engine.snapshot import restore
from same.engine.trainer import train
from same.errors import InputError, SnapshotError
from same.runs import RunFolder
from same.sealed import SealedFolder

EXPERTS, ROWS, TOKENS = 3, 4, 24
SETTINGS = {"method": "moelora", "num_experts": EXPERTS, "rank": 2, "probe_rows": ROWS, "probe_tokens": TOKENS}
ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def routed(ask, tmp_path_factory):
    """A finished run of routed experts; to be copied before it is changed."""
    return train(ask(tmp_path_factory.mktemp("routed"), **SETTINGS))


@pytest.fixture
def again(routed, tmp_path):
    """A copy of it, in a runs folder of its own."""
    shutil.copytree(routed.path.parents[2], tmp_path / "runs")
    return RunFolder(tmp_path / "runs" / routed.path.relative_to(routed.path.parents[2]))


def tables(run):
    return [run.snapshot(index).table("audit") for index in (1, 2)]


def test_every_earlier_task_has_a_row_for_each_router_and_expert(routed):
    assert not routed.snapshot(0).has("audit.parquet")
    for index, table in enumerate(tables(routed), 1):
        assert list(table.columns) == list(COLUMNS)
        assert list(table["probe_index"].unique()) == list(range(index))
        sizes = table.groupby(["probe_task", "layer"]).size()
        assert set(sizes) == {1 + EXPERTS}
        assert (table["part"] == "router").sum() == len(sizes)
        assert table["expert"].max() == EXPERTS - 1


def test_numbers_are_in_their_ranges_and_parts_make_the_whole(routed):
    for table in tables(routed):
        assert table["drift"].to_numpy() == pytest.approx((table["drift_parallel"] + table["drift_rest"]).to_numpy())
        assert (table["drift"] > 0).all()
        routers, experts = (table[table["part"] == part] for part in ("router", "expert"))
        for column in ("js_divergence", "overlap", "flips"):
            assert routers[column].between(0, 1).all(), column
        assert (routers["angle_min"] <= routers["angle_max"]).all()
        sums = experts.groupby(["probe_task", "layer"])[["weight_then", "weight_now"]].sum()
        assert sums.to_numpy() == pytest.approx(1)


def test_a_snapshot_holds_what_a_later_audit_needs(routed):
    probes = [load_file(routed.snapshot(index).file("probe.safetensors")) for index in range(3)]
    adapters = [load_file(routed.snapshot(index).file(ADAPTER)) for index in range(3)]
    assert [{name: tuple(value.shape) for name, value in probe.items()} for probe in probes[1:]] == [
        {name: tuple(value.shape) for name, value in probes[0].items()}
    ] * 2
    assert probes[0]["rows"].shape == (ROWS,)
    assert probes[0]["places"].shape == (TOKENS, 2)
    table = tables(routed)[1].query("probe_index == 0")
    layer = table["layer"].iloc[0]
    router, *experts = table[table["layer"] == layer].to_dict("records")
    inputs = probes[0][f"{router['input_key']}.inputs"].double()

    def energy(weight):
        return float((inputs @ weight.double().T).square().sum() / TOKENS)

    def expert(adapter, index):
        name = f"base_model.model.{layer}"
        return adapter[f"{name}.lora_B.{index}"].double() @ adapter[f"{name}.lora_A.{index}"].double()

    old, new = (adapters[index][f"base_model.model.{layer}.lora_router"].double() for index in (0, 2))
    assert router["drift"] == pytest.approx(energy(new - old) / energy(old))
    for index, row in enumerate(experts):
        old, new = (expert(adapters[task], index) for task in (0, 2))
        assert row["drift"] == pytest.approx(energy(new - old) / energy(old))


def test_a_model_that_did_not_change_has_not_drifted(ask, again):
    session = Session.open(ask(again.path.parents[2], **SETTINGS))
    session.attach()
    restore(session, again.snapshot(0))
    rows = audit_task(session, 1).rows
    assert {row["probe_index"] for row in rows} == {0}
    assert {row["drift"] for row in rows} == {0.0}
    routers = [row for row in rows if row["part"] == "router"]
    assert {row["flips"] for row in routers} == {0.0}
    assert max(row["representation_drift"] for row in routers) < 1e-9
    assert max(row["js_divergence"] for row in routers) < 1e-9
    assert min(row["overlap"] for row in routers) == pytest.approx(1, abs=1e-6)


def test_events_say_the_means_and_what_they_cost(routed):
    events = routed.events("audit")
    assert [event["task"] for event in events] == [0, 1, 2]
    assert [event["rows"] for event in events] == [0, *map(len, tables(routed))]
    assert {event["energy_threshold"] for event in events} == {ENERGY_THRESHOLD}
    assert all(event["seconds"] > 0 for event in events)
    assert set(events[0]["means"].values()) == {None}
    routers = tables(routed)[1].query("part == 'router'")
    assert events[2]["means"]["router_drift"] == pytest.approx(routers["drift"].mean())
    spent, tasks = cost(routed), routed.events("task_end")
    assert spent["seconds"] == pytest.approx(sum(event["seconds"] for event in events))
    without = sum(task["train_seconds"] + task["evaluate_seconds"] for task in tasks) - spent["seconds"]
    assert spent["share"] == pytest.approx(spent["seconds"] / without)


def test_the_audit_changes_nothing_that_is_trained_or_answered(ask, routed, tmp_path):
    run = train(ask(tmp_path, **SETTINGS, audit=False))
    weights, others = (load_file(one.snapshot(2).file(ADAPTER)) for one in (run, routed))
    assert all(torch.equal(weights[name], others[name]) for name in others)
    assert run.scores() == routed.scores()
    assert not run.events("audit")
    assert not run.snapshot(2).has("probe.safetensors")
    with pytest.raises(InputError, match="audit=False"):
        read_audit(run)


def test_an_adapter_that_lacks_a_tensor_is_not_restored(ask, again, tmp_path):
    session = Session.open(ask(again.path.parents[2], **SETTINGS))
    session.attach()
    weights = load_file(again.snapshot(0).file(ADAPTER))
    name = next(name for name in weights if "lora_router" in name)
    del weights[name]

    def fill(path):
        (path / ADAPTER).parent.mkdir(parents=True)
        save_file(weights, path / ADAPTER)

    short = SealedFolder(tmp_path / "short", "Start again.")
    short.write(fill)
    with pytest.raises(SnapshotError, match=f"all of the adapter.*lacks.*{name}"):
        restore(session, short)


def test_a_method_without_routed_experts_has_no_audit(finished):
    assert not finished.events("audit")
    with pytest.raises(InputError, match="Train a method that routes experts"):
        read_audit(finished)


def test_going_on_gives_the_uninterrupted_audit_bit_for_bit(ask, again, routed):
    for index in (1, 2):
        shutil.rmtree(again.snapshot(index).path)
    train(ask(again.path.parents[2], **SETTINGS))
    for mine, whole in zip(tables(again), tables(routed), strict=True):
        assert mine.equals(whole)


def test_a_task_that_was_trained_before_a_stop_is_audited_after_it(ask, again, routed):
    def stop_in_evaluation(event):
        if event["kind"] == "evaluate" and event.get("stage") == 1:
            os.kill(os.getpid(), signal.SIGINT)

    for index in (1, 2):
        shutil.rmtree(again.snapshot(index).path)
    with pytest.raises(Stopped):
        train(ask(again.path.parents[2], **SETTINGS), stop_in_evaluation)
    assert again.trained(1).exists
    train(ask(again.path.parents[2], **SETTINGS))
    assert tables(again)[0].equals(tables(routed)[0])


def test_an_audited_run_is_evaluated_again_as_any(again, routed):
    shutil.rmtree(again.predictions(1).path)
    evaluate_run(again)
    assert again.scores() == routed.scores()
    assert read_audit(again) == read_audit(routed)


def test_a_damaged_probe_is_named(ask, again):
    shutil.rmtree(again.snapshot(2).path)
    (again.snapshot(0).path / "probe.safetensors").write_bytes(b"")
    with pytest.raises(SnapshotError, match=r"task_00/probe\.safetensors is damaged"):
        train(ask(again.path.parents[2], **SETTINGS))


def test_the_methods_own_threshold_splits_the_drift(ask, tmp_path):
    run = train(ask(tmp_path, **{**SETTINGS, "method": "same"}, energy_threshold=0.5))
    assert {event["energy_threshold"] for event in run.events("audit")} == {0.5}


def test_places_are_chosen_among_the_tokens_of_each_row():
    lengths = torch.tensor([3, 0, 5])
    places = choose_tokens(lengths, 6, seed=1)
    assert len({tuple(place) for place in places.tolist()}) == 6
    assert (places[:, 1] < lengths[places[:, 0]]).all()
    assert places.tolist() == sorted(places.tolist())
    assert len(choose_tokens(lengths, 100, seed=1)) == 8
    assert torch.equal(places, choose_tokens(lengths, 6, seed=1))


def test_rows_are_chosen_once_each():
    assert choose_rows(5, 9, seed=0).tolist() == [0, 1, 2, 3, 4]
    assert len(set(choose_rows(100, 8, seed=3).tolist())) == 8


@pytest.mark.parametrize("packed", [False, True])
def test_tokens_of_pictures_are_found_again_whatever_the_batches(packed):
    text = [torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0, 2]]), torch.tensor([[1, 1]])]
    drawn = torch.tensor([2, 0, 0, 1, 3] if packed else [2, 0, 0, 2, 2])
    ends = (2 * drawn).cumsum(0).tolist()
    pictures = torch.arange(12.0)[:, None]  # two tokens in the tower for each in the text

    def taken(batches):
        tokens = ProbeTokens(text, drawn.split([2, 1, 2]), 3, lambda name: name == "text")
        found = []
        for row, count in batches:
            tokens.show(row, count)
            shown = pictures[ends[row] - 2 * drawn[row] : ends[row + count - 1]]
            found.append(tokens.take("tower", shown if packed else shown.view(-1, 4, 1)))
        return [part.flatten().tolist() for part in tokens.split("tower", torch.cat(found))]

    whole = taken([(0, 5)])
    assert [len(part) for part in whole] == [3, 0, 3]
    assert set(whole[0]) < {0, 1, 2, 3}
    assert set(whole[2]) < set(range(4, 12))
    assert taken([(0, 2), (2, 2), (4, 1)]) == whole
