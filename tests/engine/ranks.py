"""One rank of a run, started by a test: it trains as the engine does and writes down what it saw itself.

Arguments: the request as JSON, and the folder for rank<N>.json and rank<N>.pt.
"""

import json
import sys
from pathlib import Path

import torch

from same.engine.job import Request
from same.engine.processes import leave
from same.engine.session import Session
from same.engine.trainer import _train
from same.methods._shards import local


def main() -> None:
    request, folder = Request(**json.loads(sys.argv[1])), Path(sys.argv[2])
    session = Session.open(request)
    session.start()
    seen: list[tuple[str, dict]] = []
    record = session.record

    def keep(kind: str, **data: object) -> None:
        if kind in ("evaluate", "freeze", "step"):
            seen.append((kind, data))
        record(kind, **data)

    session.record = keep
    _train(session)
    session.release()
    rank, tables = session.processes.rank, session.method.snapshot_tables()
    trained = [parameter for parameter in session.model.parameters() if parameter.requires_grad]
    held = sum(part.numel() for part in local(trained))
    found = {"events": seen, "activation": tables.activation, "held": held}
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    torch.save(session.method.state_dict() | tables.spectra, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main()
    leave(0)
