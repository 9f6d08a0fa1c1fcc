"""The drift audit: at a task's end, how far routing and experts moved on what earlier tasks had shown them.

Each task has a fixed probe: a few of its training rows and a few tokens of those, the same for every run. The probe is
forwarded once when its task ends, and what the layers saw is kept in that task's snapshot; after each later task it is
forwarded again and compared.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from safetensors.torch import load_file
from torch import Tensor

from same.engine.audit_table import COLUMNS, means
from same.engine.audit_tokens import ProbeTokens, choose_rows, choose_tokens
from same.engine.session import Session
from same.engine.snapshot import ADAPTER
from same.maths.drift import (
    argmax_flips,
    coefficient_of_variation,
    entropy,
    factor_change,
    input_spectrum,
    js_divergence,
    overlap,
    principal_angles,
    relative,
    representation_drift,
    split_drift,
    split_factored,
)
from same.maths.spectrum import Spectrum
from same.methods._base import Batch
from same.sealed import SealedFolder
from same.tuner import MoELoraLinear
from same.tuner.observe import moe_layers
from same.tuner.probe import LayerWeights, recorded_inputs, routing_of

ENERGY_THRESHOLD = 0.95  # of V∥, for methods that name none or protect every direction
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Probe:
    """A task's probe and what the model's layers saw of it, on the CPU: only the layer at work is on the device.

    Args:
        rows: of the task's training rows [rows].
        places: row (of those) and column of each chosen token of the text [tokens, 2].
        inputs: by input key, what the layers read [tokens, d], float32.
        routing: by layer, ω of each token [tokens, n].
    """

    rows: Tensor
    places: Tensor
    inputs: dict[str, Tensor]
    routing: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """What probe.safetensors holds."""
        inputs = {f"{key}.inputs": values.clone() for key, values in self.inputs.items()}
        routing = {f"{name}.routing": values.clone() for name, values in self.routing.items()}
        return {"rows": self.rows, "places": self.places, **inputs, **routing}

    @classmethod
    def read(cls, folder: SealedFolder) -> "Probe":
        """The probe as a snapshot recorded it.

        Raises:
            SnapshotError: the snapshot has none, or it is damaged.
        """
        found = load_file(folder.file("probe.safetensors"))

        def part(ending: str) -> dict[str, Tensor]:
            chosen = [name for name in found if name.endswith(f".{ending}")]
            return {name.removesuffix(f".{ending}"): found[name] for name in chosen}

        return cls(found["rows"], found["places"], part("inputs"), part("routing"))


@dataclass(frozen=True)
class Audit:
    """What the audit adds to a snapshot: tensors of probe.safetensors and rows of audit.parquet."""

    probe: dict[str, Tensor]
    rows: Rows


@torch.no_grad()
def audit_task(session: Session, index: int) -> Audit:
    """Forward the probes of the tasks up to `index` through the model as it is, and compare the earlier ones.

    Every process does the same; nothing is written but an event. Empty where the audit is off or no layer routes.

    Raises:
        SnapshotError: an earlier task's snapshot is damaged.
    """
    layers = moe_layers(session.model)
    if not session.job.train.audit or not layers:
        return Audit({}, [])
    began = time.perf_counter()
    snapshots = [session.folder.snapshot(past) for past in range(index)]
    then = [Probe.read(snapshot) for snapshot in snapshots]
    *now, current = _probe(session, index, then)
    threshold = float(getattr(session.method.config, "energy_threshold", 1.0))
    geometry = _Geometry(session, current, threshold if threshold < 1 else ENERGY_THRESHOLD)
    rows: Rows = []
    for past, (old, new) in enumerate(zip(then, now, strict=True)):
        place = {"probe_task": session.job.benchmark.tasks[past].key, "probe_index": past}
        adapter = load_file(snapshots[past].file(ADAPTER))
        rows += [row | place for row in _compare(geometry, old, new, layers, adapter)]
    session.record(
        "audit",
        task=index,
        rows=len(rows),
        seconds=time.perf_counter() - began,
        energy_threshold=geometry.threshold,
        means=means(rows),
    )
    return Audit(current.tensors(), rows)


# -- the probes ----------------------------------------------------------------------------------------------------


def _probe(session: Session, index: int, earlier: Sequence[Probe]) -> list[Probe]:
    """The probes of all tasks up to `index`, as the model sees them now; that of `index` is chosen here."""
    config, count = session.job.train, len(session.rows.train[index])
    rows = [*(probe.rows for probe in earlier), choose_rows(count, config.probe_rows, index)]
    items = [session.rows.train[task].select(chosen.tolist()).to_list() for task, chosen in enumerate(rows)]
    batches = _collate(session, [row for task in items for row in task])
    lengths = torch.cat([batch["attention_mask"].sum(-1).cpu() for batch in batches])
    own = choose_tokens(lengths[-len(rows[-1]) :], config.probe_tokens, index)
    places = [*(probe.places for probe in earlier), own]
    layout = session.loaded.layout
    image = session.loaded.processor.image_token_id
    drawn = torch.cat([(batch["input_ids"] == image).sum(-1).cpu() for batch in batches]).split([*map(len, items)])
    tokens = ProbeTokens(places, drawn, config.probe_tokens, layout.is_padded)
    inputs = _forward(session, batches, tokens)
    layers = {name: layer for name, layer in moe_layers(session.model).items() if layout.input_key(name) in inputs}
    parts = {layout.input_key(name): tokens.split(name, inputs[layout.input_key(name)]) for name in layers}
    probes = []
    for task, here in enumerate(places):
        seen = {key: values[task] for key, values in parts.items() if len(values[task])}
        read = {name: seen[key] for name in layers if (key := layout.input_key(name)) in seen}
        routing = {name: routing_of(layers[name], values).cpu() for name, values in read.items()}
        probes.append(Probe(rows[task], here, seen, routing))
    return probes


def _collate(session: Session, items: Rows) -> list[Batch]:
    """The rows of all probes, one after the other, in as few batches as an evaluation would take."""
    size = session.job.train.eval_batch_size
    batches: list[Batch] = []
    for start in range(0, len(items), size):
        batch = session.collate_train(items[start : start + size])
        del batch["labels"]
        batches.append(batch)
    return batches


def _forward(session: Session, batches: Sequence[Batch], tokens: ProbeTokens) -> dict[str, Tensor]:
    """What the layers read at the chosen places, by input key [tokens, d]."""
    model, device = session.model.eval(), session.processes.device
    parts: dict[str, list[Tensor]] = {}
    start = 0
    for batch in batches:
        shown = send_to_device(dict(batch), device)
        session.method.route(shown)
        tokens.show(start, len(batch["attention_mask"]))
        with recorded_inputs(model, session.loaded.layout.input_key, tokens.take) as found, session.autocast:
            model(**shown, use_cache=False, logits_to_keep=1)
        for key, inputs in found.items():
            parts.setdefault(key, []).append(inputs.cpu())
        start += len(batch["attention_mask"])
    return {key: torch.cat(inputs) for key, inputs in parts.items()}


# -- the comparison ------------------------------------------------------------------------------------------------


class _Geometry:
    """Which layers read which input, and the leading directions of probes."""

    def __init__(self, session: Session, current: Probe, threshold: float) -> None:
        self.threshold, self.device = threshold, session.processes.device
        self._energy: Any = getattr(session.method.config, "energy", "squared")
        self.readers: dict[str, list[str]] = {key: [] for key in current.inputs}
        for name in current.routing:
            self.readers[session.loaded.layout.input_key(name)].append(name)
        self._current = {key: self.leading(input_spectrum(self.inputs(current, key))) for key in current.inputs}

    def inputs(self, probe: Probe, key: str) -> Tensor:
        """A probe's inputs of one key, ready for the comparison [tokens, d]."""
        return probe.inputs[key].to(self.device, torch.float64)

    def rank(self, spectrum: Spectrum) -> int:
        """Number of directions of V∥."""
        return spectrum.rank(self.threshold, self._energy)

    def leading(self, spectrum: Spectrum) -> Tensor:
        """V∥ [d, rank]."""
        return spectrum.eigenvectors[:, : self.rank(spectrum)]

    def angles(self, key: str, spectrum: Spectrum) -> dict[str, Any]:
        """Principal angles between a probe's V∥ and that of the task just trained."""
        angles = principal_angles(self.leading(spectrum), self._current[key])
        return {
            "angle_min": _number(angles.min()),
            "angle_mean": _number(angles.mean()),
            "angle_max": _number(angles.max()),
        }


