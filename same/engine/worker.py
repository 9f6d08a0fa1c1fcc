"""One training process: what the launcher starts, once or once a rank, with the request as its argument."""

import dataclasses
import json
import sys
import traceback

from torch.distributed.elastic.multiprocessing.errors import record

from same.engine.job import Request
from same.engine.processes import Stopped, leave
from same.engine.trainer import train
from same.errors import InputError


def to_argument(request: Request) -> str:
    """A request as the one argument of this module."""
    return json.dumps(dataclasses.asdict(request))


@record
def main() -> int:
    """Train what the argument asks for; the launcher reads the outcome from the run's events."""
    try:
        train(Request(**json.loads(sys.argv[1])))
    except Stopped as stopped:
        print(stopped, flush=True)
    except InputError as error:
        traceback.print_exc()
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    leave(main() or 0)
