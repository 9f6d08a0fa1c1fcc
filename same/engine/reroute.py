"""Re-routing: the experts of one version of a run under the router of another, or under one that is trained anew.

A version is a task's index: what the run had learned at that task's end. Beside the run's own routers there are

    random    fresh routers, drawn from a seed as a new adapter's are
    uniform   routers of zeros: every expert has the weight 1 / n
    oracle    the experts' own routers, trained alone on the task for ORACLE_EPOCHS passes over its training rows: the
              best routing of these experts that this much training finds, not a proven bound
    own       those of the experts' version

Results join the run's record. One is named by the hash of what determines it, and is never computed twice.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import torch
from accelerate.utils import send_to_device, set_seed
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

import same
from same import registry
from same.engine.evaluate import answer_task
from same.engine.job import SEEDS, TrainConfig
from same.engine.optimizers import make_optimizer
from same.engine.session import Report, Session
from same.engine.snapshot import restore
from same.engine.trainer import answer_tokens, plan_epoch, spread
from same.errors import InputError, RunFailed
from same.methods._base import Batch
from same.methods._experts import ExpertProbe
from same.metrics import count_errors
from same.runs import RunFolder, fingerprint
from same.tuner import load_adapter
from same.tuner.observe import EntropyObservation, moe_layers

RANDOM, UNIFORM, ORACLE, OWN = KINDS = ("random", "uniform", "oracle", "own")
ORACLE_EPOCHS = 4


@dataclass(frozen=True)
class Rerouting:
    """What is asked of a run.

    Args:
        task: key of the task whose test rows are answered, and whose training rows the router is trained on.
        router: version of the routers, a task's index from 0, or one of random, uniform, oracle and own.
        experts: version of the experts, a task's index from 0.
        retrain_steps: optimiser steps that the routers alone are trained for before (None: none, and for an oracle
            ORACLE_EPOCHS passes).
        learning_rate: peak of those steps' cosine schedule (None: the run's).
        items: how many of the test rows, from the first (None: all that the run has).
        seed: of random routers and of the order of training rows.
        layer: name of a layer whose tokens all get `weights` in place of its router's.
        weights: of its experts; they are divided by their sum.
    """

    task: str
    router: str
    experts: int
    retrain_steps: int | None = None
    learning_rate: float | None = None
    items: int | None = None
    seed: int = 0
    layer: str | None = None
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("retrain_steps", 0), ("items", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}; got {value}.")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be a positive number; got {self.learning_rate}.")
        if not 0 <= self.seed < SEEDS:
            raise InputError(f"seed must be a whole number from 0 to {SEEDS - 1}; got {self.seed}. Try 0.")
        if (self.layer is None) != (not self.weights):
            raise InputError("layer and weights must be given together, or neither of them.")
        if self.weights and not (min(self.weights) >= 0 and 0 < sum(self.weights) < math.inf):
            raise InputError(f"weights must be numbers of at least 0, not all 0; got {self.weights}.")


def versions(run: RunFolder, text: str, kinds: Sequence[str] = ()) -> list[str]:
    """Read versions from the command line: task indices with commas between, `all` of them, or names of `kinds`.

    Raises:
        InputError: no such version; names the choices.
    """
    known = [str(index) for index in range(run.finished())]
    wanted = known if text == "all" else [part.strip() for part in text.split(",")]
    return [registry.choose("version", part, [*known, *kinds, "all"]) for part in wanted]


def require_experts(run: RunFolder) -> None:
    """Refuse a run whose snapshots cannot be routed.

    Raises:
        InputError: no task is finished, its method does not route experts, or its adapters were pruned.
    """
    if not run.finished():
        raise InputError(f"{run.path} must have a finished task; it has none. Train until its first one is.")
    first = run.snapshot(0)
    if not first.has("routing.parquet"):
        raise InputError(
            f"{run.path} must be of a method that routes experts; {run.config()['method']} does not. "
            "Give a run of another method."
        )
    if first.manifest().get("pruned"):
        raise InputError(
            f"{run.path} must hold its adapters; its snapshots were pruned to their tables. Train it anew with "
            "`same train`, or give a run that was not part of such a sweep."
        )


class Rerouter:
    """Answers re-routings of one run; its backbone is loaded once, and only when something is not known yet.

    Args:
        run: whose snapshots are mixed.
        report: called with progress: kinds load, retrain (step, steps, loss), answer (answered, total).

    Raises:
        InputError: the run's method does not route experts, or no task of it is finished.
    """

    def __init__(self, run: RunFolder, report: Report | None = None) -> None:
        self.run, self._report = run, report or (lambda _event: None)
        settings = run.config()["settings"]
        self.tasks = [task["key"] for task in settings["tasks"]]
        self.train = TrainConfig(**settings["train"])
        require_experts(run)

    def result(self, asked: Rerouting) -> dict[str, Any]:
        """What became of it, from the run's record or anew.

        Raises:
            InputError: no such task, version or layer, or more items than the run has; names the choices.
        """
        asked = self._completed(asked)
        key = self._key(asked)
        if not self.run.rerouting(key).exists():
            self._make(asked, key)
        return self.run.read_rerouting(key)

    def key(self, asked: Rerouting) -> str:
        """The fingerprint its result has, whether it is there or not."""
        return self._key(self._completed(asked))

    def _completed(self, asked: Rerouting) -> Rerouting:
        """The same, with every default in place and nothing left in it that changes nothing."""
        finished = [str(index) for index in range(self.run.finished())]
        registry.choose("task", asked.task, self.tasks)
        registry.choose("version of experts", str(asked.experts), finished)
        registry.choose("version of the router", asked.router, [*finished, *KINDS])
        router = str(asked.experts) if asked.router == OWN else asked.router
        steps = asked.retrain_steps if router == ORACLE else asked.retrain_steps or 0
        if router == ORACLE and steps == 0:
            raise InputError("an oracle must be trained; got retrain_steps 0. Use router own, or leave the steps out.")
        trained = steps != 0
        if asked.layer is not None:
            self._check_layer(asked.layer, len(asked.weights))
        total = sum(asked.weights)
        return replace(
            asked,
            router=router,
            retrain_steps=steps,
            learning_rate=(asked.learning_rate or self.train.learning_rate) if trained else None,
            seed=asked.seed if trained or router == RANDOM else 0,
            weights=tuple(weight / total for weight in asked.weights),
        )

    def _check_layer(self, layer: str, weights: int) -> None:
        table = self.run.snapshot(0).table("routing")
        registry.choose("layer", layer, list(dict.fromkeys(table["layer"])))
        experts = int(table["expert"].max()) + 1
        if weights != experts:
            raise InputError(f"weights must be one an expert, {experts}; got {weights}.")

    def _key(self, asked: Rerouting) -> str:
        """The hash of all that the result depends on beside the run's settings: also what stands in the snapshots."""
        used = {asked.experts, *([int(asked.router)] if asked.router.isdecimal() else [])}
        files = {str(index): self.run.snapshot(index).manifest()["files"] for index in sorted(used)}
        given = {**asdict(asked), "weights": list(asked.weights)}
        return fingerprint({"version": same.__version__, **given, "snapshots": files})

    # -- making one ------------------------------------------------------------------------------------------------

    @cached_property
    def _session(self) -> Session:
        self._report({"kind": "load", "run": str(self.run.path)})
        session = Session.reopen(self.run)
        session.attach()
        session.model.requires_grad_(False)
        if not moe_layers(session.model):
            raise InputError(f"{self.run.path} must have MoE-LoRA experts; its method has others. Give another run.")
        return session

    def _make(self, asked: Rerouting, key: str) -> None:
        began = time.perf_counter()
        session, place = self._session, self.tasks.index(asked.task)
        whole = session.rows.test[place]
        if asked.items is not None and asked.items > len(whole):
            raise InputError(f"items must be at most the {len(whole)} test rows of {asked.task}; got {asked.items}.")
        with session.processes.stoppable():
            self._mix(asked)
            layers = moe_layers(session.model)
            chosen = layers[asked.layer] if asked.layer is not None else None
            if chosen is not None:
                chosen.set_routing(torch.tensor(asked.weights))
            try:
                curve = list(self._retrain(asked, place))
                session.rows.test[place] = whole.select(range(asked.items)) if asked.items else whole
                observed = EntropyObservation(session.model, session.loaded.layout.input_key)
                answers = answer_task(session, place, session.method, ExpertProbe(observed), self._answered)
            finally:
                session.rows.test[place] = whole
                if chosen is not None:
                    chosen.set_routing(None)
        about = {"id": key, "run": self._name(), **asdict(asked), "weights": list(asked.weights), "task_index": place}
        about |= {"retrained_steps": len(curve), "items": len(answers.table["text"])}
        found = {"scores": answers.scores, "errors": count_errors(answers.table["error"]), "curve": curve}
        found |= {"routing_entropy": observed.entropies(), "routing": observed.shares()}
        del about["retrain_steps"]
        made: dict[str, Any] = {"version": same.__version__, "seconds": time.perf_counter() - began}
        made["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.run.write_rerouting(key, {**about, **found, **made}, answers.table)

    def _name(self) -> str:
        config = self.run.config()
        return f"{config['benchmark']}/{config['method']}/{config['seed']}-{config['fingerprint']}"

    def _mix(self, asked: Rerouting) -> None:
        """Put the experts and the routers asked for into the model."""
        session = self._session
        restore(session, self.run.snapshot(asked.experts))
        if asked.router.isdecimal():
            snapshot = self.run.snapshot(int(asked.router))
            snapshot.verify()
            load_adapter(session.model, snapshot.path / "adapter", part="router")
        set_seed(asked.seed)
        with torch.no_grad():
            for layer in moe_layers(session.model).values():
                if asked.router == UNIFORM:
                    layer.router.zero_()
                elif asked.router == RANDOM:
                    nn.init.kaiming_uniform_(layer.router, a=math.sqrt(5))

    def _answered(self, done: int, total: int) -> None:
        self._report({"kind": "answer", "answered": done, "total": total})

    # -- training routers alone ------------------------------------------------------------------------------------

    def _epoch(self, asked: Rerouting, number: int) -> list[list[int]]:
        """The batches of a pass over the task's training rows."""
        rows = len(self._session.rows.train[self.tasks.index(asked.task)])
        return list(plan_epoch(rows, self.train.batch_size, asked.seed * 101 + number))

    def _batches(self, asked: Rerouting) -> Iterator[list[int]]:
        number = 0
        while True:
            yield from self._epoch(asked, number)
            number += 1

    def _retrain(self, asked: Rerouting, place: int) -> Iterator[dict[str, float]]:
        """Train the routers alone; gives the loss of each step."""
        session, steps = self._session, asked.retrain_steps
        if steps is None:
            steps = ORACLE_EPOCHS * len(self._epoch(asked, 0))
        if steps == 0:
            return
        layers = [layer for name, layer in moe_layers(session.model).items() if name != asked.layer]
        routers = [layer.router for layer in layers]
        for router in routers:
            router.requires_grad_()
        config = replace(self.train, learning_rate=float(asked.learning_rate or 0))
        optimizer = make_optimizer(routers, config)
        schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(config.warmup_ratio * steps), steps)
        session.model.train()
        try:
            for step, chosen in zip(range(1, steps + 1), self._batches(asked), strict=False):
                session.processes.raise_if_stopping()
                loss = self._gradients(place, chosen)
                if not math.isfinite(loss):
                    raise RunFailed(f"The loss must stay finite; got {loss} at step {step}. Lower learning_rate.")
                if config.clip:
                    torch.nn.utils.clip_grad_norm_(routers, config.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                schedule.step()
                self._report({"kind": "retrain", "step": step, "steps": steps, "loss": loss})
                yield {"step": step, "loss": loss}
        finally:
            session.model.requires_grad_(False)

    def _gradients(self, place: int, chosen: list[int]) -> float:
        """Add the gradients of a batch, part by part; the loss is its mean over answer tokens."""
        session, total = self._session, 0.0
        rows = session.rows.train[place]
        parts: list[Batch] = [
            send_to_device(dict(session.collate_train(rows.select(part).to_list())), session.processes.device)
            for part in spread(chosen, self.train.gradient_accumulation)
            if part
        ]
        counts = [answer_tokens(part) for part in parts]
        for part, count in zip(parts, counts, strict=True):
            session.method.route(part)
            with session.autocast:
                loss: Tensor = session.model(**part).loss * count / sum(counts)
            loss.backward()
            total += loss.item()
        return total