def _compare(
    geometry: _Geometry, old: Probe, new: Probe, layers: dict[str, MoELoraLinear], adapter: dict[str, Tensor]
) -> Rows:
    """All rows of one earlier task."""
    rows: Rows = []
    for key, readers in geometry.readers.items():
        if key not in old.inputs:  # a vision tower's, and the task has no pictures
            continue
        then, now = geometry.inputs(old, key), geometry.inputs(new, key)
        spectrum = input_spectrum(then)
        rank = geometry.rank(spectrum)
        shared = {"rank": rank, "representation_drift": _number(representation_drift(now, then))}
        shared |= geometry.angles(key, spectrum)
        for name in readers:
            place = {"layer": name, "input_key": key}
            after = LayerWeights.of(layers[name])
            before = LayerWeights.saved(adapter, name, after)
            routing = old.routing[name].double(), new.routing[name].double()
            router = {"part": "router", **_router_drift(before, after, spectrum, rank), **shared}
            experts = _expert_drift(before, after, spectrum, rank)
            experts = [drift | weight for drift, weight in zip(experts, _weights(*routing), strict=True)]
            rows += [dict.fromkeys(COLUMNS) | place | row for row in [router | _routing(*routing), *experts]]
    return rows


def _router_drift(before: LayerWeights, after: LayerWeights, spectrum: Spectrum, rank: int) -> dict[str, Any]:
    change = split_drift(after.router - before.router, spectrum, rank)
    whole = torch.stack(split_drift(before.router, spectrum, rank)).sum(0)
    return _drift(*change, whole)[0]


def _expert_drift(before: LayerWeights, after: LayerWeights, spectrum: Spectrum, rank: int) -> Rows:
    """Rows of all experts, from products of rank 2r."""
    factors = factor_change((before.b, before.a), (after.b, after.a))
    change = split_factored(*factors, spectrum, rank)
    whole = torch.stack(split_factored(before.b, before.a, spectrum, rank)).sum(0)
    return [{"part": "expert", "expert": expert, **row} for expert, row in enumerate(_drift(*change, whole))]


def _drift(parallel: Tensor, rest: Tensor, whole: Tensor) -> Rows:
    """Relative drift, its two parts, and what it is relative to: a row for each entry."""
    columns = {
        "drift": relative(parallel + rest, whole),
        "drift_parallel": relative(parallel, whole),
        "drift_rest": relative(rest, whole),
        "old_energy": whole,
    }
    values = torch.stack([column.reshape(-1) for column in columns.values()], -1).tolist()
    return [dict(zip(columns, map(_finite, row), strict=True)) for row in values]


def _weights(then: Tensor, now: Tensor) -> Rows:
    """Mean routing of each expert at the task's end and now."""
    pairs = torch.stack([then.mean(0), now.mean(0)], -1).tolist()
    return [{"weight_then": before, "weight_now": after} for before, after in pairs]


def _routing(then: Tensor, now: Tensor) -> dict[str, Any]:
    """How the routing [tokens, n] of a probe changed."""
    before, after = then.mean(0), now.mean(0)
    found = {
        "js_divergence": js_divergence(before, after),
        "overlap": overlap(before, after),
        "entropy_then": entropy(then).mean(),
        "entropy_now": entropy(now).mean(),
        "flips": argmax_flips(then, now),
        "balance_then": coefficient_of_variation(before),
        "balance_now": coefficient_of_variation(after),
    }
    return {name: _number(value) for name, value in found.items()}


def _number(value: Tensor) -> float | None:
    return _finite(float(value))


def _finite(value: float) -> float | None:
    """A number that JSON and a table can hold; None where there was nothing to be relative to."""
    return value if math.isfinite(value) else None
